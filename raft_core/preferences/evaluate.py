"""How any reward does on preferences: agreement with people, calibration, and what it might really follow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from raft_core.errors import RewardError
from raft_core.preferences.metrics import (
    Calibration,
    Rate,
    accuracy,
    agreement,
    best_scale,
    by_group,
    calibration,
    differences,
    label_scores,
    within_prompt_correlation,
)
from raft_core.preferences.preference import Preference, flattened, sliced
from raft_core.reporter import Reporter
from raft_core.rewards.scoring import Scorer

PART = 64  # preferences scored at a time: their pictures are decoded for that long
LABELS = "labels"


@dataclass(frozen=True)
class Verdict:
    """What is found of one reward.

    Attributes:
        name: of the reward.
        accuracy: how often the chosen candidate is scored highest.
        unscored: candidates without a score; their preferences do not count.
        first_error: why the first of them has none, or "".
        calibration: with the reward's own scale of preferences, 1 where it has none.
        fitted: with the scale that fits these very labels best.
        size_correlation: of score and size within a preference, by ranks.
        groups: accuracy of each.
    """

    name: str
    accuracy: Rate
    unscored: int
    first_error: str
    calibration: Calibration
    fitted: Calibration
    size_correlation: float
    groups: Mapping[str, Rate]


@dataclass(frozen=True)
class Findings:
    """What is found of all rewards on the same preferences.

    Attributes:
        preferences: how many.
        prompts: how many different ones they are about.
        ties: how many of them nobody won; they do not count for accuracy.
        chance: accuracy of a coin.
        size_unit: of sizes.
        larger_wins: how often the largest candidate was chosen: what a reward that follows size alone would reach.
        verdicts: one per reward.
        agreement: how often two of them, or one and the labels, put two candidates in the same order.
    """

    preferences: int
    prompts: int
    ties: int
    chance: float
    size_unit: str
    larger_wins: Rate
    verdicts: Sequence[Verdict]
    agreement: Mapping[str, Mapping[str, float]]

    def as_json(self) -> dict:
        """Plain data."""
        return json.loads(json.dumps(asdict(self)))


def evaluate_rewards(scorers: Sequence[Scorer], preferences: Sequence[Preference], reporter: Reporter) -> Findings:
    """Score all candidates by all rewards, and compare.

    Raises:
        RewardError: two rewards of one name, or one that could score nothing.
    """
    names = [scorer.reward.info.name for scorer in scorers]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RewardError(f"two rewards are named {twice[0]!r}: give one another name (--reward.name NAME behind it)")
    if LABELS in names:
        raise RewardError(f"a reward is named {LABELS!r}, which stands for the choices: give it another name (--reward.name)")
    scores: dict[str, list[np.ndarray]] = {}
    errors: dict[str, str] = {}
    for scorer, name in zip(scorers, names, strict=True):
        scores[name], errors[name] = score_preferences(scorer, preferences, reporter)
    sizes = size_preferences(preferences)
    decided = [p for p in preferences if p.choice is not None]
    return Findings(
        preferences=len(preferences),
        prompts=len({preference.prompt for preference in preferences}),
        ties=len(preferences) - len(decided),
        chance=float(np.mean([1 / len(p.candidates) for p in decided])) if decided else float("nan"),
        size_unit="words" if isinstance(preferences[0].candidates[0], str) else "kB as JPEG",
        larger_wins=accuracy(sizes, preferences),
        verdicts=[
            _verdict(name, scores[name], sizes, preferences, errors[name], getattr(scorer.reward, "preference_scale", 1.0))
            for scorer, name in zip(scorers, names, strict=True)
        ],
        agreement=agreement({**scores, LABELS: label_scores(preferences)}),
    )


def _verdict(
    name: str,
    scores: Sequence[np.ndarray],
    sizes: Sequence[np.ndarray],
    preferences: Sequence[Preference],
    error: str,
    scale: float,
) -> Verdict:
    deltas = differences(scores, preferences)
    return Verdict(
        name=name,
        accuracy=accuracy(scores, preferences),
        unscored=int(sum(np.isnan(row).sum() for row in scores)),
        first_error=error,
        calibration=calibration(deltas, scale),
        fitted=calibration(deltas, best_scale(deltas)),
        size_correlation=within_prompt_correlation(scores, sizes),
        groups=by_group(scores, preferences),
    )


def score_preferences(scorer: Scorer, preferences: Sequence[Preference], reporter: Reporter) -> tuple[list[np.ndarray], str]:
    """(scores of the candidates of each preference, turned so that higher is better; the first error or "").

    Raises:
        RewardError: no candidate could be scored.
    """
    found: list[np.ndarray] = []
    error, name = "", scorer.reward.info.name
    with reporter.phase(f"scoring by {name}", len(preferences)) as bar:
        for start in range(0, len(preferences), PART):
            part = preferences[start : start + PART]
            scores = scorer([sample for preference in part for sample in preference.samples()])
            if name in scores.failures:
                error = error or scores.failures[name].first_error
            flat = (-1 if name in scores.descending else 1) * scores.columns[name]
            found += [flat[rows] for rows in sliced(part)]
            bar.advance(len(part))
    if all(np.isnan(row).all() for row in found):
        raise RewardError(f"the reward {name!r} could score nothing: {error}")
    return found, error


def size_preferences(preferences: Sequence[Preference]) -> list[np.ndarray]:
    """Sizes of the candidates of each preference."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool:
        flat = np.array(list(pool.map(lambda item: item.size(), flattened(preferences))))
    return [flat[rows] for rows in sliced(preferences)]
