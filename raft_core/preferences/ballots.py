"""Ballots: a prompt, its candidates, and room for a choice. A file of them is what a person labels, line by line.

``{"prompt": "Once", "candidates": ["…", "…", "…", "…"], "best": null}``; ``best`` is an index from 0, several of them for a
tie, or null while nobody has chosen. A prompt that is a conversation has that under ``messages`` too. ``raft reward train``
reads the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.errors import DataError
from raft_core.machine.files import write_text
from raft_core.preferences.layouts import read_row
from raft_core.preferences.preference import Item
from raft_core.preferences.read import content
from raft_core.preferences.rows import BadRow, Row, is_failed, listed, rows
from raft_core.reading.files import Unreadable, is_file
from raft_core.reading.json_data import parse_json
from raft_core.reading.parquet import parquet_rows
from raft_core.reading.shapes import require_shape
from raft_core.types import MESSAGES, Prompt, Request, Sample

SAMPLES, TABLE = "samples.jsonl", "samples.parquet"
LAYOUT = "ballots"


@dataclass(frozen=True)
class Ballot:
    """One choice that is asked for.

    Attributes:
        prompt: what all candidates answer.
        candidates: two or more, all different: texts, or paths of pictures.
        best: indices of the chosen; several for a tie; empty while nobody has chosen.
        meta: what the prompt's file says besides; of that a conversation is written.
    """

    prompt: str
    candidates: tuple[str, ...]
    best: tuple[int, ...] = ()
    meta: Mapping[str, Any] | None = None

    def row(self) -> dict[str, Any]:
        """As it stands in a file."""
        best = None if not self.best else self.best[0] if len(self.best) == 1 else list(self.best)
        messages = Prompt(self.prompt, self.meta or {}).messages
        asked = {"prompt": self.prompt} if messages is None else {"prompt": self.prompt, MESSAGES: list(messages)}
        return {**asked, "candidates": list(self.candidates), "best": best}

    def samples(self) -> list[Sample]:
        """The candidates as any reward takes them.

        Raises:
            DataError: a picture that cannot be read.
        """
        prompt = Prompt(self.prompt, self.meta or {})
        try:
            outputs = [Item(self.prompt, content(candidate, Path())).loaded() for candidate in self.candidates]
        except BadRow as error:
            raise DataError(str(error)) from None
        return [Sample(Request(prompt, i, 0), output=output) for i, output in enumerate(outputs)]


def ballots_of(outputs: Sequence[tuple[Prompt, str]], n: int) -> list[Ballot]:
    """Ballots of n candidates from samples; what is the same as another candidate, or does not fill a ballot, is left out.

    Args:
        outputs: (prompt, text or path of a picture), the samples of a prompt in any places.
        n: candidates of a ballot, ≥ 2.
    """
    found: dict[Prompt, dict[str, None]] = {}
    for prompt, output in outputs:
        found.setdefault(prompt, {})[output] = None
    return [
        Ballot(prompt.text, tuple(list(different)[start : start + n]), meta=prompt.meta)
        for prompt, different in found.items()
        for start in range(0, len(different) - n + 1, n)
    ]


def read_samples(folder: Path) -> list[tuple[Prompt, str]]:
    """Prompts and outputs that ``raft generate`` has written to a folder, pictures by their paths; of failed samples nothing.

    Raises:
        DataError: there are none, or lines that are wrong, each named by file and line.
    """
    path = folder / SAMPLES
    if not path.is_file():
        raise DataError(f"{folder} holds no {SAMPLES}: give a folder that `raft generate` has written, or a file of ballots")
    found: list[tuple[Prompt, str]] = []
    mistakes: list[str] = []
    asked = _asked(folder)
    for row in rows(path):
        if not isinstance(row, Row):
            mistakes.append(f"{row[0]}: {row[1]}")
        elif is_failed(row.values):
            continue
        elif not isinstance(row.values.get("prompt"), str) or not isinstance(_output(row), str):
            mistakes.append(f"{row.where}: a sample needs prompt, and text or file")
        else:
            found.append((asked.get(row.values["prompt"], Prompt(row.values["prompt"])), _output(row)))
    if mistakes:
        raise DataError(listed(mistakes, f"{path} has {len(mistakes)} invalid rows"))
    return found


def _asked(folder: Path) -> dict[str, Prompt]:
    """Text → the prompt with what its file says besides, such as the right answer; empty without the table of samples."""
    path = folder / TABLE
    if not is_file(path):
        return {}
    shape = {"prompt": str, "prompt_meta": str}
    found: dict[str, Prompt] = {}
    try:
        for row in parquet_rows(path, list(shape)):
            require_shape(row, shape, "", shape)
            meta = require_shape(parse_json(row["prompt_meta"], repeated_keys=True), dict, "prompt_meta")
            found[row["prompt"]] = Prompt(row["prompt"], meta)
    except (OSError, Unreadable) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return found


def _output(row: Row) -> Any:
    file = row.values.get("file")
    return str((row.folder / file).resolve()) if isinstance(file, str) else row.values.get("text")


def read_ballots(path: Path) -> list[Ballot]:
    """All ballots of a file, filled in or not.

    Raises:
        DataError: the file cannot be read, or lines are wrong, each named by file and line.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    found: list[Ballot] = []
    mistakes: list[str] = []
    for row in rows(path):
        try:
            if not isinstance(row, Row):
                mistakes.append(f"{row[0]}: {row[1]}")
            else:
                found.append(_ballot(row))
        except BadRow as error:
            mistakes.append(f"{row[0]}: {error}")
    if mistakes:
        raise DataError(listed(mistakes, f"{path} has {len(mistakes)} invalid rows"))
    if not found:
        raise DataError(f"{path} holds no ballot")
    return found


def _ballot(row: Row) -> Ballot:
    said = read_row(row.values, LAYOUT)
    if any(not isinstance(candidate, str) for candidate in said.candidates):
        raise BadRow("candidates must be texts, or paths of pictures")
    if len(set(said.candidates)) < len(said.candidates):
        raise BadRow("two candidates are equal: there is nothing to prefer")
    if any(context != said.contexts[0] for context in said.contexts):
        raise BadRow("candidates are answers to different conversations: each must be one message")
    best = tuple(i for i, part in enumerate(said.target or ()) if part)
    meta = None if said.contexts[0] is None else {MESSAGES: list(said.contexts[0])}
    return Ballot(said.prompt, tuple(said.candidates), best, meta)


def write_ballots(path: Path, ballots: Sequence[Ballot]) -> None:
    """Write all, whole or not at all.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    write_text(path, "".join(json.dumps(ballot.row(), ensure_ascii=False) + "\n" for ballot in ballots))


def open_ones(ballots: Sequence[Ballot]) -> Iterator[int]:
    """Places of the ballots that nobody has filled in."""
    return (i for i, ballot in enumerate(ballots) if not ballot.best)
