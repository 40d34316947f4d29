"""Outputs that were made elsewhere, by prompt, and what a round asks for and gets of them: shared by tables and by runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from raft_core.capabilities import RunPlans, Writes
from raft_core.errors import ModelError
from raft_core.preferences.preference import Picture
from raft_core.protocols import Policy
from raft_core.rewards.given import GIVEN
from raft_core.rng import numpy_rng, seed_for
from raft_core.types import Prompt, Request, Sample


class Loadable(Protocol):
    """An output that is fetched when it is looked at."""

    @property
    def digest(self) -> str:
        """The same for the same output."""
        ...

    def load(self) -> Any:
        """The text, or the PIL image."""
        ...


@dataclass(frozen=True)
class WrittenOutput:
    """An output that was made elsewhere.

    Attributes:
        output: a text, or what fetches the output.
        score: that came with it, higher is better; None = none.
    """

    output: str | Loadable | Picture
    score: float | None

    def loaded(self) -> Any:
        """As a policy and a reward take it: a text, or a PIL image."""
        return self.output if isinstance(self.output, str) else self.output.load()

    @property
    def digest(self) -> str:
        """The same for the same output with the same score."""
        said = self.output if isinstance(self.output, str) else self.output.digest
        return hashlib.blake2b(json.dumps([said, self.score]).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class WrittenGroup:
    """Outputs for one prompt that are compared with one another.

    Attributes:
        outputs: at least one.
        choice: whether they are the candidates of one choice, of which none may be left out.
    """

    outputs: tuple[WrittenOutput, ...]
    choice: bool

    @cached_property
    def seeds(self) -> list[int]:
        """One number for each output, the same for the same group wherever it stands; they tell whether it has changed."""
        digest = "".join(each.digest for each in self.outputs)
        return [seed_for("written", digest, number) for number in range(len(self.outputs))]


#: The groups of a prompt, none for an unknown one.
Groups = Callable[[Prompt], Sequence[WrittenGroup]]


def written_requests(groups: Groups, prompts: Sequence[Prompt], k: int, seed: int, rnd: int) -> list[Request]:
    """A request for each output of the prompts, group by group; the seed names the output.

    Of a group with more than k outputs other ones are taken in each round; a choice is taken whole.
    """
    asked: list[Request] = []
    for prompt in prompts:
        for group in groups(prompt):
            seeds = group.seeds
            if not group.choice and len(seeds) > k:
                order = numpy_rng(seed, "written", rnd, prompt.id).permutation(len(seeds))
                seeds = [seeds[i] for i in sorted(order[:k].tolist())]
            asked += [Request(prompt, index, each) for index, each in enumerate(seeds)]
    return asked


def output_of(groups: Groups, request: Request) -> WrittenOutput:
    """The output that a request names.

    Raises:
        ModelError: there is none.
    """
    for group in groups(request.prompt):
        for seed, each in zip(group.seeds, group.outputs, strict=True):
            if seed == request.seed:
                return each
    raise ModelError(f"nothing was written to {request.prompt.text!r} that has the seed {request.seed}")


def as_samples(policy: Policy, requests: Sequence[Request], found: Sequence[WrittenOutput], *, trace: bool) -> list[Sample]:
    """Outputs as a policy's samples, the scores that came with them in their meta."""
    assert isinstance(policy, Writes)  # checked before anything was loaded
    return scored(policy.written(requests, [each.loaded() for each in found], trace=trace), found)


def scored(samples: Sequence[Sample], found: Sequence[WrittenOutput]) -> list[Sample]:
    """The samples with the scores that came with their outputs."""
    return [
        sample if each.score is None else replace(sample, meta={**sample.meta, GIVEN: each.score})
        for sample, each in zip(samples, found, strict=True)
    ]


def with_outputs(policy: Policy, groups: Groups, samples: Sequence[Sample]) -> list[Sample]:
    """Samples with the outputs as they were made: a template may write more into a turn, an autoencoder blurs a picture."""
    assert isinstance(policy, Writes)  # checked before anything was loaded
    return [s.with_output(policy.fitted(s.request, output_of(groups, s.request).loaded())) for s in samples]


def unfit(plans: RunPlans, modality: str, where: str, source: str) -> list[str]:
    """Why a policy cannot take outputs of this modality as its samples, in words.

    Args:
        where: what holds them.
        source: the class of the source, for messages.
    """
    policy, name = plans.policy, type(plans.policy).__name__
    if not isinstance(policy, Writes):
        return [f"{source} gives outputs that were made elsewhere, which the policy {name} cannot take: use FromPolicy"]
    if modality != policy.modality:
        return [f"{where} holds {modality}s, but the policy {name} makes {policy.modality}s"]
    if plans.trace and not policy.traces_written:
        return [
            f"the objective replays how samples were drawn, but those of {where} were not drawn by the policy {name}: take an "
            "objective without ratios, such as Sft"
        ]
    return []


def check_written(plans: RunPlans, groups: Groups) -> list[str]:
    """Which texts of the prompts the policy does not take, in words; pictures, which it fits to its size, are not opened."""
    assert isinstance(plans.policy, Writes)
    pairs = [
        (p, each.output) for p in plans.train for group in groups(p) for each in group.outputs if isinstance(each.output, str)
    ]
    return plans.policy.check_written([prompt for prompt, _ in pairs], [output for _, output in pairs])
