"""Figures of texts: how varied, how long, how likely; each as the literature defines it.

Words are lower-cased and split at white space. Counts of n-grams never reach from one text into the next. ``unique_n`` and
``distinct_n`` depend on how many texts there are: compare them at equal numbers only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from raft_core.types import Sample

SEGMENT = 100


def words(text: str) -> list[str]:
    """Lower-cased words of a text."""
    return text.lower().split()


def msttr(texts: Sequence[str], segment: int = SEGMENT) -> float:
    """Mean segmental type–token ratio: distinct words / words, mean over segments of ``segment`` words.

    The texts are concatenated in their order and cut; the remainder is dropped. NaN when there is not one whole segment.
    "a b a" and "b" in segments of 2: (a b), (a b), so 1.
    """
    everything = [word for text in texts for word in words(text)]
    cuts = range(0, len(everything) - segment + 1, segment)
    ratios = [len(set(everything[start : start + segment])) / segment for start in cuts]
    return float(np.mean(ratios)) if ratios else math.nan


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams / all n-grams, over all texts; NaN without any. "a a b", n = 1: 2/3."""
    counts = ngrams(texts, n)
    return len(counts) / counts.total() if counts else math.nan


def unique_n(texts: Sequence[str], n: int) -> int:
    """How many n-grams occur exactly once in all texts together. "a a b", n = 1: 1."""
    return sum(count == 1 for count in ngrams(texts, n).values())


def ngrams(texts: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """n-gram → how often it occurs."""

    def grams() -> Iterator[tuple[str, ...]]:
        for text in texts:
            found = words(text)
            yield from zip(*(found[i:] for i in range(n)), strict=False)

    return Counter(grams())


def mean_length(texts: Sequence[str]) -> float:
    """Words per text."""
    return float(np.mean([len(words(text)) for text in texts])) if texts else math.nan


def text_figures(texts: Sequence[str]) -> dict[str, float]:
    """All figures of texts by name; those that are not defined are left out."""
    found = {
        "length": mean_length(texts),
        "msttr_100": msttr(texts),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "unique_1": float(unique_n(texts, 1)),
        "unique_2": float(unique_n(texts, 2)),
    }
    return {name: value for name, value in found.items() if not math.isnan(value)}


def perplexity(policy: Any, references: Sequence[Sample], *, reference: bool = False) -> float:
    """exp of the mean negative log-likelihood per token of texts that the policy did not write; NaN without any.

    Args:
        policy: a loaded ``CausalLM``.
        references: samples with ``tokens``, as ``CausalLM.written`` makes them of prompts and responses.
        reference: of the frozen start.
    """
    import torch

    from raft_core.sampling import chunks

    total, tokens = 0.0, 0
    with torch.no_grad():
        for part in chunks(references, policy.batch_size):
            total += float(policy.nll(part, None, reference=reference).cpu().double().sum())
            tokens += sum(len(sample.tensors["tokens"]) for sample in part)
    return float(torch.tensor(total / tokens, dtype=torch.float64).exp()) if tokens else math.nan  # ∞, and no OverflowError


def drawn_figures(samples: Sequence[Sample]) -> dict[str, float]:
    """What the sampler says of the samples: tokens, entropy, how they ended, what rejection saved at most."""
    metas = [sample.meta for sample in samples]
    if not metas or any("tokens" not in meta for meta in metas):
        return {}
    figures = {
        "tokens": float(np.mean([meta["tokens"] for meta in metas])),
        "ended": float(np.mean([meta["finish"] in ("end", "stop") for meta in metas])),
    }
    if all("entropy" in meta for meta in metas):
        weights = np.array([meta["tokens"] for meta in metas], dtype=float)
        figures["entropy"] = float(np.average([meta["entropy"] for meta in metas], weights=weights))
    if all("turns" in meta for meta in metas):
        figures["turns"] = float(np.mean([meta["turns"] for meta in metas]))
    if any(meta.get("rejected") for meta in metas):
        figures["rejected"] = float(np.mean([bool(meta.get("rejected")) for meta in metas]))
        figures["tokens_saved_at_most"] = float(sum(meta.get("tokens_saved_at_most", 0) for meta in metas))
    return figures
