"""From logits to tokens: reshaped by temperature and the rest, then one uniform number per token decides; and the way back,
from tokens that are there to the distribution that they were drawn from.

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
    """Draws the next tokens, and tells from which distribution.

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

        shapes: list[Any] = []
        if sampling.repetition_penalty != 1:
            shapes.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
        if sampling.temperature not in (0, 1):
            shapes.append(TemperatureLogitsWarper(sampling.temperature))
        cuts: list[Any] = []
        if sampling.top_k is not None:
            cuts.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            cuts.append(TopPLogitsWarper(sampling.top_p))
        self.cuts_off = bool(cuts)
        self._steps, self._cuts = LogitsProcessorList(shapes + cuts), LogitsProcessorList(cuts)
        self._greedy = sampling.temperature == 0
        self._temperature = sampling.temperature or 1.0
        self._penalty = sampling.repetition_penalty
        self._min_new_tokens = sampling.min_new_tokens
        self._ends = list(ends)

    def __call__(
        self, logits: torch.Tensor, history: torch.Tensor, count: torch.Tensor, uniform: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """([A] the next token of each row, [A, V] logits of the distribution that it is drawn from; of the likeliest, its own).

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
        return scores.argmax(dim=-1) if self._greedy else inverse_cdf(scores, uniform), scores

    def shaped(self, logits: torch.Tensor, prompt: Sequence[int], tokens: torch.Tensor) -> torch.Tensor:
        """[T, V] logits of the distributions that a completion's tokens are drawn from, before anything is cut off.

        Repetition penalty, minimum length and temperature, as in drawing; temperature 0 draws nothing and counts as 1. A token
        that is there is possible, whatever the minimum length says of it.

        Args:
            logits: [T, V] float32, that predict the tokens; differentiable.
            prompt: ids.
            tokens: [T] of the completion.
        """
        if self._penalty != 1:
            seen = self._seen(logits, prompt, tokens)
            logits = torch.where(seen, torch.where(logits < 0, logits * self._penalty, logits / self._penalty), logits)
        if early := min(self._min_new_tokens, len(tokens)):
            barred = torch.zeros_like(logits, dtype=torch.bool)
            barred[:early, self._ends] = True
            barred.scatter_(1, tokens.to(logits.device)[:, None], False)
            logits = logits.masked_fill(barred, -torch.inf)
        return logits if self._temperature == 1 else logits / self._temperature

    def _seen(self, logits: torch.Tensor, prompt: Sequence[int], tokens: torch.Tensor) -> torch.Tensor:
        """[T, V] bool: what occurs in the prompt or before each token."""
        found = torch.zeros_like(logits, dtype=torch.int8)
        found[0, list(prompt)] = 1
        steps = torch.arange(1, len(tokens), device=logits.device)
        found[steps, tokens[:-1].to(logits.device)] = 1
        return found.cummax(dim=0).values.bool()

    def kept(self, shaped: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[T, V] bool: what top-k and top-p leave of the distributions [T, V], and the tokens [T] that are there."""
        cut: Any = self._cuts(tokens, shaped)  # type: ignore[arg-type] - they do not look at the tokens
        return (cut > -torch.inf).scatter(1, tokens.to(shaped.device)[:, None], True)


def replay_mistakes(sampling: Sampling) -> list[str]:
    """Why the probabilities under which tokens are drawn cannot be had again from other weights, in words.

    The tokens that top-k and top-p leave are other ones after every step: under the weights of then and of now a ratio would
    compare distributions over different sets, and be 0 where a token has dropped out.
    """
    if sampling.temperature == 0:
        return [
            "sampling.temperature is 0, which takes the likeliest token and draws nothing, but the objective weighs how likely "
            "each token was when it was drawn: choose a positive temperature, or an objective without ratios such as Sft"
        ]
    cuts = [f"top_k is {sampling.top_k}"] if sampling.top_k is not None else []
    cuts += [f"top_p is {sampling.top_p}"] if sampling.top_p < 1 else []
    if not cuts:
        return []
    return [
        f"sampling.{' and sampling.'.join(cuts)}, but the objective weighs how likely each token was when it was drawn, and "
        "which tokens are cut off changes with every step: draw from all tokens (top_k null, top_p 1) or at a lower "
        "temperature, or choose an objective without ratios such as Sft"
    ]


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
