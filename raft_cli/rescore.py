"""Score the stored samples of a run by another reward; the scores are kept.

  raft rescore runs/resolution --reward ClipScore
  raft rescore runs/resolution --reward mine.py:my_function --reward.name mine

Nothing is generated; what selected the samples stays as it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

USAGE = "raft rescore RUN --reward NAME [--reward.ARGUMENT VALUE …]"
TAKES_SETTINGS = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, nargs="+", help="which rounds; by default all that are stored")


def main(args: argparse.Namespace) -> None:
    from rich.table import Table

    from raft_core.format import figure
    from raft_core.terminal import progress
    from raft_core.workflows.rescore import built_reward, rescored

    folder = Path(args.target)
    scorer = built_reward(args.settings, USAGE)
    scorer.load()
    reporter = progress.reporter()
    table = Table(box=None, pad_edge=False)
    for heading in ("round", "score", "mean", "best of each", "kept", "unscored"):
        table.add_column(heading, justify="right" if heading != "score" else "left", no_wrap=True)
    for line in rescored(folder, scorer, args.rounds, reporter):
        table.add_row(
            str(line.rnd), line.name, figure(line.mean), figure(line.best), figure(line.kept), str(line.unscored or "")
        )
    progress.console().print(table)
