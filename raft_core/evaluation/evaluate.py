"""Before and after: the frozen start and the trained policy, same prompts, seeds and noise, by every reward and judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from raft_core.errors import ConfigError, DataError
from raft_core.machine.out_of_memory import in_words
from raft_core.metrics.diversity import pairwise_distance
from raft_core.metrics.statistics import Estimate, mean_interval, win_rate, wins
from raft_core.monitoring.figures import mean_scored
from raft_core.protocols import Policy
from raft_core.reporter import Reporter, Silent
from raft_core.rewards.scoring import Scorer
from raft_core.rng import seed_for
from raft_core.sampling import rendered, requests, require_strength, sampled
from raft_core.soundness import failed_mask, failed_words, require_sound
from raft_core.types import Failure, Grouping, Prompt, Sample, Scores

Role = Literal["reward", "part", "judge"]
LEVEL = 0.95
SIDES = ("before training", "after training")


@dataclass(frozen=True)
class Comparison:
    """One reward or judge, before and after, over the pairs that it scored on both sides.

    Attributes:
        name: of the reward or judge.
        role: the reward that selected, a part of it, or a judge that was never trained on.
        scale: what its numbers mean, in words.
        higher_is_better: its direction.
        before, after: means over the pairs.
        difference: mean of after − before, with a bootstrap interval over prompts.
        win_rate: share of pairs in which after is better, ties counted half, with an interval over prompts.
        pairs: scored on both sides.
        unscored: pairs left out because a side has no score.
    """

    name: str
    role: Role
    scale: str
    higher_is_better: bool
    before: float
    after: float
    difference: Estimate
    win_rate: Estimate
    pairs: int
    unscored: int

    @property
    def verdict(self) -> Literal["better", "worse", "unclear"]:
        """What the interval of the difference allows to say."""
        sign = 1 if self.higher_is_better else -1
        bounds = sorted((sign * self.difference.low, sign * self.difference.high))
        if bounds[0] > 0:
            return "better"
        return "worse" if bounds[1] < 0 else "unclear"


@dataclass(frozen=True)
class Spread:
    """How unlike the samples of a prompt are, before and after: mean over prompts of the mean pairwise 1 − cosine."""

    before: float
    after: float
    difference: Estimate


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Paired results on one set of prompts.

    Attributes:
        split: what the prompts are to the run: "train", "heldout", or a name of the caller's.
        k: samples per prompt.
        seed: the run's; with the prompt and the index it fixes every sample.
        level: coverage of the intervals.
        comparisons: the reward first, then its parts, then the judges.
        diversity: within prompts; None when k is 1.
        before, after: the rendered samples, prompt-major, pair by pair.
        scores_before, scores_after: their scores.
    """

    split: str
    k: int
    seed: int
    level: float
    comparisons: tuple[Comparison, ...]
    diversity: Spread | None
    before: Sequence[Sample]
    after: Sequence[Sample]
    scores_before: Scores
    scores_after: Scores

    @property
    def sides(self) -> dict[str, Sequence[Sample]]:
        """The samples, by ``SIDES``."""
        return dict(zip(SIDES, (self.before, self.after), strict=True))

    @property
    def failed(self) -> dict[str, str]:
        """Side → how many of its samples failed and why, in words; sides without any are left out."""
        return {side: words for side, samples in self.sides.items() if (words := failed_words(samples))}

    def require_sound(self) -> None:
        """Refuse a comparison with nothing.

        Raises:
            NotFiniteError: all samples of a side failed.
        """
        for side, samples in self.sides.items():
            require_sound(samples, f"{self.split} prompts, {side}")

    @property
    def prompts(self) -> list[Prompt]:
        return [sample.prompt for sample in self.before[:: self.k]]

    @property
    def failures(self) -> dict[str, Failure]:
        """name → what could not be scored on either side."""
        first, second = self.scores_before.failures, self.scores_after.failures
        return {
            name: Failure(
                sum(side[name].count for side in (first, second) if name in side), (first.get(name) or second[name]).first_error
            )
            for name in {**first, **second}
        }


