"""A small Llama that tells tales: its shape, what it reads, and what it writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch

from raft_core.rng import numpy_rng, seed_for
from raft_text.world.llama import build_llama
from raft_text.world.sums import Piece, batch_of
from raft_text.world.tales import Split, Tale, roll_call, tales
from raft_text.world.tokenizer import byte_level

WIDTH, LAYERS, INNER = 128, 4, 448
SIZE, CONTEXT = 2048, 512
BATCH = 32
STEPS = 1600
#: Of a hundred batches, how many are roll calls at first; they fade out until this part of the steps.
DRILLS, DRILLED = 80, 0.4
MAX_NEW_TOKENS = 160


def build_tales_tokenizer(read: int = 6000) -> Any:
    """The tokenizer of the tales."""
    return byte_level((tale.text for tale in islice(tales(0, "tokenizer", split="read"), read)), SIZE)


def build_tales_model(tokenizer: Any, seed: int) -> Any:
    """A ``LlamaForCausalLM`` with fresh weights, in float32."""
    return build_llama(tokenizer, seed, width=WIDTH, layers=LAYERS, inner=INNER, context=CONTEXT)


def pieces(tale: Tale, *, opening: bool) -> list[Piece]:
    """A tale to be learnt, with its opening or without."""
    return [Piece(tale.opening, opening), Piece(f" {tale.rest}", True)]


def lesson(seed: int, step: int, steps: int) -> list[list[Piece]]:
    """What the model reads in a step: tales that it has not read before, in the beginning roll calls too."""
    rng = numpy_rng(seed, "tales", "drill", step)
    if 100 * rng.random() < DRILLS * (1 - step / (DRILLED * steps)):
        return [[Piece(roll_call(rng), True)] for _ in range(BATCH)]
    return [pieces(tale, opening=True) for tale in islice(tales(seed, "lesson", step, split="read"), BATCH)]


def some_tales(split: Split, count: int, seed: int = 0) -> list[Tale]:
    """Tales of a split to measure on."""
    return list(islice(tales(seed, "measure", split=split), count))


@torch.no_grad()
def foreseen(model: Any, tokenizer: Any, told: Sequence[Tale]) -> tuple[float, float]:
    """(share of tokens that the model finds likeliest, perplexity per token) of how tales go on."""
    right = tokens = 0
    loss = 0.0
    for start in range(0, len(told), BATCH):
        ids, mask, labels = batch_of([pieces(tale, opening=False) for tale in told[start : start + BATCH]], tokenizer)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].transpose(1, 2)  # [B, V, T − 1]
        labels = labels[:, 1:]
        loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
        tokens += int((labels >= 0).sum())
    return right / tokens, math.exp(loss / tokens)


@torch.no_grad()
def told(model: Any, tokenizer: Any, openings: Sequence[str], *, seed: int = 0, batch_size: int = 64) -> list[str]:
    """How the model goes on from each opening, drawn at temperature 1 with the generator of transformers."""
    written: list[str] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("tales", "told", seed))
        for start in range(0, len(openings), batch_size):
            part = list(openings[start : start + batch_size])
            read = tokenizer(part, return_tensors="pt", padding=True, return_token_type_ids=False)
            out = model.generate(**read, max_new_tokens=MAX_NEW_TOKENS, do_sample=True, temperature=1.0, top_k=0)
            written += tokenizer.batch_decode(out[:, read["input_ids"].shape[1] :], skip_special_tokens=True)
    return written
