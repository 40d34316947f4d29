"""What came of a run by preferences: each round by the learned reward and by the labeller, each reward by unseen labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raft_core.errors import StoreError
from raft_core.preferences.evaluate import score_preferences
from raft_core.preferences.folder import read_recipe
from raft_core.preferences.learner import Scale
from raft_core.preferences.metrics import accuracy
from raft_core.preferences.reward import LearnedReward
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_core.reading.shapes import require_shape
from raft_core.reporter import Reporter
from raft_core.rewards.scoring import Scorer
from raft_core.store.manifest import read_history
from raft_core.workflows.online import GOLD, LEARNED, REWARD, Online, labels_until


@dataclass(frozen=True)
class Line:
    """One round, its figures those of the policy before its update.

    Attributes:
        round: its number.
        stage: whose reward was followed.
        learned: mean of that reward, standard deviations of the reference.
        gold: mean of the labeller's score in the same unit; NaN without a scripted one.
        kl: nats per sample from the reference.
        kl_coefficient: its price; NaN without PPO's.
    """

    round: int
    stage: int
    learned: float
    gold: float
    kl: float
    kl_coefficient: float


@dataclass(frozen=True)
class Stage:
    """A stage's labels and its reward.

    Attributes:
        labels: choices so far.
        held_out: accuracy of the new reward on labels that it was not fitted to.
        stale: accuracy of the stage before's on the labels that are new; NaN in the first.
    """

    labels: int
    held_out: float
    stale: float


def lines(online: Online) -> list[Line]:
    """Every round of the run."""
    scale = gold_scale(online)
    rounds = online.checked.config.rounds
    ends = [online.settings.rounds_until(number, rounds) for number in range(1, online.settings.stages + 1)]
    found = []
    for row in read_history(online.run):
        gold = row.get(f"judge/{online.labeller.name}", np.nan) if online.labeller else np.nan
        kl = row.get("ppo/kl", row.get("kl", np.nan))
        found.append(
            Line(
                row["round"],
                int(np.searchsorted(ends, row["round"])) + 1,
                row.get(f"score/{LEARNED}", row["reward/mean"]),
                float(scale(_sign(online) * gold)) if scale else np.nan,
                kl,
                row.get("ppo/kl_coefficient", np.nan),
            )
        )
    return found


def gold_scale(online: Online) -> Scale | None:
    """Mean and deviation of the labeller's scores on the reference's samples, higher is better; None for people."""
    place = online.folder / GOLD
    if not place.is_file():
        return None
    try:
        shape = {"mean": float, "std": float}
        return Scale(**require_shape(read_object(place), shape, "", shape))
    except (OSError, TypeError, Unreadable) as error:
        raise StoreError(f"{place} cannot be read: {error}") from None


def _sign(online: Online) -> int:
    assert online.labeller is not None
    return 1 if online.labeller.scorer.reward.info.higher_is_better else -1


def stages(online: Online, reporter: Reporter) -> list[Stage]:
    """What each stage's reward is worth on the choices that it has not seen."""
    labels = labels_until(online, online.settings.stages)
    found = []
    for number in range(1, online.settings.stages + 1):
        held_out = read_recipe(online.stage(number) / REWARD).training["held_out_accuracy"]["value"]
        stale = np.nan
        if number > 1:
            before = LearnedReward(str(online.stage(number - 1) / REWARD), device=online.device)
            scores, _ = score_preferences(Scorer(before), labels[number - 1], reporter)
            stale = accuracy(scores, labels[number - 1]).value
        found.append(Stage(sum(map(len, labels[:number])), held_out, stale))
    return found
