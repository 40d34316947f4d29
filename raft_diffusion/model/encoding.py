"""Prompts as the U-Net sees them: computed once per text, kept on the CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from raft_core.models.quiet import quiet

#: Embeddings kept at most; at SD 1.5's 77 × 768 these are 0.5 GB.
CACHE_SIZE = 2048


@dataclass(frozen=True)
class Condition:
    """What the U-Net is conditioned on besides the timestep.

    Attributes:
        tokens: [B, T, D] hidden states of the text encoders.
        pooled: [B, P] of the whole text, SDXL only.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor | None = None

    def to(self, device: torch.device) -> Condition:
        return Condition(self.tokens.to(device), None if self.pooled is None else self.pooled.to(device))

    def where(self, mask: torch.Tensor, other: Condition) -> Condition:
        """``other``'s rows where ``mask`` [B], else these."""
        tokens = torch.where(mask[:, None, None], other.tokens, self.tokens)
        if self.pooled is None or other.pooled is None:
            return Condition(tokens)
        return Condition(tokens, torch.where(mask[:, None], other.pooled, self.pooled))

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """The rows of all parts."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Condition(torch.cat([part.tokens for part in parts]), torch.cat(pooled) if pooled else None)


class PromptEncoder:
    """Encodes texts with a pipeline's text encoders, each text by itself, so that an embedding depends on nothing but its text.

    Args:
        pipe: a diffusers pipeline with ``encode_prompt``.
        placed: enters a context in which the text encoders are on the device; used only when there is something to encode.
        device: where they then are.
    """

    def __init__(self, pipe: Any, placed: Callable[[], AbstractContextManager[None]], device: torch.device):
        self._pipe = pipe
        self._placed = placed
        self._device = device
        self._cache: OrderedDict[tuple[str, str], Condition] = OrderedDict()

    @property
    def xl(self) -> bool:
        """Whether the pipeline has a second text encoder with pooled embeddings."""
        return getattr(self._pipe, "text_encoder_2", None) is not None

    def __call__(self, texts: Sequence[str], *, negative: bool = False, version: str = "base", keep: bool = True) -> Condition:
        """[B] conditions on the device.

        Args:
            texts: B prompts.
            negative: they are what guidance pushes away from; SDXL takes zeros for an empty one.
            version: names the text encoders' weights, so that adapted and frozen embeddings never mix.
            keep: cache. Off while the text encoders learn: then gradients flow into them.
        """
        slots = {text: (version, f"-{text}" if negative else f"+{text}") for text in dict.fromkeys(texts)}
        rows = {text: self._cache[slot] for text, slot in slots.items() if keep and slot in self._cache}
        missing = [text for text in slots if text not in rows]
        if missing:
            with self._placed(), quiet():
                rows |= {text: self._encode(text, negative, keep) for text in missing}
        if keep:
            self._remember({slots[text]: row for text, row in rows.items()})
        placed = {text: row.to(self._device) for text, row in rows.items()}
        return Condition.cat([placed[text] for text in texts])

    def _encode(self, text: str, negative: bool, keep: bool) -> Condition:
        with torch.no_grad() if keep else nullcontext():
            if self.xl:
                condition = self._encode_xl(text, negative)
            else:
                tokens, _ = self._pipe.encode_prompt(text, self._device, 1, do_classifier_free_guidance=False)
                condition = Condition(tokens)
        return condition.to(torch.device("cpu")) if keep else condition

    def _encode_xl(self, text: str, negative: bool) -> Condition:
        tokens, _, pooled, _ = self._pipe.encode_prompt(
            text, device=self._device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if negative and not text and self._pipe.config.force_zeros_for_empty_prompt:
            return Condition(torch.zeros_like(tokens), torch.zeros_like(pooled))
        return Condition(tokens, pooled)

    def _remember(self, rows: dict[tuple[str, str], Condition]) -> None:
        for slot, row in rows.items():
            self._cache[slot] = row
            self._cache.move_to_end(slot)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)

    def tokenizers(self) -> Iterator[Any]:
        yield self._pipe.tokenizer
        if self.xl:
            yield self._pipe.tokenizer_2


def visible_text(tokenizer: Any, text: str, read: Callable[[str], str] = str) -> str:
    """The beginning of ``text`` that the tokenizer's context takes in; all of it when it fits.

    Args:
        read: the text as the encoder is given it, where a word of several vectors is written out.
    """

    def size(beginning: str) -> int:
        return len(tokenizer(read(beginning), verbose=False)["input_ids"])

    room = tokenizer.model_max_length
    if size(text) <= room:
        return text
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    ends = [end for _, end in encoded["offset_mapping"][1:-1]][: room - 2]  # the first and the last place are no text's
    if read(text) == text:
        return text[: ends[-1]]
    return text[: next((end for end in reversed(ends) if size(text[:end]) <= room), 0)]
