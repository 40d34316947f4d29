"""The figures of a round: what was sampled, how it scored, what was kept, how far the policy has moved."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from raft_core import capabilities
from raft_core.metrics.divergence import kl_to_reference
from raft_core.metrics.diversity import diversity_within, vendi_within
from raft_core.metrics.history import ERROR_OF
from raft_core.metrics.spread import effective_number, flat_fraction
from raft_core.metrics.statistics import standard_error
from raft_core.protocols import Policy
from raft_core.soundness import failed_mask, sound_of
from raft_core.types import Grouping, Sample, Scores, Selection, Weighted


def measure(policy: Policy, samples: Sequence[Sample], scores: Scores, selection: Selection, seed: int) -> dict[str, float]:
    """All figures of a round by their names in the metrics file, before its update. What is not defined is left out.

    ========================  =============================================================================================
    reward/mean               over all scored samples
    reward/best               mean over prompts of each prompt's best, in the reward's own direction
    reward/kept               over the scored samples that the selection uses
    reward/std_within         mean over prompts of the standard deviation (n − 1) of a prompt's scores
    reward/flat_fraction      prompts whose scored samples all score alike, of those with one: nothing there can be compared
    select/kept               distinct samples that the selection uses
    select/kept_fraction      the same, of all samples
    select/effective_samples  mean over prompts of how many of its samples count in effect, (Σw)²/Σw² of their weights; left out
                              where all weights are alike
    judge/NAME                mean of a judge over all samples that it scored
    judge_kept/NAME           the same over the kept ones
    score/NAME                mean of a part of a combined reward
    se/reward/mean            standard error of the mean as that of further prompts, which differ; se/judge/NAME and
                              se/score/NAME likewise; left out with a single prompt
    unscored/NAME             sound samples without a score; left out when there are none
    sample/evaluations        passes of the network that the samples took, where the policy counts them
    sample/given_up           samples that were given up before they were finished; left out when there are none
    sample/failed             samples that failed, of which nothing else is measured; left out when there are none
    diversity                 mean pairwise 1 − cosine of ``policy.embed`` within a prompt
    vendi                     effective number of different samples of a prompt, by the same features: from 1 to K
    kl                        mean log π − log π_ref of at most 64 of the samples, in the unit of ``policy.nll``; of a model of
                              text under the distributions that it samples from
    MODALITY/…                what the policy itself says of the samples, by ``policy.figures`` if it has that
    ========================  =============================================================================================

    Args:
        samples: [N], prompt-major, rendered, of which some may have failed.
        scores: of these samples.
        selection: what is trained on.
        seed: of the run; names the draws of the KL estimate.
    """
    kept, groups, failed = selection.kept, Grouping.of(samples), failed_mask(samples)
    finished = np.array([not sample.unscorable for sample in samples], dtype=bool)
    whole = [sample for sample, each in zip(samples, finished, strict=True) if each]
    figures = reward_figures(scores, kept, groups) | column_figures(scores, kept, groups, failed)
    figures |= {"sample/failed": int(failed.sum())} if failed.any() else {}
    figures |= way_figures(samples)
    figures["select/kept"] = len(kept)
    figures["select/kept_fraction"] = len(kept) / len(samples) if samples else math.nan
    figures |= weight_figures(selection, groups, len(samples))
    if whole:
        features, own = policy.embed(whole), groups.among(finished)
        figures |= {"diversity": diversity_within(features, own), "vendi": vendi_within(features, own)}
        figures["kl"] = kl_to_reference(policy, whole, seed)
    if sound := sound_of(samples):
        figures |= capabilities.figures(policy, sound)
    return {name: float(value) for name, value in figures.items() if not math.isnan(value)}


def way_figures(samples: Sequence[Sample]) -> dict[str, float]:
    """What making the samples took, as far as the policy tells, and how many of them were given up on the way."""
    counts = [sample.meta["evaluations"] for sample in samples if "evaluations" in sample.meta]
    given_up = sum(bool(sample.meta.get("rejected")) for sample in samples)
    figures = {"sample/evaluations": float(sum(counts))} if counts else {}
    return figures | ({"sample/given_up": float(given_up)} if given_up else {})


def reward_figures(scores: Scores, kept: np.ndarray, groups: Grouping | int) -> dict[str, float]:
    """The figures ``reward/…``, NaN where undefined.

    Scores [[1, 3], [2, NaN]], kept 1 and 2: mean 2, best (3 + 2)/2 = 2.5, kept 2.5, std_within √2 from the first prompt alone,
    flat_fraction ½, and a standard error of 0, for both prompts have the mean 2.
    """
    values = scores.columns[scores.reward]
    upward = scores.grid(groups)  # [P, K], higher is better
    sign = -1.0 if scores.reward in scores.descending else 1.0
    rows = [row[~np.isnan(row)] for row in upward]
    return {
        "reward/mean": mean_scored(values),
        f"{ERROR_OF}reward/mean": standard_error(upward),
        "reward/best": sign * mean_scored(np.array([row.max() for row in rows if len(row)])),
        "reward/kept": mean_scored(values[kept]),
        "reward/std_within": mean_scored(np.array([row.std(ddof=1) for row in rows if len(row) > 1])),
        "reward/flat_fraction": flat_fraction(upward),
    }


def column_figures(
    scores: Scores, kept: np.ndarray, groups: Grouping | int, failed: np.ndarray | None = None
) -> dict[str, float]:
    """The figures of judges, of parts of the reward, and the counts of what was not scored.

    Args:
        failed: [N] bool, samples that are not counted.
    """
    figures: dict[str, float] = {}
    for name, values in scores.columns.items():
        error = standard_error(scores.grid(groups, name))
        if name in scores.parts:
            figures |= {f"score/{name}": mean_scored(values), f"{ERROR_OF}score/{name}": error}
        elif name != scores.reward:
            figures |= {f"judge/{name}": mean_scored(values), f"{ERROR_OF}judge/{name}": error}
            figures[f"judge_kept/{name}"] = mean_scored(values[kept])
        unscored = np.isnan(values) if failed is None else np.isnan(values) & ~failed
        if unscored.any():
            figures[f"unscored/{name}"] = int(unscored.sum())
    return figures


def weight_figures(selection: Selection, groups: Grouping, n: int) -> dict[str, float]:
    """``select/effective_samples`` of a selection of ``n`` samples whose weights differ; nothing of any other.

    Weights 3 and 1 of one prompt, 2 of another: (16/10 + 1)/2 = 1.3.
    """
    if not isinstance(selection, Weighted) or len(np.unique(selection.weight)) < 2:
        return {}
    weights = np.zeros(n)
    np.add.at(weights, selection.index, selection.weight)
    numbers = np.array([effective_number(row[None])[0] for row in groups.split(weights)])
    return {"select/effective_samples": float(numbers[numbers > 0].mean())}


def mean_scored(values: np.ndarray) -> float:
    """Mean of what is scored; NaN when nothing is (and no warning, as ``np.nanmean`` gives)."""
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if len(scored) else math.nan