def evaluate(
    policy: Policy,
    prompts: Sequence[Prompt],
    scorer: Scorer,
    *,
    k: int,
    seed: int,
    split: str = "heldout",
    strength: float = 1.0,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Sample every prompt k times before and after, score both, compare.

    Both sides get the same requests in the same chunks, so the same initial noise: what differs is the training alone.

    Args:
        strength: how strongly what was trained acts after training; 1 = as trained.

    Raises:
        ConfigError: k < 1, a negative strength.
        DataError: no prompts.
        DeviceError: memory ran out.
    """
    if k < 1:
        raise ConfigError(f"the evaluation draws {k} samples per prompt, but at least 1 is needed")
    require_strength(strength)
    if not prompts:
        raise DataError(f"there is no {split} prompt to evaluate on: name a prompt file or leave this evaluation out")
    reporter = reporter or Silent()
    asked = requests(prompts, k, seed, "evaluation")
    phase = reporter.phase(f"evaluate {split}: sample", 2 * len(asked))
    with in_words("sample"), policy.resident("sample"), phase as bar:
        drawn = [sampled(policy, asked, bar, purpose="compare", strength=side) for side in (0.0, strength)]
    with in_words("render"), policy.resident("render"), reporter.phase(f"evaluate {split}: score", 2 * len(asked)) as bar:
        before, after = (rendered(policy, samples, bar) for samples in drawn)
        scores_before, scores_after = scored_together(scorer, before, after)
        features = pair_features(policy, before, after) if k > 1 else None
    evaluation = Evaluation(
        split=split,
        k=k,
        seed=seed,
        level=LEVEL,
        comparisons=tuple(compare(scores_before, scores_after, scorer, k, seed)),
        diversity=None if features is None else compare_spread(features[0], features[1], seed),
        before=before,
        after=after,
        scores_before=scores_before,
        scores_after=scores_after,
    )
    for side, words in evaluation.failed.items():
        reporter.warn(f"{split} prompts, {side}: {words}; they have no output and no score")
    return evaluation


def scored_together(scorer: Scorer, *sides: Sequence[Sample]) -> list[Scores]:
    """The scores of all sides, such as before and after, from one call.

    What compares the samples of a prompt with one another (ranks, scales within a prompt, pairwise judges) then compares before
    with after; of each side by itself its mean would say nothing. Pairs stand side by side, for a judge in a ring asks
    neighbours alone.
    """
    scores = scorer([sample for group in zip(*sides, strict=True) for sample in group])
    return [_side(scores, number, len(sides)) for number in range(len(sides))]


def _side(scores: Scores, first: int, sides: int) -> Scores:
    """The rows of one side, with the failures that are among them."""
    columns = {name: values[first::sides] for name, values in scores.columns.items()}
    missing = {name: int(np.isnan(columns[name]).sum()) for name in scores.failures}
    failures = {name: Failure(missing[name], each.first_error) for name, each in scores.failures.items() if missing[name]}
    return replace(scores, columns=columns, failures=failures)


def compare(before: Scores, after: Scores, scorer: Scorer, k: int, seed: int) -> list[Comparison]:
    """One comparison per column: the reward first, then its parts, then the judges."""
    roles = column_roles(scorer)
    return [
        compare_column(
            before.columns[name].reshape(-1, k),
            after.columns[name].reshape(-1, k),
            name=name,
            role=role,
            scale=scorer.infos[name][0],
            higher_is_better=scorer.infos[name][1],
            seed=seed,
        )
        for name, role in roles.items()
    ]


def column_roles(scorer: Scorer) -> dict[str, Role]:
    """name → role of every column, in the order of the report. A judge that is also part of the reward is a part."""
    selecting = scorer.reward.info.name
    judges = {judge.info.name for judge in scorer.judges}
    parts = {name for name in Scorer(scorer.reward).infos if name != selecting}
    roles: dict[str, Role] = {selecting: "reward"}
    roles |= {name: "part" for name in scorer.infos if name in parts}
    roles |= {name: "judge" for name in scorer.infos if name not in roles and name in judges}
    roles |= {name: "judge" for name in scorer.infos if name not in roles}  # parts of a judge
    return roles


def compare_column(
    before: np.ndarray, after: np.ndarray, *, name: str, role: Role, scale: str, higher_is_better: bool, seed: int
) -> Comparison:
    """Compare two [P, K] arrays pair by pair; a pair counts when both sides are scored."""
    both = ~np.isnan(before) & ~np.isnan(after)
    before, after = np.where(both, before, np.nan), np.where(both, after, np.nan)
    pairs = int(both.sum())
    return Comparison(
        name=name,
        role=role,
        scale=scale,
        higher_is_better=higher_is_better,
        before=mean_scored(before),
        after=mean_scored(after),
        difference=mean_interval(after - before, seed_for(seed, "bootstrap", name), LEVEL),
        win_rate=win_rate(wins(before, after, higher_is_better), LEVEL),
        pairs=pairs,
        unscored=int(both.size) - pairs,
    )


def pair_features(policy: Policy, before: Sequence[Sample], after: Sequence[Sample]) -> list[list[np.ndarray]]:
    """Before and after, features [n, D] of each prompt's pairs; a pair counts when both sides are sound."""
    sound = ~(failed_mask(before) | failed_mask(after))
    if not sound.any():
        return [[], []]
    groups, places = Grouping.of(before).among(sound), np.flatnonzero(sound).tolist()
    return [groups.split(policy.embed([samples[i] for i in places])) for samples in (before, after)]


def compare_spread(before: Sequence[np.ndarray], after: Sequence[np.ndarray], seed: int) -> Spread:
    """Diversity within prompts of two sets of features, [n, D] for each prompt; fewer than two samples have none."""
    first, second = (np.array([pairwise_distance(group) for group in side]) for side in (before, after))
    difference = mean_interval((second - first)[:, None], seed_for(seed, "bootstrap", "diversity"), LEVEL)
    return Spread(mean_scored(first), mean_scored(second), difference)
