"""The shape that both bundled language models have."""

from __future__ import annotations

from typing import Any

import torch


def build_llama(tokenizer: Any, seed: int, *, width: int, layers: int, inner: int, context: int) -> Any:
    """A ``LlamaForCausalLM`` with fresh weights, in float32.

    Args:
        seed: of the weights.
        width: of the residual stream; a head takes 32 of it.
        inner: width of the feed-forward layers.
        context: tokens that it reads at most.
    """
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
