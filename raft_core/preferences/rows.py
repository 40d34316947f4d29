"""Rows of the files that preferences come in: JSON lines, plain or gzipped, and Parquet; one file or a folder of them."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raft_core.errors import DataError, nearest
from raft_core.reading.files import Unreadable, home_path, is_file, is_folder, open_regular
from raft_core.reading.json_data import parse_json
from raft_core.reading.parquet import parquet_rows
from raft_core.soundness import failed_of

LONGEST_LINE = 2**28  # bytes; a line may hold pictures
ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")


class Row(NamedTuple):
    """A row and where it stands: ``data.jsonl, line 3`` or ``data.parquet, row 3``, counted from 1."""

    where: str
    values: Mapping[str, Any]
    folder: Path


def is_failed(values: Mapping[str, Any]) -> bool:
    """Whether a row is of a sample that failed when it was drawn, as ``samples.jsonl`` and ``samples.parquet`` tell it."""
    meta = values.get("meta")
    return isinstance(values.get("failed"), str) or (isinstance(meta, str) and bool(failed_of(meta)))


class BadRow(Exception):  # noqa: N818 - a signal between parts, never shown
    """What is wrong with a row, in words, without its place."""


def files_of(source: str | Path) -> list[Path]:
    """The file that ``source`` names, or the files of a folder in the order of their names.

    Raises:
        DataError: there is none that can be read.
    """
    path = home_path(source)
    if is_folder(path):
        found = sorted(file for file in path.rglob("*") if file.name.endswith(ENDINGS))
        if not found:
            raise DataError(f"the folder {path} holds no file of preferences (looked for {', '.join(ENDINGS)})")
        return found
    if not is_file(path):
        siblings = [p.name for p in path.parent.iterdir()] if is_folder(path.parent) else []
        near = nearest(path.name, [name for name in siblings if name.endswith(ENDINGS)])
        raise DataError(f"the file {path} does not exist{near}")
    if not path.name.endswith(ENDINGS):
        raise DataError(f"{path} has an ending that is not known here; readable are {', '.join(ENDINGS)}")
    return [path]


def rows(path: Path) -> Iterator[Row | tuple[str, str]]:
    """Rows of one file; a line that is none comes as (where, what is wrong).

    Raises:
        DataError: the file cannot be read at all.
    """
    if path.name.endswith(".parquet"):
        yield from _parquet(path)
    else:
        yield from _json_lines(path)


def _json_lines(path: Path) -> Iterator[Row | tuple[str, str]]:
    try:
        with open_regular(path) as raw, gzip.open(raw) if path.name.endswith(".gz") else raw as file:
            for number in itertools.count(1):
                line = file.readline(LONGEST_LINE + 1)
                if not line:
                    return
                where = f"{path}, line {number}"
                if len(line) > LONGEST_LINE:
                    raise Unreadable(f"line {number} is longer than {LONGEST_LINE // 2**20} MB")
                if not line.strip():
                    continue
                try:
                    values = parse_json(line)
                except Unreadable as error:
                    yield where, str(error)
                else:
                    yield Row(where, values, path.parent) if isinstance(values, dict) else (where, "is no JSON object")
    except (OSError, EOFError, zlib.error, Unreadable) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _parquet(path: Path) -> Iterator[Row]:
    try:
        for number, values in enumerate(parquet_rows(path), start=1):
            yield Row(f"{path}, row {number}", values, path.parent)
    except (OSError, Unreadable) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def listed(mistakes: list[str], what: str, shown: int = 10) -> str:
    """Mistakes for a person: the first few and how many more."""
    more = f"\n  … and {len(mistakes) - shown} more" if len(mistakes) > shown else ""
    return f"{what}:\n" + "\n".join(f"  {mistake}" for mistake in mistakes[:shown]) + more
