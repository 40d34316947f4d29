"""Samples as one Parquet file, which ``datasets`` (with pictures), pandas and DuckDB open as it is."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raft_core.machine.files import plain_json, replacing
from raft_core.media.medium import Medium, common_medium, media, medium_named
from raft_core.reading.files import Unreadable, excerpt, open_regular
from raft_core.reading.json_data import parse_json
from raft_core.reading.shapes import require_shape, taken_apart
from raft_core.store.tensors import UnusableError, identity
from raft_core.types import Failure, Prompt, Request, Sample, Scores

SCORE = "score."
# `datasets` shows a Parquet file page by page; pages of many pictures are slow to open.
ROWS_PER_GROUP = 100


def write_samples(
    path: Path,
    samples: Sequence[Sample],
    scores: Scores,
    kept: np.ndarray,
    *,
    rnd: int = 0,
    policy_hash: str = "",
) -> None:
    """Write rendered samples, their scores and which were kept, atomically.

    Args:
        kept: [N] bool.
        rnd: the round; 0 outside of rounds.
        policy_hash: of the policy that drew them.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    n = len(samples)
    columns: dict[str, Any] = {
        "prompt": pa.array([s.prompt.text for s in samples], pa.string()),
        "prompt_id": pa.array([s.prompt.id for s in samples], pa.string()),
        "prompt_meta": pa.array([plain_json(s.prompt.meta) for s in samples], pa.string()),
        "index": pa.array([s.request.index for s in samples], pa.int64()),
        "seed": pa.array([s.seed for s in samples], pa.int64()),
        "round": pa.array([rnd] * n, pa.int64()),
        **_output_column([sample.output for sample in samples], rnd),
        **{SCORE + name: _score_column(values) for name, values in scores.columns.items()},
        "kept": pa.array(np.asarray(kept, dtype=bool)),
        "policy_hash": pa.array([policy_hash] * n, pa.string()),
        "meta": pa.array([plain_json(s.meta) for s in samples], pa.string()),
    }
    facts = {
        "reward": scores.reward,
        "descending": sorted(scores.descending),
        "parts": sorted(scores.parts),
        "failures": {name: [f.count, f.first_error] for name, f in scores.failures.items()},
        "round": rnd,
        "policy_hash": policy_hash,
    }
    write_table(path, pa.table(columns), facts)


def _output_column(outputs: Sequence[Any], rnd: int) -> dict[str, pa.Array]:
    medium = common_medium(outputs)
    return {medium.modality: medium.column(outputs, lambda row: f"{rnd:04d}-{row:05d}")}


def _score_column(values: np.ndarray) -> pa.Array:
    """NaN (not scored) as null: the mean of a column in SQL is then the mean of what was scored."""
    return pa.array(np.asarray(values, dtype=np.float64), from_pandas=True)


def write_table(path: Path, table: pa.Table, facts: Mapping[str, Any]) -> None:
    """Write a table of samples atomically, with page checksums and the features that ``datasets`` looks for."""
    features = {field.name: _feature(field.type) for field in table.schema}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "raft": plain_json(facts)}
    table = table.replace_schema_metadata(metadata)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, row_group_size=ROWS_PER_GROUP, write_page_checksum=True, compression="zstd")


def _feature(kind: pa.DataType) -> dict[str, str]:
    for medium in media():
        if kind == medium.column_type():
            return medium.feature
    names = {pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "bool"}
    return {"dtype": names[kind], "_type": "Value"}


