"""What the benchmarks of text share: a clock, a Llama of random weights and any size, and how figures are written."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


def random_llama(folder: Path, *, layers: int = 4, width: int = 256, context: int = 1024) -> Path:
    """Write a transformers folder with a tokenizer of one token per byte; returns ``folder``."""
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    from transformers import LlamaConfig, LlamaForCausalLM

    from raft_text.model.loading import quiet
    from raft_text.testing import tiny_tokenizer

    tokenizer = tiny_tokenizer(context=context)
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


def add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=5, help="turns that count; one more goes before them")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument(
        "--processor_time",
        action="store_true",
        help="count seconds of the processor, for a machine that is busy with other things (OMP_NUM_THREADS=1, no GPU)",
    )


def timer(processor_time: bool) -> Callable[[], float]:
    """What tells the seconds: of the wall, or of this process's work, which others on the machine do not lengthen."""
    return time.process_time if processor_time else time.perf_counter


@dataclass
class Clock:
    """Seconds by phase."""

    now: Callable[[], float] = time.perf_counter
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - start

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def write(found: Mapping[str, Any], path: Path | None) -> None:
    """As JSON, if there is a path."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def machine(processor_time: bool = False) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "clock": "processor" if processor_time else "wall",
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
