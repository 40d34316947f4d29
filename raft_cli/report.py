"""Write the report of a run again, finished or not, from its folder alone.

  raft report runs/resolution
  raft report runs/resolution --gif

The report is one file, which any browser opens without a network. --gif and
--webp also write the rounds as an animation beside it: the first samples of the
same prompts, round after round, none of them picked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

USAGE = "raft report RUN [--gif] [--webp]"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gif", action="store_true", help="write report/rounds.gif too, the rounds as an animation")
    parser.add_argument("--webp", action="store_true", help="write report/rounds.webp too: the same in a smaller file")


def main(args: argparse.Namespace) -> None:
    from raft_core.report.animation import write_animation
    from raft_core.report.page import write_report

    folder = Path(args.target)
    print(write_report(folder))
    for kind in ("gif", "webp"):
        if getattr(args, kind):
            print(write_animation(folder, kind))
