"""A weighted sum of rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raft_core.errors import ConfigError
from raft_core.protocols import Combinator, Reward, RewardInfo
from raft_core.rewards.combine.parts import all_upward, by_prompt, part_mistakes, weight_mistakes
from raft_core.rewards.combine.scales import Earlier, Scale, running, within_prompts
from raft_core.types import Sample

UNITS = {"own": "", "prompt": " in its spread within the prompt", "running": " in its spread within a round"}


class Weighted:
    """Σ weight × score over several rewards, higher is better.

    Parts are turned first where lower is better. A sample that any part could not score is not scored. With ``normalise: own``
    scores enter in their own units: an aesthetic of 6 with weight 1 and a CLIP score of 27 with weight 0.1 give 8.7; the part
    that varies most then decides. The other two make weights comparable.

    Args:
        rewards: the parts; each is also recorded under its own name.
        weights: one per part, not 0; 1 each if left out. A negative weight makes a part a penalty.
        normalise: ``own``, as they are; ``prompt``, (x − mean) / spread among the samples of the prompt, whose mean is
            always 0, so that progress shows in the parts alone; ``running``, (x − mean of round 1) / spread within the rounds
            before this one. Outside of a run, ``running`` goes by the scores at hand.
        name: column of the sum.
    """

    def __init__(
        self,
        rewards: Sequence[Reward | Combinator],
        weights: Sequence[float] | None = None,
        normalise: Scale = "own",
        name: str = "weighted_sum",
    ):
        self.parts = tuple(rewards)
        self.weights = tuple(weights) if weights is not None else (1.0,) * len(self.parts)
        self.normalise = normalise
        mistakes = part_mistakes(self.parts, name, "a weighted sum")
        mistakes += weight_mistakes(self.weights, self.parts, name, lowest=-np.inf)
        if normalise not in UNITS:
            mistakes.append(f"{name}.normalise is {normalise!r}, but must be one of {', '.join(UNITS)}")
        if mistakes:
            raise ConfigError(mistakes)
        terms = [f"{weight:g} × {part.info.name}" for weight, part in zip(self.weights, self.parts, strict=True)]
        scale = " + ".join(terms) + (f", each{UNITS[normalise]}" if UNITS[normalise] else "")
        relative = normalise == "prompt" or all(part.info.relative for part in self.parts)
        self.info = RewardInfo(name=name, scale=scale, relative=relative)
        self.recalls = normalise == "running"
        self._earlier: Earlier = ()

    def recall(self, earlier: Earlier) -> None:
        """Take on the scores of the rounds before, from which alone ``running`` follows."""
        self._earlier = earlier

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N]; NaN wherever a part is NaN."""
        turned = all_upward(self.parts, scores)  # [parts, N]
        if self.normalise == "prompt":
            prompt = by_prompt(samples)
            turned = np.stack([within_prompts(values, prompt) for values in turned])
        if self.normalise == "running":
            infos = [part.info for part in self.parts]
            rows = zip(turned, infos, strict=True)
            turned = np.stack([running(v, i.name, 1.0 if i.higher_is_better else -1.0, self._earlier) for v, i in rows])
        return np.asarray(self.weights) @ turned
