"""ReFT's reward: is the final answer right?"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np

from raft_core.errors import ConfigError, MachineLack, RewardError, nearest
from raft_core.protocols import RewardInfo
from raft_core.types import Prompt, Sample
from raft_text.reasoning.answers import PARTIAL, TOLERANCE
from raft_text.reasoning.reading import Answer, Form, Reader, Reasoning, concluded, is_right
from raft_text.reasoning.sandbox import Sandbox
from raft_text.reasoning.symbolic import Algebra, Verdict


class AnswerReward:
    """1 for the right final answer, ``partial`` for another one of the right kind, 0 where none can be read.

    A text without a readable answer, and a program that fails, runs too long or returns something else, is wrong and not
    unscored: that is the model's doing. Unscored (NaN) is what is not: a prompt without a readable reference answer, and a
    program that the sandbox could not run because the sandbox itself broke down. A completion that was cut off at its longest
    (``finish`` is ``length``) has not come to a final answer.

    The same with ``partial`` 0, as a judge, is the accuracy. Mind that with ``choice`` a wrong chain that ends in the right
    letter is paid in full.

    Args:
        form: ``number``; ``choice`` = one of the letters A to E; or ``symbolic`` = a formula (tuple, set, interval, expression,
            equation), compared by Math-Verify: ``pip install 'raft-align[symbolic]'``.
        reasoning: ``words`` (N-CoT), with the answer after "Therefore, the answer is:" or ``####``, in ``\\boxed{}`` or in
            ``<answer>`` tags; or ``program`` (P-CoT), whose ``solution()`` returns the answer. Programs run in a sandbox.
        column: field of the prompt file with the reference answer.
        partial: for an answer that can be read and is wrong, in [0, 1).
        tolerance: how far a right number may be off, absolutely. Decimals in formulas are compared to five digits.
        sandbox: limits, imports and workers for programs; limits and workers for comparing formulas.
        name: column in the store and label in the report.

    Source: ReFT (2401.08967), section 3.2; 0.1 and 0.01 are the paper's and its code's. Differs: there a letter is any text
    after the trigger, here one of A to E; there a number is the whole rest of the text, here units and LaTeX may be around it;
    there are no formulas there.
    """

    def __init__(
        self,
        form: Form = "number",
        reasoning: Reasoning = "words",
        column: str = "answer_value",
        partial: float = PARTIAL,
        tolerance: float = TOLERANCE,
        sandbox: Sandbox | None = None,
        name: str = "answer",
    ):
        mistakes = []
        if form not in ("number", "choice", "symbolic"):
            mistakes.append(f"form is {form!r}, but must be 'number', 'choice' or 'symbolic'")
        if form == "symbolic" and reasoning == "program":
            mistakes.append(
                "form is 'symbolic' and reasoning 'program', but a program's answer is read as a number or a letter"
            )
        if reasoning not in ("words", "program"):
            mistakes.append(f"reasoning is {reasoning!r}, but must be 'words' or 'program'")
        if not column:
            mistakes.append("column is empty, but must name the field of the prompt file with the reference answer")
        if not 0 <= partial < 1:
            mistakes.append(f"partial is {partial}, but must be in [0, 1): a right answer is worth 1")
        if not 0 <= tolerance < math.inf:
            mistakes.append(f"tolerance is {tolerance}, but must be at least 0")
        if mistakes:
            raise ConfigError(mistakes)
        self.column = column
        self.partial = partial
        self.tolerance = tolerance
        self.reader = Reader(form, reasoning, (sandbox or Sandbox()) if reasoning == "program" else None)
        self.algebra = Algebra(sandbox) if form == "symbolic" else None
        others = f"{partial:g} = another answer, 0 = none" if partial else "0 = another or none"
        self.info = RewardInfo(name=name, scale=f"1 = right, {others}")

    def check(self) -> list[str]:
        """Whether programs can be confined on this system, and formulas compared, as far as that shows without trying."""
        if self.algebra:
            return self.algebra.missing()
        problem = Sandbox.unsupported() if self.reader.sandbox else None
        return [MachineLack(problem)] if problem else []

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """Prompts of which not one has a readable reference answer."""
        sides = {"the prompts": train, "the held-out prompts": held_out}
        return [
            f"of {which} not one can be scored: {self._without_reference(prompts[0])}"
            for which, prompts in sides.items()
            if prompts and all(self.reference(prompt) is None for prompt in prompts)
        ]

    def load(self) -> None:
        """Start the sandbox, if there is one, and say which layers of it are in force."""
        sandbox = self.algebra.sandbox if self.algebra else self.reader.sandbox
        if sandbox:
            print(sandbox.describe(), file=sys.stderr)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]

        Raises:
            RewardError: not one of the prompts has a reference answer.
        """
        references = [self.reference(sample.prompt) for sample in samples]
        if samples and all(reference is None for reference in references):
            raise RewardError(self._without_reference(samples[0].prompt))
        pairs = list(zip(self.answers(samples), references, strict=True))
        right = self._right(pairs)
        return np.array([self._score(*pair, same) for pair, same in zip(pairs, right, strict=True)], dtype=np.float64)

    def answers(self, samples: Sequence[Sample]) -> list[Answer]:
        """The final answer of each sample, see ``Reader``."""
        return self.reader(concluded(samples))

    def reference(self, prompt: Prompt) -> Answer:
        """The right answer, as far as the prompt's table says."""
        return self.reader.reference(prompt.meta.get(self.column))

    def same(self, one: Answer, other: Answer) -> bool:
        """Whether two answers are one: by equality, within the tolerance, or by algebra; ``other`` is the right one, if any."""
        return self._right([(one, other)])[0] == "same"

    def _right(self, pairs: Sequence[tuple[Answer, Answer]]) -> list[Verdict]:
        """What is to be said of each (answer, reference)."""
        if self.algebra is None:
            return ["same" if is_right(*pair, self.tolerance) else "different" for pair in pairs]
        return self.algebra.compare(pairs)

    def _score(self, answer: Answer, reference: Answer, verdict: Verdict) -> float:
        if reference is None or verdict == "failed" or (isinstance(answer, float) and math.isnan(answer)):
            return math.nan
        if verdict == "same":
            return 1.0
        return 0.0 if answer is None or verdict == "unreadable" else self.partial

    def _without_reference(self, prompt: Prompt) -> str:
        if self.column not in prompt.meta:
            there = nearest(self.column, prompt.meta) if prompt.meta else " (they have no other field)"
            return f"prompts have no field {self.column!r} with the reference answer{there}; name it with column"
        kind = {"number": "number", "choice": "letter from A to E", "symbolic": "formula"}[self.reader.form]
        return f"the field {self.column!r} of the prompts holds {prompt.meta[self.column]!r}, which is no {kind}"
