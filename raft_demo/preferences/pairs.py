"""Which samples a person is asked to choose between: those whose comparison teaches most, and some at random.

The value of comparing samples a and b of one prompt follows from their scores. With d_j the difference of their scores by the
j-th of J rewards and judges, in standard deviations of that column over the run, higher is better:

    tie       u = 4·p·(1 − p), p = σ(d) by the reward that selected: 1 where it cannot tell them apart, 0 where it is sure
    quarrel   v = 1 − |Σ_j d_j| / Σ_j |d_j|: 1 where rewards and judges pull equally hard in opposite directions, 0 where
              all agree
    stake     s = Σ_j |d_j| / J: how far apart anything puts them
    value     (u + v) / 2 · s

u alone is uncertainty sampling (Lewis and Gale 1994) by the model of Bradley and Terry, v is query by committee (Seung, Opper
and Sompolinsky 1992). Without s both prefer samples that are all but the same, of which a choice teaches nothing. What is not
scored counts nothing, so a run without scores is sampled at random.

The prompt with the fewest choices so far comes next. Every other time (``EXPLORED``) the most valuable of ``ENTRANTS`` random
pairs of it that nobody has compared is taken, else any one of them: labels of valuable pairs alone teach less of what all agree
on, and say nothing of how well a reward does on ordinary ones (docs/guides/learn_a_reward.md has figures).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

EXPLORED = 0.5
ENTRANTS = 64
How = Literal["teaching", "random"]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A question.

    Attributes:
        samples: places in the pool, in the order in which they are shown.
        how: whether it was drawn for its value or at random.
    """

    samples: tuple[int, ...]
    how: How


@dataclass(frozen=True, eq=False)
class Scored:
    """What drawing goes by.

    Attributes:
        prompts: [N] the prompt that each sample answers.
        columns: name → [N] standardised scores, higher is better, NaN = not scored.
        reward: name of the column that selected; "" when there is none.
    """

    prompts: Sequence[str]
    columns: Mapping[str, np.ndarray]
    reward: str = ""

    @cached_property
    def of_prompt(self) -> Mapping[str, np.ndarray]:
        """Prompt → its samples."""
        found: dict[str, list[int]] = {}
        for i, prompt in enumerate(self.prompts):
            found.setdefault(prompt, []).append(i)
        return {prompt: np.array(places) for prompt, places in found.items()}


def standardised(values: np.ndarray, descending: bool = False) -> np.ndarray:
    """[N] of mean 0 and variance 1 over what is scored, higher is better; zeros where all are alike, NaN = not scored."""
    scored = values[~np.isnan(values)]
    if not len(scored):
        return values
    spread = scored.std()
    unit = (values - scored.mean()) / spread if spread > 0 else values - values
    return -unit if descending else unit


def value(scored: Scored, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[M] what the comparison of samples a [M] with b [M] teaches, as the module says."""
    if not scored.columns:
        return np.zeros(len(a))
    apart = np.nan_to_num(np.array([column[a] - column[b] for column in scored.columns.values()]))  # [J, M]
    strength = np.abs(apart).sum(axis=0)
    quarrel = 1 - np.abs(apart.sum(axis=0)) / np.where(strength > 0, strength, 1)
    tie = np.zeros(len(a))
    if scored.reward in scored.columns:
        own = scored.columns[scored.reward]
        tie = np.nan_to_num(1 / np.cosh((own[a] - own[b]) / 2) ** 2)  # 4·σ(d)·σ(−d)
    return (tie + quarrel) / 2 * strength / len(apart)


def draw(scored: Scored, done: Collection[frozenset[int]], n: int, rng: np.random.Generator) -> Drawn | None:
    """The next question; None when every pair has been compared.

    Args:
        done: sets of samples that have been compared, or are about to be.
        n: samples to choose between; fewer where a prompt has fewer.
        rng: the same for the same draw.
    """
    how: How = "random" if rng.random() < EXPLORED else "teaching"
    asked = Counter(scored.prompts[next(iter(samples))] for samples in done)
    for prompt in sorted(scored.of_prompt, key=lambda prompt: (asked[prompt], rng.random())):
        own = scored.of_prompt[prompt]
        if (pair := _pair(scored, own, done, how, rng)) is not None:
            chosen = _joined(scored, own, pair, n, how, rng)
            return Drawn(tuple(int(i) for i in rng.permutation(chosen)), how)
    return None


def _pair(
    scored: Scored, own: np.ndarray, done: Collection[frozenset[int]], how: How, rng: np.random.Generator
) -> list[int] | None:
    """Two samples of one prompt that have not been compared."""
    first, second = np.triu_indices(len(own), 1)
    place = {int(sample): i for i, sample in enumerate(own)}
    compared = np.zeros((len(own), len(own)), dtype=bool)
    for samples in done:
        inside = [place[i] for i in samples if i in place]
        compared[np.ix_(inside, inside)] = True
    left = np.flatnonzero(~compared[first, second])
    if not len(left):
        return None
    entrants = rng.choice(left, size=min(1 if how == "random" else ENTRANTS, len(left)), replace=False)
    a, b = own[first[entrants]], own[second[entrants]]
    best = int(np.argmax(value(scored, a, b)))
    return [int(a[best]), int(b[best])]


def _joined(scored: Scored, own: np.ndarray, pair: list[int], n: int, how: How, rng: np.random.Generator) -> list[int]:
    """The pair and others of the prompt, up to n: each the one of the highest mean value with those that are in, or any."""
    chosen = list(pair)
    while len(chosen) < min(n, len(own)):
        others = np.array([i for i in own if i not in chosen])
        others = rng.choice(others, size=min(1 if how == "random" else ENTRANTS, len(others)), replace=False)
        means = np.mean([value(scored, others, np.full(len(others), i)) for i in chosen], axis=0)
        chosen.append(int(others[np.argmax(means)]))
    return chosen
