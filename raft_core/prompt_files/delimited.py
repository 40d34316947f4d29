"""CSV and TSV tables, read so strictly that a row is never lost: what may mean two things is refused with its line.

CSV is RFC 4180's, separated by commas, or by semicolons as Excel writes it where the comma is the decimal sign. TSV has no
quoting: its fields may hold quotation marks, and neither tabs nor line breaks.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from raft_core.errors import DataError
from raft_core.prompt_files.columns import find_column
from raft_core.reading.files import LARGEST_TEXT, excerpt, lines, read_text, without_lone_returns

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
LONGEST_HEADING = 40  # characters of the name of a column, where it is the only one


def table_rows(path: Path, column: str | None = None) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, column → field) of each row but the heading; columns without a name are left out.

    Args:
        path: a ``.csv`` or ``.tsv`` file.
        column: the prompt's column, where it is known.

    Raises:
        DataError: the table is no such table, or doubtful; names the file and the line.
        OSError: there is no such file, or it may not be read.
        Unreadable: it is too large or not UTF-8.
    """
    text = without_lone_returns(read_text(path, LARGEST_TEXT))
    if path.suffix.lower() == ".tsv":
        separator, records = "\t", _tsv_records(path, text)
    else:
        separator, text = _separator(path, text, column)
        records = _csv_records(path, text, separator)
    number, heading = next(records, (1, []))
    if not heading:
        return
    _require_heading(path, number, heading, separator, column)
    if len(heading) == 1 and column is None and find_column(heading, None) is None and _looks_alike(text):
        raise DataError(
            f"{path}, line {number}: {excerpt(heading[0], 60)!r} may be the column's name or the first prompt: put `prompt` "
            "above it, or give the name as prompts.column"
        )
    for number, fields in records:
        if len(fields) != len(heading):
            more = "more" if len(fields) > len(heading) else "fewer"
            remedy = "quote a prompt that holds a separator" if separator != "\t" else "a prompt must hold no tab or line break"
            raise DataError(
                f"{path}, line {number}: has {more} fields than the heading ({len(fields)} and {len(heading)}, separated by "
                f"{SEPARATORS[separator]}); {remedy}"
            )
        yield number, {name: field for name, field in zip(heading, fields, strict=True) if name}


def _separator(path: Path, text: str, column: str | None) -> tuple[str, str]:
    """(what separates the fields of a CSV, the table without the line in which Excel may say so)."""
    first, _, rest = text.lstrip("\r\n").partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:
        separator = first.strip()[-1]
        if separator not in SEPARATORS:
            raise DataError(
                f"{path}, line 1: says that {separator!r} separates the fields; commas, semicolons and tabs are read"
            )
        return separator, "\n" + rest  # an empty line in its place, so that the others keep their numbers
    try:
        splits = {each: [cell.strip() for cell in next(csv.reader([first], delimiter=each), [])] for each in SEPARATORS}
    except csv.Error as error:
        raise DataError(f"{path}, line 1: {_said(str(error), first)}") from None
    several = [each for each, cells in splits.items() if len(cells) > 1]
    if len(several) > 1:
        several = [each for each in several if find_column(splits[each], column)]
    if len(several) > 1 or (not several and sum(len(cells) > 1 for cells in splits.values()) > 1):
        raise DataError(
            f"{path}, line 1: the heading {excerpt(first, 60)!r} can be separated in several ways; leave but one of commas, "
            "semicolons and tabs in it"
        )
    return (several or [","])[0], text


def _csv_records(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line where it begins, fields) of each record."""
    physical = [line for _, line in lines(text)]
    reader = csv.reader((line + "\n" for line in physical), delimiter=separator, strict=True)
    begins, width = 1, 0
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {begins}: {_said(str(error), physical[begins - 1])}") from None
        spans = physical[begins - 1 : reader.line_num]
        if fields:
            width = width or len(fields)
            if len(spans) > 1 and all(len(line.split(separator)) == width for line in spans):
                raise DataError(
                    f"{path}, line {begins}: a quotation mark opens a field that ends in line {reader.line_num}, though each "
                    "of these lines could be a row of its own. If it is one prompt with line breaks, write the table as "
                    '.jsonl; else write a quotation mark in a field as ""'
                )
            yield begins, fields
        begins = reader.line_num + 1


def _said(error: str, line: str) -> str:
    """What is wrong with quotation marks, in words."""
    if "expected after" in error or "unexpected end" in error:
        return (
            f"a field that begins with a quotation mark does not end with one: {excerpt(line, 60)}. Write a quotation mark in "
            'a field as "", and another before and after the whole field; or write the table as .tsv or .jsonl'
        )
    if "new-line character" in error:
        return f"holds a carriage return within a field: {excerpt(line, 60)}. Put the whole field in quotation marks"
    return f"{error}: {excerpt(line, 60)}"


def _tsv_records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines(text):
        if line.strip():
            fields = line.split("\t")
            if quoted := next((field for field in fields if _is_quoted(field, heading=number == 1)), None):
                raise DataError(
                    f"{path}, line {number}: {excerpt(quoted, 60)} is quoted as in CSV, but TSV has no quoting, so the marks "
                    "would be part of the text: save the table as .csv, or without them"
                )
            yield number, fields


def _is_quoted(field: str, heading: bool) -> bool:
    """Whether a field can only have come out of a program that quotes: doubled marks within it, or a name in marks."""
    field = field.strip()
    if len(field) < 2 or not (field.startswith('"') and field.endswith('"')):
        return False
    inner = field[1:-1]
    return heading or ('""' in inner and '"' not in inner.replace('""', ""))


def _require_heading(path: Path, number: int, heading: list[str], separator: str, column: str | None) -> None:
    """Check the heading, and put its names in order.

    Raises:
        DataError: two columns have one name, or it is a prompt rather than a heading.
    """
    heading[:] = [name.strip() for name in heading]
    names = [name for name in heading if name]
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise DataError(f"{path}, line {number}: two columns are called {excerpt(repeated[0], 40)!r}")
    if len(heading) == 1 and column is None and find_column(heading, None) is None:
        if _would_split(heading[0], separator):
            named = f"{path}, line {number}: the heading {excerpt(heading[0], 60)!r}"
            raise DataError(f"{named} is not separated by {SEPARATORS[separator]}, as the ending {path.suffix} says")
        if " " in heading[0] or len(heading[0]) > LONGEST_HEADING:
            raise DataError(
                f"{path}, line {number}: {excerpt(heading[0], 60)!r} looks like a prompt, but the first line of a table "
                "names its columns: put `prompt` above it, or call the file .txt"
            )


def _looks_alike(text: str) -> bool:
    """Whether all rows of a table are single words, as its heading is."""
    rows = text.split()
    return len(rows) > 1 and len(rows) == len(text.strip().splitlines())


def _would_split(name: str, separator: str) -> bool:
    cells: Sequence[Sequence[str]] = [name.split(each) for each in SEPARATORS if each != separator]
    return any(find_column([cell.strip() for cell in each], None) for each in cells)
