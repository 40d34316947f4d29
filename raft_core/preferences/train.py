"""From preferences to the folder of a learned reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from raft_core.errors import DataError
from raft_core.preferences.fit import FitSettings, Fitted, fit
from raft_core.preferences.folder import Recipe, save_reward
from raft_core.preferences.learner import ChecksItems, Learner, raw_scores
from raft_core.preferences.metrics import Calibration, Rate, accuracy, calibration, differences
from raft_core.preferences.preference import Item, Preference, flattened, sliced
from raft_core.preferences.probe import probe
from raft_core.preferences.read import split
from raft_core.reporter import Reporter


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes:
        folder: of the learned reward.
        fitted: its epochs and scales.
        held_out: accuracy on prompts that early stopping alone has seen.
        calibration: the same of its confidence.
    """

    folder: Path
    fitted: Fitted
    held_out: Rate
    calibration: Calibration


def train_reward(
    learner: Learner,
    preferences: Sequence[Preference],
    settings: FitSettings,
    folder: Path,
    reporter: Reporter,
    *,
    reference: Sequence[Item] | None = None,
    device: str = "auto",
) -> Trained:
    """Fit a learner and write it; nothing is written before it is trained.

    Args:
        learner: not yet loaded.
        reference: samples of the reference policy; by default the candidates that are trained on.

    Raises:
        DataError: preferences that the learner cannot read.
        RewardError: nothing to learn from, or a loss that is not finite.
        StoreError: the folder cannot be written to.
    """
    train, held_out = split(preferences, settings.held_out_fraction, settings.seed)
    if isinstance(learner, ChecksItems) and (mistakes := learner.check_items([*flattened(preferences), *(reference or [])])):
        raise DataError(mistakes[0])
    learner.load(device)
    try:
        fitted = fit(learner, train, held_out, flattened(train) if reference is None else reference, settings, reporter)
        scores = preference_scores(learner, held_out)
        probed = probe(learner)
    finally:
        learner.sleep()
    rate = accuracy(scores, held_out)
    calibrated = calibration(differences(scores, held_out), 1 / fitted.before.std)
    facts = {
        "preferences": len(train),
        "held_out": len(held_out),
        "held_out_accuracy": asdict(rate),
        "held_out_ece": calibrated.ece,
        "reference": "the candidates trained on" if reference is None else f"{len(reference)} samples",
        "best_epoch": fitted.best,
        "fit": asdict(settings),
    }
    save_reward(folder, learner, Recipe(learner.modality, learner.settings(), fitted.before, fitted.after, probed, facts))
    return Trained(folder, fitted, rate, calibrated)


def preference_scores(learner: Learner, preferences: Sequence[Preference]) -> list[np.ndarray]:
    """Raw scores of the candidates of each preference."""
    flat = raw_scores(learner, learner.encode(flattened(preferences)))
    return [flat[part] for part in sliced(preferences)]
