"""Keys and values of what has been read, with room for what comes: for a new token the others are not copied."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

#: Tokens by which a layer grows when it is full.
ROOM = 64


class RoomyLayer(DynamicLayer):
    """A layer that grows by ``ROOM`` tokens at once; transformers' own is copied whole for every token.

    ``keys`` and ``values`` [B, heads, tokens, width] are the beginning of larger ones.
    """

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self._stored: list[torch.Tensor] = []  # [B, heads, tokens and room, width] keys, and values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any):
        """Append [B, heads, n, width]; all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if not (self._stored and after <= self._stored[0].shape[-2]):
            pairs = ((self.keys, key_states), (self.values, value_states))
            self._stored = [_with_room(old, new, before, after) for old, new in pairs]
        for stored, new in zip(self._stored, (key_states, value_states), strict=True):
            stored[..., before:after, :] = new
        keys, values = [stored[..., :after, :] for stored in self._stored]
        self.keys, self.values = keys, values
        return keys, values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows alone, repeats allowed."""
        super().batch_select_indices(indices)
        self._stored = []


def _with_room(old: Any, new: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """``old`` at the beginning of what has room for ``new`` and ``ROOM`` tokens more."""
    stored = new.new_empty(*new.shape[:-2], after + ROOM, new.shape[-1])
    if before:
        stored[..., :before, :] = old
    return stored


def roomy_cache() -> Cache:
    """An empty cache in which every layer keeps all of its past: sliding windows are cut by the mask alone."""
    return Cache(layer_class_to_replicate=RoomyLayer)
