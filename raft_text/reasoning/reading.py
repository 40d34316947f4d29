"""From what a model wrote to its final answer, whether it reasons in words or as a program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raft_text.reasoning.answers import TOLERANCE, choice, extract_choice, extract_number, final, literal, number, same_number
from raft_text.reasoning.sandbox import Outcome, Sandbox
from raft_text.reasoning.templates import program_of

Form = Literal["number", "choice"]
Reasoning = Literal["words", "program"]
# A number, a letter, None = states no answer, NaN = could not be read because the sandbox broke down.
Answer = float | str | None


@dataclass(frozen=True)
class Reader:
    """Reads final answers.

    Args:
        form: ``number``, or ``choice`` = one of the letters A to E.
        reasoning: ``words`` that end in the answer, or a ``program`` whose ``solution()`` returns it.
        sandbox: what programs run in; needed for programs alone.
    """

    form: Form = "number"
    reasoning: Reasoning = "words"
    sandbox: Sandbox | None = None

    def __call__(self, texts: Sequence[str]) -> list[Answer]:
        """The answer of each text: a number, an upper-case letter, None where there is none, NaN where it is not known."""
        if self.reasoning == "words":
            return [extract_number(text) if self.form == "number" else extract_choice(text) for text in texts]
        assert self.sandbox is not None
        return [self._returned(outcome) for outcome in self.sandbox.run([program_of(text) for text in texts])]

    def _returned(self, outcome: Outcome) -> Answer:
        if outcome.status == "failed":
            return math.nan
        if outcome.status != "answer":
            return None
        return literal(outcome.text) if self.form == "number" else choice(outcome.text)

    def reference(self, value: object) -> Answer:
        """The answer that a data file states, as a number or as a text (``72``, ``1,234``, ``b``, ``… #### 72``); else None."""
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return None
        text = str(value) if not isinstance(value, str) else final(value) or value
        return number(text) if self.form == "number" else choice(text)


def is_right(answer: Answer, reference: Answer, tolerance: float = TOLERANCE) -> bool:
    """Whether two answers are the same: letters by equality, numbers within the tolerance; no answer is never right."""
    if isinstance(answer, str) or isinstance(reference, str):
        return answer == reference
    if answer is None or reference is None or math.isnan(answer) or math.isnan(reference):
        return False
    return same_number(answer, reference, tolerance)
