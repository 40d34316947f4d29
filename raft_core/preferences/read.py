"""Preferences from files: every mistake is named by its file and line before any work starts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.conversations import BadConversation, looks_like_messages, messages_of, transcript
from raft_core.errors import DataError
from raft_core.media.picture import ENDINGS
from raft_core.preferences.layouts import layout_of, read_row
from raft_core.preferences.preference import Item, Picture, Preference
from raft_core.preferences.rows import BadRow, Row, files_of, is_failed, listed, rows
from raft_core.reading.files import Unreadable, excerpt, home_path, is_file, is_folder
from raft_core.reading.json_data import parse_json
from raft_core.rng import seed_for
from raft_core.types import MESSAGES

GROUPS = ("group", "category", "subset", "source")


@dataclass(frozen=True)
class Reading:
    """What a file of preferences holds.

    Attributes:
        preferences: in the order of the file.
        modality: ``image`` or ``text``.
        unlabelled: rows that say nothing of a choice.
        invalid: rows that were left out because something is wrong with them, each in words.
    """

    preferences: list[Preference]
    modality: str
    unlabelled: int
    invalid: list[str]

    def described(self) -> str:
        """One line for a person."""
        ties = sum(preference.choice is None for preference in self.preferences)
        prompts = len({preference.prompt for preference in self.preferences})
        text = f"{len(self.preferences)} preferences of {prompts} prompts ({self.modality}), {ties} of them ties"
        text += f"; {self.unlabelled} rows without a label passed over" if self.unlabelled else ""
        return text + (f"; {len(self.invalid)} invalid rows left out" if self.invalid else "")


def read_preferences(source: str | Path, *, group: str | None = None, skip_invalid: bool = False) -> Reading:
    """All preferences of a file, or of the files in a folder.

    Args:
        source: ``.jsonl``, ``.jsonl.gz`` or ``.parquet``, or a folder of them. The layouts are those of ``layouts``; a
            candidate is a text, or a picture: a path (as it is, or from the file's folder), ``data:image/…;base64,…``,
            or bytes as Parquet holds them.
        group: the field that tells categories apart; by default ``group``, ``category``, ``subset`` or ``source``.
        skip_invalid: leave out what is wrong instead of stopping.

    Raises:
        DataError: a file that cannot be read, or rows that are wrong, each named by file and line.
    """
    found: list[Preference] = []
    mistakes: list[str] = []
    unlabelled = 0
    for file in files_of(source):
        for row in rows(file):
            try:
                if not isinstance(row, Row):
                    raise BadRow(row[1])
                preference = _preference(row, group)
            except BadRow as error:
                mistakes.append(f"{row[0]}: {error}")
                continue
            if preference is None:
                unlabelled += 1
            else:
                found.append(preference)
    found, wrong = _sound(found)
    mistakes += wrong
    if mistakes and not skip_invalid:
        raise DataError(listed(mistakes, f"{source} has {len(mistakes)} invalid rows (--skip_invalid leaves them out)"))
    if not found:
        none = f"{source} holds no preference" + (f": nobody has chosen in its {unlabelled} rows" if unlabelled else "")
        raise DataError(listed(mistakes, none) if mistakes else none)
    return Reading(found, _modality(found), unlabelled, mistakes)


def _preference(row: Row, group: str | None) -> Preference | None:
    said = read_row(row.values, layout_of(list(row.values)))
    if said.target is None:
        return None
    outputs = tuple(content(candidate, row.folder) for candidate in said.candidates)
    if len({type(output) for output in outputs}) > 1:
        raise BadRow("some candidates are pictures and some are texts")
    field = group or next((name for name in GROUPS if isinstance(row.values.get(name), str)), None)
    if group is not None and group not in row.values:
        raise BadRow(f"the field {group!r}, by which groups are told apart, is missing")
    name = "" if field is None or row.values[field] is None else str(row.values[field])
    contexts = tuple(said.contexts) if any(context is not None for context in said.contexts) else ()
    return Preference(said.prompt, outputs, tuple(said.target), said.margin, name, row.where, contexts)


def content(value: Any, folder: Path) -> str | Picture:
    """A candidate as it stands in a file, as a text or a picture.

    Raises:
        BadRow: it is neither.
    """
    if isinstance(value, Mapping):  # an Image of `datasets`
        value = value.get("bytes") or value.get("path") or b""
        if isinstance(value, str):
            return _file(value, folder)
    if isinstance(value, (bytes, bytearray)):
        return Picture(data=bytes(value))
    if not isinstance(value, str):
        raise BadRow(f"a candidate is {type(value).__name__}, but must be a text or a picture")
    if value.startswith("data:image/"):
        try:
            return Picture(data=base64.b64decode(value.partition(",")[2], validate=True))
        except binascii.Error as error:
            raise BadRow(f"a picture is not base64 ({error})") from None
    if value.lower().endswith(ENDINGS) and "\n" not in value:
        return _file(value, folder)
    return value


def _file(name: str, folder: Path) -> Picture:
    path = home_path(name)
    for candidate in (path, folder / path):
        if is_file(candidate):
            return Picture(path=candidate.resolve())
    raise BadRow(f"there is no picture {excerpt(name, 200)} (looked here and in {folder})")


def _sound(preferences: Sequence[Preference]) -> tuple[list[Preference], list[str]]:
    """(what can be used, what is wrong with the rest): pictures are opened, candidates compared."""
    with ThreadPoolExecutor() as pool:
        verdicts = list(pool.map(_wrong_with, preferences))
    good = [preference for preference, wrong in zip(preferences, verdicts, strict=True) if wrong is None]
    return good, [f"{p.where}: {wrong}" for p, wrong in zip(preferences, verdicts, strict=True) if wrong is not None]


def _wrong_with(preference: Preference) -> str | None:
    try:
        for candidate in preference.candidates:
            if isinstance(candidate, Picture):
                candidate.load()
    except DataError as error:
        return str(error)
    same = [(i.context, i.output.digest if isinstance(i.output, Picture) else i.output) for i in preference.items]
    for i, one in enumerate(same):
        if one in same[:i]:
            return f"candidates {same.index(one)} and {i} are equal (counted from 0): there is nothing to prefer"
    return None


def _modality(preferences: Sequence[Preference]) -> str:
    kinds = {isinstance(preference.candidates[0], Picture): preference for preference in reversed(preferences)}
    if len(kinds) > 1:
        raise DataError(f"{kinds[True].where} is about pictures and {kinds[False].where} about texts: separate the two")
    return "image" if True in kinds else "text"


def split(preferences: Sequence[Preference], fraction: float, seed: int) -> tuple[list[Preference], list[Preference]]:
    """(train, held out): all preferences of a prompt on one side, ``fraction`` of the prompts held out.

    A prompt's place depends on the seed and its text alone, so more data moves few prompts to the other side. At least one
    prompt is held out where there are two or more.
    """
    prompts = sorted({p.prompt for p in preferences}, key=lambda text: seed_for(seed, "preference split", text))
    count = min(max(round(fraction * len(prompts)), 1), len(prompts) - 1) if fraction > 0 else 0
    out = set(prompts[:count])
    return [p for p in preferences if p.prompt not in out], [p for p in preferences if p.prompt in out]


def read_items(source: str | Path) -> list[Item]:
    """Samples to score, as ``raft generate`` writes them: ``prompt`` with ``text``, or with ``image`` or ``file``; without
    those that failed.

    Args:
        source: ``samples.parquet``, ``samples.jsonl``, or a folder with such a file.

    Raises:
        DataError: a file that cannot be read, or rows that are wrong, each named by file and line.
    """
    path = home_path(source)
    if is_folder(path):
        path = next((path / name for name in ("samples.parquet", "samples.jsonl") if (path / name).is_file()), path)
    found: list[Item] = []
    mistakes: list[str] = []
    for file in files_of(path):
        for row in rows(file):
            try:
                if not isinstance(row, Row):
                    raise BadRow(row[1])
                if not is_failed(row.values):
                    found.append(_item(row))
            except BadRow as error:
                mistakes.append(f"{row[0]}: {error}")
    if mistakes:
        raise DataError(listed(mistakes, f"{path} has {len(mistakes)} invalid rows"))
    if not found:
        raise DataError(f"{path} holds no sample")
    return found


def _item(row: Row) -> Item:
    field = next((name for name in ("image", "file", "text", "output") if row.values.get(name) is not None), None)
    prompt = row.values.get("prompt")
    whole = prompt if looks_like_messages(prompt) else row.values.get(MESSAGES, _stored(row.values.get("prompt_meta")))
    if field is None or not (isinstance(prompt, str) or looks_like_messages(whole)):
        raise BadRow("a sample needs prompt, and text, image or file")
    output = content(row.values[field], row.folder)
    try:
        context = messages_of(whole, "prompt") if looks_like_messages(whole) else None
        asked = prompt if isinstance(prompt, str) else transcript(context or [])
        return Item(asked, Picture(data=output.encoded()) if isinstance(output, Picture) else output, context)
    except (DataError, BadConversation) as error:
        raise BadRow(str(error)) from None


def _stored(meta: Any) -> Any:
    """The conversation in what ``samples.parquet`` says of a prompt."""
    try:
        found = parse_json(meta, repeated_keys=True) if isinstance(meta, str) else None
    except Unreadable:
        return None
    return found.get(MESSAGES) if isinstance(found, dict) else None
