"""Outputs of anybody's making, as samples: a folder of pictures with captions beside them, or a file of lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.conversations import BadConversation, looks_like_messages, messages_of, transcript
from raft_core.errors import DataError
from raft_core.media.picture import ENDINGS, read_picture
from raft_core.reading.files import LARGEST_TEXT, Unreadable, excerpt, home_path, is_file, is_folder, read_bytes, read_text
from raft_core.reading.json_data import parse_json
from raft_core.types import MESSAGES, Prompt, Request, Sample

PICTURES = frozenset(ENDINGS)
LINES = frozenset({".jsonl", ".ndjson"})
LARGEST_CAPTION = 2**20  # bytes
OUTPUTS = ("image", "text", "output", "completion")


@dataclass(frozen=True)
class Row:
    """One output that is to be scored.

    Attributes:
        where: the file, or file and line.
        prompt: what it answers; None = nobody knows.
        path: of a picture; None for text.
        text: the text itself.
        mistake: why it cannot be scored, or "".
        meta: what else the line says.
    """

    where: str
    prompt: str | None
    path: Path | None = None
    text: str | None = None
    mistake: str = ""
    meta: dict[str, Any] | None = None


def read_rows(target: str, prompt: str | None = None) -> list[Row]:
    """The rows of a folder, a picture or a file of lines; pictures are not decoded yet.

    Args:
        prompt: of those that have none of their own.

    Raises:
        DataError: there is nothing to score, or none of it has a prompt.
    """
    place = home_path(target)
    if is_folder(place):
        rows = [_picture_row(path, prompt) for path in sorted(place.rglob("*")) if path.suffix.lower() in PICTURES]
        if not rows:
            raise DataError(f"{place} holds no pictures ({', '.join(sorted(PICTURES))})")
    elif not is_file(place):
        raise DataError(f"there is no file or folder {place}")
    elif place.suffix.lower() in PICTURES:
        rows = [_picture_row(place, prompt)]
    elif place.suffix.lower() in LINES:
        rows = list(_line_rows(place, prompt))
        if not rows:
            raise DataError(f'{place} is empty: it needs lines such as {{"prompt": "…", "image": "a.png"}}')
    else:
        raise DataError(f"{place} is neither a folder of pictures, a picture, nor a .jsonl file")
    if all(row.mistake for row in rows):
        raise DataError(f"nothing in {place} can be scored: {rows[0].where}: {rows[0].mistake}")
    return rows


def _picture_row(path: Path, prompt: str | None) -> Row:
    sidecar = path.with_suffix(".txt")
    try:
        caption = read_text(sidecar, LARGEST_CAPTION).strip()
    except FileNotFoundError:
        caption = prompt
    except (OSError, Unreadable) as error:
        return Row(str(path), None, path, mistake=f"its caption {sidecar.name} cannot be read: {error}")
    if caption is None:
        return Row(str(path), None, path, mistake=f"it has no caption: write {sidecar.name}, or give --prompt for all without")
    return Row(str(path), caption, path)


def _line_rows(file: Path, prompt: str | None) -> Iterator[Row]:
    try:
        lines = read_bytes(file, LARGEST_TEXT).split(b"\n")
    except (OSError, Unreadable) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _line_row(line, f"{file}:{number}", file.parent, prompt)


def _line_row(line: bytes, where: str, folder: Path, prompt: str | None) -> Row:
    try:
        found = parse_json(line)
    except Unreadable as error:
        return Row(where, None, mistake=f"the line cannot be read: {error}")
    if not isinstance(found, dict):
        return Row(where, None, mistake="the line is no object")
    own = found.get("prompt", prompt)
    if looks_like_messages(own):
        try:
            found = {**found, MESSAGES: messages_of(own, "prompt")}
        except BadConversation as error:
            return Row(where, None, mistake=f"the line is wrong: {error}")
        own = transcript(found[MESSAGES])
    if not isinstance(own, str):
        told = (
            "has no prompt (give --prompt for all without)" if own is None else f"has the prompt {excerpt(own, 40)!r}, no text"
        )
        return Row(where, None, mistake=f"the line {told}")
    given = [key for key in OUTPUTS if key in found]
    if len(given) != 1:
        return Row(where, own, mistake=f"the line must have one of {', '.join(OUTPUTS)}, but has {', '.join(given) or 'none'}")
    output = found[given[0]]
    if not isinstance(output, str):
        return Row(where, own, mistake=f"{given[0]!r} must be a text")
    meta = {key: value for key, value in found.items() if key not in (*OUTPUTS, "prompt")}
    if given[0] != "image":
        return Row(where, own, text=output, meta=meta)
    return Row(where, own, path=folder / output, meta=meta)


def loaded(rows: Sequence[Row]) -> tuple[list[Sample], list[str]]:
    """(samples of those rows that can be scored, why each row cannot or "")."""
    samples, mistakes = [], []
    for row in rows:
        output, mistake = _output(row)
        mistakes.append(mistake)
        if not mistake:
            prompt = Prompt(row.prompt or "", row.meta or {})
            samples.append(Sample(Request(prompt, len(samples), len(samples)), output=output))
    return samples, mistakes


def _output(row: Row) -> tuple[Any, str]:
    if row.mistake or row.path is None:
        return row.text, row.mistake
    try:
        return read_picture(row.path), ""
    except DataError as error:
        return None, str(error)
