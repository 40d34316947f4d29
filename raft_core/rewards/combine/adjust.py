"""One reward, changed: cut off, or with errors of known size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from raft_core.errors import ConfigError
from raft_core.media.digest import content_digest
from raft_core.protocols import Combinator, Reward, RewardInfo
from raft_core.rng import numpy_rng
from raft_core.types import Sample


class Clipped:
    """A reward cut off at one or two ends: beyond them, more is not better.

    Args:
        reward: in its own unit and direction, which the result keeps.
        low: lower scores become this; null = no bound.
        high: higher scores become this; null = no bound.
        name: column of the result; by default the reward's with ``_clipped`` behind it.
    """

    def __init__(
        self, reward: Reward | Combinator, low: float | None = None, high: float | None = None, name: str | None = None
    ):
        self.parts = (reward,)
        self.low = -math.inf if low is None else low
        self.high = math.inf if high is None else high
        own = name or f"{reward.info.name}_clipped"
        mistakes = _same_name(own, reward)
        if low is None and high is None:
            mistakes.append(f"{own} has neither low nor high: give a bound")
        if not self.low <= self.high:
            mistakes.append(f"{own} is cut off below {low} and above {high}: low must not be larger than high")
        if mistakes:
            raise ConfigError(mistakes)
        scale = f"{reward.info.name} within [{self.low:g}, {self.high:g}]"
        self.info = RewardInfo(own, scale, reward.info.higher_is_better, relative=reward.info.relative)

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N]; NaN where the reward is."""
        return np.clip(scores[self.parts[0].info.name], self.low, self.high)


class Noisy:
    """A reward with errors of known size, for experiments on what errors do. All are Gaussian with mean 0.

    Every error is fixed by ``seed`` and by what it belongs to, so that a run with it can be repeated and resumed.

    Args:
        reward: in its own unit and direction, which the result keeps.
        iid: standard deviation of an error that every sample draws anew, in reward units, ≥ 0. More samples average it out.
        prompt_bias: of an error that a prompt has in all rounds. It changes no ranking within the prompt.
        sample_bias: of an error that belongs to the output itself, whenever it appears again: a blind spot, which a policy can
            learn to seek.
        seed: of the errors.
        name: column of the result; by default the reward's with ``_noisy`` behind it.
    """

    def __init__(
        self,
        reward: Reward | Combinator,
        iid: float = 0.0,
        prompt_bias: float = 0.0,
        sample_bias: float = 0.0,
        seed: int = 0,
        name: str | None = None,
    ):
        self.parts = (reward,)
        self.iid, self.prompt_bias, self.sample_bias = iid, prompt_bias, sample_bias
        self.seed = seed
        own = name or f"{reward.info.name}_noisy"
        mistakes = _same_name(own, reward)
        for argument in ("iid", "prompt_bias", "sample_bias"):
            if not 0 <= getattr(self, argument) < math.inf:
                mistakes.append(f"{own}.{argument} is {getattr(self, argument)}, but must be a number that is not negative")
        if mistakes:
            raise ConfigError(mistakes)
        sizes = f"{iid:g} i.i.d., {prompt_bias:g} by prompt, {sample_bias:g} by sample"
        scale = f"{reward.info.name} with errors of {sizes}"
        self.info = RewardInfo(own, scale, reward.info.higher_is_better, relative=reward.info.relative)

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N]; NaN where the reward is."""
        values = scores[self.parts[0].info.name]
        return values + np.array([self._error(sample) for sample in samples], dtype=np.float64).reshape(values.shape)

    def _error(self, sample: Sample) -> float:
        prompt = sample.prompt.id
        error = 0.0
        if self.prompt_bias:
            error += self.prompt_bias * numpy_rng(self.seed, "prompt", prompt).standard_normal()
        if self.sample_bias or self.iid:
            content = content_digest(sample)
            if self.sample_bias:
                error += self.sample_bias * numpy_rng(self.seed, "sample", content).standard_normal()
            if self.iid:  # the content too: before and after training the same requests are drawn
                drawn = numpy_rng(self.seed, "iid", content, sample.request.index, sample.seed)
                error += self.iid * drawn.standard_normal()
        return error


def _same_name(own: str, reward: Reward | Combinator) -> list[str]:
    if own != reward.info.name:
        return []
    return [f"{own!r} is the name of the result and of the reward that it is made of: give one of them another name"]
