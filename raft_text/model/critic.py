"""A critic for a language model: from hidden states to estimates of the reward that is still to come."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_text.model.loading import load_model
from raft_text.model.lora import add_adapters, train_in_full, trainable
from raft_text.options import Critic, Lora, Memory

#: Before the names of what belongs to the critic: parts of a checkpoint, and of no export.
PREFIX = "critic."


class ValueHead:
    """V = w·h + b of a hidden state, on the policy's trunk or on one of its own.

    Begins at 0, so that the first round's advantages are its rewards; float32 whatever the trunk computes with.

    Attributes:
        trunk: the critic's own network without its head; None = the policy's is shared.
        parameters: trained parameters by stable names.

    Source: ReFT (2401.08967), section 3.2. Differs: begins at 0 and not at random.
    """

    def __init__(self, width: int, device: torch.device, trunk: Any = None):
        self.weight = torch.nn.Parameter(torch.zeros(width, device=device))
        self.bias = torch.nn.Parameter(torch.zeros(1, device=device))
        self.trunk = trunk
        own = {} if trunk is None else {f"{PREFIX}trunk.{name}": value for name, value in trainable(trunk).items()}
        self.parameters = {f"{PREFIX}weight": self.weight, f"{PREFIX}bias": self.bias, **own}

    def __call__(self, shared: torch.Tensor, ids: torch.Tensor, packed: Mapping[str, Any]) -> torch.Tensor:
        """[B, n] estimates at the last n positions, in reward units.

        Args:
            shared: [B, n, D] the policy's last hidden states there.
            ids: [B, L] what was read, L ≥ n.
            packed: how several samples share a row (``Packing.arguments``); empty where none do.
        """
        hidden = shared
        if self.trunk is not None:
            hidden = self.read_trunk(ids, packed)[:, -shared.shape[1] :]
        # Not a matrix product, which the trainer's mixed precision would round.
        return (hidden.float() * self.weight).sum(dim=-1) + self.bias

    def read_trunk(self, ids: torch.Tensor, packed: Mapping[str, Any]) -> torch.Tensor:
        """[B, L, D] the last hidden states of the critic's own trunk."""
        return self.trunk(input_ids=ids, use_cache=False, **packed).last_hidden_state


def load_critic(critic: Critic, network: Any, model: str, lora: Lora | None, memory: Memory, device: torch.device) -> ValueHead:
    """The critic of a loaded network.

    Raises:
        ModelError: the network has no output layer, or the critic's own copy of it cannot be loaded.
    """
    head = network.get_output_embeddings()
    if head is None:
        raise ModelError(f"critic: {type(network).__name__} names no output layer, so its last hidden states cannot be read")
    return ValueHead(head.weight.shape[1], device, _trunk(network, model, lora, memory, device) if critic.separate else None)


def _trunk(network: Any, model: str, lora: Lora | None, memory: Memory, device: torch.device) -> Any:
    from raft_text.model.device import quantization

    twin = load_model(model, network.dtype, attention=memory.attention, quantization=quantization(memory.quantize))
    if lora is None:
        train_in_full(twin)
    else:
        add_adapters(twin, lora)
    trunk = twin.base_model  # without the layer that predicts tokens
    return trunk if memory.quantize else trunk.to(device)


@contextlib.contextmanager
def hidden_states(network: Any) -> Iterator[list[torch.Tensor]]:
    """Inside, a list takes up what each call of the network hands to its output layer: [B, n, D], with its gradient."""
    seen: list[torch.Tensor] = []

    def keep(_layer: Any, given: tuple[torch.Tensor, ...]) -> None:
        seen.append(given[0])

    handle = network.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
