"""What a round costs: against its own arithmetic in plain loops, and against the original procedure.

    python -m benchmarks.round                       the bundled world, sizes of configs/shapes/resolution.yaml
    python -m benchmarks.round --repeats 9 --json benchmarks/results/round.json

Both ratios come from one process on one machine: the variants take turns, and the median of the paired ratios is given with the
smallest and the largest. Peak memory is that of the toolkit's own rounds, by phase.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.bare import Clock, Work, bare_round, load, trained
from benchmarks.original import original_round

CONFIG = Path(__file__).parent.parent / "configs" / "shapes" / "resolution.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    found = measure(arguments.config, arguments.repeats)
    show(found)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def measure(config: Path, repeats: int) -> dict[str, Any]:
    """Rounds of the three kinds in turn; the first turn is not counted."""
    from raft_core.config.run_config import check, read_yaml

    raw = read_yaml(config)
    raw.pop("judges", None)
    with tempfile.TemporaryDirectory() as scratch, _in_repository():
        folder = Path(scratch)
        checked = check(raw, name="benchmark")
        work, reward = work_of(checked), pixels_reward(checked)
        pipes = {name: load(work) for name in ("bare", "original")}
        optimizer = torch.optim.AdamW(trained(pipes["bare"]), lr=work.lr)
        turns: list[dict[str, Clock]] = []
        costs: list[dict[str, float]] = []
        for turn in range(repeats + 1):
            toolkit, cost = toolkit_round(raw, folder / f"run-{turn}")
            bare = bare_round(pipes["bare"], optimizer, work, reward)
            original = original_round(pipes["original"], work, reward, folder / f"original-{turn}")
            pipes["original"].unload_lora_weights()
            if turn:
                turns.append({"toolkit": toolkit, "bare": bare, "original": original})
                costs.append(cost)
    return summary(work, turns, costs)


@contextlib.contextmanager
def _in_repository() -> Iterator[None]:
    """Relative paths in a configuration start at the repository."""
    before = Path.cwd()
    os.chdir(Path(__file__).parent.parent)
    yield
    os.chdir(before)


def work_of(checked: Any) -> Work:
    """The plain loops' settings, read off the configuration so that both sides do the same."""
    from raft_diffusion.model import bundle

    config, policy = checked.config, checked.config.policy
    model = policy.model
    return Work(
        model=str(bundle.resolve(model.removeprefix("bundled:"))) if model.startswith("bundled:") else model,
        prompts=tuple(prompt.text for prompt in checked.prompts.draw(1)),
        k=config.k,
        side=policy.sampling.width,
        denoising_steps=policy.sampling.steps,
        guidance_scale=policy.sampling.guidance_scale,
        batch_size=policy.sampling.batch_size,
        train_steps=config.trainer.steps,
        train_batch=config.trainer.batch_size,
        lr=config.trainer.optimizer.lr,
        rank=policy.lora.rank,
        conv=policy.lora.conv,
        targets=tuple(policy.lora.targets),
    )


def pixels_reward(checked: Any) -> Callable[[list[Image.Image]], torch.Tensor]:
    """The configured reward as a function of pictures alone, for rewards that are blind to the prompt."""
    from raft_core.types import Prompt, Request, Sample

    reward = checked.config.reward
    reward.load()

    def scores(pictures: list[Image.Image]) -> torch.Tensor:
        return torch.as_tensor(reward([Sample(Request(Prompt(""), 0, 0), picture) for picture in pictures]))

    return scores


def toolkit_round(raw: dict[str, Any], folder: Path) -> tuple[Clock, dict[str, float]]:
    """One round of ``align`` with store, checkpoint and metrics; loading and evaluation are outside the clock."""
    from raft_core.config.run_config import check
    from raft_core.loop import align
    from raft_core.monitoring.monitor import Monitor
    from raft_core.store.store import Store

    checked = check(raw, name="benchmark")
    config = checked.config
    config.policy.load()
    config.scorer.load()
    config.trainer.attach(config.policy, config.seed, 1)
    clock = Clock()
    with Store.create(folder, checked.plain, config.seed) as store:
        parts = (config.policy, checked.prompts, config.scorer, config.selector, config.objective, config.trainer)
        start = time.perf_counter()
        align(*parts, store, Monitor(stop_when=()), rounds=1, k=config.k)
        whole = time.perf_counter() - start
        costs = store.history()[-1]
    clock.seconds = {name: costs[f"time/{name}_s"] for name in ("sample", "render", "train")}
    clock.seconds["store"] = whole - clock.total
    return clock, costs


def summary(work: Work, turns: list[dict[str, Clock]], costs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, and ratios turn by turn."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "min": min(values), "max": max(values)}

    in_process = [t["original"].total - t["original"].seconds["train_start"] for t in turns]
    return {
        "machine": {"cpu_count": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        | {"python": platform.python_version(), "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None},
        "work": {"prompts": len(work.prompts)}
        | {name: getattr(work, name) for name in ("k", "side", "denoising_steps", "train_steps")},
        "repeats": len(turns),
        "seconds": {
            kind: {phase: statistics.median(t[kind].seconds[phase] for t in turns) for phase in turns[0][kind].seconds}
            for kind in turns[0]
        },
        "ratios": {
            "toolkit / bare": spread([t["toolkit"].total / t["bare"].total for t in turns]),
            "original / toolkit": spread([t["original"].total / t["toolkit"].total for t in turns]),
            "original without process start / toolkit": spread(
                [seconds / t["toolkit"].total for seconds, t in zip(in_process, turns, strict=True)]
            ),
        },
        "peak_bytes": {phase: max(cost[f"memory/{phase}_bytes"] for cost in costs) for phase in ("sample", "render", "train")},
    }


def show(found: dict[str, Any]) -> None:
    for kind, phases in found["seconds"].items():
        print(f"{kind:>10}  " + "  ".join(f"{phase} {seconds:.2f} s" for phase, seconds in phases.items()))
    for name, ratio in found["ratios"].items():
        print(f"{name}: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})")
    print("peak memory: " + ", ".join(f"{phase} {size / 2**20:.0f} MiB" for phase, size in found["peak_bytes"].items()))


if __name__ == "__main__":
    main()
