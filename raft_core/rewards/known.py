"""Scores that are there already for some samples of a round, so that only the others are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from raft_core.protocols import Combinator, Reward
from raft_core.rewards.scoring import Scored, scored_by, with_parts
from raft_core.store.tensors import identity
from raft_core.types import Request, Sample, Scores

Name = tuple[str, int, int]  # of a sample: prompt, index, seed


@dataclass(frozen=True)
class KnownScores:
    """Scores by the reward's name and by sample; see ``scoring.Begun``.

    Attributes:
        columns: name of a reward → sample → score. What could not be scored is not there, and is asked again.
    """

    columns: Mapping[str, Mapping[Name, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, requests: Sequence[Request], columns: Mapping[str, Sequence[float] | np.ndarray]) -> KnownScores:
        """From columns [N], NaN = not scored, of the samples of these requests."""
        names = [named(request) for request in requests]
        found = {
            column: {name: float(value) for name, value in zip(names, values, strict=True) if not np.isnan(value)}
            for column, values in columns.items()
        }
        return cls(found)

    def take(self, reward: Reward, samples: Sequence[Sample]) -> Scored | None:
        """The scores of these samples, those that are not known asked for; None of a reward of which none is known."""
        known = self.columns.get(reward.info.name)
        if known is None:
            return None
        values = np.array([known.get(named(sample.request), np.nan) for sample in samples], dtype=np.float64)
        rest = np.flatnonzero(np.isnan(values))
        if not len(rest):
            return values, None
        values[rest], failure = scored_by(reward, [samples[int(i)] for i in rest])
        return values, failure


def named(request: Request) -> Name:
    """What tells a sample from all others."""
    prompt, index, seed = identity(request)
    return str(prompt), int(index), int(seed)


def reusable(reward: Reward | Combinator, scores: Scores) -> dict[str, np.ndarray]:
    """The columns of some of a round's samples that hold for the whole round: of rewards that look at each sample alone."""
    alone = [part.info for part in with_parts(reward) if not isinstance(part, Combinator)]
    return {info.name: scores.columns[info.name] for info in alone if info.batch_size is not None and not info.relative}
