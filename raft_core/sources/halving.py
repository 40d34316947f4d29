"""Best of K for less: samples are scored while they are made, and the worse half of each prompt's is given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raft_core import sampling
from raft_core.capabilities import RunPlans, SamplesInStages
from raft_core.errors import ConfigError
from raft_core.protocols import Policy
from raft_core.types import Prompt, Request, Sample

#: Where ``Sample.meta`` holds the scores that a sample had before it was finished.
PREVIEWS = "previews"


@dataclass(frozen=True)
class Halving:
    """K samples of every prompt are begun; at some points of the way the worse part of each prompt's is given up.

    What is scored on the way is a prediction: of a picture, what the denoiser expects of it; of a text, its beginning. The
    scores are those of the reward that selects, so it has to make sense of unfinished samples. What was given up is kept in
    the store, is not scored and never selected. With the points ¼, ½ and ¾ and a half kept each time, 16 samples cost as many
    passes of the network as 7½ whole ones.

    Args:
        at: points of the way, ascending, in (0, 1): parts of the denoising steps, or of the tokens that a text may have.
        keep: part of a prompt's samples that goes on after each point, in (0, 1), rounded up.
        least: samples of a prompt that always go on, ≥ 1; at least 2 for selectors that compare them, such as pairs.

    Source: successive halving, Karnin et al. 2013 and Jamieson & Talwalkar 2016 (1502.07943), with predictions in place of
        repeated draws.
    """

    at: tuple[float, ...] = (0.25, 0.5, 0.75)
    keep: float = 0.5
    least: int = 1

    def __post_init__(self) -> None:
        mistakes = []
        if not self.at or any(not 0 < point < 1 for point in self.at) or list(self.at) != sorted(set(self.at)):
            mistakes.append(f"at is {list(self.at)}, but must be ascending parts of the way between 0 and 1")
        if not 0 < self.keep < 1:
            mistakes.append(f"keep is {self.keep}, but must be between 0 and 1: 0.5 gives up the worse half")
        if self.least < 1:
            mistakes.append(f"least is {self.least}, but at least 1 sample of a prompt has to go on")
        if mistakes:
            raise ConfigError(mistakes)

    def check_run(self, plans: RunPlans) -> list[str]:
        """A policy that cannot be stopped on the way, and a k of which nothing could be given up."""
        name = type(plans.policy).__name__
        if not isinstance(plans.policy, SamplesInStages):
            return [f"Halving scores samples before they are finished, which the policy {name} does not show: use FromPolicy"]
        found = list(plans.policy.check_stages(self.at))
        if plans.k <= self.least:
            found.append(f"k is {plans.k} and least {self.least}, so nothing would be given up: raise k")
        return found

    def requests(self, prompts: Sequence[Prompt], k: int, seed: int, rnd: int) -> list[Request]:
        """P·K requests, those of ``FromPolicy``."""
        return sampling.requests(prompts, k, seed, rnd)

    def samples(self, policy: Policy, requests: Sequence[Request], *, trace: bool) -> list[Sample]:
        """All of them, finished: what there is without anybody to score them."""
        return policy.sample(requests, purpose="round", trace=trace)

    def parts(self, asked: Sequence[Request], size: int) -> Iterator[Sequence[Request]]:
        """Consecutive parts of whole prompts, for those of a prompt are compared."""
        return sampling.whole_prompts(asked, size)

    def judged_samples(
        self, policy: Policy, requests: Sequence[Request], score: Callable[[Sequence[Sample]], np.ndarray], *, trace: bool
    ) -> list[Sample]:
        """One sample per request, those that were given up too.

        Args:
            score: previews → [M], higher is better, NaN = not scored.
        """
        assert isinstance(policy, SamplesInStages)  # checked by ``check_run``
        told: dict[tuple[str, int], list[float]] = {}

        def goes_on(previews: Sequence[Sample]) -> list[bool]:
            scores = score(previews)
            for preview, value in zip(previews, scores.tolist(), strict=True):
                told.setdefault((preview.prompt.id, preview.request.index), []).append(value)
            return self.survivors([preview.prompt.id for preview in previews], scores).tolist()

        drawn = policy.sample_in_stages(requests, self.at, goes_on, trace=trace)
        keys = [(sample.prompt.id, sample.request.index) for sample in drawn]
        return [
            replace(sample, meta={**sample.meta, PREVIEWS: told[key]}) if key in told else sample
            for sample, key in zip(drawn, keys, strict=True)
        ]

    def survivors(self, prompts: Sequence[str], scores: np.ndarray) -> np.ndarray:
        """[M] bool: the best ``keep`` of each prompt's, the earlier ones of equal scores; unscored ones come last.

        Where nothing of a prompt could be scored nothing is known, and all go on.
        """
        going = np.zeros(len(scores), dtype=bool)
        names = np.array(prompts)
        for name in dict.fromkeys(prompts):
            own = np.flatnonzero(names == name)
            if np.isnan(scores[own]).all():
                going[own] = True
                continue
            order = own[np.argsort(-np.where(np.isnan(scores[own]), -np.inf, scores[own]), kind="stable")]
            going[order[: max(int(np.ceil(self.keep * len(own))), self.least)]] = True
        return going
