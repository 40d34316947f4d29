"""Chat templates of the shapes that models have today, and tokenizers and models of a few random weights that use them.

Each writes what the models' own do: where turns begin and end, which roles it takes, what it leaves out of earlier turns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from raft_core.machine.torchvision import ensure_importable

ensure_importable()

ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
)
#: As Qwen2.5's: any role, a system message of its own where none is given.
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: As Gemma 2's: no system role, strict alternation, contents trimmed, the model's turns are called "model".
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}" + ALTERNATE + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
#: As Phi-3's: a conversation that is over ends with the end of the text, besides that of the turn.
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
#: As Mistral's and Llama 2's: no token opens the model's turn, the system message goes into the user's.
MISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set before = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set before = '' %}{% endif %}"
    "{% for m in messages %}"
    + ALTERNATE
    + "{% if m.role == 'user' %}[INST] {{ (before if loop.first else '') + m.content }} [/INST]"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
#: As Qwen3's: thoughts are written in the turn that is answered and left out of those before.
QWEN3 = (
    "{% set ns = namespace(asked=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}{% if m.role == 'assistant' %}{% set content = m.content %}{% set thought = '' %}"
    "{% if m.reasoning_content is string %}{% set thought = m.reasoning_content %}{% elif '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1] %}{% set content = content.split('</think>')[-1] %}"
    "{% endif %}<|im_start|>assistant\n{% if loop.index0 > ns.asked %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n"
    "{% endif %}{{ content.lstrip('\n') }}<|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
#: As DeepSeek-R1's: a thought is opened for the model, and turns that are over lose theirs.
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% elif m.role == 'assistant' %}"
    "<|Assistant|>{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
#: No token ends a turn.
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"


class Style(NamedTuple):
    """A template, the tokens that it needs, what begins and what ends a text, and how it ends a turn."""

    template: str
    tokens: tuple[str, ...]
    begin: str | None
    end: str
    closing: str  # what a model has to write to end its turn


STYLES = {
    "chatml": Style(CHATML, ("<|im_start|>", "<|im_end|>"), None, "<|endoftext|>", "<|im_end|>"),
    "gemma": Style(GEMMA, ("<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>", "<end_of_turn>"),
    "llama3": Style(
        LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
    ),
    "phi": Style(PHI, ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), None, "<|endoftext|>", "<|end|>"),
    "mistral": Style(MISTRAL, (), "<s>", "</s>", "</s>"),
    "qwen3": Style(QWEN3, ("<|im_start|>", "<|im_end|>"), None, "<|endoftext|>", "<|im_end|>"),
    "r1": Style(R1, ("<|User|>", "<|Assistant|>"), "<|begin|>", "<|end|>", "<|end|>"),
    "plain": Style(PLAIN, (), None, "</s>", "</s>"),
}


def chat_tokenizer(style: str, context: int = 512) -> Any:
    """One token per byte, and one for each that the style's template needs."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = STYLES[style]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(text, special=True) for text in (made.begin, made.end, *made.tokens) if text])
    names = {"eos_token": made.end} | ({"bos_token": made.begin} if made.begin else {})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=context, **names)
    tokenizer.chat_template = made.template
    return tokenizer


def chat_model(folder: Path, style: str, context: int = 512) -> Path:
    """A random Llama of two layers with a chat tokenizer, in transformers' own layout; returns the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from raft_text.model.loading import quiet

    tokenizer = chat_tokenizer(style, context)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
