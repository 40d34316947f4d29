"""A round of text against one of TRL's trainers: the same model, prompts, K, tokens, optimiser steps and samples in each.

    python -m venv /tmp/trl && /tmp/trl/bin/pip install -e . trl datasets     TRL is no dependency of the toolkit
    /tmp/trl/bin/python -m benchmarks.text_trl                                bundled:sums, fixed length
    /tmp/trl/bin/python -m benchmarks.text_trl --free --trainer grpo --json benchmarks/results/text_trl.json

The equal work is a policy gradient on all P·K samples: ``EveryScore`` and ``PolicyGradient`` here, ``RLOOTrainer`` or
``GRPOTrainer`` there, without a reference model (``beta`` 0), gradient checkpointing or saving. Here the round is timed with
its store, checkpoint, figures and KL to the start; there from the first step's beginning to the last one's end. Sides take
turns in one process, each from fresh adapters. A round of RAFT (``BestOfK`` and ``Sft``) from as many samples is timed too: it
trains on one in K of them, so it is not equal work but what one would run instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.text_models import add_common_options, in_words, machine, random_llama, spread, timer, write
from benchmarks.text_round import toolkit_round

TRAINERS = {"rloo": ("RLOOConfig", "RLOOTrainer"), "grpo": ("GRPOConfig", "GRPOTrainer")}


@dataclass(frozen=True)
class Setting:
    """What both sides do.

    Attributes:
        model: a transformers folder.
        prompts: texts.
        k: completions of each.
        min_new_tokens: shortest completion.
        max_new_tokens: longest one.
        batch: samples in an optimiser step.
        rank: of the adapters.
        lr: learning rate.
    """

    model: str
    prompts: tuple[str, ...]
    k: int
    min_new_tokens: int
    max_new_tokens: int
    batch: int
    rank: int = 16
    lr: float = 1e-4

    @property
    def samples(self) -> int:
        return len(self.prompts) * self.k


def digits(texts: list[str]) -> list[float]:
    """A reward that costs nothing: the share of characters that are digits."""
    return [sum(c.isdigit() for c in text) / max(len(text), 1) for text in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", choices=TRAINERS, nargs="+", default=list(TRAINERS))
    parser.add_argument("--model", default="bundled:sums", help="bundled:NAME, a folder, or random:LAYERSxWIDTH")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--free", action="store_true", help="the model ends its completions; --tokens is then the most")
    parser.add_argument("--batch", type=int, default=32)
    add_common_options(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = folder_of(given.model, Path(scratch))
        least = 0 if given.free else given.tokens
        setting = Setting(model, texts(given.prompts), given.k, least, given.tokens, given.batch)
        found = measure(setting, given.trainer, given.repeats, Path(scratch), timer(given.processor_time))
        found["machine"] |= machine(given.processor_time)
    for kind, seconds in found["seconds"].items():
        print(f"{kind:>8}  {seconds:.2f} s a round, {found['tokens'][kind]:.1f} tokens a sample")
    for name, ratio in found["ratios"].items():
        print(f"{name}: {in_words(ratio)}")
    write(found, given.json)


def folder_of(model: str, scratch: Path) -> str:
    from raft_text.model.places import locate

    if not model.startswith("random:"):
        return locate(model)[1]
    layers, width = (int(number) for number in model.removeprefix("random:").split("x"))
    return str(random_llama(scratch / "model", layers=layers, width=width))


def texts(n: int) -> tuple[str, ...]:
    """So many prompts of the bundled word problems, with their template."""
    from raft_core.prompts import read_prompts
    from raft_text.reasoning.templates import N_COT

    return tuple(N_COT.replace("{prompt}", p.text) for p in read_prompts("bundled:prompts/sums_train.jsonl")[:n])


def measure(setting: Setting, trainers: list[str], repeats: int, scratch: Path, now: Callable[[], float]) -> dict[str, Any]:
    """All kinds of rounds in turn; the first turn is not counted."""
    import trl  # pyright: ignore[reportMissingImports] - in an environment of its own

    (scratch / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in setting.prompts))
    seconds: dict[str, list[float]] = {kind: [] for kind in ("toolkit", *trainers, "raft")}
    tokens: dict[str, list[float]] = {kind: [] for kind in seconds}
    for turn in range(repeats + 1):
        for kind in seconds:
            if kind in TRAINERS:
                took, length = trl_round(setting, kind, scratch / f"{kind}-{turn}", turn, now)
            else:
                took, length = our_round(setting, kind == "raft", scratch, f"{kind}-{turn}", turn, now)
            if turn:
                seconds[kind].append(took)
                tokens[kind].append(length)

    def ratio(ours: str, theirs: str) -> dict[str, float]:
        return spread([a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)])

    return {
        "machine": {"trl": trl.__version__},
        "work": {**asdict(setting), "model": Path(setting.model).name, "prompts": len(setting.prompts)},
        "repeats": repeats,
        "seconds": {kind: statistics.median(values) for kind, values in seconds.items()},
        "tokens": {kind: statistics.mean(values) for kind, values in tokens.items()},
        "ratios": {f"{ours} / {theirs}": ratio(ours, theirs) for ours in ("toolkit", "raft") for theirs in trainers},
    }


def our_round(
    setting: Setting, raft: bool, scratch: Path, name: str, seed: int, now: Callable[[], float]
) -> tuple[float, float]:
    """(seconds, tokens per sample) of a round of the toolkit."""
    raw = {
        "policy": {
            "class_path": "CausalLM",
            "init_args": {
                "model": setting.model,
                "lora": {"rank": setting.rank},
                "sampling": {
                    "min_new_tokens": setting.min_new_tokens,
                    "max_new_tokens": setting.max_new_tokens,
                    "batch_size": setting.samples,
                },
            },
        },
        "prompts": {"train": str(scratch / "prompts.jsonl"), "held_out_fraction": 0.0},
        "reward": f"{__file__}:digits_reward",
        "selector": "BestOfK" if raft else "EveryScore",
        "objective": "Sft" if raft else "PolicyGradient",
        "trainer": {
            "optimizer": {"lr": setting.lr},
            "batch_size": min(setting.batch, len(setting.prompts) if raft else setting.batch),
        },
        "rounds": 1,
        "k": setting.k,
        "trackers": [],
    }
    clock, costs = toolkit_round(raw, scratch, scratch / name, seed, now)
    return clock.total, costs["text/tokens"]


def digits_reward(_prompts: list[str], outputs: list[str]) -> list[float]:
    """``digits`` as the toolkit calls a reward."""
    return digits(outputs)


def trl_round(setting: Setting, kind: str, folder: Path, seed: int, now: Callable[[], float]) -> tuple[float, float]:
    """(seconds, tokens per sample) of as many steps of TRL's trainer as one generation of samples feeds."""
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    import trl  # pyright: ignore[reportMissingImports]
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config, trainer = (getattr(trl, name) for name in TRAINERS[kind])
    updates = setting.samples // setting.batch
    settings = config(
        output_dir=str(folder),
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=setting.batch,
        gradient_accumulation_steps=1,
        steps_per_generation=updates,
        max_steps=updates,
        num_generations=setting.k,
        max_completion_length=setting.max_new_tokens,
        generation_kwargs={"min_new_tokens": setting.min_new_tokens},
        temperature=1.0,
        beta=0.0,
        learning_rate=setting.lr,
        lr_scheduler_type="constant",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    lengths: list[int] = []

    def reward(completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.extend(len(ids) for ids in completion_ids)
        return digits(completions)

    stopwatch = stopwatch_callback(now)
    trainer(
        model=AutoModelForCausalLM.from_pretrained(setting.model, dtype=torch.float32),
        reward_funcs=reward,
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": list(setting.prompts)}),
        processing_class=AutoTokenizer.from_pretrained(setting.model, padding_side="left"),
        callbacks=[stopwatch],
        peft_config=LoraConfig(r=setting.rank, lora_alpha=2 * setting.rank, target_modules="all-linear", task_type="CAUSAL_LM"),
    ).train()
    if len(lengths) != setting.samples or stopwatch.steps != updates:
        raise RuntimeError(f"{kind} drew {len(lengths)} samples in {stopwatch.steps} steps, not {setting.samples} in {updates}")
    return stopwatch.end - stopwatch.start, statistics.mean(lengths)


def stopwatch_callback(now: Callable[[], float]) -> Any:
    """A callback that knows when the first step began and the last one ended."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):
        start = end = 0.0
        steps = 0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = self.start or now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.end = now()
            self.steps += 1

    return Stopwatch()


if __name__ == "__main__":
    main()
