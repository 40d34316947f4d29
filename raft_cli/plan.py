"""Show what a configuration would do, cost and gain, before it is run.

Everything is loaded, a few samples are drawn and scored and two steps trained,
to tell how long a run takes and how much of it is to be gained. Nothing is
written. --no_probe stops after the counts, and loads nothing: so it also checks
a configuration for another machine.

  raft plan shapes/resolution
  raft plan my.yaml --k 32
  raft plan sd15/aesthetic --no_probe
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

USAGE = "raft plan [CONFIG] [--SETTING VALUE …] [--no_probe] [--print_config]"
TAKES_SETTINGS = True
TARGET_OPTIONAL = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no_probe", action="store_true", help="do not load or run anything")
    parser.add_argument("--print_config", action="store_true", help="print the whole configuration, too, checked")


def main(args: argparse.Namespace) -> None:
    from raft_core.capabilities import estimate
    from raft_core.config.recipes import checked_config
    from raft_core.config.run_config import as_yaml
    from raft_core.terminal import progress
    from raft_core.workflows.align import loaded_warnings
    from raft_core.workflows.plan import advice, count, probe
    from raft_core.workflows.plan_words import count_lines, probe_lines, summary_lines

    checked = checked_config(args.target, args.settings, elsewhere=args.no_probe)
    reporter = progress.reporter()

    def say(lines: Iterable[tuple[str, str]]) -> None:
        for label, text in lines:
            reporter.line(row(label, text))

    counts = count(checked)
    if args.no_probe:
        say(count_lines(checked, counts))
        if told := estimate(checked.config.policy):
            say([("weights", told)])
        warnings: list[str] = []
    else:
        found = probe(checked, reporter)
        say(summary_lines(checked, counts, found))
        reporter.line(f"\nIn detail, from a probe of {found.drawn} samples and a few training steps:")
        say(count_lines(checked, counts, found))
        say(probe_lines(checked, counts, found))
        cut = loaded_warnings(checked.config.policy, [*checked.prompts.train, *checked.prompts.held_out])
        warnings = [*cut, *advice(counts, found, checked.config)]
    for note in checked.notes:
        reporter.line(row("note", note))
    for text in warnings:
        reporter.warn(text)
    if args.print_config:
        reporter.line("")
        reporter.line(as_yaml(checked.plain))


def row(label: str, text: str) -> str:
    """A labelled paragraph, at most 80 columns wide."""
    import textwrap

    return textwrap.fill(text, 80, initial_indent=f"{label:<13}", subsequent_indent=" " * 13, break_on_hyphens=False)
