"""What another K or another selector would have chosen, from the scores that a run has stored: nothing is generated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raft_core.errors import ConfigError, StoreError, nearest
from raft_core.metrics.best_of import expected_max
from raft_core.monitoring.figures import mean_scored
from raft_core.protocols import Selector
from raft_core.selectors.select import select
from raft_core.store.rounds import SAMPLES, round_folder, rounds_in
from raft_core.store.tables import SCORE, flags, numbers, read_table
from raft_core.store.tensors import UnusableError
from raft_core.types import Grouping, Scores


@dataclass(frozen=True, eq=False)
class Stored:
    """The scores of a stored round.

    Attributes:
        rnd: its number.
        groups: which samples answer the same prompt.
        reward: name of the column that selected.
        columns: name → [N], NaN = not scored.
        descending: names of columns where lower is better.
        kept: [N] bool.
    """

    rnd: int
    groups: Grouping
    reward: str
    columns: dict[str, np.ndarray]
    descending: frozenset[str]
    kept: np.ndarray

    def grid(self, column: str) -> np.ndarray:
        """[P, K], turned so that higher is better; NaN = not scored."""
        return self.scores.grid(self.groups, column)

    @property
    def k(self) -> int:
        """Samples of the prompt that has the most."""
        return int(self.groups.sizes.max(initial=0))

    @property
    def scores(self) -> Scores:
        return Scores(self.reward, self.columns, descending=self.descending)


def stored_rounds(folder: Path, rounds: Sequence[int] | None = None) -> list[Stored]:
    """The scores of a run's rounds; outputs are not decoded.

    Raises:
        StoreError: no such round, or it is damaged.
    """
    there = rounds_in(folder)
    if not there:
        raise StoreError(f"{folder} holds no scored round")
    for rnd in rounds or ():
        if rnd not in there:
            raise StoreError(f"{folder} holds no samples of round {rnd} (rounds with samples: {', '.join(map(str, there))})")
    return [_stored(folder, rnd) for rnd in rounds or there]


def _stored(folder: Path, rnd: int) -> Stored:
    try:
        table, facts = read_table(round_folder(folder, rnd) / SAMPLES)
    except UnusableError as reason:
        raise StoreError(f"round {rnd} of {folder} cannot be read: {reason}") from reason
    names = [name for name in table.column_names if name.startswith(SCORE)]
    return Stored(
        rnd=rnd,
        groups=Grouping.of_indices(table["index"].to_pylist()),
        reward=facts["reward"],
        columns={name.removeprefix(SCORE): numbers(table[name]) for name in names},
        descending=frozenset(facts["descending"]),
        kept=flags(table["kept"]),
    )


def best_of(stored: Stored, column: str, k: int) -> float:
    """Mean over prompts of the expected best of ``k`` of the stored samples, in the column's own direction.

    Unbiased: the mean over all subsets of ``k`` samples. A prompt with fewer than ``k`` scored samples is left out.

    Raises:
        ConfigError: more than are stored.
    """
    if not 1 <= k <= stored.k:
        raise ConfigError(f"k is {k}, but {stored.k} samples per prompt are stored: choose 1 to {stored.k}")
    values = np.array([expected_max(row, k) for row in stored.grid(column)])
    sign = -1 if column in stored.descending else 1
    return sign * mean_scored(values)


def best_of_scored(stored: Stored, column: str) -> float:
    """Mean over prompts of the best stored sample, of those that are scored; in the column's own direction."""
    rows = [row[~np.isnan(row)] for row in stored.grid(column)]
    sign = -1 if column in stored.descending else 1
    return sign * mean_scored(np.array([row.max() for row in rows if len(row)]))


def doublings(k: int) -> list[int]:
    """1, 2, 4 … and k itself."""
    return sorted({2**i for i in range(k.bit_length()) if 2**i <= k} | {k})


@dataclass(frozen=True)
class Choice:
    """What a selector would have kept of a round, beside what was kept.

    Attributes:
        kept: how many samples.
        shared: how many of them were kept in the run too.
        means: column → mean over the samples that it keeps.
        means_before: column → mean over the samples that the run has kept.
    """

    kept: int
    shared: int
    means: dict[str, float]
    means_before: dict[str, float]


def rechosen(stored: Stored, selector: Selector, column: str) -> Choice:
    """Apply a selector to the stored scores."""
    chosen = np.zeros(len(stored.kept), dtype=bool)
    chosen[select(selector, stored.scores, stored.groups, column).kept] = True
    return Choice(
        kept=int(chosen.sum()),
        shared=int((chosen & stored.kept).sum()),
        means={name: mean_scored(values[chosen]) for name, values in stored.columns.items()},
        means_before={name: mean_scored(values[stored.kept]) for name, values in stored.columns.items()},
    )


def known_column(stored: Stored, name: str | None) -> str:
    """The column to choose by: ``name``, or the one that the run was selected by.

    Raises:
        ConfigError: no such column.
    """
    if name is None:
        return stored.reward
    if name not in stored.columns:
        raise ConfigError(f"round {stored.rnd} has no score {name!r}{nearest(name, stored.columns)}")
    return name
