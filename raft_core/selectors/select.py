"""A selector applied to the scores of a round."""

from __future__ import annotations

from raft_core.protocols import Selector
from raft_core.types import Grouping, Scores, Selection


def select(selector: Selector, scores: Scores, groups: Grouping, column: str | None = None) -> Selection:
    """What a selector chooses, as flat indices of the samples.

    A selector sees [P, K] scores. Groups of unequal size are padded with NaN, "not scored", which no selector chooses.

    Args:
        column: to select by; by default the reward's.
    """
    return selector(scores.grid(groups, column)).placed(groups.places)
