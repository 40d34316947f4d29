"""What to ask of the policy in a round."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from raft_core.errors import ConfigError, ModelError
from raft_core.prompt_files.drawing import own_seed
from raft_core.protocols import Policy
from raft_core.rng import seed_for
from raft_core.types import Prompt, Request, Sample

T = TypeVar("T")


def requests(prompts: Sequence[Prompt], k: int, seed: int, rnd: int | str) -> list[Request]:
    """P·K requests, prompt-major; each seed depends on (run seed, round, prompt, index) alone.

    A prompt with a seed of its own is drawn with that one and those that follow it, whatever the run's seed. In the rounds of
    a run, which would draw the same noise every time, the seeds follow from it and the round.

    Args:
        rnd: of a run, or what else is drawn.
    """
    return [Request(prompt, index, _seed(prompt, index, seed, rnd)) for prompt in prompts for index in range(k)]


def _seed(prompt: Prompt, index: int, seed: int, rnd: int | str) -> int:
    own = own_seed(prompt, 0 if isinstance(rnd, int) else index)
    if own is None or isinstance(rnd, int):
        return seed_for(seed if own is None else own, "sample", rnd, prompt.id, index)
    return own


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of at most ``size``. The boundaries depend on nothing else, so a resumed run cuts as before."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def at_strength(policy: Policy, strength: float) -> contextlib.AbstractContextManager[None]:
    """A context in which what was trained acts so strongly: 0 is the frozen start, 1 as trained, more goes beyond it.

    Raises:
        ConfigError: a negative strength.
        ModelError: the policy knows only its start and what was trained.
    """
    if not strength >= 0:
        raise ConfigError(
            f"the strength is {strength}; give 0 (the frozen start), 1 (as trained), or what lies between or above"
        )
    if strength == 1:
        return contextlib.nullcontext()
    if not hasattr(policy, "at_strength"):
        raise ModelError(f"{type(policy).__name__} cannot be sampled at strength {strength:g}: leave it at 1")
    return policy.at_strength(strength)  # type: ignore[attr-defined]


def sampled(policy: Policy, asked: Sequence[Request], reference: bool, bar: Any) -> list[Sample]:
    """One whole sample per request, drawn in parts of the policy's batch size; ``bar`` advances with each."""
    samples: list[Sample] = []
    with getattr(policy, "whole_samples", contextlib.nullcontext)():
        for chunk in chunks(asked, policy.batch_size):
            samples += policy.sample(chunk, reference=reference)
            bar.advance(len(chunk))
    return samples


def rendered(policy: Policy, samples: Sequence[Sample], bar: Any) -> list[Sample]:
    """The samples with their outputs, made in parts of the policy's batch size; ``bar`` advances with each."""
    outputs: list[Sample] = []
    for chunk in chunks(samples, policy.batch_size):
        outputs += policy.render(chunk)
        bar.advance(len(chunk))
    return outputs
