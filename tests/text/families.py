"""Tiny random models of other families than ``raft_text.testing`` makes: other positions and masks, experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from raft_core.machine.torchvision import ensure_importable
from raft_text.testing import tiny_tokenizer

ensure_importable()

WIDTH, CONTEXT, WINDOW = 32, 128, 8
LLAMA = {
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
}
OPT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "init_std": 0.3,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
FALCON = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,
}
#: Family → its classes in transformers begin with this, and the sizes.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "opt": ("OPT", OPT | {"ffn_dim": WIDTH, "word_embed_proj_dim": WIDTH}),
    "bloom": ("Bloom", {"hidden_size": WIDTH, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    "falcon": ("Falcon", FALCON | {"alibi": False}),
    "falcon-alibi": ("Falcon", FALCON | {"alibi": True, "multi_query": False}),
    "mpt": ("Mpt", {"d_model": WIDTH, "n_layers": 2, "n_heads": 4, "max_seq_len": CONTEXT, "initializer_range": 0.3}),
    "xglm": (
        "XGLM",
        {"d_model": WIDTH, "ffn_dim": WIDTH, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": CONTEXT}
        | {"init_std": 0.3, "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0},
    ),
    "biogpt": (
        "BioGpt",
        {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"max_position_embeddings": CONTEXT, "initializer_range": 0.3, "hidden_dropout_prob": 0.0}
        | {"attention_probs_dropout_prob": 0.0},
    ),
    "gptoss": (
        "GptOss",
        LLAMA | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW},
    ),
    "gemma2": ("Gemma2", LLAMA | {"head_dim": 8, "sliding_window": WINDOW}),
    "mistral": ("Mistral", LLAMA | {"sliding_window": WINDOW}),
    "gptneo": (
        "GPTNeo",
        {"hidden_size": WIDTH, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
        | {"window_size": WINDOW, "max_position_embeddings": CONTEXT, "intermediate_size": WIDTH, "initializer_range": 0.3},
    ),
    "mixtral": ("Mixtral", LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3moe": (
        "Qwen3Moe",
        LLAMA | {"head_dim": 8, "moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "phimoe": ("Phimoe", LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "llama4": (
        "Llama4Text",
        LLAMA | {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": WIDTH, "attention_chunk_size": WINDOW},
    ),
    "olmoe": ("Olmoe", LLAMA | {"num_experts": 4, "num_experts_per_tok": 2}),
}
MAMBA = {"hidden_size": WIDTH, "num_hidden_layers": 2, "state_size": 8, "initializer_range": 0.3}
#: Those that keep a state of what they have read, alone or beside attention.
WITH_STATE: dict[str, tuple[str, dict[str, Any]]] = {
    "lfm2": ("Lfm2", LLAMA | {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}),
    "mamba": ("Mamba", MAMBA),
    "mamba2": ("Mamba2", MAMBA | {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8, "expand": 2}),
    "jamba": (
        "Jamba",
        LLAMA | {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "use_mamba_kernels": False},
    ),
    "qwen3next": (
        "Qwen3Next",
        LLAMA
        | {"num_hidden_layers": 4, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        | {"shared_expert_intermediate_size": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
        | {"linear_key_head_dim": 8, "linear_value_head_dim": 8},
    ),
}


def family(folder: Path, name: str, tokenizer: Any = None, **changes: Any) -> Path:
    """Write a random model of a family into a folder, by default with a tokenizer of one token per byte; returns the folder."""
    import transformers

    from raft_text.model.loading import quiet

    tokenizer = tokenizer or tiny_tokenizer(context=CONTEXT)
    classes, sizes = (FAMILIES | WITH_STATE)[name]
    tokens = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    config = getattr(transformers, f"{classes}Config")(**tokens | sizes | changes)
    kind = getattr(transformers, f"{classes}LMHeadModel" if classes == "GPT2" else f"{classes.removesuffix('Text')}ForCausalLM")
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
