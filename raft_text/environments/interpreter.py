"""Python for a model's programs: a fenced block is run in the sandbox, and what it prints stands behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from raft_core.environment import Step
from raft_core.errors import ConfigError, DeviceError
from raft_core.types import Prompt
from raft_text.reasoning.sandbox import IMPORTS, Limits, Outcome, Sandbox

FENCE, BEGIN = "```", "```python\n"
#: What stands before and behind a program, which is a script or defines ``solution()``: what it prints is what it returns.
_BEFORE = """
_said = []
def print(*values, sep=" ", end="\\n", **_):
    _said.append(sep.join(map(str, values)) + end)
"""
_BEHIND = """
try:
    _own = solution
except NameError:
    _own = None
def solution():
    value = None if _said or _own is None else _own()
    return "".join(_said) or ("" if value is None else str(value))
"""


class Programs:
    """What programs print, told in at most so many characters; each has a process of its own in the sandbox.

    Args:
        limits: of one program.
        imports: modules that programs may import.
        longest: characters of output.
    """

    def __init__(self, limits: Limits, imports: Sequence[str], longest: int):
        if longest < 1:
            raise ConfigError(f"environment.longest is {longest}, but at least 1 character has to be told")
        self._longest = longest
        self._sandbox = Sandbox(limits, imports)

    def check(self) -> list[str]:
        """Why programs cannot be run here, in words."""
        problem = Sandbox.unsupported()
        return [problem] if problem else []

    def run(self, programs: Sequence[str]) -> list[str]:
        """What each prints, or why there is nothing.

        Raises:
            DeviceError: the sandbox has broken down.
        """
        outcomes = self._sandbox.run([f"{_BEFORE}\n{program}\n{_BEHIND}" for program in programs])
        return [self._shown(outcome) for outcome in outcomes]

    def _shown(self, outcome: Outcome) -> str:
        if outcome.status == "failed":  # a reply that says otherwise on another day would not be the program's
            raise DeviceError(f"the sandbox for programs has broken down: {outcome.text}")
        text = outcome.text.strip() if outcome.status == "answer" else f"{outcome.status}: {outcome.text.strip()}"
        return text if len(text) <= self._longest else f"{text[: self._longest]} …"


class Interpreter:
    """Runs each ```` ```python ```` block when it is closed, and writes what it printed into an ```` ```output ```` block.

    Blocks of one answer do not share variables. What a program may do is the sandbox's matter (``docs/guides/reasoning.md``).

    Args:
        calls: at most so many programs in one answer; then the episode is over.
        limits: of one program.
        imports: modules that programs may import.
        longest: characters of output that the model is told.

    Source: ToRA (2309.17452), the interleaved format.
    """

    stop: Sequence[str] = (f"\n{FENCE}\n",)
    tools: ClassVar[Sequence[Mapping[str, Any]]] = ()

    def __init__(
        self,
        calls: int = 4,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        imports: Sequence[str] = IMPORTS,
        longest: int = 400,
    ):
        if calls < 1:
            raise ConfigError(f"environment.calls is {calls}, but at least 1 is needed")
        self.calls = calls
        self._programs = Programs(limits, imports, longest)

    def check(self) -> list[str]:
        """Why programs cannot be run here, in words."""
        return self._programs.check()

    def reset(self, prompts: Sequence[Prompt]) -> list[int]:
        """No calls so far."""
        return [0] * len(prompts)

    def step(self, states: Sequence[int], said: Sequence[str]) -> list[Step]:
        """The output of programs that were closed; nothing behind the end of another block."""
        programs = [program_at_the_end(text) for text in said]
        asked = {i: p for i, p in enumerate(programs) if p is not None and states[i] < self.calls}
        found = [Step(state, "" if program is None else None) for state, program in zip(states, programs, strict=True)]
        for i, output in zip(asked, self._programs.run(list(asked.values())) if asked else [], strict=True):
            found[i] = Step(states[i] + 1, f"{FENCE}output\n{output}\n{FENCE}\n")
        return found


def program_at_the_end(text: str) -> str | None:
    """The program in the Python block that a text ends with, or None where it ends otherwise."""
    if not text.endswith(f"\n{FENCE}\n"):
        return None
    _, mark, program = text[: -len(FENCE) - 1].rpartition(BEGIN)
    return program if mark and FENCE not in program else None