def read_table(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The table and the facts stored with it.

    Raises:
        UnusableError: the file is damaged or is no table of samples.
    """
    with _opened(path) as file:
        table = file.read()
        require_scores(table)
        return table, _facts(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A table, open; whatever goes wrong inside is told as its damage.

    Raises:
        UnusableError: it is damaged.
    """
    try:
        with open_regular(path) as source, pq.ParquetFile(source, page_checksum_verification=True) as file:
            yield file
    except (UnusableError, MemoryError):
        raise
    except Exception as error:
        raise UnusableError(f"{path.name} is damaged ({excerpt(error, 200) or type(error).__name__})") from error


def _facts(file: pq.ParquetFile) -> dict[str, Any]:
    """What is stored with a table."""
    stored = (file.schema_arrow.metadata or {}).get(b"raft")
    if stored is None:
        raise UnusableError("it is not a file of samples")
    return require_shape(parse_json(stored), FACTS, "its facts")


#: What is stored with the samples of a round, and with the pairs of an evaluation.
FACTS = {"reward": str, "policy_hash": str, "split": str, "round": int, "descending": [str], "parts": [str], "failures": dict}
KINDS = {
    **dict.fromkeys(("prompt", "prompt_id", "prompt_meta", "policy_hash", "meta"), pa.string()),
    **dict.fromkeys(("index", "seed", "round"), pa.int64()),
    "kept": pa.bool_(),
}


def require_columns(table: pa.Table, names: Iterable[str]) -> None:
    """Whether columns are there, and are what ``write_samples`` makes them.

    Raises:
        UnusableError: one is not.
    """
    for name in names:
        if name not in table.column_names:
            raise UnusableError(f"it has no column {name!r}")
        if table[name].type != KINDS[name] or table[name].null_count:
            raise UnusableError(
                f"its column {name!r} holds {table[name].type}, or nothing in places, but must be {KINDS[name]}"
            )


def require_scores(table: pa.Table) -> None:
    """Whether every column of scores holds numbers.

    Raises:
        UnusableError: one does not.
    """
    for name in table.column_names:
        if name.startswith(SCORE) and table[name].type != pa.float64():
            raise UnusableError(f"its column {excerpt(name, 60)!r} holds {table[name].type}, but scores are numbers")


def failures_of(stored: Mapping[str, Any]) -> dict[str, Failure]:
    """name → what could not be scored, from the facts of a table.

    Raises:
        Unreadable: they are none.
    """
    for name, failure in stored.items():
        if not (isinstance(failure, list) and len(failure) == 2):
            raise Unreadable(f"the failures of {excerpt(name, 40)} are {excerpt(failure, 40)}")
        require_shape(failure[0], int, f"failures.{name}")
        require_shape(failure[1], str, f"failures.{name}")
    return {name: Failure(*failure) for name, failure in stored.items()}


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """[N] float64, null = NaN. Not ``to_numpy``, which imports pandas wherever it is installed."""
    return np.array(column.to_pylist(), dtype=np.float64)


def flags(column: pa.ChunkedArray) -> np.ndarray:
    """[N] bool."""
    return np.array(column.to_pylist(), dtype=bool)


def read_samples(
    path: Path, requests: Sequence[Request] | None = None
) -> tuple[list[Sample], Scores, np.ndarray, dict[str, Any]]:
    """(samples without tensors, scores, kept [N] bool, facts) of a file that ``write_samples`` wrote.

    Args:
        requests: what the file has to answer, when that is known.

    Raises:
        UnusableError: the file is damaged, is no table of samples, or answers other requests.
    """
    table, facts = read_table(path)
    with _told_of(path), taken_apart("it"):
        require_columns(table, ("prompt", "prompt_id", "prompt_meta", "index", "seed", "meta", "kept"))
        if requests is not None:
            _check_requests(path, table, requests)
        medium = medium_named(output_column(table.column_names))
        rows = table.select(["prompt", "prompt_meta", "index", "seed", "meta", medium.modality]).to_pylist()
        asked = requests or [None] * len(rows)
        samples = [_sample(row, request, medium) for row, request in zip(rows, asked, strict=True)]
        scores = Scores(
            reward=facts["reward"],
            columns={name.removeprefix(SCORE): numbers(table[name]) for name in table.column_names if name.startswith(SCORE)},
            failures=failures_of(facts["failures"]),
            descending=frozenset(facts["descending"]),
            parts=frozenset(facts["parts"]),
        )
        return samples, scores, flags(table["kept"]), facts


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """What cannot be read, as samples that cannot be used."""
    try:
        yield
    except Unreadable as error:
        raise UnusableError(f"{path.name} is damaged ({error})") from error


def read_columns(
    path: Path, wanted: Callable[[str], bool], rows: Collection[int] | None = None
) -> tuple[dict[str, list], dict[str, Any]]:
    """(column → values as plain data, facts) of some columns of a file of samples; pictures stay bytes.

    Only the parts of the file are read that hold what is asked for, so that a single picture of a large round is had at once.

    Args:
        wanted: whether a column of this name is asked for.
        rows: only these, in ascending order; None = all.

    Raises:
        UnusableError: the file is damaged, is no table of samples, or has no such row.
    """
    with _opened(path) as file:
        names = [name for name in file.schema_arrow.names if wanted(name)]
        table = file.read(columns=names) if rows is None else _rows(file, names, sorted(rows))
        require_columns(table, [name for name in names if name in KINDS])
        require_scores(table)
        return table.to_pydict(), _facts(file)


def _rows(file: pq.ParquetFile, names: list[str], rows: Sequence[int]) -> pa.Table:
    """Some rows of a file, of which only their groups are read."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    if rows and not 0 <= rows[0] <= rows[-1] < starts[-1]:
        raise IndexError(f"it has {starts[-1]} rows, and one of {rows} is asked for")
    parts = [file.schema_arrow.empty_table().select(names)]
    for group, start in enumerate(starts[:-1]):
        if own := [row - start for row in rows if start <= row < starts[group + 1]]:
            read = file.read_row_group(group, columns=names)
            parts += [read.slice(row, 1) for row in own]
    return pa.concat_tables(parts)


def medium_of_column(table: pa.Table, name: str) -> Medium:
    """The kind of output that a column holds.

    Raises:
        UnusableError: none that is known.
    """
    require_column = table[name].type  # KeyError: told as damage by the caller
    found = next((medium for medium in media() if medium.column_type() == require_column), None)
    if found is None:
        raise UnusableError(f"its column {name!r} holds {require_column}, which is no kind of output")
    return found


def output_column(names: Collection[str]) -> str:
    """Which of a table's columns holds the outputs: the one that is named as a modality."""
    return next((medium.modality for medium in media() if medium.modality in names), media()[0].modality)


def _check_requests(path: Path, table: pa.Table, requests: Sequence[Request]) -> None:
    # The stored id and not that of the prompt as read back: facts of a prompt that JSON cannot hold do not survive the way.
    stored = zip(*(table[name].to_pylist() for name in ("prompt_id", "index", "seed")), strict=True)
    if [list(row) for row in stored] != [identity(request) for request in requests]:
        raise UnusableError(f"{path.name} answers other prompts or seeds")


def object_of(text: str) -> dict[str, Any]:
    """The object that a JSON text holds.

    Raises:
        Unreadable: it holds none.
    """
    return require_shape(parse_json(text, repeated_keys=True), dict, "it")


def _sample(row: Mapping[str, Any], request: Request | None, medium: Medium) -> Sample:
    request = request or Request(Prompt(row["prompt"], object_of(row["prompt_meta"])), row["index"], row["seed"])
    cell = row[medium.modality]
    output = None if cell is None else medium.from_cell(cell)
    return Sample(request, output=output, meta=object_of(row["meta"]))
