"""Prompts: read from any of the usual files, deduplicated, split once, and drawn the same way in every run.

``source`` is a path (``.txt``, ``.jsonl``, ``.csv``, ``.tsv``, ``.parquet``), ``bundled:NAME`` for a file that ships with the
toolkit, or ``hub:OWNER/NAME[:SPLIT]`` for a dataset of the Hugging Face Hub.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.bundled import bundled_file
from raft_core.conversations import BadConversation, meta_of, prompt_of
from raft_core.errors import ConfigError, DataError, MissingDependency, nearest
from raft_core.rng import numpy_rng
from raft_core.types import Prompt

USUAL_COLUMNS = ("prompt", "text", "caption", "question")
READABLE = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class PromptFiles:
    """Where the prompts of a run come from.

    Args:
        train: file, ``bundled:NAME`` or ``hub:OWNER/NAME[:SPLIT]`` with the prompts that are trained on, or a list of them.
        held_out: the same for the prompts that are only evaluated on; without it a part of ``train`` is held out.
        column: column of a table that holds the prompt; by default ``prompt``, ``text``, ``caption``, or the only one.
        held_out_fraction: part of ``train`` to hold out when there is no ``held_out``, in [0, 1).
        per_round: prompts drawn in each round; all of them by default.
        every_row: train on every row that differs in some column, so that a prompt counts once for each response that is
            written for it; otherwise a prompt that comes again is used once. Held-out prompts always are.
    """

    train: str | list[str]
    held_out: str | list[str] | None = None
    column: str | None = None
    held_out_fraction: float = 0.2
    per_round: int | None = None
    every_row: bool = False

    def __post_init__(self) -> None:
        mistakes = []
        if not 0 <= self.held_out_fraction < 1:
            mistakes.append(
                f"prompts.held_out_fraction is {self.held_out_fraction}, but must be in [0, 1): 0.2 holds out a fifth"
            )
        if self.per_round is not None and self.per_round < 1:
            mistakes.append(f"prompts.per_round is {self.per_round}, but a round needs at least 1 prompt")
        if mistakes:
            raise ConfigError(mistakes)


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a run.

    Args:
        train: prompts that are trained on, all different, if only in what their table says of them.
        held_out: prompts that are only evaluated on.
        per_round: prompts drawn in each round, 1 … number of training prompts.
        seed: the run's seed.
    """

    train: Sequence[Prompt]
    held_out: Sequence[Prompt]
    per_round: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.per_round <= len(self.train):
            raise ConfigError(
                f"prompts.per_round is {self.per_round}, but there are {len(self.train)} training prompts: "
                f"choose 1 to {len(self.train)}"
            )

    def draw(self, rnd: int) -> list[Prompt]:
        """The prompts of round ``rnd`` (from 1), in file order, all different.

        Every epoch goes once through a new permutation, without replacement; what does not fill a round is left out of that
        epoch, so that no round holds a prompt twice.
        """
        rounds_per_epoch = len(self.train) // self.per_round
        epoch, position = divmod(rnd - 1, rounds_per_epoch)
        order = numpy_rng(self.seed, "prompts", epoch).permutation(len(self.train))
        chosen = order[position * self.per_round : (position + 1) * self.per_round]
        return [self.train[i] for i in sorted(chosen)]


@dataclass(frozen=True)
class Gathered:
    """Prompts as read, and what a person should know of the reading."""

    train: list[Prompt]
    held_out: list[Prompt]
    notes: list[str]


