"""Completions that are looked at on the way, those of a prompt together; some of them are given up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raft_text.process.growing import Drawn

#: (numbers of the completions that have not been given up, the text of each so far) → whether each goes on.
GoesOn = Callable[[Sequence[int], Sequence[str]], Sequence[bool]]


def stage_tokens(at: Sequence[float], most: int) -> list[int]:
    """At how many tokens of at most ``most`` each point of the way is; at least 1, and before the last."""
    return sorted({min(max(round(point * most), 1), most - 1) for point in at})


@dataclass(frozen=True)
class StageWatcher:
    """Asks which completions go on when they have reached certain lengths. Without a draft model they grow together.

    Attributes:
        tokens: the lengths.
        goes_on: says which.
        text: a finished completion as a text.
    """

    tokens: Sequence[int]
    goes_on: GoesOn
    text: Callable[[Drawn], str]

    def due(self, count: int) -> bool:
        """Whether completions of so many tokens are looked at."""
        return count in self.tokens

    def hopeless(
        self, numbers: Sequence[int], prompts: Sequence[str], beginnings: Sequence[str], finished: Mapping[int, Drawn]
    ) -> list[bool]:
        """Which of the growing completions are given up; those that have come to their end are shown with them."""
        done = {number: drawn for number, drawn in finished.items() if drawn.finish not in ("rejected", "failed")}
        shown = [*done, *numbers]
        texts = [*(self.text(drawn) for drawn in done.values()), *beginnings]
        order = sorted(range(len(shown)), key=lambda place: shown[place])  # as they were asked for, whoever is done first
        verdicts = self.goes_on([shown[place] for place in order], [texts[place] for place in order])
        stays = {shown[place]: bool(verdict) for place, verdict in zip(order, verdicts, strict=True)}
        return [not stays[number] for number in numbers]
