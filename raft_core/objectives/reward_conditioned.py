"""Reward conditioning: every sample is learned, behind a tag in its prompt that says how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch

from raft_core.conversations import transcript
from raft_core.errors import ConfigError
from raft_core.protocols import Policy
from raft_core.types import MESSAGES, Prompt, Sample, Scored, Selection


@dataclass(frozen=True)
class RewardConditioned:
    """The likelihood of every scored sample, whose prompt is told how its score compares with the round's.

    Scores are cut into bins of equally many samples, equal scores together. Each bin but the best puts its tag before the
    prompt; the best one has none. So what is asked without a tag, in rounds, in the comparison and by whoever uses the model,
    is asked for the best, and bad samples teach as well, as what a tagged prompt gets. The tag of the lowest bin may serve as a
    negative prompt.

    Args:
        bins: ≥ 2.
        tags: of all bins but the best, the lowest first; by default ``[quality 1 of 5]`` and so on.

    Source: Lu et al. 2022, Quark (2205.13636), section 2; Dong et al. 2023, SteerLM (2310.05344). Differs: the best bin's tag
        is empty, the bins are those of the round and not of a growing pool, and there is no KL term.
    """

    bins: int = 5
    tags: tuple[str, ...] | None = None
    consumes: ClassVar[type[Selection]] = Scored
    needs_trace: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ConfigError(f"bins is {self.bins}, but there have to be at least 2, a better and a worse one")
        if self.tags is not None and (len(set(self.tags)) != self.bins - 1 or not all(tag.strip() for tag in self.tags)):
            raise ConfigError(
                f"tags is {list(self.tags)}, but each of the {self.bins - 1} bins below the best needs one of its own"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """What stands before the prompt in each bin, the lowest first."""
        own = self.tags or [f"[quality {number} of {self.bins}]" for number in range(1, self.bins)]
        return (*(f"{tag.strip()} " for tag in own), "")

    def begin(self, policy: Policy, samples: Sequence[Sample], selection: Scored, carried: Mapping[str, float]) -> TaggedLoss:
        """The loss of a round, whose scores all together say where the bins begin."""
        bins = bins_of(selection.score, self.bins)
        tags = {int(index): self.names[number] for index, number in zip(selection.index, bins, strict=True)}
        return TaggedLoss(tags)

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Scored, seeds: Sequence[int]) -> torch.Tensor:
        """[B], the bins being those of these items alone; in a run ``begin`` looks at the whole round."""
        return self.begin(policy, samples, part, {})(policy, samples, part, seeds)


@dataclass(frozen=True)
class TaggedLoss:
    """The loss of one round.

    Attributes:
        tags: of each sample that is learned, by its place in the round.
        carried: nothing.
    """

    tags: Mapping[int, str]
    carried: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Scored, seeds: Sequence[int]) -> torch.Tensor:
        """[B] negative log-likelihood, or its surrogate, of each sample behind its tag."""
        chosen = [tagged(samples[i], self.tags[i]) for i in part.index.tolist()]
        return policy.nll(chosen, policy.draw(chosen, seeds))

    def figures(self) -> dict[str, float]:
        return {"conditioned/best_fraction": float(np.mean([not tag for tag in self.tags.values()])) if self.tags else 0.0}


def bins_of(scores: np.ndarray, bins: int) -> np.ndarray:
    """[M] int64 bin of each score, the highest always in the last: by the share of scores that are not above it.

    Of 0, 0, 1, 1, 1 and 5 bins the zeros, ⅖ of all, are in bin 1 (from 0) and the ones in bin 4.
    """
    ordered = np.sort(scores)
    share = np.searchsorted(ordered, scores, side="right") / max(len(scores), 1)
    return np.ceil(share * bins - 1e-9).astype(np.int64) - 1


def tagged(sample: Sample, tag: str) -> Sample:
    """The sample as an answer to its prompt behind a tag; of a conversation the user's last message is tagged."""
    if not tag:
        return sample
    prompt = sample.prompt
    if prompt.messages is None:
        asked = Prompt(tag + prompt.text, prompt.meta)
    else:
        messages = [dict(message) for message in prompt.messages]
        last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=len(messages) - 1)
        messages[last]["content"] = tag + messages[last]["content"]
        asked = Prompt(transcript(messages), {**prompt.meta, MESSAGES: messages})
    return replace(sample, request=replace(sample.request, prompt=asked))