def gather(files: PromptFiles, seed: int, base: Path | None = None) -> Gathered:
    """Training and held-out prompts: each once (see ``PromptFiles.every_row``), and none on both sides.

    Args:
        files: the settings.
        seed: decides what is held out when no file says so.
        base: folder of the configuration, in which relative paths are looked up when they are not found here.

    Raises:
        DataError: a source that cannot be read or has no prompt.
    """
    rows = _read_source(files.train, files.column, base)
    once, _ = distinct(rows)
    train = list({prompt.id: prompt for prompt in rows}.values()) if files.every_row else once
    repeated, what = len(rows) - len(train), "rows" if files.every_row else "prompts"
    notes = [f"{repeated} repeated {what} in {_named(files.train)} are used once"] if repeated else []
    if files.held_out is None:
        _, held_out = split(once, files.held_out_fraction, seed)
        out = {prompt.text for prompt in held_out}
        return Gathered([prompt for prompt in train if prompt.text not in out], held_out, notes)
    held_out, repeated = distinct(_read_source(files.held_out, files.column, base))
    if repeated:
        notes.append(f"{repeated} repeated prompts in {_named(files.held_out)} are used once")
    seen = {prompt.text for prompt in train}
    unseen = [prompt for prompt in held_out if prompt.text not in seen]
    if len(unseen) < len(held_out):
        count, name = len(held_out) - len(unseen), _named(files.held_out)
        notes.append(f"{count} prompts of {name} are also trained on: not held out, left out")
    if not unseen:
        names = _named(files.held_out), _named(files.train)
        raise DataError(f"every prompt of {names[0]} is also in {names[1]}: held-out prompts have to be others")
    return Gathered(train, unseen, notes)


def _read_source(source: str | list[str], column: str | None, base: Path | None) -> list[Prompt]:
    """The prompts of a list, or of what a text names."""
    if isinstance(source, str):
        return read_prompts(source, column=column, base=base)
    if not source:
        raise DataError("the list of prompts is empty")
    return [Prompt(text) for text in source]


def _named(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "the list"


def distinct(prompts: Iterable[Prompt]) -> tuple[list[Prompt], int]:
    """The first prompt of each text, in order, and how many were dropped."""
    prompts = list(prompts)
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        first.setdefault(prompt.text, prompt)
    return list(first.values()), len(prompts) - len(first)


def split(prompts: Sequence[Prompt], fraction: float, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """(train, held out): ``fraction`` of the prompts held out, at least one of two or more; both in file order."""
    count = 0
    if fraction > 0 and len(prompts) > 1:
        count = min(max(round(fraction * len(prompts)), 1), len(prompts) - 1)
    out = set(numpy_rng(seed, "held out").permutation(len(prompts))[:count].tolist())
    return [p for i, p in enumerate(prompts) if i not in out], [p for i, p in enumerate(prompts) if i in out]


def read_prompts(source: str | Path, *, column: str | None = None, base: Path | None = None) -> list[Prompt]:
    """All prompts of a source in its order, repeats included; other columns become ``Prompt.meta``.

    Args:
        source: path, ``bundled:NAME`` or ``hub:OWNER/NAME[:SPLIT]``.
        column: the prompt's column in a table; found by its name by default.
        base: folder to look relative paths up in when they are not found here.

    Raises:
        DataError: a source that is missing, not readable as what it claims to be, empty, or without the column.
        MissingDependency: a Hub dataset without the package ``datasets``.
    """
    if str(source).startswith("hub:"):
        prompts = _from_hub(str(source), column)
    else:
        path = locate(source, base)
        readers = {".txt": _from_text, ".jsonl": _from_jsonl, ".csv": _from_csv, ".tsv": _from_csv, ".parquet": _from_parquet}
        if path.suffix.lower() not in readers:
            raise DataError(f"prompt file {path} has the ending {path.suffix!r}; readable are {', '.join(READABLE)}")
        prompts = readers[path.suffix.lower()](path, column)
    if not prompts:
        raise DataError(f"prompt file {source} has no prompts in it")
    return prompts


def locate(source: str | Path, base: Path | None = None) -> Path:
    """The file that ``source`` names: here, else beside the configuration, else among the bundled files.

    Raises:
        DataError: there is no such file; names the nearest one that there is.
    """
    if str(source).startswith("bundled:"):
        return bundled_file(str(source).removeprefix("bundled:"))
    path = Path(source).expanduser()
    for candidate in [path] if base is None else [path, base / path]:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise DataError(f"prompt file {source} is a folder; name a file in it")
    folder = path.parent if path.parent.is_dir() or base is None else base / path.parent
    siblings = [p.name for p in folder.iterdir() if p.suffix in READABLE] if folder.is_dir() else []
    raise DataError(f"prompt file {source} does not exist{nearest(path.name, siblings)}")


def _from_text(path: Path, _column: str | None) -> list[Prompt]:
    return [Prompt(line) for _, line in _lines(path)]


def _from_jsonl(path: Path, column: str | None) -> list[Prompt]:
    rows = []
    for number, line in _lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}): {_short(line)}") from None
        rows.append((number, {column or "prompt": row} if isinstance(row, str) else row))
        if not isinstance(rows[-1][1], dict):
            raise DataError(
                f'{path}, line {number}: expected an object such as {{"prompt": "…"}} or a string, got {_short(line)}'
            )
    return list(_from_rows(rows, column, str(path)))


