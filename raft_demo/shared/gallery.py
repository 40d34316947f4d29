"""The stored samples of a round: filtered by prompt and by kept or dropped, ordered by any score. Loads no model; of the
pictures only those are read that are shown."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from raft_core.errors import ConfigError, StoreError, nearest
from raft_core.media.picture import from_png
from raft_core.reading.files import Unreadable
from raft_core.reading.shapes import require_shape, taken_apart
from raft_core.report.pictures import View, view
from raft_core.soundness import failed_of
from raft_core.store.rounds import SAMPLES, round_folder, rounds_in
from raft_core.store.tables import SCORE, read_columns
from raft_core.store.tensors import UnusableError

ALL, KEPT, DROPPED = "all", "kept", "dropped"
BEST, WORST, DRAWN = "best first", "worst first", "as drawn"
OUTPUTS = ("image", "text")


@dataclass(frozen=True, eq=False)
class Facts:
    """Everything of a stored round but its outputs.

    Attributes:
        prompts: [N].
        scores: name → [N], NaN = not scored.
        lower_is_better: names of scores.
        reward: the score that selected.
        kept: [N] bool.
        seeds: [N].
        failed: [N] why a sample failed, "" for a sound one.
    """

    prompts: Sequence[str]
    scores: Mapping[str, np.ndarray]
    lower_is_better: frozenset[str]
    reward: str
    kept: np.ndarray
    seeds: Sequence[int]
    failed: Sequence[str]


@dataclass(frozen=True)
class Card:
    """A sample as it is shown: a picture by its ``data:`` address, or a text, or why there is none."""

    prompt: str
    alt: str
    scores: Mapping[str, float]
    kept: bool
    uri: str = ""
    width: int = 0
    height: int = 0
    text: str = ""
    failed: str = ""


def facts(folder: Path, rnd: int) -> Facts:
    """A stored round, read again when its file has changed.

    Raises:
        StoreError: it is not there, or is damaged.
    """
    return _facts(folder, rnd, _stamp(folder, rnd))


def chosen(found: Facts, prompt: str = "", which: str = ALL, by: str = "", order: str = BEST) -> list[int]:
    """Rows of a round that pass the filters, in their order; samples that were not scored come last.

    Args:
        prompt: only of this prompt; "" = of all.
        which: ``ALL``, ``KEPT`` or ``DROPPED``.
        by: a score; "" = the reward.
        order: ``BEST``, ``WORST`` or ``DRAWN``.

    Raises:
        ConfigError: an unknown score, filter or order.
    """
    by = by or found.reward
    if by not in found.scores:
        raise ConfigError(f"this round has no score {str(by)[:60]!r}{nearest(str(by)[:60], found.scores)}")
    if which not in (ALL, KEPT, DROPPED) or order not in (BEST, WORST, DRAWN):
        raise ConfigError(f"samples are shown {ALL}, {KEPT} or {DROPPED}, {BEST}, {WORST} or {DRAWN}; choose of the lists")
    rows = [i for i, text in enumerate(found.prompts) if not prompt or text == prompt]
    if which != ALL:
        rows = [i for i in rows if found.kept[i] == (which == KEPT)]
    if order == DRAWN:
        return rows
    sign = 1.0 if (by in found.lower_is_better) == (order == BEST) else -1.0
    values = found.scores[by]
    return sorted(rows, key=lambda i: math.inf if math.isnan(values[i]) else sign * values[i])


def cards(folder: Path, rnd: int, rows: Sequence[int]) -> list[Card]:
    """These rows as they are shown.

    Raises:
        StoreError: the round is not there, or is damaged.
    """
    stamp, found = _stamp(folder, rnd), facts(folder, rnd)
    views = _shown(folder, rnd, rows, stamp)
    made = []
    for i in rows:
        shown = views[i]
        scores = {name: float(values[i]) for name, values in found.scores.items()}
        alt = f"sample of round {rnd}: {found.prompts[i]}, seed {found.seeds[i]}"
        output = (shown.uri, shown.width, shown.height, shown.text, found.failed[i])
        made.append(Card(found.prompts[i], alt, scores, bool(found.kept[i]), *output))
    return made


def newest_ranked(folder: Path, n: int) -> tuple[int, list[Card]]:
    """(round, cards) of what the newest stored round drew of its first prompt, the best first; round 0 when there is none yet.

    Raises:
        StoreError: it is damaged.
    """
    rounds = rounds_in(folder)
    if not rounds:
        return 0, []
    found = facts(folder, rounds[-1])
    rows = chosen(found, prompt=found.prompts[0]) if len(found.prompts) else []
    return rounds[-1], cards(folder, rounds[-1], rows[:n])


def _stamp(folder: Path, rnd: int) -> int:
    try:
        return (round_folder(folder, rnd) / SAMPLES).stat().st_mtime_ns
    except OSError:
        raise StoreError(f"{folder.name} has no samples of round {rnd}") from None


@lru_cache(maxsize=64)
def _facts(folder: Path, rnd: int, stamp: int) -> Facts:  # noqa: ARG001 - part of the key
    columns, told = _read(folder, rnd, lambda name: name in ("prompt", "kept", "seed", "meta") or name.startswith(SCORE))
    try:
        with taken_apart(f"round {rnd} of {folder.name}"):
            return _facts_of(columns, told)
    except Unreadable as error:
        raise StoreError(str(error)) from None


def _facts_of(columns: Mapping[str, list], told: Mapping[str, Any]) -> Facts:
    return Facts(
        prompts=columns["prompt"],
        scores={n.removeprefix(SCORE): np.array(v, dtype=np.float64) for n, v in columns.items() if n.startswith(SCORE)},
        lower_is_better=frozenset(told["descending"]),
        reward=told["reward"],
        kept=np.array(columns["kept"], dtype=bool),
        seeds=columns["seed"],
        failed=[failed_of(meta) for meta in columns["meta"]],
    )


_views: dict[tuple[Path, int, int, int], View] = {}
_guard = threading.Lock()
VIEWS_KEPT = 1024  # some 30 kB each


def _shown(folder: Path, rnd: int, rows: Sequence[int], stamp: int) -> dict[int, View]:
    """The outputs of these rows as they are shown; those that were not shown lately are read, all at once."""
    with _guard:
        found = {row: _views[key] for row in rows if (key := (folder, rnd, row, stamp)) in _views}
    missing = sorted(set(rows) - set(found))
    if not missing:
        return found
    columns, _ = _read(folder, rnd, lambda name: name in OUTPUTS, missing)
    nothing = [None] * len(missing)
    pictures, texts = columns.get("image", nothing), columns.get("text", nothing)
    for row, picture, text in zip(missing, pictures, texts, strict=True):
        found[row] = _view(folder, rnd, picture, text)
    with _guard:
        _views.update({(folder, rnd, row, stamp): found[row] for row in missing})
        for key in list(_views)[: max(0, len(_views) - VIEWS_KEPT)]:
            del _views[key]
    return found


def _view(folder: Path, rnd: int, picture: Any, text: Any) -> View:
    try:
        with taken_apart(f"round {rnd} of {folder.name}"):
            return view(from_png(picture["bytes"]), "") if picture else View("", text=require_shape(text or "", str, "text"))
    except Unreadable as error:
        raise StoreError(str(error)) from None


def _read(folder: Path, rnd: int, wanted, rows: Sequence[int] | None = None) -> tuple[dict, dict]:
    try:
        return read_columns(round_folder(folder, rnd) / SAMPLES, wanted, rows)
    except UnusableError as error:
        raise StoreError(f"round {rnd} of {folder.name} cannot be read: {error}") from None
