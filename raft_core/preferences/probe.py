"""Does a learned reward still stand on the model that it was trained on? A few fixed inputs tell, whatever the modality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raft_core.errors import ModelError
from raft_core.media.medium import medium_named
from raft_core.preferences.learner import Learner, Scale, raw_scores
from raft_core.preferences.preference import Item

TOLERANCE = 0.25  # in standard deviations of the reward: more than precision, less than another model
PROMPTS = ("a red circle", "How do I boil an egg?", "two cats on a sofa, oil painting", "Explain why the sky is blue.")


def probe_items(modality: str) -> list[Item]:
    """Four items that are the same for ever."""
    return [Item(prompt, output) for prompt, output in zip(PROMPTS, medium_named(modality).probes(), strict=True)]


def probe(learner: Learner) -> list[float]:
    """Raw scores of the fixed items."""
    return raw_scores(learner, learner.encode(probe_items(learner.modality))).tolist()


def require_same(learner: Learner, expected: Sequence[float], scale: Scale, name: str) -> None:
    """The scores of the fixed items are what they were.

    Raises:
        ModelError: the model below the weights is another one now.
    """
    off = np.abs(np.array(probe(learner)) - np.array(expected)) / scale.std
    if not (off < TOLERANCE).all():
        raise ModelError(
            f"{name} gives other scores than when it was trained (off by {off.max():.2g} standard deviations on fixed inputs): "
            "the model that it was trained on has changed since; restore that model, or train again"
        )
