"""Tiny models of random weights in transformers' own folder layout, with word-level tokenizers."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from raft_core.machine.torchvision import ensure_importable

ensure_importable()

WORDS = ["a", "good", "bad", "answer", "to", "the", "question", "is", "one", "two", "three", "four", "five", "six", "user:"]
VERDICT = ["assistant:", "Score:", "7"]  # what the judge says after the template's last word
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def tokenizer(folder: Path, *, pad: bool = True, bert: bool = False, chat: bool = False, limit: int | None = None):
    """A word-level tokenizer, saved into a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<end>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS, *VERDICT])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bert:
        raw.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    names = {"unk_token": "[UNK]", "eos_token": "<end>"} | ({"pad_token": "[PAD]"} if pad else {})
    names |= {"cls_token": "[CLS]", "sep_token": "[SEP]"} if bert else {}
    inputs = ["input_ids", *(["token_type_ids"] if bert else []), "attention_mask"]
    made = PreTrainedTokenizerFast(tokenizer_object=raw, model_input_names=inputs, **names)
    if chat:
        made.chat_template = TEMPLATE
    if limit:
        made.model_max_length = limit
    made.save_pretrained(folder)
    return made


def causal_classifier(folder: Path, *, chat: bool = False, pad: bool = False, positions: int = 64) -> Path:
    """A GPT-2 with a scalar head; without a padding token, as most reward models of this kind are."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    size = len(tokenizer(folder, pad=pad, chat=chat, limit=positions))
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=size, n_positions=positions, n_embd=16, n_layer=2, n_head=2, num_labels=1, initializer_range=0.5
    )
    config.bos_token_id = config.eos_token_id = 4
    config.pad_token_id = 0 if pad else None
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    return folder


def bert_classifier(folder: Path, labels: tuple[str, ...] = ("negative", "neutral", "positive"), positions: int = 32) -> Path:
    """A BERT with named labels."""
    from transformers import BertConfig, BertForSequenceClassification

    size = len(tokenizer(folder, bert=True, limit=positions))
    torch.manual_seed(1)
    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.5,
    }
    names = dict(enumerate(labels))
    config = BertConfig(vocab_size=size, max_position_embeddings=positions, id2label=names, **shape)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def roberta_encoder(folder: Path, positions: int = 20) -> Path:
    """A RoBERTa without a head; its positions are counted from behind the padding's."""
    from transformers import RobertaConfig, RobertaModel

    size = len(tokenizer(folder, bert=True))
    torch.manual_seed(2)
    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.5,
    }
    config = RobertaConfig(vocab_size=size, max_position_embeddings=positions, pad_token_id=0, type_vocab_size=2, **shape)
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def random_chat(folder: Path, *, chat: bool = True, pad: bool = False, positions: int = 64) -> Path:
    """A GPT-2 of random weights that answers with anything; its folder proposes to sample."""
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel(_causal_config(len(tokenizer(folder, pad=pad, chat=chat, limit=positions)), positions))
    model.generation_config.do_sample, model.generation_config.temperature = True, 0.7
    model.save_pretrained(folder)
    return folder


def decided_chat(folder: Path) -> Path:
    """A GPT-2 that answers ``Score: 7`` to everything: each word settles the next one, and nothing else counts."""
    from transformers import GPT2LMHeadModel

    made = tokenizer(folder, chat=True)
    size = len(made)
    model = GPT2LMHeadModel(_causal_config(size, 256, width=2 * (size // 2 + 1), tie=False))
    with torch.no_grad():
        for parameter in model.transformer.h.parameters():
            parameter.zero_()
        model.transformer.wpe.weight.zero_()
        torch.nn.init.eye_(model.transformer.wte.weight)
        model.lm_head.weight.zero_()
        chain = made.convert_tokens_to_ids([*VERDICT, "<end>"])
        for now, after in itertools.pairwise(chain):
            model.lm_head.weight[after, now] = 30.0
    model.save_pretrained(folder)
    return folder


def _causal_config(size: int, positions: int, width: int = 16, tie: bool = True):
    from transformers import GPT2Config

    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=size,
        n_positions=positions,
        n_embd=width,
        n_layer=1,
        n_head=2,
        tie_word_embeddings=tie,
        initializer_range=0.5,
    )
    config.bos_token_id = config.eos_token_id = 4
    return config
