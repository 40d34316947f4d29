"""What to ask of the policy in a round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from raft_core.errors import ConfigError
from raft_core.prompt_files.drawing import own_seed
from raft_core.protocols import Policy, Purpose
from raft_core.rng import seed_for
from raft_core.soundness import examined, render_sound
from raft_core.types import Grouping, Prompt, Request, Sample

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


def whole_prompts(asked: Sequence[Request], size: int) -> Iterator[Sequence[Request]]:
    """Consecutive parts of whole prompts: as many as ``size`` requests hold, at least one prompt."""
    start, end = 0, 0
    for group in Grouping.of(asked).sizes.tolist():
        if end > start and end + group - start > size:
            yield asked[start:end]
            start = end
        end += group
    if end > start:
        yield asked[start:end]


def require_strength(strength: float) -> float:
    """The strength itself, if there is such a one.

    Raises:
        ConfigError: it is negative, or no number.
    """
    if not 0 <= strength < math.inf:
        raise ConfigError(
            f"the strength is {strength}; give 0 (the frozen start), 1 (as trained), or what lies between or above"
        )
    return strength


def sampled(
    policy: Policy, asked: Sequence[Request], bar: Any, *, purpose: Purpose = "use", strength: float = 1.0
) -> list[Sample]:
    """One whole sample per request, or a failed one, drawn in parts of the policy's batch size; ``bar`` advances with each."""
    samples: list[Sample] = []
    for chunk in chunks(asked, policy.batch_size):
        samples += examined(policy.sample(chunk, purpose=purpose, strength=strength))
        bar.advance(len(chunk))
    return samples


def rendered(policy: Policy, samples: Sequence[Sample], bar: Any) -> list[Sample]:
    """The samples with their outputs, made in parts of the policy's batch size; ``bar`` advances with each."""
    outputs: list[Sample] = []
    for chunk in chunks(samples, policy.batch_size):
        outputs += render_sound(chunk, policy.render)
        bar.advance(len(chunk))
    return outputs
