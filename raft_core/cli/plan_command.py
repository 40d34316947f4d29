"""Show what a configuration would do, cost and gain, before it is run.

Everything is loaded, a few samples are drawn and scored and two steps trained,
to tell how long a run takes and how much of it is to be gained. Nothing is
written. --no_probe stops after the counts, and loads nothing.

  raft plan shapes/resolution
  raft plan my.yaml --k 32 --no_probe
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raft_core.config import Checked
    from raft_core.plan import Counts, Probe

USAGE = "raft plan [CONFIG] [--SETTING VALUE …] [--no_probe]"
TAKES_SETTINGS = True
TARGET_OPTIONAL = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no_probe", action="store_true", help="do not load or run anything")


def main(args: argparse.Namespace) -> None:
    from raft_core import progress
    from raft_core.cli.settings import checked_config
    from raft_core.config import as_yaml
    from raft_core.plan import count, probe
    from raft_core.run import truncated

    checked = checked_config(args.target, args.settings)
    reporter = progress.reporter()
    reporter.line(as_yaml(checked.plain))
    for note in checked.notes:
        reporter.line(f"note: {note}")
    counts = count(checked)
    if args.no_probe:
        for line in count_lines(checked, counts):
            reporter.line(line)
        return
    found = probe(checked, reporter)
    for warning in truncated(checked.config.policy, [*checked.prompts.train, *checked.prompts.held_out]):
        reporter.warn(warning)
    for line in (*count_lines(checked, counts, found), "", *probe_lines(checked, counts, found)):
        reporter.line(line)
    from raft_core.plan import advice

    for text in advice(counts, found, checked.config):
        reporter.warn(text)


def count_lines(checked: Checked, counts: Counts, found: Probe | None = None) -> Iterator[str]:
    """The work of a run in numbers."""
    config = checked.config
    yield row("prompts", f"{counts.prompts} to train on, {counts.per_round} per round; {counts.held_out} held out")
    yield row("samples", f"{counts.samples} per round ({counts.per_round} prompts × {config.k}), {counts.kept} of them kept")
    if found and found.evaluations:
        yield row("evaluations", f"{found.evaluations * counts.samples:,} of the network per round ({found.evaluations} each)")
    yield row("training", f"{counts.steps} steps of {config.trainer.batch_size} per round")
    yield row("rounds", f"at most {config.rounds}; then {counts.evaluated} samples to compare before and after")


def probe_lines(checked: Checked, counts: Counts, found: Probe) -> Iterator[str]:
    """Time, memory and gain, from the probe."""
    from raft_core.monitor import duration, figure

    config = checked.config
    yield f"from a probe of {found.drawn} samples and a few training steps:"
    per_round, evaluation = found.round_s(counts), found.evaluation_s(counts)
    drawn = [seconds * counts.samples for seconds in (found.sample_s, found.render_s, found.score_s)]
    parts = zip(("sampling", "rendering", "scoring", "training"), [*drawn, found.step_s * counts.steps], strict=True)
    yield row("a round", f"{duration(per_round)}: " + ", ".join(f"{name} {duration(s)}" for name, s in parts))
    total = config.rounds * per_round + evaluation
    yield row("the run", f"{duration(total)} at most, {duration(evaluation)} of it the comparison at the end")
    peaks = ", ".join(f"{phase} {size / 2**30:.2f} GiB" for phase, size in found.memory_bytes.items())
    yield row("memory", f"peaks: {peaks}")
    yield row("spread", f"{figure(found.spread)} standard deviation of {config.reward.info.name} within a prompt")
    ks = sorted({2, 4, 8, 16, 32, config.k} - {1})
    yield row("gain", "of the best of k over the mean, predicted: " + ", ".join(f"{k}: {figure(found.gain(k))}" for k in ks))


def row(label: str, text: str) -> str:
    """A labelled paragraph, at most 80 columns wide."""
    import textwrap

    return textwrap.fill(text, 80, initial_indent=f"{label:<13}", subsequent_indent=" " * 13)
