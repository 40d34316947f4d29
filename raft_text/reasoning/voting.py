"""Majority voting and reranking of final answers; numbers within a tolerance are one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from raft_core.metrics import voting
from raft_core.metrics.voting import Row, Vote, rerank, table_lines
from raft_text.reasoning.answers import TOLERANCE
from raft_text.reasoning.reading import Answer, is_right

__all__ = ["Row", "Vote", "accuracy_table", "rerank", "table_lines", "vote"]


def vote(answers: Sequence[Answer], tolerance: float = TOLERANCE) -> Vote | None:
    """See ``raft_core.metrics.voting``: a number votes with the first earlier answer that it is within ``tolerance`` of."""
    return voting.vote(answers, partial(is_right, tolerance=tolerance))


def accuracy_table(
    answers: Sequence[Sequence[Answer]],
    references: Sequence[Answer],
    scores: np.ndarray | None = None,
    tolerance: float = TOLERANCE,
) -> list[Row]:
    """See ``raft_core.metrics.voting.accuracy_table``; ``tolerance`` is for numbers."""
    return voting.accuracy_table(answers, references, partial(is_right, tolerance=tolerance), scores)
