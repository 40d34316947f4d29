"""Packing: several samples in one row of the batch, and the proof that none of them sees another.

Most models of transformers tell from positions that begin anew where a sample ends; some do not, or only with some kinds of
attention. Which is which depends on the library's version, so it is tried with the model that is there, when it is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.rng import torch_rng
from raft_text.model.facts import context_length
from raft_text.model.loading import attention_of

#: [1, L] ids and what else the network is called with → [1, L, D], whatever depends on everything that a token sees.
Forward = Callable[[torch.Tensor, Mapping[str, Any]], torch.Tensor]

SLIDING = "sliding_attention"
#: Tokens by which a sample of the proof exceeds a sliding window that is no wider than ``WIDEST``.
PROOF_TOKENS, WIDEST = 24, 2048
#: What a model raises that does not take a mask of this shape.
REFUSALS = (ValueError, TypeError, RuntimeError, IndexError, AttributeError, KeyError)


@dataclass(frozen=True)
class Packing:
    """How a model is told where one sample ends and the next begins.

    Attributes:
        masked: by a mask of its own, which takes memory in proportion to the square of a row's tokens; else by positions alone.
        kinds: names of the kinds of layers, where the model takes a mask for each.
        window: tokens that layers of the kind ``sliding_attention`` see, or all layers where no kinds are told; None = all.
        longest: tokens of a packed row, which only a sample that is longer by itself exceeds; None = no limit.
        dtype: of the computation, and of the mask.
    """

    masked: bool = False
    kinds: tuple[str, ...] = ()
    window: int | None = None
    longest: int | None = None
    dtype: torch.dtype = torch.float32

    def rows(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Which samples of these lengths go together, in their order.

        Lengths 5, 4, 3, 9 and rows of at most 8 tokens: [0], [1, 2], [3].
        """
        row: list[int] = []
        for index, n in enumerate(lengths):
            if row and self.longest is not None and sum(lengths[i] for i in row) + n > self.longest:
                yield row
                row = []
            row.append(index)
        if row:
            yield row

    def arguments(self, lengths: Sequence[int], device: torch.device) -> dict[str, Any]:
        """What the network is called with beside the ids of samples of these lengths, end to end: [1, ΣL]."""
        places = torch.cat([torch.arange(n) for n in lengths]).to(device)[None]
        if not self.masked:
            return {"position_ids": places}
        sample = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)
        distance = torch.arange(len(sample), device=device)[:, None] - torch.arange(len(sample), device=device)
        seen = (sample[:, None] == sample) & (distance >= 0)  # [ΣL, ΣL] query, key
        near = seen if self.window is None else seen & (distance < self.window)
        if not self.kinds:
            return {"position_ids": places, "attention_mask": _added(near, self.dtype)}
        masks = {kind: _added(near if kind == SLIDING else seen, self.dtype) for kind in self.kinds}
        return {"position_ids": places, "attention_mask": masks}


def _added(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[1, 1, n, n] to be added to the scores of attention: 0 where a key is seen."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)[None, None]


def find_packing(network: Any, forwards: Sequence[Forward], dtype: torch.dtype, device: torch.device) -> Packing:
    """The first way of packing under which no sample sees another.

    Args:
        network: a transformers causal LM; its configuration tells the vocabulary and the windows.
        forwards: what reads the rows: the network itself, and a critic's own trunk.
        dtype: of the computation.

    Raises:
        ModelError: there is none.
    """
    for packing in _candidates(network.config, dtype):
        if all(keeps_apart(forward, packing, network, device) for forward in forwards):
            context = context_length(network.config)
            if context is None or all(_exceeds(forward, packing, network, context, device) for forward in forwards):
                return packing
            return replace(packing, longest=context)
    raise ModelError(
        f"memory.packing is on, but in {type(network).__name__} with attention {attention_of(network)!r} packed samples see "
        "each other, and it takes no mask that keeps them apart: leave memory.packing off"
    )


def _candidates(config: Any, dtype: torch.dtype) -> Iterator[Packing]:
    yield Packing(dtype=dtype)
    kinds = tuple(sorted(set(getattr(config, "layer_types", None) or ())))
    window = getattr(config, "sliding_window", None)
    if SLIDING not in kinds:
        yield Packing(masked=True, dtype=dtype, window=None if kinds else window)
    elif window is not None and set(kinds) <= {"full_attention", SLIDING}:
        yield Packing(masked=True, dtype=dtype, kinds=kinds, window=window)


@torch.no_grad()
def keeps_apart(forward: Forward, packing: Packing, network: Any, device: torch.device) -> bool:
    """Whether a sample packed behind another is read as if it were alone, whatever the other is.

    Random samples are read. What moves the second one when the first is exchanged has been seen through the packing; what
    differs from reading it alone is a position that did not begin anew. Rounding is told from that by the square root of the
    computation's precision: 3·10⁻⁴ of the values' spread in float32, 0.09 in bfloat16. The numbers of the first comparison come
    from the same kernels, so its largest difference counts; those of the second do not, so its median does.
    """
    n = _proof_length(network.config)
    one, other, second = _random_ids(network, (3, n))
    second = second[: n - 3]  # of another length, as samples are

    def behind(first: torch.Tensor) -> torch.Tensor:
        arguments = packing.arguments([len(first), len(second)], device)
        return forward(torch.cat([first, second])[None].to(device), arguments)[0, len(first) :].float()  # [n, D]

    try:
        after_one, after_other = behind(one), behind(other)
    except REFUSALS:
        return False
    alone = forward(second[None].to(device), {})[0].float()
    moved, shifted = ((after_one - each).abs() / alone.std() for each in (after_other, alone))
    tolerance = math.sqrt(torch.finfo(packing.dtype).eps)
    return bool(moved.max() <= tolerance) and bool(shifted.median() <= tolerance)


@torch.no_grad()
def _exceeds(forward: Forward, packing: Packing, network: Any, context: int, device: torch.device) -> bool:
    """Whether rows may have more tokens than a text; not tried where a text is long enough to fill a row."""
    if context > WIDEST:
        return False
    half = context // 2 + 1
    ids = _random_ids(network, (1, 2 * half)).to(device)
    try:
        forward(ids, packing.arguments([half, half], device))
    except REFUSALS:
        return False
    return True


def _random_ids(network: Any, shape: tuple[int, int]) -> torch.Tensor:
    return torch.randint(network.get_input_embeddings().num_embeddings, shape, generator=torch_rng(0))


def _proof_length(config: Any) -> int:
    """Tokens of a sample: more than a window that could be lost, no more than the model takes."""
    window = getattr(config, "sliding_window", None) or 0
    wanted = PROOF_TOKENS + (window if window <= WIDEST else 0)
    return min(wanted, (context_length(config) or 2 * wanted) // 2)
