"""What a policy talks to between its turns: a tool, a game, a simulated user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from raft_core.types import Prompt


@dataclass(frozen=True, slots=True)
class Step:
    """What comes of one turn.

    Attributes:
        state: of the episode behind it.
        reply: what the policy is told before it goes on, "" for nothing; None = the episode is over.
    """

    state: Any
    reply: str | None


@runtime_checkable
class Environment(Protocol):
    """Answers a policy's turns. It keeps no state of its own: what it says follows from its arguments, so that a resumed run
    is told the same.

    May also have ``check``, see ``raft_core.capabilities.Checks``.

    Attributes:
        stop: texts at which it takes the word, within what the policy writes.
        tools: JSON schemas of the functions that it offers to a chat.
    """

    stop: Sequence[str]
    tools: Sequence[Mapping[str, Any]]

    def reset(self, prompts: Sequence[Prompt]) -> list[Any]:
        """The state in which each episode begins."""
        ...

    def step(self, states: Sequence[Any], said: Sequence[str]) -> list[Step]:
        """What comes of one turn of each of several episodes, which do not know of each other.

        Args:
            states: of the episodes, as ``reset`` or the step before has left them.
            said: the turns; one that a text of ``stop`` has ended has it at its end.
        """
        ...
