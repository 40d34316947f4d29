"""What it is worth that the K samples of a prompt share its prefill: new tokens per second, with and without.

    python -m benchmarks.text_prefill
    python -m benchmarks.text_prefill --k 4 16 64 --prompt_tokens 64 256 1024 --json benchmarks/results/text_prefill.json

The same sampler draws both. With sharing, K completions of one prompt; without, one completion of each of K different prompts
of the same length, grown together all the same. Every completion is of the same length, and the two take turns in one process.
The model is a Llama of random weights: only its size counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.text_models import add_common_options, in_words, machine, random_llama, spread, timer, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, nargs="+", default=[4, 8, 32])
    parser.add_argument("--prompt_tokens", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--new_tokens", type=int, default=64)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    add_common_options(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        context = max(given.prompt_tokens) + given.new_tokens
        folder = random_llama(Path(scratch), layers=given.layers, width=given.width, context=context)
        found = measure(folder, given)
    for row in found["rows"]:
        print(
            f"K {row['k']:>3}, prompt {row['prompt_tokens']:>4} tokens: shared {row['shared_tokens_per_s']:.0f}, "
            f"separate {row['separate_tokens_per_s']:.0f} tokens/s; {in_words(row['shared / separate'])}"
        )
    write(found, given.json)


def measure(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """All combinations, each with both ways in turn; the first turn is not counted."""
    from raft_text.model.loading import load_model

    network, now, new_tokens = load_model(str(folder), torch.float32), timer(given.processor_time), given.new_tokens
    rows = []
    for length in given.prompt_tokens:
        for k in given.k:
            seconds: dict[str, list[float]] = {"shared": [], "separate": []}
            for turn in range(given.repeats + 1):
                for way in seconds:
                    took = seconds_for(network, prompts(k, length, shared=way == "shared"), new_tokens, now)
                    seconds[way] += [took] if turn else []
            speed = {way: k * new_tokens / statistics.median(values) for way, values in seconds.items()}
            pairs = zip(seconds["separate"], seconds["shared"], strict=True)
            rows.append(
                {"k": k, "prompt_tokens": length}
                | {f"{way}_tokens_per_s": round(value, 1) for way, value in speed.items()}
                | {"shared / separate": spread([slow / fast for slow, fast in pairs])}
            )
    return {
        "machine": machine(given.processor_time),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "new_tokens": new_tokens,
        "repeats": given.repeats,
        "rows": rows,
    }


def prompts(k: int, length: int, *, shared: bool) -> list[list[int]]:
    """K prompts of ``length`` tokens: one and the same, or all different."""
    generator = torch.Generator().manual_seed(length)
    drawn = torch.randint(0, 256, (k, length), generator=generator).tolist()
    return [drawn[0]] * k if shared else drawn


def seconds_for(network: Any, asked: list[list[int]], new_tokens: int, now: Callable[[], float]) -> float:
    """To draw a completion of ``new_tokens`` tokens after each prompt."""
    from raft_text.options import Sampling
    from raft_text.process.growing import Task
    from raft_text.process.sampler import draw

    sampling = Sampling(min_new_tokens=new_tokens, max_new_tokens=new_tokens, batch_size=len(asked))
    ends = [network.config.eos_token_id]
    task = Task(asked, [""] * len(asked), range(len(asked)), sampling, ends, decode=str)
    start = now()
    drawn = draw(network, task, torch.device("cpu"))
    took = now() - start
    assert all(len(one.tokens) == new_tokens for one in drawn)
    return took


if __name__ == "__main__":
    main()
