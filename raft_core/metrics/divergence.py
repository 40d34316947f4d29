"""How far the policy has moved from its reference, by likelihoods with shared draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from raft_core.capabilities import ComparesLikelihoods
from raft_core.protocols import Policy
from raft_core.rng import seed_for
from raft_core.sampling import chunks
from raft_core.types import Sample


def log_ratios(policy: Policy, samples: Sequence[Sample], path: Sequence[int | str], *, draws: int = 1) -> np.ndarray:
    """[N] log π(sample) − log π_ref(sample) = nll_ref − nll_policy of each sample, averaged over its draws.

    Nats for a model of text, of the distributions that it samples from (``ComparesLikelihoods``): at a temperature other than 1
    the mean over samples would be no divergence of the model's own. For a diffusion model the denoising surrogate of a
    log-likelihood, whose unit is that of the policy's ``nll``. Policy and reference share each draw (timestep and noise), so
    that its variance cancels: where the two are equal the ratio is exactly 0.

    Args:
        samples: need their tensors; the policy must be resident for training.
        path: names the draws, together with each sample's own seed: (run seed, purpose).
        draws: of the randomness of ``nll`` per sample, ≥ 1. One is enough for text, which has none.

    Source: Wallace et al. 2023 (Diffusion-DPO), eq. 14, for the surrogate.
    """
    import torch

    values = np.zeros(len(samples))
    with torch.no_grad():
        for part in chunks(range(len(samples)), max(policy.batch_size, 1)):
            chosen = [samples[i] for i in part]
            if isinstance(policy, ComparesLikelihoods):
                values[part] = policy.log_ratios(chosen).cpu().double().numpy()
                continue
            for number in range(draws):
                draw = policy.draw(chosen, [seed_for(*path, sample.seed, number) for sample in chosen])
                ratio = policy.nll(chosen, draw, reference=True) - policy.nll(chosen, draw)
                values[part] += ratio.cpu().double().numpy() / draws
    return values


def kl_to_reference(policy: Policy, samples: Sequence[Sample], seed: int, *, limit: int = 64) -> float:
    """KL(π ‖ π_ref) estimated as the mean log-ratio over samples that the *present* policy drew; NaN without samples.

    Args:
        seed: of the run.
        limit: no more than this many samples are looked at, spread evenly over the list: two forward passes each.
    """
    if not len(samples):
        return math.nan
    rows = np.unique(np.linspace(0, len(samples) - 1, min(limit, len(samples))).round().astype(int))
    return float(log_ratios(policy, [samples[i] for i in rows], (seed, "kl")).mean())


def best_of_n_kl(n: int) -> float:
    """KL of the best of n samples from the distribution they are drawn from, in nats: log n − (n − 1)/n.

    Exact when no two scores are alike, an upper bound otherwise. n = 1: 0; n = 2: 0.1931; n = 4: 0.6363; n = 10: 1.4026.

    Source: Stiennon et al. 2020 (2009.01325), appendix G.3; Beirami et al. 2024 for the bound.
    """
    return math.log(n) - (n - 1) / n
