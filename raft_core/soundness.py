"""Which samples are sound and which failed: a latent, a pixel or a probability of a failed one is NaN or infinite.

A failed sample keeps its place among the K of its prompt and says why (``Sample.failed``). It has no output and no score, so
it is never selected, and nothing is measured or shown of it but that it failed. A model whose samples all failed cannot go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from raft_core.errors import ModelError, NotFiniteError
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import parse_json
from raft_core.types import Sample

if TYPE_CHECKING:
    import torch

REMEDY = (
    "If training brought this about, train anew with a lower trainer.optimizer.lr, or take an earlier checkpoint; if the model "
    "draws so from the start, load it in float32 (policy.dtype: float32)"
)

Render = Callable[[Sequence[Sample]], list[Sample]]


def not_finite(tensors: Mapping[str, torch.Tensor]) -> str:
    """The reason why a sample with these tensors failed, "latents are not finite"; "" when every number is finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return f"{name.replace('_', ' ')} are not finite"
    return ""


def examined(samples: Sequence[Sample]) -> list[Sample]:
    """The samples as a policy drew them, those with a tensor that is not finite marked as failed."""
    reasons = [sample.failed or not_finite(sample.tensors) for sample in samples]
    return [sample.as_failed(reason) if reason else sample for sample, reason in zip(samples, reasons, strict=True)]


def render_sound(samples: Sequence[Sample], render: Render) -> list[Sample]:
    """The samples with their outputs; the failed ones stay as they are, and ``render`` may mark others as failed.

    Raises:
        ModelError: the policy has not rendered every sample.
    """
    sound = sound_of(samples)
    rendered = render(sound) if sound else []
    if len(rendered) != len(sound):
        raise ModelError(f"the policy's method 'render' was asked for {len(sound)} samples and returned {len(rendered)}")
    outputs = iter(rendered)
    return [sample if sample.failed else next(outputs) for sample in samples]


def sound_of(samples: Sequence[Sample]) -> list[Sample]:
    """Those that did not fail, in their order."""
    return [sample for sample in samples if not sample.failed]


def failed_of(meta: str) -> str:
    """Why a stored sample failed, by the column ``meta`` of its row, JSON; "" for a sound one, and where it is none of ours."""
    try:
        found = parse_json(meta, repeated_keys=True)
    except Unreadable:
        return ""
    return str(found.get("failed", "")) if isinstance(found, dict) else ""


def failed_mask(samples: Sequence[Sample]) -> np.ndarray:
    """[N] bool: which samples failed."""
    return np.array([bool(sample.failed) for sample in samples], dtype=bool)


def failed_words(samples: Sequence[Sample]) -> str:
    """How many of the samples failed and why, the commonest reason first; "" when none did.

    "3 of 16 samples failed: latents are not finite (2), pixels are not finite (1)".
    """
    reasons = Counter(sample.failed for sample in samples if sample.failed)
    if not reasons:
        return ""
    listed = [reason if len(reasons) == 1 else f"{reason} ({count})" for reason, count in reasons.most_common()]
    return f"{reasons.total()} of {len(samples)} samples failed: {', '.join(listed)}"


def require_sound(samples: Sequence[Sample], where: str, warn: Callable[[str], None] | None = None) -> None:
    """Go on with what is sound, and say how many are not.

    Args:
        where: what the samples were drawn for; begins the message.
        warn: takes a line that a person should not miss.

    Raises:
        NotFiniteError: every sample failed.
    """
    words = failed_words(samples)
    if words and not sound_of(samples):
        raise NotFiniteError(f"{where}: {words}. {REMEDY}")
    if words and warn is not None:
        warn(f"{where}: {words}; they have no output and no score")
