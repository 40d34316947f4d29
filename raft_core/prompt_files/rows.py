"""The rows of a prompt file by its ending, each with the place where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raft_core.errors import DataError
from raft_core.prompt_files.delimited import table_rows
from raft_core.prompt_files.templates import expand
from raft_core.reading.files import LARGEST_TEXT, Unreadable, excerpt, lines, read_text
from raft_core.reading.json_data import json_lines, read_json
from raft_core.reading.parquet import parquet_kinds, parquet_rows

LISTS = ("prompts", "data", "rows", "items")  # keys under which a JSON object holds its rows


class Row(NamedTuple):
    """A row: where it stands (``line 3``), and its columns; a text where the file has none."""

    where: str
    values: Mapping[str, Any] | str


def read_rows(path: Path, column: str | None = None) -> Iterator[Row]:
    """The rows of a prompt file in its order; blank lines and comments are passed over.

    Args:
        path: with one of the endings in ``READERS``.
        column: the prompt's column, where it is known; helps to tell how a table is separated.

    Raises:
        DataError: the file cannot be read, or is doubtful; names it and, where there is one, the line.
    """
    try:
        yield from READERS[path.suffix.lower()](path, column)
    except Unreadable as error:
        remedy = "; save the file in the encoding UTF-8" if "UTF-8" in str(error) else ""
        raise DataError(f"{path}: {error}{remedy}") from None
    except OSError as error:
        raise DataError(f"prompt file {path} cannot be read: {error.strerror or error}") from None


def _text(path: Path, _column: str | None) -> Iterator[Row]:
    """A prompt a line. ``#`` begins a comment, ``\\#`` a prompt with a ``#``; templates stand for all their prompts."""
    for number, line in lines(read_text(path, LARGEST_TEXT)):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        where, line = f"line {number}", line.removeprefix("\\") if line.startswith("\\#") else line
        try:
            expanded = expand(line, path.parent)
        except Unreadable as error:
            raise DataError(f"{path}, {where}: {error}") from None
        if expanded is None:
            yield Row(where, line)
        else:
            yield from (Row(where, {"prompt": text, "template": line}) for text in expanded)


def _json_lines(path: Path, _column: str | None) -> Iterator[Row]:
    for number, value in json_lines(path):
        if isinstance(value, Unreadable):
            raise DataError(f"{path}, line {number}: {value}")
        yield Row(f"line {number}", _object(value, f"{path}, line {number}"))


def _json(path: Path, _column: str | None) -> Iterator[Row]:
    value = read_json(path, most=LARGEST_TEXT)
    if isinstance(value, dict):
        found = [key for key in LISTS if isinstance(value.get(key), list)]
        value = value[found[0]] if len(found) == 1 else value
    if not isinstance(value, list):
        raise DataError(
            f"{path} holds {excerpt(repr(value), 60)}, but must hold a list of prompts, or of objects with a prompt each"
        )
    for number, item in enumerate(value, start=1):
        yield Row(f"entry {number}", _object(item, f"{path}, entry {number}"))


def _object(value: Any, where: str) -> Mapping[str, Any] | str:
    if not isinstance(value, (dict, str)):
        raise DataError(f'{where}: expected an object such as {{"prompt": "…"}} or a string, got {excerpt(repr(value), 60)}')
    return value


def _table(path: Path, column: str | None) -> Iterator[Row]:
    for number, values in table_rows(path, column):
        yield Row(f"line {number}", values)


def _parquet(path: Path, _column: str | None) -> Iterator[Row]:
    texts = {name for name, kind in parquet_kinds(path).items() if "string" in kind or kind == "null"}
    for number, values in enumerate(parquet_rows(path), start=1):
        # Of dates only their written form is left, which is no text of a person's; bytes are none either.
        yield Row(f"row {number}", {n: v if n in texts or not isinstance(v, str) else _NoText(v) for n, v in values.items()})


class _NoText(str):
    """The written form of what is no text."""


def is_text(value: Any) -> bool:
    """Whether a value of a row is a text by what its file says of it."""
    return isinstance(value, str) and not isinstance(value, _NoText)


READERS: dict[str, Callable[[Path, str | None], Iterator[Row]]] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _parquet,
}
