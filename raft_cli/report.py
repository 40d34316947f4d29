"""Write the report of a run again, finished or not, from its folder alone."""

from __future__ import annotations

import argparse
from pathlib import Path

USAGE = "raft report RUN"


def add_options(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def main(args: argparse.Namespace) -> None:
    from raft_core.report.page import write_report

    print(write_report(Path(args.target)))