def _from_csv(path: Path, column: str | None) -> list[Prompt]:
    lines = (line for _, line in _lines(path, keep_blank=True))
    reader = csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        return list(_from_rows(((reader.line_num, row) for row in reader), column, str(path)))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None


def _from_parquet(path: Path, column: str | None) -> list[Prompt]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from None
    return list(_from_rows(enumerate(table.to_pylist(), start=1), column, str(path)))


def _from_hub(source: str, column: str | None) -> list[Prompt]:
    try:
        import datasets
    except ImportError:
        raise MissingDependency("datasets", "hub", f"reading prompts from {source}") from None
    name, _, part = source.removeprefix("hub:").partition(":")
    try:
        rows = datasets.load_dataset(name, split=part or "train")
    except Exception as error:
        raise DataError(f"{source} cannot be loaded: {type(error).__name__}: {error}") from error
    return list(_from_rows(enumerate(rows, start=1), column, source))  # type: ignore[arg-type] - rows are mappings


def _from_rows(rows: Iterable[tuple[int, Mapping[Any, Any]]], column: str | None, source: str) -> Iterator[Prompt]:
    """Prompts of (line number, row) pairs."""
    for number, row in rows:
        if None in row:  # where csv.DictReader puts the fields beyond the heading's
            raise DataError(f"{source}, line {number}: has more fields than the heading; quote a prompt that holds a separator")
        try:
            conversation = prompt_of(row, column)
        except BadConversation as error:
            raise DataError(f"{source}, line {number}: {error}") from None
        if conversation is not None:
            yield conversation
            continue
        name = column or _usual_column(list(row), source)
        if name not in row:
            raise DataError(f"{source}, line {number}: has no column {name!r}{nearest(name, map(str, row))}")
        text = row[name]
        if not isinstance(text, str):
            raise DataError(f"{source}, line {number}: column {name!r} holds {_short(repr(text))}, which is not a text")
        if text.strip():
            yield Prompt(text.strip(), meta_of(row, name))


def _usual_column(columns: list[str], source: str) -> str:
    for name in USUAL_COLUMNS:
        if name in columns:
            return name
    if len(columns) == 1:
        return columns[0]
    raise DataError(
        f"{source} has the columns {', '.join(map(str, columns))}: say in prompts.column which one holds the prompts"
    )


def _lines(path: Path, keep_blank: bool = False) -> Iterator[tuple[int, str]]:
    """(line number from 1, line) without surrounding white space; a byte-order mark is skipped."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"prompt file {path} cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {number}: byte 0x{content[error.start]:02x} is not UTF-8; save the file in the encoding UTF-8"
        ) from None
    for number, line in enumerate(text.split("\n"), start=1):
        if keep_blank:
            yield number, line.rstrip("\r") + "\n"
        elif line.strip():
            yield number, line.strip()


def _short(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
