"""A plan in words: what a configuration would do, cost and gain, as labelled lines. Models are loaded elsewhere (``plan``)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from raft_core.format import duration, figure

if TYPE_CHECKING:
    from raft_core.config.run_config import Checked
    from raft_core.metrics.statistics import Estimate
    from raft_core.workflows.plan import Counts, Probe

PHASES = ("sampling", "rendering", "scoring", "training")


def summary_lines(checked: Checked, counts: Counts, found: Probe) -> Iterator[tuple[str, str]]:
    """What a person decides by, in four lines, as (label, text)."""
    config = checked.config
    per_round, evaluation = found.round_s(counts), found.evaluation_s(counts)
    yield (
        "work",
        f"at most {config.rounds} rounds of {counts.per_round} prompts × {config.k} samples, {counts.kept} of them kept, and "
        f"{counts.steps} training steps",
    )
    total = config.rounds * per_round + evaluation
    yield "the run", f"{duration(total)} at most: {duration(per_round)} a round, {duration(evaluation)} to compare at the end"
    largest = max(found.memory_bytes, key=lambda phase: found.memory_bytes[phase])
    yield "memory", f"{found.memory_bytes[largest] / 2**30:.2f} GiB at the peak (phase {largest})"
    reward = config.reward.info.name
    yield "gain", f"{gain_text(found.gain(config.k))} of {reward} by the best of {config.k} over the mean, 95 % interval"


def count_lines(checked: Checked, counts: Counts, found: Probe | None = None) -> Iterator[tuple[str, str]]:
    """The work of a run in numbers, as (label, text)."""
    config = checked.config
    yield "prompts", f"{counts.prompts} to train on, {counts.per_round} per round; {counts.held_out} held out"
    yield "samples", f"{counts.samples} per round ({counts.per_round} prompts × {config.k}), {counts.kept} of them kept"
    if found and found.evaluations:
        yield "evaluations", f"{found.evaluations * counts.samples:,} of the network per round ({found.evaluations} each)"
    yield "training", f"{counts.steps} steps of {config.trainer.batch_size} per round"
    yield "rounds", f"at most {config.rounds}; then {counts.evaluated} samples to compare before and after"


def probe_lines(checked: Checked, counts: Counts, found: Probe) -> Iterator[tuple[str, str]]:
    """Time, memory and gain, from the probe, as (label, text)."""
    config = checked.config
    per_round = found.round_s(counts)
    drawn = [seconds * counts.samples for seconds in (found.sample_s, found.render_s, found.score_s)]
    parts = zip(PHASES, [*drawn, found.step_s * counts.steps], strict=True)
    yield "a round", f"{duration(per_round)}: " + ", ".join(f"{name} {duration(s)}" for name, s in parts)
    peaks = ", ".join(f"{phase} {size / 2**30:.2f} GiB" for phase, size in found.memory_bytes.items())
    yield "peaks", f"of memory: {peaks}"
    yield "spread", f"{figure(found.spread)} standard deviation of {config.reward.info.name} within a prompt"
    ks = sorted({2, 4, 8, 16, 32, config.k} - {1})
    yield "gain by k", "of the best of k over the mean, predicted: " + ", ".join(f"{k}: {gain_text(found.gain(k))}" for k in ks)


def gain_text(gain: Estimate) -> str:
    """A gain with its interval, which one prompt alone does not give."""
    bounds = f" ({figure(gain.low)} … {figure(gain.high)})" if math.isfinite(gain.low) else ""
    return figure(gain.value) + bounds
