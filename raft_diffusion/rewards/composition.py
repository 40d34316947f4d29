"""Whether what was found in a picture is what a prompt asks for: which things, how many, their colours and places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

#: By which share of the two sizes together centres have to differ before one thing is beside the other.
APART = 0.1
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")


class Thing(NamedTuple):
    """What a detector has found.

    Attributes:
        box: left, top, right, bottom in pixels.
        score: the detector's confidence, 0–1.
    """

    box: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class Clause:
    """One thing that is asked for.

    Attributes:
        kind: its name.
        count: at least so many.
        colour: of so many; None = any.
        place: (relation, number of an earlier clause): each is there to each of those; None = anywhere.
    """

    kind: str
    count: int = 1
    colour: str | None = None
    place: tuple[str, int] | None = None


@dataclass(frozen=True)
class Composition:
    """What a prompt asks for.

    Attributes:
        include: things, all of them.
        exclude: kind → so many of it are too many.
        counts: whether the number is what the prompt is about, so that doubtful things are not to be counted.
    """

    include: Sequence[Clause]
    exclude: Mapping[str, int] = field(default_factory=dict)
    counts: bool = False


def composition_of(meta: Mapping[str, Any]) -> tuple[Composition | None, list[str]]:
    """(what a prompt's row asks for, mistakes in it); None where it has no ``include``, or a mistake.

    The columns are those of GenEval's ``evaluation_metadata.jsonl``: ``include`` with class, count, color and position,
    ``exclude`` with class and count, ``tag``.
    """
    given = meta.get("include")
    if not given:
        return None, []
    if not _are_objects(given) or not _are_objects(meta.get("exclude") or []):
        return None, ["include and exclude must be lists of objects with a class each"]
    mistakes, clauses = [], []
    for number, each in enumerate(given):
        kind, count, colour, place = (each.get(key) for key in ("class", "count", "color", "position"))
        mistakes += [] if isinstance(kind, str) and kind else [f"include {number}: class is {kind!r}, but must be a name"]
        mistakes += [] if _is_count(count) else [f"include {number}: count is {count!r}, but must be a number from 1"]
        if colour is not None and colour not in COLOURS:
            mistakes.append(f"include {number}: color is {colour!r}, but must be one of {', '.join(COLOURS)}")
        if place is not None and not _is_place(place, number):
            mistakes.append(
                f"include {number}: position is {place!r}, but must be [relation, number of an earlier one], of {RELATIONS}"
            )
        if not mistakes:
            clauses.append(Clause(str(kind), int(count), colour, None if place is None else (place[0], int(place[1]))))
    exclude: dict[str, int] = {}
    for each in meta.get("exclude") or []:
        if isinstance(each.get("class"), str) and _is_count(each.get("count")):
            exclude[each["class"]] = int(each["count"])
        else:
            mistakes.append(f"exclude has {each!r}, but must have a class and a count from 1")
    return (None, mistakes) if mistakes else (Composition(clauses, exclude, meta.get("tag") == "counting"), [])


def met(
    asked: Composition,
    found: Mapping[str, Sequence[Thing]],
    colours: Callable[[str, Sequence[Thing]], Sequence[str]],
) -> list[bool]:
    """Whether each clause of ``include``, and then each of ``exclude``, holds.

    Args:
        asked: what is asked for.
        found: kind → things, the surest first.
        colours: (kind, things) → the colour of each.

    Source: GenEval (2310.11513), its evaluate_images.py: colours and places are asked of the surest things alone.
    """
    matched: list[Sequence[Thing] | None] = []
    for clause in asked.include:
        things = list(found.get(clause.kind, ()))[: clause.count]
        holds = len(things) >= clause.count
        if holds and clause.colour is not None:
            holds = list(colours(clause.kind, things)).count(clause.colour) >= clause.count
        if holds and clause.place is not None:
            relation, number = clause.place
            others = matched[number]
            holds = others is not None and all(relation in relations(a.box, b.box) for a in things for b in others)
        matched.append(things if holds else None)
    few = [len(found.get(kind, ())) < count for kind, count in asked.exclude.items()]
    return [*(things is not None for things in matched), *few]


def relations(box: Sequence[float], other: Sequence[float]) -> set[str]:
    """Where a box is to another: none, one or, on a diagonal, two of ``RELATIONS``.

    Boxes (0, 0, 10, 10) and (30, 0, 40, 10): centres 30 apart, less 0.1 · 20 is 28 of 30, so left of.

    Source: GenEval's evaluate_images.py.
    """
    boxes = np.array([box, other], dtype=np.float64).reshape(2, 2, 2)  # [box, corner, x and y]
    centres, sizes = boxes.mean(axis=1), np.abs(boxes[:, 1] - boxes[:, 0])
    offset = centres[0] - centres[1]
    beyond = np.maximum(np.abs(offset) - APART * sizes.sum(axis=0), 0) * np.sign(offset)
    if np.all(np.abs(beyond) < 1e-3):
        return set()
    dx, dy = beyond / np.linalg.norm(offset)
    sides = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, is_there in sides.items() if is_there}


def _are_objects(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(each, Mapping) for each in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 1 and float(value).is_integer()


def _is_place(value: Any, number: int) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 2 or value[0] not in RELATIONS:
        return False
    return isinstance(value[1], int) and not isinstance(value[1], bool) and 0 <= value[1] < number
