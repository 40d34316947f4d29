"""Over-optimisation: what choosing ever harder by a learned proxy does to the gold judge that labelled its training data.

Source: Gao, Schulman and Hilton 2022 (2210.10760). Differs: best-of-n is not drawn but its expectation is computed over all
subsets of a pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from raft_core.errors import ConfigError, RewardError
from raft_core.metrics.divergence import best_of_n_kl
from raft_core.metrics.statistics import mean_interval
from raft_core.preferences.fit import FitSettings
from raft_core.preferences.learner import Learner, Scale
from raft_core.preferences.metrics import Rate
from raft_core.preferences.preference import Item, Preference
from raft_core.preferences.reward import LearnedReward
from raft_core.preferences.train import train_reward
from raft_core.reporter import Reporter
from raft_core.rewards.scoring import Scorer
from raft_core.rng import numpy_rng
from raft_core.soundness import sound_of
from raft_core.types import Sample


def distilled_kl(rounds: int, k: int) -> float:
    """At most so far is a policy after rounds of perfectly distilled best-of-k, which are together best-of-k^rounds, nats."""
    return rounds * math.log(k) - (1 - k**-rounds)


def best_of_n(by: np.ndarray, values: np.ndarray, n: int) -> float:
    """Expected value of the one that ``by`` scores highest among n, over all subsets of n of the pool.

    In ascending order of ``by`` the i-th (from 1) is highest in C(i − 1, n − 1) of C(N, n) subsets: of values (5, 1, 3), in
    that order, with n = 2 the subsets choose 1, 3, 3, so 7/3. Among equals the earlier one wins.

    Args:
        by: [N] what chooses.
        values: [N] what is measured.
        n: 1 … N.
    """
    from scipy.special import gammaln

    order = np.lexsort((-np.arange(len(by)), by))
    i = np.arange(n, len(by) + 1)
    log_weight = gammaln(i) - gammaln(n) - gammaln(i - n + 1)
    log_all = gammaln(len(by) + 1) - gammaln(n + 1) - gammaln(len(by) - n + 1)
    return float(np.exp(log_weight - log_all) @ values[order][n - 1 :])


@dataclass(frozen=True)
class StudySettings:
    """What is studied.

    Args:
        labels: sizes of the training sets, ascending.
        samples: per prompt, among which pairs are labelled, ≥ 2.
        pool: per prompt, fresh, from which best-of-n chooses, ≥ 2.
        temperature: of the labels: the better is chosen with σ(Δ/temperature), Δ in deviations of the gold; 0 = always.
        seed: of the samples, the pairs and the fits.
    """

    labels: tuple[int, ...] = (200, 1000, 5000, 20000)
    samples: int = 64
    pool: int = 64
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        counts = {"samples": self.samples, "pool": self.pool}
        wrong = [f"{name} is {value}, but must be at least 2" for name, value in counts.items() if value < 2]
        if not self.labels or min(self.labels) < 2 or list(self.labels) != sorted(set(self.labels)):
            wrong.append(f"labels are {list(self.labels)}, but must be different numbers from 2 on, the smallest first")
        if not 0 <= self.temperature < math.inf:
            wrong.append(f"temperature is {self.temperature}, but must not be negative")
        if wrong:
            raise ConfigError(wrong)


@dataclass(frozen=True)
class Curve:
    """Gold, and the proxy that chose, along one way of optimising; in standard deviations of the reference policy.

    Attributes:
        label: of the proxy.
        steps: n of best-of-n, or the rounds that were made.
        distance: √KL from the reference, √nats.
        gold: mean over prompts of the gain over the reference, with its 95 % interval (bootstrap over prompts; none for RAFT).
        proxy: the same of the proxy, or None where the gold itself chooses.
    """

    label: str
    steps: Sequence[int]
    distance: Sequence[float]
    gold: Sequence[float]
    gold_low: Sequence[float]
    gold_high: Sequence[float]
    proxy: Sequence[float] | None = None


@dataclass(frozen=True)
class Proxy:
    """A reward that was learned from so many labels.

    Attributes:
        labels: how many.
        folder: where it is.
        held_out: accuracy on held-out labels of the same kind.
    """

    labels: int
    folder: Path
    held_out: Rate


@dataclass(frozen=True)
class Study:
    """What a study gave.

    Attributes:
        proxies: from the fewest labels to the most.
        best_of: best-of-n by each of them, and by the gold itself.
        raft: rounds of RAFT by each of them, when asked for.
        gold_scale: mean and standard deviation of the gold on the reference policy.
    """

    proxies: Sequence[Proxy]
    best_of: Sequence[Curve]
    gold_scale: Scale
    raft: Sequence[Curve] = field(default_factory=tuple)


def labelled_pairs(samples: Sequence[Sample], gold: np.ndarray, count: int, settings: StudySettings) -> list[Preference]:
    """``count`` different pairs of samples of one prompt each, labelled by the gold; the first n are the same for any count.

    A pair with equal golds gets no label.

    Args:
        samples: prompt-major, ``settings.samples`` of each prompt.
        gold: [N] NaN = not scored.

    Raises:
        RewardError: there are not so many.
    """
    rng = numpy_rng(settings.seed, "labels")
    spread = float(np.nanstd(gold)) or 1.0
    k = settings.samples
    first, second = np.triu_indices(k, 1)
    pairs = [(p * k + i, p * k + j) for p in range(len(samples) // k) for i, j in zip(first, second, strict=True)]
    found: list[Preference] = []
    for index in rng.permutation(len(pairs)):
        a, b = pairs[index]
        draw, delta = rng.random(), (gold[a] - gold[b]) / spread
        if np.isnan(delta) or delta == 0:  # alike in the gold's eyes: nothing is preferred
            continue
        z = delta / settings.temperature if settings.temperature else math.copysign(math.inf, delta)
        chance = 1 / (1 + math.exp(-max(z, -700)))
        target = (1.0, 0.0) if draw < chance else (0.0, 1.0)
        items = [Item.of(samples[i]) for i in (a, b)]
        contexts = () if items[0].context is None else tuple(item.context for item in items)
        found.append(Preference(items[0].prompt, tuple(item.output for item in items), target, contexts=contexts))
        if len(found) == count:
            return found
    raise RewardError(
        f"only {len(found)} of {count} pairs could be labelled: take more --samples per prompt ({k}), more prompts, or "
        "fewer --labels"
    )


def gold_scores(gold: Scorer, samples: Sequence[Sample], reporter: Reporter) -> np.ndarray:
    """[N] scores of the gold judge, higher is better, NaN = not scored.

    Raises:
        RewardError: it could score nothing.
    """
    with reporter.phase(f"scoring by {gold.reward.info.name}", len(samples)) as bar:
        scores = gold(samples)
        bar.advance(len(samples))
    values = scores.grid(1)[:, 0]
    if np.isnan(values).all():
        raise RewardError(f"the gold judge could score nothing: {scores.failures[scores.reward].first_error}")
    return values


def train_proxies(
    make: Callable[[], Learner],
    labelled: Sequence[Preference],
    reference: Sequence[Sample],
    settings: StudySettings,
    fit: FitSettings,
    folder: Path,
    reporter: Reporter,
    device: str = "auto",
) -> list[Proxy]:
    """One learned reward per size of the training set, each from the first of the same labels."""
    items = [Item.of(sample) for sample in sound_of(reference)]
    proxies = []
    for n in settings.labels:
        reporter.line(f"\nproxy of {n} labels")
        trained = train_reward(make(), labelled[:n], fit, folder / f"labels_{n}", reporter, reference=items, device=device)
        proxies.append(Proxy(n, trained.folder, trained.held_out))
    return proxies


def best_of_curves(
    proxies: Sequence[Proxy], pool: Sequence[Sample], gold: np.ndarray, scale: Scale, settings: StudySettings, device: str
) -> list[Curve]:
    """Best-of-n by each proxy, and by the gold itself, for n = 1, 2, 4 … up to the pool."""
    grid = scale(gold).reshape(-1, settings.pool)  # [P, N]
    curves = []
    for proxy in proxies:
        reward = LearnedReward(str(proxy.folder), device=device)
        scores = Scorer(reward)(pool).grid(settings.pool)
        curves.append(_curve(f"{proxy.labels} labels", scores, grid, settings))
    return [*curves, _curve("gold itself", None, grid, settings)]


def _curve(label: str, proxy: np.ndarray | None, gold: np.ndarray, settings: StudySettings) -> Curve:
    ns = [2**i for i in range(settings.pool.bit_length()) if 2**i <= settings.pool]
    by = gold if proxy is None else proxy
    start = _per_prompt(by, gold, 1)  # prompts differ, and that is no doubt about what choosing gains
    golds = [mean_interval(_per_prompt(by, gold, n) - start, settings.seed) for n in ns]
    return Curve(
        label=label,
        steps=ns,
        distance=[math.sqrt(best_of_n_kl(n)) for n in ns],
        gold=[estimate.value for estimate in golds],
        gold_low=[estimate.low for estimate in golds],
        gold_high=[estimate.high for estimate in golds],
        proxy=None if proxy is None else [float(np.nanmean(_per_prompt(by, proxy, n))) for n in ns],
    )


def _per_prompt(by: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """[P, 1] expected best-of-n of each prompt; NaN where fewer than n samples are scored."""
    rows = []
    for chooser, value in zip(by, values, strict=True):
        scored = ~(np.isnan(chooser) | np.isnan(value))
        rows.append(best_of_n(chooser[scored], value[scored], n) if scored.sum() >= n else math.nan)
    return np.array(rows)[:, None]
