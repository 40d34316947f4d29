"""What combinators share: parts turned the same way, named apart, and grouped by prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from raft_core.protocols import Combinator, Reward
from raft_core.types import Sample


def upward(reward: Reward | Combinator, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """[N] scores of a part, turned so that higher is better."""
    values = scores[reward.info.name]
    return values if reward.info.higher_is_better else -values


def all_upward(parts: Sequence[Reward | Combinator], scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """[parts, N] scores, each turned so that higher is better."""
    return np.stack([upward(part, scores) for part in parts])


def by_prompt(samples: Sequence[Sample]) -> np.ndarray:
    """[N] int64: samples of one prompt have one number, counted from 0 in the order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(sample.prompt.id, len(numbers)) for sample in samples], dtype=np.int64)


def part_mistakes(parts: Sequence[Reward | Combinator], name: str, what: str) -> list[str]:
    """What is wrong with the parts of a combination and their names, in words."""
    found = []
    names = [part.info.name for part in parts]
    if not parts:
        found.append(f"{what} without rewards: list at least one under rewards")
    found += [
        f"{name} has two rewards named {twice!r}: give one another name"
        for twice in sorted(set(names))
        if names.count(twice) > 1
    ]
    if name in names:
        found.append(f"{name!r} is the name of {what} and of one of its rewards: give one of them another name")
    return found


def weight_mistakes(weights: Sequence[float], parts: Sequence[Reward | Combinator], name: str, lowest: float) -> list[str]:
    """What is wrong with one weight per part, which must be finite, not 0, and not below ``lowest``."""
    found = []
    if len(weights) != len(parts):
        found.append(f"{name}.weights has {len(weights)} numbers for {len(parts)} rewards: give one for each")
    if useless := [weight for weight in weights if not math.isfinite(weight) or weight == 0 or weight < lowest]:
        found.append(f"{name}.weights holds {useless[0]}: leave that reward out, or measure it as a judge")
    return found
