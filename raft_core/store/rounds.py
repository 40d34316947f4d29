"""Rounds on the disk: where they are, what they hold, columns added later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raft_core.errors import StoreError
from raft_core.machine.files import remove, strict, write_json
from raft_core.machine.folders import numbered
from raft_core.reading.files import LARGEST_TEXT, Unreadable, is_file
from raft_core.reading.json_data import read_object
from raft_core.reading.shapes import require_shape, taken_apart
from raft_core.store.tables import SCORE, read_columns, read_samples, read_table, write_samples, write_table
from raft_core.store.tensors import UnusableError, identity, load_tensors, read_tensors, save_tensors
from raft_core.types import Request, Sample, Scores, Selection

SAMPLES = "samples.parquet"
TENSORS = "latents.safetensors"
PARTS = "parts"
CHOICE = "choice.json"
CHOICE_SHAPE = {"facts": dict, "asked": str, "further": [int], "scores": dict}


def mask(selection: Selection, n: int) -> np.ndarray:
    """[n] bool: which samples the selection uses."""
    kept = np.zeros(n, dtype=bool)
    kept[selection.kept] = True
    return kept


@dataclass(frozen=True)
class KeptRound:
    """A scored round as it is stored: samples with outputs and tensors, their scores, which were kept ([N] bool)."""

    samples: list[Sample]
    scores: Scores
    kept: np.ndarray


@dataclass(frozen=True, eq=False)
class Choice:
    """Which requests of a round are made besides the first ones, and the scores by which that was decided.

    Attributes:
        further: [M] int64 places among all requests, ascending.
        scores: name of a reward → [F] of the first samples, NaN = not scored.
    """

    further: np.ndarray
    scores: Mapping[str, np.ndarray]


def _digest(asked: Sequence[Request]) -> str:
    """The same for the same requests."""
    return hashlib.sha256(json.dumps([identity(request) for request in asked]).encode()).hexdigest()


@dataclass(frozen=True)
class RoundFolder:
    """One round's place in the run folder: what is there, and what is put there. It makes nothing.

    Attributes:
        path: of the folder.
        rnd: the round's number.
        policy_hash: of the policy that it starts from; samples of another policy are never used.
    """

    path: Path
    rnd: int
    policy_hash: str

    @property
    def _facts(self) -> dict[str, object]:
        return {"round": self.rnd, "policy_hash": self.policy_hash}

    def _part(self, number: int) -> Path:
        return self.path / PARTS / f"{number:04d}.safetensors"

    def has_part(self, number: int) -> bool:
        return self._part(number).exists()

    def read_part(self, number: int, asked: Sequence[Request]) -> list[Sample]:
        """The samples of these requests that were kept as a part of the sampling, not rendered.

        Raises:
            UnusableError: they are damaged, or of another policy or other requests.
        """
        return load_tensors(self._part(number), asked, self._facts)

    def keep_part(self, number: int, samples: Sequence[Sample]) -> None:
        """Keep samples that are drawn and not yet rendered."""
        save_tensors(self._part(number), samples, self._facts)

    def read_choice(self, asked: Sequence[Request]) -> Choice | None:
        """Which of these requests were to be made, as was decided when the first of them had been scored; None = not yet.

        Raises:
            UnusableError: it is damaged, or of another policy or other requests.
        """
        path = self.path / CHOICE
        if not path.exists():
            return None
        try:
            stored = require_shape(read_object(path, most=LARGEST_TEXT), CHOICE_SHAPE, "", tuple(CHOICE_SHAPE))
            with taken_apart(path.name):
                scores = {name: np.array(values, dtype=np.float64) for name, values in stored["scores"].items()}
                choice = Choice(np.array(stored["further"], dtype=np.int64), scores)
        except (OSError, Unreadable) as error:
            raise UnusableError(f"{path.name} is damaged ({error})") from error
        if stored["facts"] != self._facts or stored["asked"] != _digest(asked):
            raise UnusableError(f"{path.name} was made by another policy, or for other prompts or seeds")
        return choice

    def keep_choice(self, asked: Sequence[Request], choice: Choice) -> None:
        """Keep which of these requests are to be made, so that a killed run does not decide again."""
        scores = {name: strict(values.tolist()) for name, values in choice.scores.items()}
        facts = {"facts": self._facts, "asked": _digest(asked), "further": choice.further.tolist(), "scores": scores}
        write_json(self.path / CHOICE, facts)

    def read(self, asked: Sequence[Request]) -> KeptRound | None:
        """The scored round of these requests; None where it is not scored yet.

        Raises:
            UnusableError: it is damaged, or of another policy or other requests, or its outputs were not kept.
        """
        path = self.path / SAMPLES
        if not path.exists():
            return None
        samples, scores, kept, facts = read_samples(path, asked)
        if facts["policy_hash"] != self.policy_hash:
            raise UnusableError(f"{path.name} holds samples of another policy")
        if any(sample.output is None and not sample.failed for sample in samples):
            raise UnusableError(f"{path.name} holds no outputs (they were not to be kept)")
        tensors = load_tensors(self.path / TENSORS, asked, self._facts)
        return KeptRound([s.with_output(o.output) for s, o in zip(tensors, samples, strict=True)], scores, kept)

    def keep(self, samples: Sequence[Sample], scores: Scores, kept: np.ndarray) -> KeptRound:
        """Keep rendered samples, their scores and which were chosen, [N] bool."""
        # The Parquet file comes last: where it is, the tensors are, and the parts are not needed any more.
        save_tensors(self.path / TENSORS, samples, self._facts)
        write_samples(self.path / SAMPLES, samples, scores, kept, rnd=self.rnd, policy_hash=self.policy_hash)
        return KeptRound(list(samples), scores, kept)

    def settle(self, stored: np.ndarray, kept: np.ndarray) -> None:
        """Remove the parts, and mend the column ``kept`` if the selection is not the one that was stored."""
        if not np.array_equal(stored, kept):
            table, facts = read_table(self.path / SAMPLES)
            place = table.column_names.index("kept")
            write_table(self.path / SAMPLES, table.set_column(place, "kept", pa.array(kept)), facts)
        remove(self.path / PARTS)

    def earlier_scores(self) -> list[dict[str, np.ndarray]]:
        """Score columns of the rounds before this one, see the function of this name."""
        return earlier_scores(self.path.parents[1], self.rnd)


def round_folder(folder: Path, rnd: int) -> Path:
    return Path(folder) / "rounds" / f"{rnd:04d}"


def rounds_in(folder: Path) -> list[int]:
    """Numbers of the rounds of a run whose samples are stored, in order."""
    return [rnd for rnd, place in numbered(Path(folder) / "rounds").items() if is_file(place / SAMPLES)]


def read_round(folder: Path, rnd: int, *, tensors: bool = False) -> tuple[list[Sample], Scores, np.ndarray]:
    """(samples, scores, kept [N] bool) of a stored round, with outputs; with ``tensors`` also what training needs.

    Raises:
        StoreError: the round is not there or is damaged.
    """
    place = round_folder(folder, rnd)
    if not (place / SAMPLES).exists():
        there = ", ".join(map(str, rounds_in(folder))) or "none"
        raise StoreError(f"{folder} holds no samples of round {rnd} (rounds with samples: {there})")
    try:
        samples, scores, kept, facts = read_samples(place / SAMPLES)
        if tensors:
            asked = [sample.request for sample in samples]
            facts = {"round": facts["round"], "policy_hash": facts["policy_hash"]}
            loaded = load_tensors(place / TENSORS, asked, facts)
            samples = [s.with_output(o.output) for s, o in zip(loaded, samples, strict=True)]
    except UnusableError as reason:
        raise StoreError(f"round {rnd} of {folder} cannot be read: {reason}") from reason
    return samples, scores, kept


def stored_tensors(folder: Path, rnd: int) -> list[dict[str, Any]]:
    """What training needs of each sample of a stored round, by name; none where it was not kept.

    Raises:
        StoreError: the file is damaged.
    """
    path = round_folder(folder, rnd) / TENSORS
    try:
        return read_tensors(path) if path.exists() else []
    except UnusableError as error:
        raise StoreError(f"round {rnd} of {folder} cannot be read: {error}") from error


def earlier_scores(folder: Path, before: int | None = None) -> list[dict[str, np.ndarray]]:
    """Score columns [N], NaN = not scored, of the stored rounds of a run, oldest first; pictures are not read.

    Args:
        before: only rounds before this one.

    Raises:
        StoreError: a round is damaged, or one is missing: what follows from them would not be the same again.
    """
    numbers_of = [rnd for rnd in rounds_in(folder) if before is None or rnd < before]
    if missing := sorted(set(range(1, before or 1)) - set(numbers_of)):
        raise StoreError(
            f"{folder} holds no samples of round {missing[0]}, but running normalisation goes by the scores of every round: "
            "restore them, or begin a new run"
        )
    found = []
    for rnd in numbers_of:
        try:
            columns, _ = read_columns(round_folder(folder, rnd) / SAMPLES, lambda name: name.startswith(SCORE))
            found.append({name.removeprefix(SCORE): np.array(values, dtype=np.float64) for name, values in columns.items()})
        except (UnusableError, TypeError, ValueError) as error:
            raise StoreError(f"the scores of round {rnd} of {folder} cannot be read: {error}") from error
    return found


def add_scores(folder: Path, rnd: int, columns: Mapping[str, np.ndarray], descending: Collection[str] = frozenset()) -> None:
    """Add columns of scores [N], NaN = not scored, to a stored round, or replace those of the same names.

    Args:
        descending: names of the new columns where lower is better.

    Raises:
        StoreError: the round is not there or is damaged; a column is the one that selected.
        ValueError: a column has not one score per sample.
    """
    path = round_folder(folder, rnd) / SAMPLES
    try:
        table, facts = read_table(path)
    except UnusableError as reason:
        raise StoreError(f"round {rnd} of {folder} cannot be read: {reason}") from reason
    for name, values in columns.items():
        if name == facts["reward"]:
            raise StoreError(f"{name!r} is the reward that round {rnd} was selected by and stays as it is; use another name")
        if np.shape(values) != (len(table),):
            raise ValueError(f"column {name!r} has shape {np.shape(values)}, but round {rnd} has {len(table)} samples")
        column = pa.array(np.asarray(values, dtype=np.float64), from_pandas=True)
        place = table.column_names.index("kept")
        if SCORE + name in table.column_names:
            table = table.set_column(table.column_names.index(SCORE + name), SCORE + name, column)
        else:
            table = table.add_column(place, SCORE + name, column)
    facts["descending"] = sorted(set(facts["descending"]) - set(columns) | set(columns) & set(descending))
    write_table(path, table, facts)
