"""Show what a configuration would do, cost and gain, before it is run.

Everything is loaded, a few samples are drawn and scored and two steps trained,
to tell how long a run takes and how much of it is to be gained. Nothing is
written. --no_probe stops after the counts, and loads nothing.

  raft plan shapes/resolution
  raft plan my.yaml --k 32 --no_probe
"""

from __future__ import annotations

import argparse

USAGE = "raft plan [CONFIG] [--SETTING VALUE …] [--no_probe]"
TAKES_SETTINGS = True
TARGET_OPTIONAL = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no_probe", action="store_true", help="do not load or run anything")


def main(args: argparse.Namespace) -> None:
    from raft_core.config.recipes import checked_config
    from raft_core.config.run_config import as_yaml
    from raft_core.terminal import progress
    from raft_core.workflows.align import truncated
    from raft_core.workflows.plan import count, probe
    from raft_core.workflows.plan_words import count_lines, probe_lines

    checked = checked_config(args.target, args.settings)
    reporter = progress.reporter()
    reporter.line(as_yaml(checked.plain))
    for note in checked.notes:
        reporter.line(f"note: {note}")
    counts = count(checked)
    if args.no_probe:
        for label, text in count_lines(checked, counts):
            reporter.line(row(label, text))
        return
    found = probe(checked, reporter)
    for warning in truncated(checked.config.policy, [*checked.prompts.train, *checked.prompts.held_out]):
        reporter.warn(warning)
    for label, text in count_lines(checked, counts, found):
        reporter.line(row(label, text))
    reporter.line("")
    reporter.line(f"from a probe of {found.drawn} samples and a few training steps:")
    for label, text in probe_lines(checked, counts, found):
        reporter.line(row(label, text))
    from raft_core.workflows.plan import advice

    for text in advice(counts, found, checked.config):
        reporter.warn(text)


def row(label: str, text: str) -> str:
    """A labelled paragraph, at most 80 columns wide."""
    import textwrap

    return textwrap.fill(text, 80, initial_indent=f"{label:<13}", subsequent_indent=" " * 13)
