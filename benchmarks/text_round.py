"""What a round of text costs: against ``generate`` and the forward and backward passes of the same batches in plain loops.

    python -m benchmarks.text_round                       the bundled sums, sizes of configs/text/sums_raft.yaml
    python -m benchmarks.text_round --tokens 64           every completion is of 64 tokens
    python -m benchmarks.text_round --repeats 9 --json benchmarks/results/text_round.json

The two sides take turns in one process, each from the same fresh adapters; the median of the paired ratios is given with the
smallest and the largest. Without ``--tokens`` completions end where the model ends them: ``generate`` goes on until the longest
of a batch is done, the toolkit drops what is finished. With it both sides draw as many tokens as each other, and that is the
stricter comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.text_bare import TextWork, bare_round, load
from benchmarks.text_models import Clock, add_common_options, in_words, machine, spread, timer, write
from raft_core import capabilities

CONFIG = Path(__file__).parent.parent / "configs" / "text" / "sums_raft.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--model", help="another model than the configuration's, bundled:NAME or a folder")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, help="so many in every completion; by default the model ends them")
    add_common_options(parser)
    given = parser.parse_args()
    raw = settings(given.config, given.model, given.prompts, given.tokens)
    found = {"machine": machine(given.processor_time)}
    found |= measure(raw, given.config.parent, given.repeats, timer(given.processor_time))
    show(found)
    write(found, given.json)


def settings(config: Path, model: str | None, prompts: int, tokens: int | None) -> dict[str, Any]:
    """The configuration with what the command line says."""
    from raft_core.config.run_config import Override, overridden, read_yaml

    raw = read_yaml(config)
    raw.pop("judges", None)
    more = {"prompts.per_round": prompts, "prompts.held_out": "null", "prompts.held_out_fraction": 0.0}
    more |= {"policy.model": model} if model else {}
    more |= {f"policy.sampling.{name}_new_tokens": tokens for name in ("min", "max")} if tokens else {}
    return overridden(raw, [Override(path, str(value)) for path, value in more.items()])


def measure(raw: dict[str, Any], base: Path, repeats: int, now: Callable[[], float]) -> dict[str, Any]:
    """Rounds of the two kinds in turn; the first turn is not counted."""
    from raft_core.config.run_config import check

    checked = check(raw, base=base, name="benchmark")
    work = work_of(checked)
    turns: list[dict[str, Clock]] = []
    costs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(repeats + 1):
            torch.manual_seed(turn)
            toolkit, cost = toolkit_round(raw, base, Path(scratch) / f"run-{turn}", turn, now)
            bare = bare_round(*load(work), work, texts_reward(checked), now)
            if turn:
                turns.append({"toolkit": toolkit, "bare": bare})
                costs.append(cost)
    return summary(work, turns, costs)


def work_of(checked: Any) -> TextWork:
    """The plain loops' settings, read off the configuration so that both sides do the same."""
    from raft_text.model.places import locate

    config, policy = checked.config, checked.config.policy
    prompts = checked.prompts.draw(1)
    items = getattr(config.selector, "n", len(prompts))
    return TextWork(
        model=locate(policy.model)[1],
        prompts=tuple(policy.prompting.template.replace("{prompt}", prompt.text) for prompt in prompts),
        k=config.k,
        min_new_tokens=policy.sampling.min_new_tokens,
        max_new_tokens=policy.sampling.max_new_tokens,
        batch_size=policy.sampling.batch_size,
        train_items=min(items, len(prompts)),
        train_batch=config.trainer.batch_size,
        epochs=config.trainer.epochs,
        lr=config.trainer.optimizer.lr,
        rank=policy.lora.rank,
    )


def texts_reward(checked: Any) -> Any:
    """The configured reward as a function of the texts of the round's samples."""
    from raft_core.types import Request, Sample

    reward, k = checked.config.reward, checked.config.k
    capabilities.load(reward)
    requests = [Request(prompt, j, 0) for prompt in checked.prompts.draw(1) for j in range(k)]

    def scores(texts: list[str]) -> Sequence[float]:
        return reward([Sample(request, text) for request, text in zip(requests, texts, strict=True)]).tolist()

    return scores


def toolkit_round(
    raw: dict[str, Any], base: Path, folder: Path, seed: int, now: Callable[[], float]
) -> tuple[Clock, dict[str, float]]:
    """(seconds by phase, figures) of one round of ``align`` with store, checkpoint and metrics; nothing of loading."""
    from raft_core.config.run_config import check
    from raft_core.loop import align
    from raft_core.store.store import Store

    checked = check(raw, base=base, name="benchmark")
    config = checked.config
    config.policy.load()
    config.scorer.load()
    config.trainer.attach(config.policy, seed, 1)
    clock = Clock(now)
    with Store.create(folder, checked.plain, seed) as store:
        parts = (config.policy, checked.prompts, config.scorer, config.selector, config.objective, config.trainer)
        start = now()
        align(*parts, store, timed_monitor(clock), rounds=1, k=config.k)
        whole = now() - start
        figures = store.history()[-1]
    clock.seconds["store"] = whole - clock.total
    return clock, figures


def timed_monitor(clock: Clock) -> Any:
    """A monitor that also keeps each phase's seconds by ``clock``."""
    from raft_core.monitoring.monitor import Monitor

    class Timed(Monitor):
        @contextlib.contextmanager
        def phase(self, rnd: int, name: Any, policy: Any) -> Iterator[None]:
            with super().phase(rnd, name, policy), clock.phase(name):
                yield

    return Timed(stop_when=())


def summary(work: TextWork, turns: list[dict[str, Clock]], costs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, and ratios turn by turn."""
    return {
        "work": {"prompts": len(work.prompts), "tokens": statistics.mean(cost["text/tokens"] for cost in costs)}
        | {name: getattr(work, name) for name in ("k", "min_new_tokens", "max_new_tokens", "train_items", "epochs")},
        "repeats": len(turns),
        "seconds": {
            kind: {phase: statistics.median(t[kind].seconds[phase] for t in turns) for phase in turns[0][kind].seconds}
            for kind in turns[0]
        },
        "ratios": {
            "toolkit / bare": spread([t["toolkit"].total / t["bare"].total for t in turns]),
            "sampling alone": spread([t["toolkit"].seconds["sample"] / t["bare"].seconds["sample"] for t in turns]),
            "training alone": spread([t["toolkit"].seconds["train"] / t["bare"].seconds["train"] for t in turns]),
        },
    }


def show(found: dict[str, Any]) -> None:
    for kind, phases in found["seconds"].items():
        print(f"{kind:>10}  " + "  ".join(f"{phase} {seconds:.2f} s" for phase, seconds in phases.items()))
    for name, ratio in found["ratios"].items():
        print(f"{name}: {in_words(ratio)}")


if __name__ == "__main__":
    main()
