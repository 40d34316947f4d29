"""Scores that came with the samples, so that no reward has to be asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raft_core.conversations import response
from raft_core.protocols import RewardInfo
from raft_core.types import Sample

#: Where ``Sample.meta`` holds the score that a table or another run gives.
GIVEN = "given"
#: Columns beside which a response is one of several, good or bad, and not the one to give.
JUDGED = ("score", "label", "rejected", "candidates", "completions")


class Given:
    """The score that came with a sample: from a table (``FromTable``) or from the run that drew it (``FromRun``).

    What the policy draws itself, as in the comparison before and after, scores 1 where it is the response that the prompts'
    table gives and else 0; without a response, or where the table gives good ones and bad ones, it is not scored.

    Args:
        name: column in the store and label in the report.
    """

    def __init__(self, name: str = "given"):
        self.info = RewardInfo(name=name, scale="as it came with the sample; 1 = the response given")

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]"""
        return np.array([_score(sample) for sample in samples], dtype=np.float64)


def _score(sample: Sample) -> float:
    if GIVEN in sample.meta:
        return float(sample.meta[GIVEN])
    text = response(sample.prompt)
    made_elsewhere = sample.meta.get("finish") == "written"
    if text is None or made_elsewhere or any(name in sample.prompt.meta for name in JUDGED):
        return float("nan")
    return float(text.strip() == str(sample.output).strip())
