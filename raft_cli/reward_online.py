"""Align by labels that are asked for anew as the policy changes.

  raft reward online text/tales_preferences --output runs/online
  raft reward online text/tales_preferences --stages 1      all labels at first
  raft reward online my.yaml --person --labels 200 --stages 4

In each stage candidates are drawn from the policy as it is, the best of each
is chosen, a reward is learned from all choices so far and brought to mean 0
and variance 1 on samples of the reference, and the run goes on by it for its
share of the rounds. The reward of the configuration chooses (--reward NAME);
with --person a file waits to be filled in (raft reward label FILE), and the
same command goes on. Settings of the configuration go by their paths, those
of the learned reward by --learner.… and --fit.…, as for raft reward train.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raft_core.config.run_config import Checked
    from raft_core.workflows.online import Online
    from raft_core.workflows.online_results import Line, Stage

USAGE = "raft reward online CONFIG [--stages N] [--labels N] [--SETTING VALUE …]"
TAKES_SETTINGS = True
OWN = ("learner", "fit")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stages", type=int, default=4, help="times that labels are asked for (4); 1 = all at the beginning")
    parser.add_argument("--labels", type=int, default=512, help="choices in all, spread over the stages (512)")
    parser.add_argument("--candidates", type=int, default=4, help="of a choice (4)")
    parser.add_argument("--reference", type=int, default=512, help="samples by which the reward is normalised (512)")
    parser.add_argument("--person", action="store_true", help="people choose, and not the configuration's reward")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="of the labeller's doubts, in deviations of its scores (0)"
    )
    parser.add_argument("--output", type=Path, help="a new folder, or one to go on with; by default runs/online/NAME")
    parser.add_argument("--device", default="auto", help="of the learned reward: auto, cpu, cuda or cuda:N")


def main(args: argparse.Namespace) -> None:
    from raft_core.machine.files import write_json
    from raft_core.terminal import progress
    from raft_core.terminal.result import show_result
    from raft_core.workflows.online import carry_out
    from raft_core.workflows.online_results import lines, stages
    from raft_core.workflows.preference_plots import over_optimisation

    online = built(args)
    reporter = progress.reporter()
    reporter.line(f"folder: {online.folder}")
    if online.labeller:
        online.labeller.scorer.load()
    if waiting := carry_out(online, reporter):
        reporter.line(f"\n{waiting} waits for people: raft reward label {waiting}\nThen the same command goes on.")
        return
    show_result(online.run)
    rounds, found = lines(online), stages(online, reporter)
    write_json(online.folder / "rounds.json", {"rounds": [asdict(x) for x in rounds], "stages": [asdict(x) for x in found]})
    over_optimisation({online.checked.name: [curve(rounds, online)]}, online.folder / "online.svg", UNITS)
    console = progress.console()
    for table in (rounds_table(rounds), stages_table(found)):
        console.print()
        console.print(table)
    reporter.line(f"\nlabels, rewards, rounds.json and online.svg are in {online.folder}")


UNITS = "standard deviations of the reference policy"


def built(args: argparse.Namespace) -> Online:
    """Everything that the words name, checked; nothing is loaded.

    Raises:
        ConfigError: with every mistake that there is.
    """
    from raft_cli.reward_study import parted
    from raft_cli.reward_train import as_mapping, learner_and_fit
    from raft_core.config.components import Walk
    from raft_core.config.recipes import checked_config
    from raft_core.preferences.labeller import Labeller
    from raft_core.rewards.scoring import Scorer
    from raft_core.workflows.online import Online, OnlineSettings, is_penalised

    own, rest = parted(args.settings, OWN)
    checked = checked_config(args.target, rest)
    seed = checked.config.seed
    settings = OnlineSettings(args.stages, args.labels, args.candidates, args.reference, seed)
    reward = checked.config.reward
    if is_penalised(checked.plain["reward"]):
        reward = reward.parts[0]  # type: ignore[attr-defined] - of what is penalised
    labeller = None if args.person else Labeller(Scorer(reward), args.temperature, seed)
    own["fit"] = {"seed": seed} | as_mapping(own.get("fit"), "fit")
    own["learner"] = usual_base(checked) | as_mapping(own.get("learner"), "learner")
    make, fit = learner_and_fit(Walk(), own, getattr(checked.config.policy, "modality", "image"))
    folder = args.output or Path("runs/online") / checked.name
    return Online(checked, make, fit, settings, folder, labeller, args.device)


def usual_base(checked: Checked) -> dict[str, Any]:
    """What a reward of texts is learned on when nothing is said: the language model that is aligned, as in the paper."""
    policy = checked.config.policy
    return {"model": policy.model} if getattr(policy, "modality", "") == "text" and hasattr(policy, "model") else {}  # type: ignore[attr-defined]


def curve(rounds: Sequence[Line], online: Online) -> Any:
    """Gold and learned reward against the distance, as the over-optimisation study draws them."""
    import math

    from raft_core.workflows.study import Curve

    unknown = [math.nan] * len(rounds)
    return Curve(
        label=f"{online.settings.stages} × labels",
        steps=[line.round - 1 for line in rounds],
        distance=[math.sqrt(max(line.kl, 0)) for line in rounds],
        gold=[line.gold for line in rounds],
        gold_low=unknown,
        gold_high=unknown,
        proxy=[line.learned for line in rounds],
    )


def rounds_table(rounds: Sequence[Line]) -> Any:
    """What the learned reward and the labeller say of each round's samples."""
    headings = ("round", "stage", "learned", "labeller", "KL", "β")
    cells = [
        (
            f"{x.round}",
            f"{x.stage}",
            f"{x.learned:+.2f}",
            _cell(x.gold, "+.2f"),
            _cell(x.kl, ".2f"),
            _cell(x.kl_coefficient, ".3f"),
        )
        for x in rounds
    ]
    return _table(f"mean of each round's samples, in {UNITS}; KL in nats", headings, cells)


def stages_table(stages: Sequence[Stage]) -> Any:
    """What each stage's reward is worth."""
    headings = ("stage", "labels", "right on held-out labels", "the one before, on the new labels")
    cells = [(f"{i}", f"{x.labels}", _cell(x.held_out, ".3f"), _cell(x.stale, ".3f")) for i, x in enumerate(stages, 1)]
    return _table("the learned rewards", headings, cells)


def _cell(value: float, form: str) -> str:
    return "" if value != value else format(value, form)


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from rich.table import Table

    found = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in headings:
        found.add_column(heading, justify="right")
    for row in rows:
        found.add_row(*row)
    return found
