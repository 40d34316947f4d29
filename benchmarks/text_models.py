"""A Llama of random weights and any size, for benchmarks that need no skill of it; also what such figures are written with."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def random_llama(folder: Path, *, layers: int = 4, width: int = 256, context: int = 1024) -> Path:
    """Write a transformers folder with a tokenizer of one token per byte; returns ``folder``."""
    from raft_core._torchvision import ensure_importable

    ensure_importable()
    from transformers import LlamaConfig, LlamaForCausalLM

    from raft_text.loading import quiet
    from raft_text.testing import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = context
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=context,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,  # far from uniform
    )
    torch.manual_seed(0)
    with quiet():
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def in_words(ratio: dict[str, float]) -> str:
    """A spread for a person."""
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
