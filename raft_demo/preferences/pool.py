"""The samples of a run that a person can choose between, read from its store; pictures are read when they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from raft_core.errors import StoreError
from raft_core.preferences.preference import Context
from raft_core.reading.files import Unreadable
from raft_core.reading.shapes import taken_apart
from raft_core.soundness import failed_of
from raft_core.store.rounds import SAMPLES, round_folder, rounds_in
from raft_core.store.tables import SCORE, object_of, read_columns
from raft_core.store.tensors import UnusableError
from raft_core.types import Prompt
from raft_demo.preferences.pairs import Scored, standardised
from raft_demo.shared.runs import Modality

WANTED = ("prompt", "prompt_meta", "text", "meta")
PICTURES_KEPT = 128  # half a megabyte each at 512 pixels


@dataclass(frozen=True, eq=False)
class Pool:
    """All stored samples of a run.

    Attributes:
        folder: of the run.
        modality: what they are.
        keys: [N] (round, row of its file) of each.
        texts: [N] the completions, or empty for pictures.
        scored: prompts and scores.
        contexts: [N] the conversation that each sample's prompt is, None where it is a text.
        stamps: (round, time of its file) of every round.
    """

    folder: Path
    modality: Modality
    keys: Sequence[tuple[int, int]]
    texts: Sequence[str]
    scored: Scored
    stamps: tuple[tuple[int, int], ...]
    contexts: Sequence[Context]

    @property
    def prompts(self) -> Sequence[str]:
        return self.scored.prompts

    @cached_property
    def places(self) -> Mapping[tuple[int, int], int]:
        """Key → place."""
        return {key: i for i, key in enumerate(self.keys)}

    def output(self, i: int) -> str | bytes:
        """A completion, or a picture as PNG.

        Raises:
            StoreError: its round cannot be read, or was stored without pictures.
        """
        if self.modality == "text":
            return self.texts[i]
        rnd, row = self.keys[i]
        return _picture(self.folder, rnd, row, dict(self.stamps)[rnd])


def pool_of(folder: Path) -> Pool:
    """The samples of a run, read again when a round has been added.

    Raises:
        StoreError: there are none, they were stored without their outputs, or a round is damaged.
    """
    rounds = rounds_in(folder)
    if not rounds:
        raise StoreError(f"{folder.name} has no samples yet: wait for its first round")
    return _pool(folder, tuple((rnd, (round_folder(folder, rnd) / SAMPLES).stat().st_mtime_ns) for rnd in rounds))


@lru_cache(maxsize=8)
def _pool(folder: Path, stamps: tuple[tuple[int, int], ...]) -> Pool:
    read = [(rnd, *_read(folder, rnd, lambda name: name in WANTED or name.startswith(SCORE))) for rnd, _ in stamps]
    try:
        with taken_apart(f"a round of {folder.name}"):
            return _pooled(folder, stamps, read)
    except Unreadable as error:
        raise StoreError(str(error)) from None


def _pooled(folder: Path, stamps: tuple[tuple[int, int], ...], read: list[tuple[int, dict[str, list], dict[str, Any]]]) -> Pool:
    keys = [(rnd, row) for rnd, columns, _ in read for row in range(len(columns["prompt"]))]
    facts = read[-1][2]
    # What every round has: a score that was added to one alone would set its samples apart from the others.
    names = [name for name in read[-1][1] if all(name in columns for _, columns, _ in read)]
    flat = {name: [value for _, columns, _ in read for value in columns[name]] for name in names}
    place = [i for i, meta in enumerate(flat["meta"]) if not failed_of(meta)]
    if "text" in flat:
        first: dict[tuple[str, str | None], int] = {}
        for i, pair in enumerate(zip(flat["prompt"], flat["text"], strict=True)):
            first.setdefault(pair, i)
        place = sorted(i for (_, text), i in first.items() if text is not None)
        if not place:
            raise StoreError(f"{folder.name} was stored without its samples (keep.images was off): nothing to choose from")
    scores = {name.removeprefix(SCORE): np.array(flat[name], dtype=np.float64) for name in names if name.startswith(SCORE)}
    units = {name: standardised(values, name in facts["descending"])[place] for name, values in scores.items()}
    return Pool(
        folder=folder,
        modality="text" if "text" in flat else "image",
        keys=[keys[i] for i in place],
        texts=[flat["text"][i] for i in place] if "text" in flat else [],
        scored=Scored([flat["prompt"][i] for i in place], units, facts["reward"]),
        stamps=stamps,
        contexts=[Prompt(flat["prompt"][i], object_of(flat["prompt_meta"][i])).messages for i in place],
    )


@lru_cache(maxsize=PICTURES_KEPT)
def _picture(folder: Path, rnd: int, row: int, stamp: int) -> bytes:  # noqa: ARG001 - part of the key
    """PNG; ``stamp`` tells the files of a round that was made again apart."""
    columns, _ = _read(folder, rnd, lambda name: name == "image", [row])
    cell = columns["image"][0] if columns.get("image") else None
    if not cell:
        raise StoreError(f"{folder.name} was stored without its samples (keep.images was off): nothing to choose from")
    return cell["bytes"]


def _read(folder: Path, rnd: int, wanted: Callable[[str], bool], rows: list[int] | None = None) -> tuple[dict, dict]:
    try:
        return read_columns(round_folder(folder, rnd) / SAMPLES, wanted, rows)
    except UnusableError as error:
        raise StoreError(f"round {rnd} of {folder.name} cannot be read: {error}") from None
