"""How well rewards agree with preferences.

  raft reward eval preferences.jsonl --reward my_reward
  raft reward eval pick_a_pic.parquet --reward PickScore --reward ClipScore \\
      --reward.model ViT-H-14 --reward.pretrained laion2b_s32b_b79k

Accuracy with its interval for further prompts, by group too; calibration of
σ(Δ), as it is and in the best unit; correlation with length or file size, by
which a reward that can be hacked shows itself; how often the rewards agree with
one another. What is found is also written as JSON, and the reliability as a
plot.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raft_core.preferences.evaluate import Findings
    from raft_core.preferences.metrics import Rate

USAGE = "raft reward eval DATA --reward NAME [--reward.ARGUMENT VALUE …] …"
TAKES_SETTINGS = True
GROUPS_SHOWN = 12


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="an empty or new folder; by default runs/reward_eval/NAME")
    parser.add_argument("--group", metavar="FIELD", help="tells groups apart; by default group, category, subset or source")
    parser.add_argument("--held_out", type=float, metavar="FRACTION", help="only the prompts that a training holds out")
    parser.add_argument("--seed", type=int, default=0, help="of that training (0)")
    parser.add_argument("--skip_invalid", action="store_true", help="leave out rows that are wrong instead of stopping")


def main(args: argparse.Namespace) -> None:
    from raft_core.errors import ConfigError
    from raft_core.machine.files import write_json
    from raft_core.machine.folders import free_folder
    from raft_core.preferences.evaluate import evaluate_rewards
    from raft_core.preferences.read import read_preferences, split
    from raft_core.store.create import require_empty
    from raft_core.terminal import progress
    from raft_core.workflows.preference_plots import reliability
    from raft_core.workflows.rescore import built_reward

    if args.held_out is not None and not 0 < args.held_out < 1:
        raise ConfigError(f"--held_out is {args.held_out}, but must be between 0 and 1, both excluded")
    folder = args.output or free_folder(Path("runs/reward_eval") / Path(args.target).name.split(".")[0])
    require_empty(folder)
    scorers = [built_reward(words, USAGE) for words in by_reward(args.settings)]
    reading = read_preferences(args.target, group=args.group, skip_invalid=args.skip_invalid)
    preferences = reading.preferences
    if args.held_out is not None:
        preferences = split(preferences, args.held_out, args.seed)[1]
    reporter = progress.reporter()
    reporter.line(reading.described() + ("" if args.held_out is None else f"; {len(preferences)} held out"))
    for scorer in scorers:
        scorer.load()
    findings = evaluate_rewards(scorers, preferences, reporter)
    write_json(folder / "evaluation.json", findings.as_json())
    reliability(findings.verdicts, folder / "reliability.svg")
    console = progress.console()
    for table in tables(findings):
        console.print()
        console.print(table)
    reporter.line(f"\nevaluation.json and reliability.svg are in {folder}")


def by_reward(words: Sequence[str], usage: str = USAGE) -> list[list[str]]:
    """The words of each reward: ``--reward NAME`` begins one, and what follows is its own.

    Raises:
        ConfigError: there is none.
    """
    from raft_core.errors import ConfigError

    parts: list[list[str]] = []
    for word in words:
        if word == "--reward" or word.startswith("--reward="):
            parts.append([])
        if not parts:
            raise ConfigError(f"{word!r} comes before any --reward: {usage}")
        parts[-1].append(word)
    if not parts:
        raise ConfigError(f"--reward is missing: {usage}")
    return parts


def tables(findings: Findings) -> Iterator[Any]:
    """What a person reads: the verdicts, the groups, who agrees with whom."""
    yield _verdicts(findings)
    if any(verdict.groups for verdict in findings.verdicts):
        yield _groups(findings)
    yield _agreement(findings)


def _table(title: str, headings: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    return table


def _verdicts(findings: Findings) -> Any:
    decided = findings.preferences - findings.ties
    title = f"{decided} preferences (and {findings.ties} ties) about {findings.prompts} prompts; "
    title += f"chance {findings.chance:.3f}, largest wins {findings.larger_wins.value:.3f}"
    table = _table(title, ("reward", "accuracy", "ECE", "with best unit", f"ρ with {findings.size_unit}", "unscored"))
    for verdict in findings.verdicts:
        table.add_row(
            verdict.name,
            _interval(verdict.accuracy),
            f"{verdict.calibration.ece:.3f}",
            f"{verdict.fitted.ece:.3f}",
            f"{verdict.size_correlation:+.2f}",
            str(verdict.unscored or ""),
        )
    return table


def _groups(findings: Findings) -> Any:
    names = list(dict.fromkeys(group for verdict in findings.verdicts for group in verdict.groups))[:GROUPS_SHOWN]
    table = _table("accuracy by group", ("group", "n", *(verdict.name for verdict in findings.verdicts)))
    for group in names:
        rates = [verdict.groups.get(group) for verdict in findings.verdicts]
        count = max((rate.n for rate in rates if rate), default=0)
        table.add_row(group, str(count), *(_interval(rate) for rate in rates))
    return table


def _interval(rate: Rate | None) -> str:
    return "" if rate is None or not rate.n else f"{rate.value:.3f} ({rate.low:.2f}–{rate.high:.2f})"


def _agreement(findings: Findings) -> Any:
    names = list(findings.agreement)
    table = _table("how often two put candidates in the same order", ("", *names))
    for name in names:
        table.add_row(name, *(f"{findings.agreement[name][other]:.3f}" for other in names))
    return table
