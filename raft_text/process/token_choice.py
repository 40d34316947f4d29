"""From logits to tokens: reshaped by temperature and the rest, then one uniform number per token decides.

Token t of a sample is the inverse of the cumulated distribution at the t-th uniform number of the sample's own seed. So it does
not matter who else is in the batch, and policies that differ little mostly draw the same tokens from the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from raft_core.rng import torch_rng
from raft_text.options import Sampling


def uniforms(seeds: Sequence[int], n: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """[B, n] in [0, 1), each row from its own seed; float64 where the device has it.

    Drawn on the CPU, so that a seed means the same everywhere.
    """
    drawn = torch.stack([torch.rand(n, generator=torch_rng(seed), dtype=torch.float64) for seed in seeds])
    return drawn.to(device, torch.float32 if torch.device(device).type == "mps" else torch.float64)


class Picker:
    """Draws the next tokens.

    Args:
        sampling: temperature, top-k, top-p, repetition penalty, minimum length.
        ends: ids of the tokens that end a text.
    """

    def __init__(self, sampling: Sampling, ends: Sequence[int]):
        from transformers import (
            LogitsProcessorList,
            RepetitionPenaltyLogitsProcessor,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        steps: list[Any] = []
        if sampling.repetition_penalty != 1:
            steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
        if sampling.temperature not in (0, 1):
            steps.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k is not None:
            steps.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            steps.append(TopPLogitsWarper(sampling.top_p))
        self._steps = LogitsProcessorList(steps)
        self._greedy = sampling.temperature == 0
        self._min_new_tokens = sampling.min_new_tokens
        self._ends = list(ends)

    def __call__(self, logits: torch.Tensor, history: torch.Tensor, count: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """[A] the next token of each row.

        Args:
            logits: [A, V] float32, of the model.
            history: [A, L] ids of prompt and completion; slots that hold nothing repeat a token of the same row.
            count: [A] completion tokens so far.
            uniform: [A] float64 in [0, 1).
        """
        if self._min_new_tokens:
            early = count < self._min_new_tokens  # [A]
            logits = logits.clone()
            logits[:, self._ends] = logits[:, self._ends].masked_fill(early[:, None], -torch.inf)
        scores: Any = self._steps(history, logits)  # type: ignore[arg-type] - a LongTensor
        return scores.argmax(dim=-1) if self._greedy else inverse_cdf(scores, uniform)


def inverse_cdf(scores: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """[A] the token at which the cumulated softmax of ``scores`` [A, V] exceeds ``uniform`` [A]; −∞ is never taken.

    Scores (0, −∞, 0) and u = 0.6: cumulated 0.5, 0.5, 1, so token 2.
    """
    # float32 would lose tokens of probability 1e-7 in a vocabulary of 10⁵.
    cumulated = scores.float().softmax(dim=-1).to(uniform.dtype).cumsum(dim=-1)  # [A, V]
    total = cumulated[:, -1:].contiguous()
    chosen = torch.searchsorted(cumulated, uniform[:, None] * total, right=True)
    return torch.minimum(chosen, torch.searchsorted(cumulated, total))[:, 0]  # a product may round up to the total


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """[A] entropy of softmax(logits [A, V]) in nats."""
    log_probs = logits.log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)
