"""A calculator within the text: ``<<48/2=`` is gone on with by ``24>>``, as in GSM8K's solutions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from raft_core.environment import Step
from raft_core.errors import ConfigError
from raft_core.types import Prompt
from raft_text.environments.arithmetic import calculated

#: Arithmetic at the end of a text: from its first number on, up to a word or a full stop that is none of a number.
ARITHMETIC = re.compile(r"[(\d](?:[\d\s()+\-*/×÷−^%]|[.,](?=\d))*$")
OPERATION = re.compile(r"[+\-*/×÷−^]")


class Calculator:
    """Works out what stands between two marks, and writes the result behind it.

    What has no value is closed without one. Where a token runs beyond the second mark (``=2``), the model has begun to work it
    out itself, and is let go on.

    Args:
        opened: mark before an expression; null = none, and what is worked out is the arithmetic right before the second mark.
        asked: mark at which the calculator takes the word.
        lead: what it writes before the result, such as a space.
        closed: what it writes behind the result.
        calls: at most so many in one answer; then the episode is over.

    Source: Training Verifiers to Solve Math Word Problems (2110.14168), appendix C.
    """

    tools: ClassVar[Sequence[Mapping[str, Any]]] = ()

    def __init__(self, opened: str | None = "<<", asked: str = "=", lead: str = "", closed: str = ">>", calls: int = 16):
        if opened == "" or not asked:
            raise ConfigError("environment.opened and environment.asked must not be empty: they mark what is worked out")
        if calls < 1:
            raise ConfigError(f"environment.calls is {calls}, but at least 1 is needed")
        self.opened = opened
        self.lead = lead
        self.closed = closed
        self.calls = calls
        self.stop: Sequence[str] = (asked,)

    def reset(self, prompts: Sequence[Prompt]) -> list[int]:
        """No calls so far."""
        return [0] * len(prompts)

    def step(self, states: Sequence[int], said: Sequence[str]) -> list[Step]:
        """The result behind an expression; nothing behind an ordinary equals sign."""
        return [self._step(calls, text) for calls, text in zip(states, said, strict=True)]

    def _step(self, calls: int, text: str) -> Step:
        expression = self._expression(text.removesuffix(self.stop[0])) if text.endswith(self.stop[0]) else None
        if expression is None:
            return Step(calls, "")
        if calls >= self.calls:
            return Step(calls, None)
        value = calculated(expression)
        return Step(calls + 1, ("" if value is None else self.lead + value) + self.closed)

    def _expression(self, text: str) -> str | None:
        """What is to be worked out of a text that the second mark has stood behind; None = nothing."""
        if self.opened is None:
            found = ARITHMETIC.search(text)
            return found[0] if found and OPERATION.search(found[0]) else None
        _, mark, expression = text.rpartition(self.opened)
        return None if not mark or (self.closed and self.closed in expression) else expression
