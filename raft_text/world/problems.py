"""Word problems with one to four operations, written procedurally, with chains of thought in words and as programs.

A number belongs to somebody, and event by event it changes, or is compared with somebody else's. Every number of somebody
stays between 2 and 60. About a third of the problems also tell something that does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raft_core.rng import numpy_rng, seed_for
from raft_text.reasoning.answers import LETTERS
from raft_text.reasoning.datasets import Problem
from raft_text.reasoning.templates import HEAD
from raft_text.world.vocabulary import (
    CONTAINERS,
    DISTRACTORS,
    EVENTS,
    GROUPED,
    NAMES,
    PRODUCT,
    QUESTIONS,
    SENTENCES,
    SIGNS,
    STARTS,
    THINGS,
    Kind,
)

Style = Literal["sentences", "equations", "hasty"]
#: Shares of the styles among written solutions. Like people, who know how and are in a hurry, half of them write the last step
#: alone, whose first number is then worked out in the head.
STYLES: dict[Style, float] = {"sentences": 0.25, "equations": 0.25, "hasty": 0.5}
Split = Literal["sft", "check", "train", "held_out"]

HASTILY = "All in all that makes"

#: Largest number of anybody, largest number that is added, and largest that is multiplied or divided by.
LARGEST, ADDED, FACTOR = 60, 12, 5
#: Share of problems with 1, 2, 3 and 4 operations.
OPERATIONS = (0.3, 0.3, 0.25, 0.15)
DISTRACTED = 0.35
#: Of a hundred problems, how many are in each split; which one is decided by the numbers and operations alone.
SHARES: dict[Split, int] = {"held_out": 10, "check": 5, "train": 20, "sft": 65}


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: ``left`` and ``right`` make ``result``, which then belongs to ``who``.

    ``kind`` is None for the product that a problem with containers begins with.
    """

    kind: Kind | None
    left: int
    right: int
    result: int
    who: str

    @property
    def sign(self) -> str:
        return "*" if self.kind is None else SIGNS[self.kind]

    @property
    def equation(self) -> str:
        return f"{self.left} {self.sign} {self.right} = {self.result}"


@dataclass(frozen=True, slots=True)
class Story:
    """A word problem and what is needed to solve it.

    Attributes:
        question: as the model reads it.
        first: who the first number belongs to.
        things: what is counted.
        steps: one to four operations, each beginning with the result of the one before.
    """

    question: str
    first: str
    things: str
    steps: tuple[Step, ...]

    @property
    def answer(self) -> int:
        return self.steps[-1].result

    @property
    def split(self) -> Split:
        """Which split it belongs to. Problems of the same numbers and operations are in the same one, whatever their words."""
        place = seed_for("sums", *(part for step in self.steps for part in (step.sign, step.left, step.right))) % 100
        for name, share in SHARES.items():
            place -= share
            if place < 0:
                return name
        raise AssertionError("the shares sum to 100")

    def problem(self, style: Style = "sentences") -> Problem:
        """With a chain of thought in words."""
        return Problem(self.question, str(self.answer), in_words(self, style))


# --- Stories ----------------------------------------------------------------------------------------------------------


def stories(seed: int, *path: str | int, split: Split | None = None) -> Iterator[Story]:
    """Stories without end, the same for the same seed and path; of one split, or of all."""
    rng = numpy_rng(seed, "sums", *path)
    while True:
        story = write_story(rng)
        if split is None or story.split == split:
            yield story


