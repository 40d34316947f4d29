"""The tokenizers of the bundled models: tokens for the words of their worlds, for every digit, and bytes for all other text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from raft_core.rng import numpy_rng
from raft_text.reasoning.templates import N_COT, words
from raft_text.world.problems import as_program, stories, with_choices

SIZE = 768
CONTEXT = 512
END, PAD = "<|end|>", "<|pad|>"
#: Read and written by nothing here but kept whole, so that the model can be taught a chat of its own.
ROLES = ("<|user|>", "<|assistant|>", "<|system|>")


def build_tokenizer(stories_read: int = 4000) -> Any:
    """The tokenizer of the sums."""
    return byte_level(_texts(stories_read), SIZE)


def byte_level(texts: Iterable[str], size: int) -> Any:
    """A byte-level BPE of ``size`` tokens in transformers' class. It begins a text with nothing and ends it with ``<|end|>``.

    Digits are tokens of their own, with the space before them or without, so that numbers are read digit by digit. All text
    comes back from its tokens unchanged.
    """
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [pre_tokenizers.Split(Regex(r" ?\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END, PAD, *ROLES],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _texts(count: int) -> Iterator[str]:
    rng = numpy_rng(0, "tokenizer", "choices")
    for story in islice(stories(0, "tokenizer", split="sft"), count):
        for style in ("sentences", "hasty"):
            yield N_COT.format(prompt=story.question) + words(story.problem(style).answer_cot, str(story.answer))
        yield as_program(story)
        yield with_choices(story, rng)[0]
