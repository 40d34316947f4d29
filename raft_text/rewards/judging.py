"""A language model as a judge of completions: what it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from raft_core.rewards.judge.judging import Judging, tagged, win_rates
from raft_core.types import Sample
from raft_text.rewards.texts import completions

__all__ = ["Judgement", "tagged", "win_rates"]

RUBRIC = "Judge how helpful, correct and clear the answer is. Length by itself is no merit."


@dataclass(frozen=True)
class Judgement(Judging):
    """How completions are judged.

    Args:
        mode: ``score``: each sample by itself, a number. ``pairwise``: the samples of a prompt against one another, each pair
            asked in both orders; the score is the fraction of comparisons won, a tie counting half.
        rubric: what makes an answer good, in words.
        low: least score, for ``score``.
        high: greatest score, for ``score``.
        neighbours: for ``pairwise``: with the samples of a prompt in a ring, how many each one meets on either side, at a cost
            of 2·K·neighbours questions per prompt; null = all of them meet, for K·(K − 1) questions.
        votes: answers to each question; the verdicts that can be read are averaged. More than 1 takes an endpoint with a
            temperature above 0.
    """

    rubric: str = RUBRIC
    noun: ClassVar[str] = "answer"

    def shown(self, sample: Sample, tag: str) -> Sequence[str]:
        """The completion between tags.

        Raises:
            RewardError: the sample holds no text.
        """
        return [tagged(tag, completions([sample])[0])]
