"""Language models of a few thousand random weights: a test loads, samples, trains and saves the real classes in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

Kind = Literal["llama", "gpt2", "qwen2"]

CONTEXT = 128
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_model(
    folder: Path, kind: Kind = "llama", *, seed: int = 0, chat: bool = False, width: int = 32, context: int = CONTEXT
) -> Path:
    """Write a random transformers folder: 2 layers, one token per byte.

    Args:
        folder: where; made if it does not exist.
        kind: ``llama`` begins every text with a token and shares keys between heads; ``gpt2`` has learned positions, tied
            embeddings and transposed weights; ``qwen2`` has biases and tied embeddings.
        seed: of the weights; the global generator is left as it was.
        chat: give the tokenizer a chat template.
        width: of the hidden states.
        context: longest text in tokens.

    Returns:
        ``folder``.
    """
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    import torch

    from raft_text.model.loading import quiet

    tokenizer = tiny_tokenizer(begin=kind == "llama", chat=chat, context=context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(kind, tokenizer, width, context)
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer(*, begin: bool = False, chat: bool = False, end: bool = True, context: int = CONTEXT) -> Any:
    """One token per byte, and no merges, so that every text tokenises; no padding token.

    Args:
        begin: put a begin-of-text token before every text.
        chat: with a chat template.
        end: with an end-of-text token.
        context: longest text in tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*letters, "<s>", "</s>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
        )
    specials: dict[str, Any] = ({"bos_token": "<s>"} if begin else {}) | ({"eos_token": "</s>"} if end else {})
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=context, **specials)
    if chat:
        made.chat_template = CHAT_TEMPLATE
    return made


def _model(kind: Kind, tokenizer: Any, width: int, context: int) -> Any:
    import transformers

    tokens: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
        # Ten times the usual deviation: predictions of a few random layers are then far from uniform.
        "initializer_range": 0.2,
    }
    if kind == "gpt2":
        config = transformers.GPT2Config(n_positions=context, n_embd=width, n_layer=2, n_head=4, **tokens)
        return transformers.GPT2LMHeadModel(config)
    sizes: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        "tie_word_embeddings": kind == "qwen2",
    }
    if kind == "qwen2":
        return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes, **tokens))
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **tokens))
