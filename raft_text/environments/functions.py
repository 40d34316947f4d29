"""Functions that a chat model calls by name: its template offers them, and replies go back as a tool's messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from raft_core.environment import Step
from raft_core.errors import ConfigError
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import parse_json
from raft_core.types import Prompt
from raft_text.environments.arithmetic import calculated
from raft_text.environments.interpreter import Programs
from raft_text.reasoning.sandbox import IMPORTS, Limits

CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
#: Of each function its only argument, and what it is.
ARGUMENTS = {
    "calculator": ("expression", "An arithmetic expression such as (3 + 4) * 2.", "Work out an arithmetic expression."),
    "python": ("code", "A Python program; what it prints is returned.", "Run a Python program."),
}


class Functions:
    """``<tool_call>{"name": …, "arguments": {…}}</tool_call>`` in a turn, as Hermes' and Qwen's templates teach it.

    A turn without a call ends the episode. A call that cannot be understood is told so; it costs a call.

    Args:
        functions: which are offered: ``calculator``, ``python`` (in the sandbox, ``docs/guides/reasoning.md``).
        calls: at most so many in one sample; then the episode is over.
        limits: of one program.
        imports: modules that programs may import.
        longest: characters of a program's output that the model is told.
    """

    stop: Sequence[str] = ()

    def __init__(
        self,
        functions: Sequence[Literal["calculator", "python"]] = ("calculator",),
        calls: int = 8,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        imports: Sequence[str] = IMPORTS,
        longest: int = 400,
    ):
        mistakes = [
            f"environment.functions has {name!r}: use {' or '.join(ARGUMENTS)}" for name in functions if name not in ARGUMENTS
        ]
        if not functions:
            mistakes.append("environment.functions is empty: there is nothing to call")
        if calls < 1:
            mistakes.append(f"environment.calls is {calls}, but at least 1 is needed")
        if mistakes:
            raise ConfigError(mistakes)
        self.functions = tuple(functions)
        self.calls = calls
        self.tools: Sequence[Mapping[str, Any]] = [_schema(name) for name in self.functions]
        self._programs = Programs(limits, imports, longest)

    def check(self) -> list[str]:
        """Why programs cannot be run here, in words."""
        return self._programs.check() if "python" in self.functions else []

    def reset(self, prompts: Sequence[Prompt]) -> list[int]:
        """No calls so far."""
        return [0] * len(prompts)

    def step(self, states: Sequence[int], said: Sequence[str]) -> list[Step]:
        """The results of each turn's calls, one a line."""
        calls = [[self._read(call) for call in CALL.findall(text)] for text in said]
        calls = [made if state + len(made) <= self.calls else [] for state, made in zip(states, calls, strict=True)]
        programs = [argument for made in calls for name, argument in made if name == "python"]
        outputs = iter(self._programs.run(programs) if programs else [])
        replies = [[next(outputs) if name == "python" else _reply(name, argument) for name, argument in made] for made in calls]
        return [Step(s + len(each), "\n".join(each) if each else None) for s, each in zip(states, replies, strict=True)]

    def _read(self, call: str) -> tuple[str, str]:
        """(function, argument) of a call; ("", what is wrong with it) of one that cannot be understood."""
        try:
            found = parse_json(call)
        except Unreadable:
            return "", "error: the call is no JSON"
        name = found.get("name") if isinstance(found, Mapping) else None
        if name not in self.functions:
            return "", f"error: there is no function of that name; there is {', '.join(self.functions)}"
        given = found.get("arguments")
        argument = given.get(ARGUMENTS[name][0]) if isinstance(given, Mapping) else None
        if not isinstance(argument, str):
            return "", f"error: {name} needs the argument {ARGUMENTS[name][0]!r}, a text"
        return name, argument


def _reply(name: str, argument: str) -> str:
    if name != "calculator":
        return argument
    value = calculated(argument)
    return "error: no arithmetic expression, or one without a value" if value is None else value


def _schema(name: str) -> dict[str, Any]:
    argument, meaning, what = ARGUMENTS[name]
    properties = {argument: {"type": "string", "description": meaning}}
    parameters = {"type": "object", "properties": properties, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": what, "parameters": parameters}}
