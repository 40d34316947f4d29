"""From what a model wrote to its final answer, whether it reasons in words or as a program."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from raft_core.types import Sample
from raft_text.reasoning.answers import TOLERANCE, choice, same_number
from raft_text.reasoning.numbers import number
from raft_text.reasoning.numerals import literal
from raft_text.reasoning.sandbox import Outcome, Sandbox
from raft_text.reasoning.stated import final
from raft_text.reasoning.symbolic import formula
from raft_text.reasoning.templates import program_of
from raft_text.rewards.texts import completions, is_truncated

Form = Literal["number", "choice", "symbolic"]
Reasoning = Literal["words", "program"]
# A number, a letter or a formula, None = states no answer, NaN = could not be read because the sandbox broke down.
Answer = float | str | None

# From a stated answer to the answer.
READ: dict[Form, Callable[[str], Answer]] = {"number": number, "choice": choice, "symbolic": formula}


@dataclass(frozen=True)
class Reader:
    """Reads final answers.

    Args:
        form: ``number``, ``choice`` = one of the letters A to E, or ``symbolic`` = a formula.
        reasoning: ``words`` that end in the answer, or a ``program`` whose ``solution()`` returns it (no formula).
        sandbox: what programs run in; needed for programs alone.
    """

    form: Form = "number"
    reasoning: Reasoning = "words"
    sandbox: Sandbox | None = None

    def __call__(self, texts: Sequence[str]) -> list[Answer]:
        """The answer of each text: a number, an upper-case letter, a formula; None where there is none, NaN = not known."""
        if self.reasoning == "words":
            return [None if (stated := final(text)) is None else READ[self.form](stated) for text in texts]
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
        return READ[self.form](str(value) if not isinstance(value, str) else final(value) or value)


def concluded(samples: Sequence[Sample]) -> list[str]:
    """Completions as answers are read from: one that was cut off at its longest has not come to its final answer, and is "".

    The stop text ``</answer>``, which a policy takes off the end, is put back.

    Raises:
        RewardError: an output that is no string.
    """
    return [_concluded(sample, text) for sample, text in zip(samples, completions(samples), strict=True)]


def _concluded(sample: Sample, text: str) -> str:
    if is_truncated(sample):
        return ""
    _, opened, content = text.lower().rpartition("<answer>")
    return text + "</answer>" if sample.meta.get("finish") == "stop" and opened and "</answer>" not in content else text


def is_right(answer: Answer, reference: Answer, tolerance: float = TOLERANCE) -> bool:
    """Whether two answers are the same: letters by equality, numbers within the tolerance; no answer is never right."""
    if isinstance(answer, str) or isinstance(reference, str):
        return answer == reference
    if answer is None or reference is None or math.isnan(answer) or math.isnan(reference):
        return False
    return same_number(answer, reference, tolerance)
