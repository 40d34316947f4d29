"""The model card of the tales, from what its making logged and what the model writes after held-out openings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raft_core.metrics.statistics import mean_interval
from raft_text.metrics import text_figures
from raft_text.world.tales import Tale
from raft_text.world.tales_files import chosen_tales
from raft_text.world.tales_form import people, well_formed_share
from raft_text.world.tales_model import BATCH, SIZE, foreseen, told

SHOWN = 6
#: Bounds of the parts of VADER's compound score that a story is called by.
BAD, GOOD = -0.5, 0.5

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [stories, sentiment, raft]
---

# A small Llama that tells tales

A `LlamaForCausalLM` of {millions:.1f} million parameters with a byte-level tokenizer of {size} tokens. It continues an opening
of two sentences, in which somebody plans something, by three to six sentences in which it goes well, badly or so-so:

{stories}

Made from seed {seed} by `python -m raft_text.world.make --stage tales`, on procedurally written texts alone (no data of other
people): {steps} steps of {batch} texts, none of them read twice, in {minutes:.0f} minutes on {machine}. Besides tales it
reads, in the beginning, short sentences in which the same names come up again and again: from tales alone it is slow to find
out that a name is one that was told before. Training takes the same steps for the same seed; on another machine the last bits
differ.

## What it reaches

On {count} held-out tales, of people, things and plans that occur together in no tale it has read. One continuation each, drawn
at temperature 1, beside the tales as they were written. Sentiment is VADER's compound score of the continuation, from −1 to 1,
with the 95 % interval of its mean.

{table}
Perplexity per token of the written continuations: {perplexity:.2f}; the likeliest token is the right one {right:.0%} of the
time.

## Prompts

Openings as they are, without a template: `bundled:prompts/tales_train.jsonl` and `bundled:prompts/tales_heldout.jsonl`, each
with one continuation (`response`). The recipe is `configs/text/tales_sentiment.yaml`.

## Limits

It knows {plots} kinds of plans and about 1,500 words, and nothing else. Small as it is it garbles a sentence now and then,
or brings in somebody whom the opening did not name. It exists so that every claim of this project can be checked on a CPU in
minutes.
"""


def measure_tales(folder: Path) -> dict[str, Any]:
    """What the model writes after held-out openings, and how it finds the written tales.

    Returns:
        ``stories``: some [opening, continuation]; ``written`` and ``drawn``: figures by name; ``right``, ``perplexity``,
        ``count``.
    """
    import torch

    from raft_text.model.loading import load_model, load_tokenizer

    model, tokenizer = load_model(str(folder), torch.float32), load_tokenizer(str(folder), chat=False)
    asked = chosen_tales("held_out")
    drawn = told(model, tokenizer, [tale.opening for tale in asked])
    right, perplexity = foreseen(model, tokenizer, asked)
    return {
        "stories": [[tale.opening, text] for tale, text in zip(asked[:SHOWN], drawn, strict=False)],
        "written": _figures(asked, [f" {tale.rest}" for tale in asked]),
        "drawn": _figures(asked, drawn),
        "right": right,
        "perplexity": perplexity,
        "count": len(asked),
    }


def _figures(asked: Sequence[Tale], texts: Sequence[str]) -> dict[str, Any]:
    from raft_core.types import Prompt, Request, Sample
    from raft_text.rewards.sentiment import Sentiment

    scores = Sentiment()([Sample(Request(Prompt("_"), 0, 0), output=text) for text in texts])
    mean = mean_interval(scores[:, None], seed=0)
    return {
        "sentiment": (mean.value, mean.low, mean.high),
        "bad": float(np.mean(scores < BAD)),
        "good": float(np.mean(scores > GOOD)),
        "named": float(np.mean([people(text) <= set(tale.cast) for tale, text in zip(asked, texts, strict=True)])),
        "well_formed": well_formed_share(texts),
        **text_figures(texts),
    }


def write_tales_card(folder: Path, figures: Mapping[str, Any], measured: Mapping[str, Any], seed: int, machine: str) -> None:
    """Write ``README.md`` into the model's folder.

    Args:
        folder: of the model.
        figures: what its making logged: ``seconds``, ``steps``, ``parameters``.
        measured: as ``measure_tales`` returns it.
        seed: of the making.
        machine: in words.
    """
    from raft_text.world.tales_plots import PLOTS

    text = CARD.format(
        millions=figures["parameters"] / 1e6,
        size=SIZE,
        stories="\n\n".join(f"> {opening}\n> **{continuation.strip()}**" for opening, continuation in measured["stories"]),
        steps=figures["steps"],
        batch=BATCH,
        minutes=figures["seconds"] / 60,
        seed=seed,
        machine=machine,
        count=measured["count"],
        table=_table(measured["drawn"], measured["written"]),
        perplexity=measured["perplexity"],
        right=measured["right"],
        plots=len(PLOTS),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _table(drawn: Mapping[str, Any], written: Mapping[str, Any]) -> str:
    rows = {
        "mean sentiment": lambda f: "{:+.2f} ({:+.2f} … {:+.2f})".format(*f["sentiment"]),
        f"below {BAD:+g}": lambda f: f"{f['bad']:.0%}",
        f"above {GOOD:+g}": lambda f: f"{f['good']:.0%}",
        "words": lambda f: f"{f['length']:.1f}",
        "distinct-2": lambda f: f"{f['distinct_2']:.3f}",
        "MSTTR-100": lambda f: f"{f['msttr_100']:.3f}",
        "well-formed sentences": lambda f: f"{f['well_formed']:.1%}",
        "tales without people whom the opening does not name": lambda f: f"{f['named']:.0%}",
    }
    lines = ["| figure | the model | as written |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| {name} | {show(drawn)} | {show(written)} |" for name, show in rows.items()]) + "\n"
