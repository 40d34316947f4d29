"""Prompts: read from any of the usual files, deduplicated, split once, and drawn the same way in every run.

``source`` is a path (``.txt``, ``.json``, ``.jsonl``, ``.csv``, ``.tsv``, ``.parquet``), ``bundled:NAME`` for a file that ships
with the toolkit, ``preset:NAME[:FOLDER]`` for a published set of prompts, or ``hub:OWNER/NAME[:SPLIT]`` for a dataset of the
Hugging Face Hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.bundled import bundled_file
from raft_core.conversations import BadConversation, meta_of, prompt_of
from raft_core.errors import ConfigError, DataError, MissingDependency, nearest
from raft_core.machine.files import plain_json
from raft_core.preferences.layouts import prompt_in
from raft_core.preferences.rows import BadRow
from raft_core.prompt_files.columns import find_column, find_question
from raft_core.prompt_files.drawing import described, identity, settled
from raft_core.prompt_files.presets import PREFIX, preset_rows
from raft_core.prompt_files.rows import READERS, Row, is_text, read_rows
from raft_core.reading.files import Unreadable, excerpt, home_path, is_file, is_folder, is_something
from raft_core.reading.json_data import holds_half_characters
from raft_core.rng import numpy_rng
from raft_core.types import Prompt


@dataclass(frozen=True)
class PromptFiles:
    """Where the prompts of a run come from.

    Args:
        train: file, ``bundled:NAME``, ``preset:NAME[:FOLDER]`` or ``hub:OWNER/NAME[:SPLIT]`` with the prompts that are
            trained on, or a list of them.
        held_out: the same for the prompts that are only evaluated on; without it a part of ``train`` is held out.
        column: column of a table that holds the prompt; by default that of a conversation (``messages`` and the like), else
            ``prompt``, ``text``, ``caption``, ``question`` (behind ``body``, ``context`` or ``passage``, if there is one), or
            the only one.
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
    if templates := {prompt.meta["template"] for prompt in train if _is_expanded(prompt)}:
        count = sum(map(_is_expanded, train))
        notes.append(f"{len(templates)} templates in {_named(files.train)} stand for {count} prompts")
    notes += described(train)
    if files.held_out is None:
        texts = [Prompt(text) for text in dict.fromkeys(prompt.text for prompt in once)]
        out = {prompt.text for prompt in split(texts, files.held_out_fraction, seed)[1]}
        held_out = [prompt for prompt in once if prompt.text in out]
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


