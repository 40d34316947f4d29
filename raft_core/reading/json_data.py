"""JSON within limits: depth, digits, and each key once."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raft_core.reading.files import (
    LARGEST_SETTINGS,
    LARGEST_TEXT,
    BeyondLimitsError,
    Unreadable,
    decode,
    excerpt,
    read_bytes,
    read_text,
)

DEEPEST = 100  # lists and objects within one another; what recurses over plain data does so this far
MOST_DIGITS = 300  # of a whole number, which as a float is then finite
_HALF = re.compile("[\ud800-\udfff]")


def parse_json(text: str | bytes, *, repeated_keys: bool = False) -> Any:
    """The value that a JSON text holds; NaN and infinities are taken, as Python writes them.

    Args:
        repeated_keys: let the last of several equal keys win, as most programs do. Otherwise such a text is refused, for
            it says two things.

    Raises:
        Unreadable: it is not JSON in UTF-8, or beyond the limits.
    """
    text = text if isinstance(text, str) else decode(text)
    try:
        value = _decoder(repeated_keys).decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise Unreadable(f"it is not JSON ({error.msg} at {where}): {excerpt(text, 60)}") from None
    except RecursionError:
        raise Unreadable(f"it is not JSON that can be read: lists and objects lie more than {DEEPEST} deep") from None
    if text.count("[") + text.count("{") > DEEPEST:
        require_shallow(value)
    return value


def read_json(path: Path, *, most: int = LARGEST_SETTINGS, repeated_keys: bool = False) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: there is no such file, or it may not be read.
        Unreadable: it is no regular file, too large, not JSON, or beyond the limits.
    """
    return parse_json(read_text(path, most), repeated_keys=repeated_keys)


def read_object(path: Path, *, most: int = LARGEST_SETTINGS, repeated_keys: bool = False) -> dict[str, Any]:
    """The object in a JSON file; raises as ``read_json``, and ``Unreadable`` for anything but an object."""
    value = read_json(path, most=most, repeated_keys=repeated_keys)
    if not isinstance(value, dict):
        raise Unreadable(f"it holds {excerpt(json.dumps(value), 60)}, but must hold an object")
    return value


def json_lines(path: Path, *, most: int = LARGEST_TEXT) -> Iterator[tuple[int, Any]]:
    """(line from 1, value) of the lines of a JSONL file; a line that cannot be read comes as its ``Unreadable``.

    Raises:
        OSError: there is no such file, or it may not be read.
        Unreadable: it is no regular file or too large.
    """
    for number, line in enumerate(read_bytes(path, most).split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except Unreadable as error:
                yield number, error


def require_shallow(value: Any, deepest: int = DEEPEST) -> None:
    """Whatever goes through plain data may recurse.

    Raises:
        Unreadable: lists and objects lie deeper within one another.
    """
    level = [value]
    for _ in range(deepest):
        level = [
            inner
            for each in level
            if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise BeyondLimitsError(f"lists and objects lie more than {deepest} deep")


def holds_half_characters(text: str) -> bool:
    """Whether a text holds halves of surrogate pairs. JSON can write them; UTF-8, tables and tokenizers cannot."""
    return _HALF.search(text) is not None


@functools.cache
def _decoder(repeated_keys: bool) -> json.JSONDecoder:
    return json.JSONDecoder(parse_int=_whole_number, object_pairs_hook=None if repeated_keys else _once)


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        shown = f"{len(digits)} digits ({digits[:12]}…)"
        raise BeyondLimitsError(f"it holds a whole number of {shown}, but at most {MOST_DIGITS} are read")
    return int(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        key = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise BeyondLimitsError(f"it names {excerpt(key, 40)!r} twice in one object")
    return found
