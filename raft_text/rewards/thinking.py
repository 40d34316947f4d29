"""A reward that reads what a model answers, and not what it thought before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from raft_core import capabilities
from raft_core.errors import ConfigError
from raft_core.metrics.voting import Voter
from raft_core.protocols import Combinator, Reward
from raft_core.rewards.scoring import answered, told
from raft_core.types import Prompt, Sample
from raft_text.rewards.texts import completions

Unfinished = Literal["unscored", "empty", "whole"]
UNFINISHED = ("unscored", "empty", "whole")


class WithoutThinking:
    """A reward of what stands behind the thoughts: those are kept in the store and trained on, and the reward reads past them.

    Args:
        reward: what reads the answers. Of a combination, put this around each part that is to be blind to thoughts.
        begin: where thoughts begin.
        end: where they end; what stands behind the last one is the answer. A completion with neither is all answer.
        opened: whether the prompt opens the thought, as the templates of DeepSeek-R1 and Qwen3-Thinking do: then a completion
            without ``end`` is all thought.
        unfinished: what a thought that does not end is worth: it is not scored; or it is read as an ``empty`` answer; or as a
            ``whole``, like any text.
        name: column in the store and label in the report; by default the reward's with ``_answer`` behind it.
    """

    def __init__(
        self,
        reward: Reward,
        begin: str = "<think>",
        end: str = "</think>",
        opened: bool = False,
        unfinished: Unfinished = "unscored",
        name: str | None = None,
    ):
        mistakes = [f"{which} is empty, but must be the text that marks thoughts" for which in _empty(begin=begin, end=end)]
        if isinstance(reward, Combinator):
            mistakes.append(f"{reward.info.name!r} is made of rewards: put WithoutThinking around each of its parts")
        if unfinished not in UNFINISHED:
            mistakes.append(f"unfinished is {unfinished!r}, but must be one of {', '.join(UNFINISHED)}")
        if mistakes:
            raise ConfigError(mistakes)
        self.reward: Any = reward
        self.begin, self.end = begin, end
        self.opened = opened
        self.unfinished: Unfinished = unfinished
        if isinstance(reward, Voter):  # then this one is, too
            self.answers, self.reference, self.same = self._answers, reward.reference, reward.same
        if isinstance(reward, capabilities.AttachesPolicy):  # only then: what needs the policy cannot be cached or isolated
            self.attach = reward.attach
        self.info = replace(
            reward.info,
            name=name or f"{reward.info.name}_answer",
            scale=f"{reward.info.scale or reward.info.name}, without thoughts",
        )

    def check(self) -> list[str]:
        return capabilities.check(self.reward)

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """What the prompts lack that the reward needs."""
        return capabilities.check_prompts(self.reward, train, held_out)

    def load(self) -> None:
        """Load the reward."""
        capabilities.load(self.reward)

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        capabilities.sleep(self.reward)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]

        Raises:
            PartlyScored: some thoughts do not end, or the reward could not score some answers.
        """
        texts = [self.answer(text) for text in completions(samples)]
        readable = [i for i, text in enumerate(texts) if text is not None]
        scores, reason = np.full(len(samples), np.nan), f"a thought that does not end with {self.end!r}"
        if readable:
            scores[readable], why = answered(self.reward, [samples[i].with_output(texts[i]) for i in readable])
            reason = reason if len(readable) < len(samples) else why or "the reward returned NaN or an infinity"
        return told(scores, reason)

    def _answers(self, samples: Sequence[Sample]) -> list[Any]:
        """What the reward reads behind the thoughts of each; None where a thought does not end and that is not to be scored."""
        texts = [self.answer(text) for text in completions(samples)]
        readable = [i for i, text in enumerate(texts) if text is not None]
        read = self.reward.answers([samples[i].with_output(texts[i]) for i in readable]) if readable else []
        found = dict(zip(readable, read, strict=True))
        return [found.get(i) for i in range(len(samples))]

    def answer(self, text: str) -> str | None:
        """What stands behind the thoughts of a completion; None where that is not to be scored."""
        _, ends, behind = text.rpartition(self.end)
        begun = behind.rfind(self.begin)  # a thought that begins behind the last that ended
        if ends and begun < 0:
            return behind.lstrip()
        if not ends and begun < 0 and not self.opened:
            return text
        return {"unscored": None, "empty": "", "whole": text}[self.unfinished]


def _empty(**marks: str) -> list[str]:
    return [name for name, mark in marks.items() if not mark]
