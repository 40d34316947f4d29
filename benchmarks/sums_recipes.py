"""Top-1, majority vote and reranking of the five recipes of word problems, each from several seeds, on fresh problems.

    python -m benchmarks.sums_recipes                          all of it; what is there already is not done again
    python -m benchmarks.sums_recipes --recipes raft --seeds 0
    python -m benchmarks.sums_recipes --rerank runs/sums_recipes/ranker

The problems are 300 of the numbers that the model and the recipes never train on, in words of their own: none of them is in
`sums_heldout.jsonl`, by which the recipes were chosen. Top-1 is the likeliest answer, drawn at temperature 0; vote and rerank
choose among eight samples at temperature 1. Every run and every sample stays in the folder, and can be looked at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from raft_cli import main as raft
from raft_core.metrics.statistics import Estimate, mean_interval, win_rate

RECIPES = ("sft", "offline_st", "online_st", "raft", "reft")
PROBLEMS, VOTES = 300, 8
START = "start"


@dataclass(frozen=True, eq=False)
class Measured:
    """Right answers of one recipe.

    Attributes:
        recipe: its name, or ``start``.
        right: method → [P, seeds] of 0 and 1.
        haste: share of samples at temperature 1 that skip the steps.
    """

    recipe: str
    right: dict[str, np.ndarray]
    haste: float


def fresh_problems(path: Path) -> Path:
    """Write the problems to a file, unless it is there."""
    from raft_text.world.files import chosen, rows
    from raft_text.world.problems import stories

    if not path.exists():
        known = {story.question for split in ("train", "held_out") for story in chosen(split)}
        found = {s.question: s for s in islice(stories(1, "fresh", split="held_out"), 2 * PROBLEMS) if s.question not in known}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows(list(found.values())[:PROBLEMS])), encoding="utf-8")
    return path


def trained(recipe: str, seed: int, work: Path, settings: Sequence[str]) -> Path:
    """The folder of a run, which is done unless it is."""
    folder = work / f"{recipe}_{seed}"
    if not (folder / "export").exists():
        words = ["sft" if recipe == "sft" else "align", f"text/sums_{recipe}", "--seed", str(seed), "--output", str(folder)]
        _run([*words, "--trackers", "[]", *settings])
    return folder


def sampled(source: Path, problems: Path, folder: Path, settings: Sequence[str]) -> list[dict[str, Any]]:
    """What ``raft generate`` writes of the samples, with the answers."""
    if not (folder / "samples.jsonl").exists():
        _run(["generate", str(source), "--prompts", str(problems), "--output", str(folder), *settings])
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def measured(recipe: str, seeds: Sequence[int], work: Path, problems: Path, rerank: Path | None) -> Measured:
    """A recipe's right answers; of ``start`` those of the model as it was."""
    from raft_text.world.problems import is_hasty

    kinds = {"greedy": ["--vote", "1", "--policy.sampling.temperature", "0"], "votes": ["--vote", str(VOTES)]}
    if rerank is not None:
        kinds["votes"] += ["--rerank", str(rerank)]
    right: dict[str, list[list[bool]]] = {}
    hasty: list[bool] = []
    for seed in seeds:
        base = ["--base"] if recipe == START else []
        source = work / f"{'raft' if recipe == START else recipe}_{seed}"
        rows = {}
        for kind, settings in kinds.items():
            folder = work / "samples" / f"{recipe}_{seed}_{kind}{'_reranked' if rerank and kind == 'votes' else ''}"
            rows[kind] = sampled(source, problems, folder, [*settings, *base, "--seed", str(seed)])
            chosen = [json.loads(line) for line in (folder / "chosen.jsonl").read_text(encoding="utf-8").splitlines()]
            for name in ("vote", "rerank"):
                if name in chosen[0]:
                    method = "top-1" if kind == "greedy" else name
                    found = [bool(row[name]) and row[name]["answer"] == row["reference"] for row in chosen]
                    right.setdefault(method, []).append(found)
        references = np.repeat([row["reference"] for row in chosen], VOTES)
        one = [row["answer"] == reference for row, reference in zip(rows["votes"], references, strict=True)]
        right.setdefault("one sample", []).append(one[::VOTES])
        hasty += [is_hasty(row["text"]) for row in rows["votes"]]
    return Measured(recipe, {name: np.array(found, dtype=float).T for name, found in right.items()}, float(np.mean(hasty)))


def table(all_measured: Sequence[Measured]) -> Iterator[str]:
    """Lines of Markdown: accuracies, and top-1 over fine-tuning, in per cent with 95 % intervals."""
    methods = list(all_measured[0].right)
    yield f"| recipe | {' | '.join(methods)} | top-1 over `sft` | hasty |"
    yield "|---" * (len(methods) + 3) + "|"
    base = next((m.right["top-1"] for m in all_measured if m.recipe == "sft"), None)
    for m in all_measured:
        cells = [_cell(win_rate(m.right[name])) for name in methods]
        gain = "–" if base is None or m.recipe == "sft" else _cell(mean_interval(m.right["top-1"] - base, seed=0), sign="+")
        yield f"| {m.recipe} | {' | '.join(cells)} | {gain} | {m.haste:.0%} |"


def _cell(found: Estimate, sign: str = "") -> str:
    value, low, high = (100 * x for x in (found.value, found.low, found.high))
    return f"{value:{sign}.1f} ({low:.1f} … {high:.1f})"


def _run(words: Sequence[str]) -> None:
    if code := raft(list(words)):
        raise SystemExit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/sums_recipes"))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rerank", type=Path, help="a folder of raft reward train")
    parser.add_argument("--set", nargs="*", default=[], metavar="WORD", help="further settings of the runs: --set=--rounds 2")
    parser.add_argument("--output", type=Path, help="JSON with every figure")
    options = parser.parse_args()
    problems = fresh_problems(options.work / "fresh.jsonl")
    for recipe in options.recipes:
        for seed in options.seeds:
            trained(recipe, seed, options.work, options.set)
    names = [*([START] if "raft" in options.recipes else []), *options.recipes]
    seeds = {START: options.seeds[:1]}  # one model, whichever run it is of
    found = [measured(name, seeds.get(name, options.seeds), options.work, problems, options.rerank) for name in names]
    print("\n".join(table(found)))
    if options.output:
        figures = {m.recipe: {name: asdict(win_rate(right)) for name, right in m.right.items()} for m in found}
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
