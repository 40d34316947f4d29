"""How a run's folder grows: time and memory of store, resume, report and what-if, up to 100,000 samples in 1,000 rounds.

    python -m benchmarks.scale                        250, 500 and 1,000 rounds of 100 samples, 10,000 prompts
    python -m benchmarks.scale --rounds 10 20 40      the same, shrunken
    python -m benchmarks.scale --json benchmarks/results/scale.json

The policy and the reward are fakes that cost nothing, so that the store alone is seen. The exponent e of time ~ rounds^e says
how a figure grows: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

STAGES = ("store", "resume", "report", "whatif")


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--prompts", type=int, default=10_000, help="in the set that rounds draw from")
    parser.add_argument("--per_round", type=int, default=10)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    runs = []
    for rounds in arguments.rounds:
        with tempfile.TemporaryDirectory() as folder:
            runs.append({"rounds": rounds, **stages(Path(folder) / "run", rounds, arguments)})
    work = {"prompts": arguments.prompts, "samples_per_round": arguments.per_round * arguments.k}
    found = {"work": work, "runs": runs, "exponents": exponents(runs)}
    print(table(found))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return found


def stages(folder: Path, rounds: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds, peak bytes and bytes on the disk of one run."""
    from raft_core.report.page import write_report
    from raft_core.store.store import Store
    from raft_core.workflows.whatif import best_of, doublings, known_column, stored_rounds

    def resume() -> None:
        policy, trainer = _parts(rounds)
        with Store.resume(folder) as store:
            store.restore(policy, trainer)

    def what_if() -> None:
        found = stored_rounds(folder)
        column = known_column(found[0], None)
        for each in found:
            for k in doublings(arguments.k):
                best_of(each, column, k)

    work: dict[str, Callable[[], Any]] = {
        "store": lambda: _run(folder, rounds, arguments),
        "resume": resume,
        "report": lambda: write_report(folder),
        "whatif": what_if,
    }
    figures = {name: _measured(work[name]) for name in STAGES}
    files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return {**figures, "disk_bytes": sum(files), "files": len(files)}


def _measured(work: Callable[[], Any]) -> dict[str, float]:
    from raft_core.machine.peak_memory import peak_memory

    with peak_memory() as peak:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_bytes": peak.bytes}


def _parts(rounds: int) -> tuple[Any, Any]:
    from raft_core.testing import FakePolicy
    from raft_core.training.optim import Optimizer
    from raft_core.training.trainer import Trainer

    policy, trainer = FakePolicy("text", batch_size=100), Trainer(Optimizer(lr=1e-3), steps=1)
    trainer.attach(policy, 0, rounds)
    return policy, trainer


def _run(folder: Path, rounds: int, arguments: argparse.Namespace) -> None:
    """A whole run of the loop."""
    from raft_core.loop import align
    from raft_core.monitoring.monitor import Monitor
    from raft_core.objectives.sft import Sft
    from raft_core.prompts import PromptSet
    from raft_core.rewards.scoring import Scorer
    from raft_core.selectors.best_of_k import BestOfK
    from raft_core.store.store import Store
    from raft_core.testing import FakeReward
    from raft_core.types import Prompt

    policy, trainer = _parts(rounds)
    prompts = PromptSet([Prompt(f"prompt {i}") for i in range(arguments.prompts)], [], arguments.per_round, 0)
    with Store.create(folder, {"k": arguments.k}, 0) as store:
        parts = (policy, prompts, Scorer(FakeReward()), BestOfK(), Sft(), trainer, store, Monitor(stop_when=()))
        align(*parts, rounds=rounds, k=arguments.k)


def exponents(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """e of seconds ~ rounds^e between the smallest and the largest run, by stage."""
    first, last = runs[0], runs[-1]
    if first["rounds"] == last["rounds"]:
        return {}
    span = math.log(last["rounds"] / first["rounds"])
    return {name: math.log(last[name]["seconds"] / first[name]["seconds"]) / span for name in STAGES}


def table(found: Mapping[str, Any]) -> str:
    per_round = found["work"]["samples_per_round"]
    lines = [f"{'rounds':>7}{'samples':>9}" + "".join(f"{name:>20}" for name in STAGES) + f"{'disk':>12}"]
    for run in found["runs"]:
        cells = ["{seconds:.2f} s {0:.0f} M".format(run[s]["peak_bytes"] / 2**20, **run[s]) for s in STAGES]
        disk = f"{run['disk_bytes'] / 2**20:.1f} M"
        lines.append(f"{run['rounds']:>7}{run['rounds'] * per_round:>9}" + "".join(f"{c:>20}" for c in cells) + f"{disk:>12}")
    if found["exponents"]:
        lines.append(f"{'exponent':>16}" + "".join(f"{found['exponents'][name]:>20.2f}" for name in STAGES))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
