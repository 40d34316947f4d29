"""Rounds on the disk: where they are, what they hold, columns added later."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raft_core.errors import StoreError
from raft_core.store.tables import SCORE, numbers, read_samples, read_table, write_table
from raft_core.store.tensors import UnusableError, load_tensors
from raft_core.types import Sample, Scores, Selection

SAMPLES = "samples.parquet"
TENSORS = "latents.safetensors"
PARTS = "parts"


def mask(selection: Selection, n: int) -> np.ndarray:
    """[n] bool: which samples the selection uses."""
    kept = np.zeros(n, dtype=bool)
    kept[selection.kept] = True
    return kept


def round_folder(folder: Path, rnd: int) -> Path:
    return Path(folder) / "rounds" / f"{rnd:04d}"


def rounds_in(folder: Path) -> list[int]:
    """Numbers of the rounds of a run whose samples are stored, in order."""
    return sorted(int(path.parent.name) for path in Path(folder).glob(f"rounds/[0-9]*/{SAMPLES}"))


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
            with pq.ParquetFile(round_folder(folder, rnd) / SAMPLES, page_checksum_verification=True) as file:
                names = [name for name in file.schema_arrow.names if name.startswith(SCORE)]
                table = file.read(columns=names)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"the scores of round {rnd} of {folder} cannot be read: {error}") from error
        found.append({name.removeprefix(SCORE): numbers(table[name]) for name in names})
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