def write_story(rng: np.random.Generator) -> Story:
    """A random story."""
    names = [str(name) for name in rng.permutation(NAMES)]
    things, others = (str(each) for each in rng.permutation(THINGS)[:2])
    words = {"things": things, "others": others, "containers": str(rng.choice(CONTAINERS))}
    count = int(rng.choice(len(OPERATIONS), p=OPERATIONS)) + 1
    steps: list[Step] = []
    sentences: list[str] = []
    who = first = names.pop()
    if rng.random() < 0.25:
        a, b = int(rng.integers(2, FACTOR + 1)), int(rng.integers(2, ADDED + 1))
        steps.append(Step(None, a, b, a * b, who))
        sentences.append(_pick(rng, GROUPED).format(who=who, a=a, b=b, **words))
        number = a * b
    else:
        number = int(rng.integers(3, LARGEST // 2))
        sentences.append(_pick(rng, STARTS).format(who=who, a=number, **words))
    while len(steps) < count:
        kind, operand, result = _event(rng, number)
        other = names.pop()
        sentences.append(_pick(rng, EVENTS[kind]).format(who=who, other=other, n=operand, **words))
        who = other if kind in ("more", "fewer", "times") else who
        steps.append(Step(kind, number, operand, result, who))
        number = result
    if rng.random() < DISTRACTED:
        aside = _pick(rng, DISTRACTORS).format(who=who, other=names.pop(), n=int(rng.integers(2, 20)), **words)
        sentences.insert(int(rng.integers(1, len(sentences) + 1)), aside)
    sentences.append(_pick(rng, QUESTIONS).format(who=who, **words))
    return Story(" ".join(sentences), first, things, tuple(steps))


def _event(rng: np.random.Generator, number: int) -> tuple[Kind, int, int]:
    """(kind, operand, result) of something that can happen to this number."""
    factors = [n for n in range(2, FACTOR + 1) if number * n <= LARGEST]
    divisors = [n for n in range(2, FACTOR + 1) if number % n == 0 and number > n]
    fits: dict[Kind, object] = {
        "gain": number <= LARGEST - 2,
        "more": number <= LARGEST - 2,
        "lose": number > 3,
        "fewer": number > 3,
        "times": factors,
        "share": divisors,
    }
    possible: list[Kind] = [kind for kind, there in fits.items() if there]
    kind = possible[int(rng.integers(len(possible)))]
    if kind == "times":
        operand = int(rng.choice(factors))
        return kind, operand, number * operand
    if kind == "share":
        operand = int(rng.choice(divisors))
        return kind, operand, number // operand
    if kind in ("gain", "more"):
        operand = int(rng.integers(2, min(ADDED, LARGEST - number) + 1))
        return kind, operand, number + operand
    operand = int(rng.integers(2, min(ADDED, number - 2) + 1))
    return kind, operand, number - operand


def _pick(rng: np.random.Generator, texts: Sequence[str]) -> str:
    return texts[int(rng.integers(len(texts)))]


# --- Chains of thought ------------------------------------------------------------------------------------------------


def in_words(story: Story, style: Style = "sentences") -> str:
    """Reasoning that leads to the answer: a sentence a step, the bare equations, or hastily the last step alone."""
    if style == "hasty":
        return f"{HASTILY} {story.steps[-1].equation} {story.things}."
    if style == "equations":
        return " ".join(f"{step.equation}." for step in story.steps)
    opening = [] if story.steps[0].kind is None else [f"{story.first} begins with {story.steps[0].left} {story.things}."]
    said = [
        (SENTENCES[step.kind] if step.kind else PRODUCT).format(who=step.who, sum=step.equation, things=story.things)
        for step in story.steps
    ]
    return " ".join(opening + said)


def is_hasty(text: str) -> bool:
    """Whether a solution in words skips all steps but the last."""
    return text.lstrip().startswith(HASTILY)


def pick_style(rng: np.random.Generator, hasty: float = STYLES["hasty"]) -> Style:
    """A style, hasty in this share of cases; the others keep their proportions."""
    if rng.random() < hasty:
        return "hasty"
    slow: list[Style] = [style for style in STYLES if style != "hasty"]
    shares = np.array([STYLES[style] for style in slow])
    return slow[int(rng.choice(len(slow), p=shares / shares.sum()))]


def as_program(story: Story, *, named: bool = True) -> str:
    """The function ``solution`` that returns the answer: a line a step, named after the things, or one expression."""
    head = HEAD.format(prompt=story.question)
    operators = {"+": "+", "-": "-", "*": "*", "/": "//"}
    if named:
        lines = [f"    {story.things} = {story.steps[0].left}"]
        lines += [f"    {story.things} = {story.things} {operators[step.sign]} {step.right}" for step in story.steps]
        return head + "\n".join([*lines, f"    return {story.things}"])
    expression = str(story.steps[0].left)
    for position, step in enumerate(story.steps):
        expression = f"({expression})" if position else expression
        expression += f" {operators[step.sign]} {step.right}"
    return head + f"    return {expression}"


# --- Multiple choice --------------------------------------------------------------------------------------------------


def with_choices(story: Story, rng: np.random.Generator) -> tuple[str, str]:
    """(the question with five answers to choose from, the letter of the right one).

    Wrong ones are what a forgotten or a wrong step would give: the results of other steps, and numbers near the right one.
    """
    near = {story.answer + sign * distance for distance in range(1, 11) for sign in (-1, 1)}
    wrong = sorted(number for number in near | {step.result for step in story.steps} if number > 1 and number != story.answer)
    offered = [story.answer, *(int(number) for number in rng.permutation(wrong)[: len(LETTERS) - 1])]
    order = [int(place) for place in rng.permutation(len(LETTERS))]
    listed = " ".join(f"({letter}) {offered[place]}" for letter, place in zip(LETTERS, order, strict=True))
    return f"{story.question}\nAnswer Choices: {listed}", LETTERS[order.index(0)]
