"""What optimising a learned reward does to the gold judge that labelled its data.

  raft reward study
  raft reward study shapes/aesthetic --labels 200 2000 20000 --raft_rounds 6
  raft reward study my.yaml --gold my_file.py:truth --learner.clip ViT-B-32/openai

Pairs of samples of the configuration's model are labelled by the gold judge;
proxies are learned from ever more of the labels; best-of-n, and RAFT if rounds
are asked for, choose by each proxy, and proxy and gold are plotted against the
square root of the KL: for best-of-n log n − (n − 1)/n, for RAFT its bound.
Settings of the configuration go by their paths, as for `raft align`.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from raft_core.config.run_config import Checked
    from raft_core.reporter import Reporter
    from raft_core.workflows.study import Curve, Study, StudySettings

USAGE = "raft reward study [CONFIG] [--labels N …] [--SETTING VALUE …] […]"
TAKES_SETTINGS = True
TARGET_OPTIONAL = True
CONFIG = "shapes/aesthetic"
GOLD = "GoldScore"
OWN = ("gold", "learner", "fit")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--labels", type=int, nargs="+", default=[200, 1000, 5000, 20000], help="200 1000 5000 20000")
    parser.add_argument("--samples", type=int, default=64, help="per prompt, for labels (64)")
    parser.add_argument("--pool", type=int, default=64, help="per prompt, for best-of-n (64)")
    parser.add_argument("--temperature", type=float, default=0.0, help="of the labels, in deviations of the gold (0)")
    parser.add_argument("--raft_rounds", type=int, default=0, help="also align by each proxy, for so many rounds (0)")
    parser.add_argument("--output", type=Path, help="an empty or new folder; by default runs/reward_study/NAME")
    parser.add_argument("--device", default="auto", help="of the proxies: auto, cpu, cuda or cuda:N")


def main(args: argparse.Namespace) -> None:
    from raft_cli.reward_train import as_mapping
    from raft_core.config.recipes import checked_config
    from raft_core.errors import ConfigError
    from raft_core.machine.files import write_json
    from raft_core.machine.folders import free_folder
    from raft_core.store.create import require_empty
    from raft_core.terminal import progress
    from raft_core.workflows.preference_plots import over_optimisation
    from raft_core.workflows.study import StudySettings

    own, rest = parted(args.settings)
    if (args.target or CONFIG).startswith("shapes/"):
        own["learner"] = {"clip": "bundled:shapes-clip"} | as_mapping(own.get("learner"), "learner")
    checked = checked_config(args.target or CONFIG, rest)
    if args.raft_rounds < 0:
        raise ConfigError(f"--raft_rounds is {args.raft_rounds}, but must not be negative")
    settings = StudySettings(tuple(args.labels), args.samples, args.pool, args.temperature, checked.config.seed)
    folder = args.output or free_folder(Path("runs/reward_study") / checked.name)
    require_empty(folder)
    reporter = progress.reporter()
    study = carried_out(checked, own, settings, args, folder, reporter)
    methods = {"best of n": study.best_of}
    if study.raft:
        methods["RAFT (distance: upper bound)"] = study.raft
    plot = over_optimisation(methods, folder / "study.svg", "standard deviations of the reference policy")
    write_json(folder / "study.json", as_json(study, settings, folder))
    console = progress.console()
    for title, curves in methods.items():
        console.print()
        console.print(table(title, curves))
    reporter.line(f"\n{plot.name}, study.json and the proxies are in {folder}")


def parted(words: Sequence[str], names: Sequence[str] = OWN) -> tuple[dict[str, Any], list[str]]:
    """(settings of these names as a tree, the words that are the configuration's)."""
    from raft_core.config.run_config import overridden, parse_overrides

    overrides = parse_overrides(words)
    own = [each for each in overrides if each.path.split(".")[0] in names]
    rest = [each for each in overrides if each not in own]
    return overridden({}, own), [f"--{each.path}={each.text}" for each in rest]


def carried_out(
    checked: Checked, own: Mapping[str, Any], settings: StudySettings, args: Any, folder: Path, reporter: Reporter
) -> Study:
    """Sample, label, learn, choose.

    Raises:
        ConfigError: with every mistake that there is in the study's own settings.
    """
    from raft_cli.reward_train import as_mapping, learner_and_fit
    from raft_core.config.components import Unbuilt, Walk
    from raft_core.preferences.learner import Scale
    from raft_core.rewards.scoring import Scorer
    from raft_core.workflows.generate import generate
    from raft_core.workflows.study import Study, best_of_curves, gold_scores, labelled_pairs, train_proxies
    from raft_core.workflows.study_raft import raft_curves

    policy, prompts = checked.config.policy, checked.prompts.train
    walk = Walk()
    gold_part = walk.component(own.get("gold", GOLD), "reward", "gold")
    with contextlib.suppress(Unbuilt):
        gold_part.make()
    fit_settings = {"seed": settings.seed} | as_mapping(own.get("fit"), "fit")
    make, fit = learner_and_fit(walk, {**own, "fit": fit_settings}, policy.modality)
    gold = Scorer(gold_part.make())
    gold.load()
    policy.load()
    samples = generate(policy, prompts, k=settings.samples, seed=settings.seed, reporter=reporter)
    labels = labelled_pairs(samples, gold_scores(gold, samples, reporter), max(settings.labels), settings)
    pool = generate(policy, prompts, k=settings.pool, seed=settings.seed + 1, reporter=reporter)
    golds = gold_scores(gold, pool, reporter)
    scale = Scale.of(golds[~np.isnan(golds)])
    proxies = train_proxies(make, labels, pool, settings, fit, folder / "proxies", reporter, args.device)
    best_of = best_of_curves(proxies, pool, golds, scale, settings, args.device)
    raft: list[Curve] = []
    if args.raft_rounds:
        raft = raft_curves(checked.plain, proxies, gold_part.plain, scale, args.raft_rounds, folder / "raft", reporter)
    return Study(proxies, best_of, scale, raft)


def as_json(study: Study, settings: StudySettings, folder: Path) -> dict[str, Any]:
    """Plain data; folders from the study's own."""
    plain = asdict(study)
    for proxy in plain["proxies"]:
        proxy["folder"] = str(proxy["folder"].relative_to(folder))
    return {"settings": asdict(settings), **plain}


def table(title: str, curves: Sequence[Curve]) -> Any:
    """Gold and, in brackets, proxy at every step."""
    from rich.table import Table

    found = Table(title=f"{title}: gold (proxy)", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in ("n" if curves[0].steps[0] else "rounds", "√KL", *(curve.label for curve in curves)):
        found.add_column(heading, justify="right")
    for row, step in enumerate(curves[0].steps):
        cells = [_cell(curve, row) for curve in curves]
        found.add_row(str(step), f"{curves[0].distance[row]:.2f}", *cells)
    return found


def _cell(curve: Curve, row: int) -> str:
    if row >= len(curve.gold):
        return ""
    return f"{curve.gold[row]:.2f}" + ("" if curve.proxy is None else f" ({curve.proxy[row]:.2f})")
