"""Variants of a recipe against the recipe itself: what each gained, from how many samples and passes of the network.

Every run stays in the working folder and is not done again; a run that was killed is resumed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from raft_cli import main as raft
from raft_core.config.recipes import find_config
from raft_core.evaluation.files import read_results
from raft_core.metrics.statistics import Estimate, mean_interval
from raft_core.store.manifest import RUN
from raft_core.store.rounds import read_round, rounds_in
from raft_core.types import Grouping


@dataclass(frozen=True, eq=False)
class Measured:
    """A variant from one seed.

    Attributes:
        gain: [P, K] of the reward on held-out prompts, after − before, better = more; NaN = not scored.
        best: mean over all rounds and prompts of the best score of a prompt, better = more.
        first_best: the same of the first round alone, which all variants draw from the same model.
        first_mean: mean of all scored samples of the first round.
        samples: that were drawn, given-up ones included.
        scored: samples that the reward was asked about in full.
        evaluations: passes of the network for one sample that sampling took.
    """

    gain: np.ndarray
    best: float
    first_best: float
    first_mean: float
    samples: int
    scored: int
    evaluations: int


def trained(recipe: str, name: str, seed: int, work: Path, settings: Sequence[str]) -> Path:
    """The folder of a run, which is done, or gone on with, unless it is finished."""
    folder = work / f"{recipe.replace('/', '_')}_{name}_{seed}"
    if not (folder / "export").exists():
        begun = (folder / RUN).exists()
        words = ["resume", str(folder)] if begun else ["align", recipe, "--seed", str(seed), "--output", str(folder), *settings]
        if code := raft(words):
            raise SystemExit(code)
    return folder


def measured(folder: Path) -> Measured:
    """What a finished run came to."""
    results = read_results(folder)
    assert results is not None, f"{folder} was not evaluated"
    held_out = next(each for each in results.evaluations if each.split == "heldout")
    scores = held_out.scores_before, held_out.scores_after
    before, after = (each.grid(held_out.k) for each in scores)  # turned so that higher is better
    best: list[list[float]] = []
    first_mean, samples, scored, evaluations = float("nan"), 0, 0, 0
    for rnd in rounds_in(folder):
        drawn, found, _ = read_round(folder, rnd)
        grid = found.grid(Grouping.of(drawn))
        best.append([float(np.nanmax(row)) for row in grid if not np.isnan(row).all()])
        first_mean = float(np.nanmean(grid)) if len(best) == 1 else first_mean
        samples += len(drawn)
        scored += int((~np.isnan(grid)).sum())
        evaluations += sum(_evaluations(sample.meta) for sample in drawn)
    means = float(np.mean(np.concatenate(best))), float(np.mean(best[0])), first_mean
    return Measured(after - before, *means, samples, scored, evaluations)


def _evaluations(meta: Mapping[str, Any]) -> int:
    """Passes of the network that a sample took: as it says itself, else its denoising steps or tokens."""
    return int(next((meta[name] for name in ("evaluations", "steps", "tokens") if name in meta), 0))


def rows(found: Mapping[str, Sequence[Measured]], base: str) -> Iterator[str]:
    """Lines of Markdown: of each variant, over all seeds, what it gained, also over ``base``, and what it cost."""
    yield "| variant | held-out gain | − base | gain of the best, round 1 ÷ base | samples ÷ base | evaluations ÷ base |"
    yield "|---|---|---|---|---|---|"
    reference = found[base]
    for name, seeds in found.items():
        gain, other = (np.concatenate([each.gain for each in side], axis=1) for side in (seeds, reference))
        difference = "–" if name == base else cell(mean_interval(gain - other, seed=0))
        # What choosing gains over a sample at random, of which a variant that gives samples up knows nothing.
        chosen = [own.first_best - ref.first_mean for own, ref in zip(seeds, reference, strict=True)]
        whole = [ref.first_best - ref.first_mean for ref in reference]
        costs = [ratio([own(m) for m in seeds], [own(m) for m in reference]) for own in (_samples, _passes)]
        yield f"| {name} | {cell(mean_interval(gain, seed=0))} | {difference} | {ratio(chosen, whole)} | {' | '.join(costs)} |"


def _samples(measured: Measured) -> float:
    return measured.samples


def _passes(measured: Measured) -> float:
    return measured.evaluations


def cell(found: Estimate) -> str:
    return f"{found.value:+.3f} ({found.low:+.3f} … {found.high:+.3f})"


def ratio(own: Sequence[float], base: Sequence[float]) -> str:
    return f"{sum(own) / sum(base):.2f}" if sum(base) else "–"


def as_plain(found: Mapping[str, Sequence[Measured]]) -> str:
    """Every figure, as JSON."""
    figures = {
        name: [{**asdict(each), "gain": float(np.nanmean(each.gain))} for each in seeds] for name, seeds in found.items()
    }
    return json.dumps(figures, indent=2) + "\n"


def compared(
    doc: str,
    recipes: Sequence[str],
    variants: Callable[[argparse.Namespace, int], Mapping[str, Sequence[str]]],
    add_options: Callable[[argparse.ArgumentParser], None],
    work: str,
) -> None:
    """A benchmark's command line: train each variant of each recipe from each seed, and print what came of it.

    Args:
        variants: (options, k of the recipe) → name → settings; the first is what the others are compared with.
        work: the folder of the runs, by default.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(work))
    parser.add_argument("--recipes", nargs="+", default=list(recipes))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--k", type=int, help="of the recipe; by default its own")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="further settings of all runs")
    parser.add_argument("--output", type=Path, help="JSON with every figure; the recipe's name is put behind")
    add_options(parser)
    options = parser.parse_args()
    for recipe in options.recipes:
        k = options.k or yaml.safe_load(find_config(recipe).read_text(encoding="utf-8"))["k"]
        common = ["--trackers", "[]", "--stop_when", "[]", "--k", str(k)]  # as many rounds for all
        common += [f"--{setting}" for setting in options.set]
        chosen = variants(options, k)
        found = {
            name: [
                measured(trained(recipe, _file_name(name), seed, options.work, [*common, *settings])) for seed in options.seeds
            ]
            for name, settings in chosen.items()
        }
        print(f"\n{recipe}\n")
        print("\n".join(rows(found, next(iter(chosen)))))
        if options.output:
            path = options.output.with_stem(f"{options.output.stem}_{recipe.replace('/', '_')}")
            path.write_text(as_plain(found), encoding="utf-8")


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "." else "_" for letter in name)
