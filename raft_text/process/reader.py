"""A model in the midst of reading: each prompt is read once, and its samples go on from there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch

from raft_text.model.facts import context_length


class Reader:
    """A model in the midst of reading: its cache, and which of its entries are real.

    Args:
        network: a transformers causal LM.
        prompts: [U] token ids, all different.
        rows: [A] which prompt each row continues.
    """

    def __init__(self, network: Any, prompts: Sequence[Sequence[int]], rows: torch.Tensor, device: torch.device):
        from raft_text.process.cache import roomy_cache

        self._network = network
        self._last_place = (context_length(network.config) or sys.maxsize) - 1
        ids, mask = left_padded(prompts)
        self._cache = roomy_cache()
        self.mask, self.position = mask.to(device), mask.sum(dim=1).to(device)  # [U, L], [U]
        places = (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        self.logits = self._forward(ids.to(device), self.mask, places, last=True)[:, -1]  # [U, V]
        if len(prompts) != len(rows):
            self.keep(rows)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone, repeats allowed."""
        self._cache.batch_select_indices(rows)
        self.mask, self.position, self.logits = self.mask[rows], self.position[rows], self.logits[rows]

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """[A, n, V] float32 logits after each of the tokens [A, n]; they count as read until ``forget``."""
        n = tokens.shape[1]
        # Rows that are finished and not yet dropped are read on; they must not run beyond the table of learned positions.
        places = (self.position[:, None] + torch.arange(n, device=tokens.device)).clamp(max=self._last_place)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), n)], dim=1)
        self.position = self.position + n
        return self._forward(tokens, self.mask, places)

    def forget(self, n: int, kept: torch.Tensor) -> None:
        """Of the last ``n`` tokens only the first ``kept`` [A] were meant; the others stay in the cache, masked."""
        self.mask[:, -n:] = (torch.arange(n, device=kept.device) < kept[:, None]).to(self.mask.dtype)
        self.position = self.position - n + kept

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, last: bool = False) -> torch.Tensor:
        extra = {"logits_to_keep": 1} if last and takes_logits_to_keep(self._network) else {}
        out = self._network(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=self._cache, use_cache=True, **extra
        )
        return out.logits.float()


def takes_logits_to_keep(network: Any) -> bool:
    """Whether the model can be asked for the last logits alone."""
    import inspect

    return "logits_to_keep" in inspect.signature(type(network).forward).parameters


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """([U, L] ids, [U, L] mask): prompts end together. Padding repeats the row's first token, which is masked."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[prompt[0]] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask
