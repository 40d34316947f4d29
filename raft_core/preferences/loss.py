"""The losses of learned rewards: a choice among n candidates, of which a pair is the smallest."""

from __future__ import annotations

import torch


def choice_loss(scores: torch.Tensor, target: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between how a choice fell and the softmax of the candidates' scores, one value per choice.

    With two candidates and target (1, 0) this is Bradley–Terry, −log σ(r_w − r_l − m); with four and one chosen, Ziegler's
    best-of-4. A tie of two, target (½, ½), is −½ log σ(Δ) − ½ log σ(−Δ), least at Δ = 0. For Δ = 1: 0.3133 when the better one
    was chosen, 0.4741 with a margin of ½, 0.8133 for a tie; and for scores (1, 0, 0, 0) with the first chosen 0.7437.

    Args:
        scores: [B, n], −∞ where a choice has fewer than n candidates.
        target: [B, n] ≥ 0, each row of sum 1; 0 where there is no candidate.
        margin: [B] ≥ 0, taken off the score of what was chosen alone; a tie has no such candidate and no margin.

    Returns:
        [B] nats.

    Source: Bradley and Terry 1952; Ziegler et al. 2019 (1909.08593), eq. 1; the margin as in Llama 2 (2307.09288), eq. 2.
    """
    logits = scores - margin[:, None] * (target == 1)
    log_probs = torch.log_softmax(logits, dim=1)
    return -torch.where(target > 0, target * log_probs, torch.zeros_like(log_probs)).sum(dim=1)


def padded(flat: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """[B, n] scores of choices of these lengths from their [Σ lengths] scores in a row, −∞ beyond."""
    return torch.nn.utils.rnn.pad_sequence(list(flat.split(lengths)), batch_first=True, padding_value=float("-inf"))