def _is_expanded(prompt: Prompt) -> bool:
    return set(prompt.meta) == {"template"}  # as a line of text gives it; a table may have a column of this name


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
    """The first prompt of each text that is to be drawn in one way, in order, and how many were dropped."""
    prompts = list(prompts)
    first: dict[tuple[Any, ...], Prompt] = {}
    for prompt in prompts:
        first.setdefault(identity(prompt), prompt)
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

    The columns ``seed``, ``negative_prompt``, ``width`` and ``height`` say how the prompt is drawn.

    Args:
        source: path, ``bundled:NAME``, ``preset:NAME[:FOLDER]`` or ``hub:OWNER/NAME[:SPLIT]``.
        column: the prompt's column in a table; found by its name by default.
        base: folder to look relative paths up in when they are not found here.

    Raises:
        DataError: a source that is missing, not readable as what it claims to be, empty, or without the column.
        MissingDependency: a Hub dataset without the package ``datasets``.
    """
    if str(source).startswith("hub:"):
        prompts = _from_hub(str(source), column)
    elif str(source).startswith(PREFIX):
        prompts = _from_rows(preset_rows(str(source), base), column, str(source))
    else:
        path = locate(source, base)
        if path.suffix.lower() not in READERS:
            raise DataError(f"prompt file {path} has the ending {path.suffix!r}; readable are {', '.join(READERS)}")
        prompts = _from_rows(read_rows(path, column), column, str(path))
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
    path = home_path(source)
    for candidate in [path] if base is None else [path, base / path]:
        if is_file(candidate):
            return candidate
    if is_folder(path):
        raise DataError(f"prompt file {source} is a folder; name a file in it")
    if is_something(path):
        raise DataError(f"prompt file {source} is no regular file, but a pipe or a device: save the prompts in a file")
    folder = path.parent if is_folder(path.parent) or base is None else base / path.parent
    siblings = [p.name for p in folder.iterdir() if p.suffix in READERS] if is_folder(folder) else []
    raise DataError(f"prompt file {excerpt(source, 200)} does not exist{nearest(path.name, siblings)}")


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
    numbered: Any = enumerate(rows, start=1)  # of mappings
    return _from_rows((Row(f"row {number}", row) for number, row in numbered), column, source)


def _from_rows(rows: Iterable[Row], column: str | None, source: str) -> list[Prompt]:
    prompts = []
    for where, values in rows:
        values = {column or "prompt": values} if isinstance(values, str) else values
        place = f"{source}, {where}"
        try:
            conversation = prompt_of(values, column)
        except BadConversation as error:
            raise DataError(f"{place}: {error}") from None
        if conversation is not None:
            prompts.append(Prompt(conversation.text, _meta(conversation.meta, place)))
            continue
        if column is None and (asked := _of_preferences(values, place)) is not None:
            if asked.strip():
                prompts.append(Prompt(asked.strip()))
            continue
        text, rest = _text_of(values, column, source, place)
        if text.strip():
            prompts.append(Prompt(text.strip(), _meta(rest, place, text)))
    return prompts


def _text_of(values: Mapping[str, Any], column: str | None, source: str, place: str) -> tuple[str, Mapping[str, Any]]:
    """(the prompt of a row, what the row says besides); of a question beside the text that it is about, both are the prompt.

    Raises:
        DataError: it cannot be told which column it is, or it holds no text.
    """
    columns = [str(key) for key in values]
    name = find_column(columns, column)
    both = find_question(columns) if name is None and column is None else None
    names = [name or _only_column(values, column, source, place)] if both is None else list(both[:2])
    for each in names:
        if not is_text(values[each]):
            raise DataError(f"{place}: column {each!r} holds {excerpt(repr(values[each]), 60)}, which is not a text")
    text = values[names[0]] if both is None else both[2].join(values[each].strip() for each in names)
    rest = meta_of(values, names[0])
    return text, rest if both is None else {key: value for key, value in rest.items() if key != names[1]}


def _of_preferences(values: Mapping[str, Any], place: str) -> str | None:
    """The prompt of a row of preferences, whose answers are no facts about it; None of any other row."""
    try:
        return prompt_in(values)
    except BadRow as error:
        raise DataError(f"{place}: {error}") from None


def _meta(values: Mapping[str, Any], place: str, text: str = "") -> dict[str, Any]:
    """What a row says besides.

    Raises:
        DataError: how it is to be drawn is not to be understood, or something is no text.
    """
    try:
        meta = settled(values)
    except Unreadable as error:
        raise DataError(f"{place}: {error}") from None
    if holds_half_characters(text) or holds_half_characters(plain_json(meta)):
        raise DataError(f"{place}: holds half of a surrogate pair, which is no text: {excerpt(ascii([text, meta]), 60)}")
    return meta


def _only_column(values: Mapping[Any, Any], column: str | None, source: str, place: str) -> str:
    """The column of prompts where none has a usual name.

    Raises:
        DataError: it cannot be told which one it is.
    """
    if column is not None:
        raise DataError(f"{place}: has no column {column!r}{nearest(column, map(str, values))}")
    if len(values) == 1:
        return next(iter(values))
    raise DataError(
        f"{source} has the columns {excerpt(', '.join(map(str, values)), 200)}: say in prompts.column which one holds the "
        "prompts"
    )
