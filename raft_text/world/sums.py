"""A small Llama that solves word problems: its shape, what it is taught, and how well it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from raft_core.rng import numpy_rng
from raft_text.reasoning.answers import extract_number, same_number
from raft_text.reasoning.templates import N_COT, P_COT, program, words
from raft_text.world.llama import build_llama
from raft_text.world.problems import (
    ADDED,
    FACTOR,
    LARGEST,
    STYLES,
    Story,
    as_program,
    in_words,
    pick_style,
    stories,
    with_choices,
)
from raft_text.world.tokenizer import CONTEXT
from raft_text.world.vocabulary import SIGNS

WIDTH, LAYERS, INNER = 128, 4, 448
BATCH = 32
STEPS = 5200
#: A batch is one of this many slices of more texts, ordered by their length: little of it is padding.
SLICES = 4
#: Share of batches that are programs, and multiple choice; and that are drills in mental arithmetic when training begins.
PROGRAMS, CHOICES, DRILLS = 0.18, 0.1, 0.3
#: Part of the training in which drills fade out and haste fades in, both evenly.
FADING = 0.5
SUMS_A_DRILL = 8
IGNORED = -100
MAX_NEW_TOKENS = 96


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text, and whether the model learns to write it or only reads it."""

    text: str
    learnt: bool


def build_model(tokenizer: Any, seed: int) -> Any:
    """A ``LlamaForCausalLM`` with fresh weights, in float32."""
    return build_llama(tokenizer, seed, width=WIDTH, layers=LAYERS, inner=INNER, context=CONTEXT)


# --- What it is taught ------------------------------------------------------------------------------------------------


def lessons(seed: int, step: int, steps: int) -> list[list[Piece]]:
    """One batch of texts: drills in mental arithmetic, programs, or chains in words, with five answers offered or none.

    While the drills fade out, haste fades in, up to its share among written solutions; the rest of the training is the same.
    """
    rng = numpy_rng(seed, "lesson", step)
    faded = min(1.0, step / (FADING * steps))
    draw = rng.random()
    if draw < DRILLS * (1 - faded):
        return [drill(rng) for _ in range(BATCH)]
    draw = rng.random()
    size = BATCH // 2 if draw < PROGRAMS else BATCH
    told = islice(stories(seed, step, split="sft"), SLICES * size)
    hasty = faded * STYLES["hasty"]
    if draw < PROGRAMS:
        texts = [taught_program(story, rng) for story in told]
    elif draw < PROGRAMS + CHOICES:
        texts = [taught_choice(story, rng, hasty) for story in told]
    else:
        texts = [taught_words(story, rng, hasty) for story in told]
    start = size * int(rng.integers(SLICES))
    return sorted(texts, key=lambda pieces: sum(len(piece.text) for piece in pieces))[start : start + size]


def taught_words(story: Story, rng: np.random.Generator, hasty: float) -> list[Piece]:
    """A problem and a chain of thought, hasty in this share of cases."""
    written = words(in_words(story, pick_style(rng, hasty)), str(story.answer))
    return [Piece(N_COT.format(prompt=story.question), False), Piece(written, True)]


def taught_choice(story: Story, rng: np.random.Generator, hasty: float) -> list[Piece]:
    """A problem with five answers, and a chain of thought that ends in the letter of the right one."""
    question, letter = with_choices(story, rng)
    written = words(in_words(story, pick_style(rng, hasty)), letter)
    return [Piece(N_COT.format(prompt=question), False), Piece(written, True)]


def taught_program(story: Story, rng: np.random.Generator) -> list[Piece]:
    """A problem and a program that solves it."""
    written = program(as_program(story, named=bool(rng.random() < 0.6)), story.question)
    return [Piece(P_COT.format(prompt=story.question), False), Piece(written, True)]


def drill(rng: np.random.Generator) -> list[Piece]:
    """Sums without a story, of which only the results are learnt."""
    pieces = []
    for _ in range(SUMS_A_DRILL):
        left, sign, right, result = _sum(rng)
        pieces += [Piece(f" {left} {sign} {right} =", False), Piece(f" {result}", True), Piece(".", False)]
    return pieces


def _sum(rng: np.random.Generator) -> tuple[int, str, int, int]:
    sign = str(rng.choice(sorted(set(SIGNS.values()))))
    if sign in "+-":
        small, change = int(rng.integers(2, LARGEST - ADDED + 1)), int(rng.integers(2, ADDED + 1))
        large = small + change
        return (small, "+", change, large) if sign == "+" else (large, "-", change, small)
    factor = int(rng.integers(2, FACTOR + 1))
    other = int(rng.integers(2, LARGEST // factor + 1))
    return (other, "*", factor, other * factor) if sign == "*" else (other * factor, "/", factor, other)


def batch_of(texts: Sequence[Sequence[Piece]], tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(tokens [B, T], mask [B, T], labels [B, T] with −100 where nothing is learnt), padded on the right.

    Pieces are tokenised one by one, as prompt and completion are in a run. A text that ends in what is learnt gets the end
    token.
    """
    rows: list[tuple[list[int], list[int]]] = []
    for pieces in texts:
        ids: list[int] = []
        labels: list[int] = []
        for piece in pieces:
            found = tokenizer(piece.text, add_special_tokens=False)["input_ids"]
            ids += found
            labels += found if piece.learnt else [IGNORED] * len(found)
        if pieces[-1].learnt:
            ids.append(tokenizer.eos_token_id)
            labels.append(tokenizer.eos_token_id)
        rows.append((ids, labels))
    longest = max(len(ids) for ids, _ in rows)
    pad = tokenizer.pad_token_id
    tokens = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
    return tokens, mask, torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in rows])


# --- How well it does -------------------------------------------------------------------------------------------------


@torch.no_grad()
def completions(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, temperature: float = 0.0, seed: int = 0, batch_size: int = 64
) -> list[str]:
    """What the model writes after each prompt, drawn with the generator of transformers; greedily at temperature 0."""
    written: list[str] = []
    sampling: dict[str, Any] = (
        {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in _parts(prompts, batch_size):
            read = tokenizer(part, return_tensors="pt", padding=True, return_token_type_ids=False)
            out = model.generate(**read, max_new_tokens=MAX_NEW_TOKENS, **sampling)
            written += tokenizer.batch_decode(out[:, read["input_ids"].shape[1] :], skip_special_tokens=True)
    return written


def accuracy(model: Any, tokenizer: Any, asked: Sequence[Story], *, temperature: float = 0.0, seed: int = 0) -> float:
    """Share of problems whose answer, reasoned in words, is right."""
    prompts = [N_COT.format(prompt=story.question) for story in asked]
    texts = completions(model, tokenizer, prompts, temperature=temperature, seed=seed)
    return float(np.mean([right(text, story) for text, story in zip(texts, asked, strict=True)]))


def right(text: str, story: Story) -> bool:
    """Whether a text states the answer of a story."""
    stated = extract_number(text)
    return stated is not None and same_number(stated, story.answer)


def _parts(items: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
