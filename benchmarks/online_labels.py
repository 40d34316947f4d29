"""The same number of labels, all at the beginning or spread over the run: does what is learned still please the labeller?

    python -m benchmarks.online_labels                       three seeds, 1 and 4 stages
    python -m benchmarks.online_labels --seeds 0 --labels 64

Every run is `raft reward online`; one that is there already is not made again. What is shown is the labeller's score of the
held-out continuations after each run, against the reference's and, prompt by prompt, against that of the same seed with all
labels at the beginning; and round by round the learned reward beside the labeller's, both in deviations of the reference.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raft_cli import main as raft
from raft_core.evaluation.evaluate import Evaluation
from raft_core.evaluation.files import read_results
from raft_core.machine.files import write_json
from raft_core.metrics.statistics import Estimate, mean_interval, win_rate, wins
from raft_core.workflows.preference_plots import over_optimisation
from raft_core.workflows.study import Curve

RESULTS = Path(__file__).parent / "results" / "online_labels.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", default="text/tales_preferences")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 4], help="the first is what the others are compared with")
    parser.add_argument("--labels", type=int, default=512)
    parser.add_argument("--gold", default="sentiment", help="name of the labeller's score in the store")
    parser.add_argument("--output", type=Path, default=Path("runs/online_labels"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args, more = parser.parse_known_args()
    runs: dict[int, list[Path]] = {stages: [run(args, stages, seed, more) for seed in args.seeds] for stages in args.stages}
    found = {stages: arm(folders, runs[args.stages[0]], args.gold) for stages, folders in runs.items()}
    write_json(args.results, {"config": args.config, "labels": args.labels, "seeds": args.seeds, "more": more, "arms": found})
    over_optimisation(curves(found), args.results.with_suffix(".svg"), "standard deviations of the reference policy")
    for stages, each in found.items():
        print(f"\n{stages} stages, {args.labels} labels, seeds {args.seeds}")
        for name, value in each["figures"].items():
            print(f"  {name:<34}{value}")


def run(args: argparse.Namespace, stages: int, seed: int, more: Sequence[str]) -> Path:
    """The folder of one run, made unless it is there."""
    folder = args.output / f"labels_{args.labels}_stages_{stages}_seed_{seed}"
    if not (folder / "rounds.json").is_file():
        words = ["reward", "online", args.config, "--stages", str(stages), "--labels", str(args.labels), "--seed", str(seed)]
        if code := raft([*words, "--output", str(folder), *more]):
            raise SystemExit(code)
    return folder


def held_out(folder: Path) -> Evaluation:
    results = read_results(folder / "run")
    assert results is not None  # the run is finished
    return next(each for each in results.evaluations if each.split == "heldout")


def arm(folders: Sequence[Path], baselines: Sequence[Path], gold: str) -> dict[str, Any]:
    """What the runs of one number of stages gave, over seeds."""
    evaluations, others = ([held_out(folder) for folder in each] for each in (folders, baselines))
    before, after = (by_prompt(evaluations, gold, after=side) for side in (False, True))
    other = by_prompt(others, gold, after=True)  # the same prompts, seeds and random numbers
    rounds = [json.loads((folder / "rounds.json").read_text())["rounds"] for folder in folders]
    last = {name: [rows[-1][name] for rows in rounds] for name in ("learned", "gold", "kl")}
    figures = {
        "win rate against the reference": shown(win_rate(wins(before, after))),
        "  by seed": ", ".join(f"{np.nanmean(won):.3f}" for won in wins(before, after).T),
        f"{gold} before": f"{np.nanmean(before):.3f}",
        f"{gold} after": f"{np.nanmean(after):.3f}",
        "  more than with all labels first": shown(mean_interval(after - other, 0)),
        "last round: learned, deviations": spread(last["learned"]),
        "last round: labeller, deviations": spread(last["gold"]),
        "last round: learned − labeller": spread([a - b for a, b in zip(last["learned"], last["gold"], strict=True)]),
        "last round: KL, nats": spread(last["kl"]),
    }
    return {"figures": figures, "rounds": rounds, "rewards": [stages_of(folder) for folder in folders]}


def by_prompt(evaluations: Sequence[Evaluation], gold: str, *, after: bool) -> np.ndarray:
    """[P, seeds] mean score of each prompt's continuations by seed, NaN where a seed has not drawn the prompt."""
    prompts = sorted({prompt.id for each in evaluations for prompt in each.prompts})
    found = np.full((len(prompts), len(evaluations)), np.nan)
    for column, each in enumerate(evaluations):
        scores = (each.scores_after if after else each.scores_before).columns[gold].reshape(-1, each.k).mean(axis=1)
        found[[prompts.index(prompt.id) for prompt in each.prompts], column] = scores
    return found


def stages_of(folder: Path) -> Any:
    return json.loads((folder / "rounds.json").read_text())["stages"]


def shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} … {estimate.high:.3f})"


def spread(values: Sequence[float]) -> str:
    """The mean over seeds, and the smallest and the largest."""
    return f"{statistics.mean(values):.2f} ({min(values):.2f} … {max(values):.2f})"


def curves(found: Mapping[int, Mapping[str, Any]]) -> dict[str, list[Curve]]:
    """Gold and learned reward of each arm against the distance: the mean over seeds, the smallest and the largest gold."""
    drawn = []
    for stages, each in found.items():
        rows = list(zip(*each["rounds"], strict=True))  # by round, over seeds
        golds = [[row["gold"] for row in seeds] for seeds in rows]
        curve = Curve(
            label="all labels first" if stages == 1 else f"labels in {stages} stages",
            steps=[seeds[0]["round"] - 1 for seeds in rows],
            distance=[statistics.mean(max(row["kl"], 0) for row in seeds) ** 0.5 for seeds in rows],
            gold=[statistics.mean(values) for values in golds],
            gold_low=[min(values) for values in golds],
            gold_high=[max(values) for values in golds],
            proxy=[statistics.mean(row["learned"] for row in seeds) for seeds in rows],
        )
        drawn.append(curve)
    return {"labels first, or spread": drawn}


if __name__ == "__main__":
    main()
