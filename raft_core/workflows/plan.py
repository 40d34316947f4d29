"""What a configuration would do, cost and gain, before it is run: counts, and a short probe of the real parts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from raft_core import capabilities
from raft_core.config.run_config import Checked, RunConfig
from raft_core.config.schema import parameters
from raft_core.machine.out_of_memory import in_words
from raft_core.machine.peak_memory import peak_memory
from raft_core.metrics.gain import deviations, predicted_gain
from raft_core.metrics.spread import flat
from raft_core.metrics.statistics import Estimate
from raft_core.monitoring.figures import mean_scored
from raft_core.reporter import Reporter
from raft_core.sampling import chunks
from raft_core.selectors.select import select
from raft_core.soundness import examined, failed_words, render_sound, require_sound
from raft_core.training.trainer import Trainer
from raft_core.types import Grouping, Request, Sample, Scores

PROBE_PROMPTS, PROBE_SAMPLES = 8, 4
SAMPLING_BUDGET_S = 45.0
TRAIN_STEPS = 2
STILL = 1e-30  # a learning rate by which nothing moves further than a rounding


@dataclass(frozen=True)
class Counts:
    """How much work a run is.

    Attributes:
        prompts: training prompts, and how many of them in a round.
        held_out: prompts that are only evaluated on.
        samples: per round.
        kept: samples that the selector keeps of a round in which all are scored, and differently; one that goes by ties or by
            a threshold may keep more or fewer.
        steps: optimiser steps per round.
        evaluated: samples that the comparison at the end draws, both sides together.
    """

    prompts: int
    per_round: int
    held_out: int
    samples: int
    kept: int
    steps: int
    evaluated: int


def count(checked: Checked) -> Counts:
    """Everything that needs no model."""
    config, prompts = checked.config, checked.prompts
    groups = asked_groups(checked)
    samples = int(groups.sizes.sum())
    # Any scores will do for most: how many samples they keep does not depend on them, as long as all are scored and differ.
    selection = config.selector(groups.pad(np.arange(samples, dtype=float)))
    limit = config.evaluation.prompts or max(len(prompts.train), len(prompts.held_out))
    evaluated = 2 * config.evaluation.k * (min(limit, len(prompts.train)) + min(limit, len(prompts.held_out)))
    return Counts(
        prompts=len(prompts.train),
        per_round=prompts.per_round,
        held_out=len(prompts.held_out),
        samples=samples,
        kept=len(selection.kept),
        steps=steps_per_round(config.trainer, len(selection)),
        evaluated=evaluated,
    )


def asked_groups(checked: Checked) -> Grouping:
    """The groups of a round; of a source that adapts and asks for more than it makes, the mean number of each prompt."""
    config, prompts = checked.config, checked.prompts
    if isinstance(config.samples, capabilities.Adapts):
        return Grouping(np.full(prompts.per_round, config.k, dtype=np.int64))
    return Grouping.of(config.samples.requests(prompts.draw(1), config.k, config.seed, 1))


def whole_groups(samples: Sequence[Sample], asked: Sequence[Request]) -> list[Sample]:
    """The samples without those of a prompt of which some are missing; all where not even one prompt's are complete."""
    ends = np.cumsum(Grouping.of(asked).sizes)
    whole = ends[ends <= len(samples)]
    return list(samples[: whole[-1]] if len(whole) else samples)


def steps_per_round(trainer: Trainer, items: int) -> int:
    """Optimiser steps on a selection of so many items."""
    return trainer.steps or ceil((trainer.epochs or 1) * items / trainer.batch_size)


@dataclass(frozen=True)
class Probe:
    """What a few samples and two training steps have taken.

    Attributes:
        drawn: samples.
        sample_s, render_s, score_s: seconds per sample.
        step_s: seconds per optimiser step.
        evaluations: model evaluations per sample, 0 when the policy does not say.
        memory_bytes: phase → peak.
        scores: [P, k] of the reward, higher is better, NaN = not scored.
        failures: reward → what could not be scored, in words.
        failed: how many samples failed and why, in words; "" when none did.
    """

    drawn: int
    sample_s: float
    render_s: float
    score_s: float
    step_s: float
    evaluations: int
    memory_bytes: dict[str, int]
    scores: np.ndarray
    failures: dict[str, str]
    failed: str = ""

    def round_s(self, counts: Counts) -> float:
        """Seconds per round."""
        return counts.samples * self._drawn_s + counts.steps * self.step_s

    def evaluation_s(self, counts: Counts) -> float:
        """Seconds of the comparison at the end."""
        return counts.evaluated * self._drawn_s

    @property
    def _drawn_s(self) -> float:
        return self.sample_s + self.render_s + self.score_s

    @property
    def spread(self) -> float:
        """Mean over prompts of the reward's standard deviation within a prompt; NaN when no prompt has two scores."""
        return mean_scored(deviations(self.scores))

    def gain(self, k: int) -> Estimate:
        """Predicted gain of the best of k over the mean, with its 95 % interval."""
        return predicted_gain(self.scores, k)


def probe(checked: Checked, reporter: Reporter) -> Probe:
    """Load everything, draw and score a few samples of the first round, and train two steps. Nothing is written.

    Raises:
        NotFiniteError: every sample failed.
        DeviceError: memory ran out.
    """
    config = checked.config
    config.policy.load()
    config.scorer.load()
    config.scorer.attach(config.policy)
    k = max(2, min(config.k, PROBE_SAMPLES))
    memory: dict[str, int] = {}
    samples, memory["sample"], sample_s = _sampled(checked, k, reporter)
    with (
        in_words("render"),
        peak_memory() as peak,
        config.policy.resident("render"),
        reporter.phase("probe: scoring", len(samples)) as bar,
    ):
        start = time.perf_counter()
        parts = chunks(samples, config.policy.batch_size)
        render = capabilities.renderer(config.samples, config.policy)
        samples = [sample for part in parts for sample in render_sound(part, render)]
        require_sound(samples, "probe")
        middle = time.perf_counter()
        scores = config.scorer(samples)
        end = time.perf_counter()
        bar.advance(len(samples))
    memory["render"] = peak.bytes
    with in_words("train"), peak_memory() as peak, config.policy.resident("train"):
        step_s = _step_s(config, samples, scores, reporter)
    memory["train"] = peak.bytes
    n = len(samples)
    return Probe(
        drawn=n,
        sample_s=sample_s,
        render_s=(middle - start) / n,
        score_s=(end - middle) / n,
        step_s=step_s,
        evaluations=evaluations_per_sample(samples[0]),
        memory_bytes=memory,
        scores=scores.grid(Grouping.of(samples)),
        failures={name: f"{f.count} of {n}: {f.first_error}" for name, f in scores.failures.items()},
        failed=failed_words(samples),
    )


def _sampled(checked: Checked, k: int, reporter: Reporter) -> tuple[list[Sample], int, float]:
    """(samples of whole prompts, peak bytes, seconds per sample), as many as the budget of seconds allows."""
    config = checked.config
    asked = config.samples.requests(checked.prompts.draw(1)[:PROBE_PROMPTS], k, config.seed, 1)
    samples: list[Sample] = []
    seconds: list[float] = []
    with (
        in_words("sample"),
        peak_memory() as peak,
        config.policy.resident("sample"),
        reporter.phase("probe: sampling", len(asked)) as bar,
    ):
        for chunk in chunks(asked, config.policy.batch_size):
            start = time.perf_counter()
            samples += examined(config.samples.samples(config.policy, chunk, trace=config.objective.needs_trace))
            seconds.append((time.perf_counter() - start) / len(chunk))
            bar.advance(len(chunk))
            if len(samples) >= k and sum(seconds) * len(chunk) > SAMPLING_BUDGET_S:
                break
    # The first chunk also pays for what is done once: prompt embeddings, kernels that are chosen or compiled.
    return whole_groups(samples, asked), peak.bytes, min(seconds)


def _step_s(config: RunConfig, samples: Sequence[Sample], scores: Scores, reporter: Reporter) -> float:
    """Seconds per optimiser step, the first one left out."""
    selection = select(config.selector, scores, Grouping.of(samples))
    if not len(selection):
        return float("nan")
    settings: dict[str, Any] = {name: getattr(config.trainer, name) for name in parameters(Trainer)}
    # Steps that move nothing: after one that did, the samples would no longer be those of the policy, which ratios check.
    still = replace(config.trainer.optimizer, lr=STILL)
    trainer = Trainer(**settings | {"steps": 1, "epochs": None, "optimizer": still})
    trainer.attach(config.policy, config.seed, config.rounds, reporter)
    trainer.fit(config.policy, config.objective, samples, selection, 1)
    trainer.steps = TRAIN_STEPS
    start = time.perf_counter()
    trainer.fit(config.policy, config.objective, samples, selection, 1)
    return (time.perf_counter() - start) / TRAIN_STEPS


def evaluations_per_sample(sample: Sample) -> int:
    """Calls of the network per sample, as it says; or its steps, twice with guidance; 0 when it says neither."""
    if "evaluations" in sample.meta:
        return int(sample.meta["evaluations"])
    guided = sample.meta.get("guidance_scale", 1.0) > 1
    return int(sample.meta.get("steps", 0)) * (2 if guided else 1)


def advice(counts: Counts, found: Probe, config: RunConfig) -> list[str]:
    """What a person should think about before starting, in words."""
    lines = []
    if found.spread == 0:
        lines.append(
            f"the {found.drawn} samples of the probe score alike within each prompt: of such there is nothing to select, and "
            "training cannot raise the reward"
        )
    elif level := int((flat(found.scores) & ~np.isnan(found.scores).all(axis=1)).sum()):
        lines.append(
            f"{level} of the {len(found.scores)} prompts of the probe have no spread: their samples score alike, so a method "
            "that compares samples of a prompt learns nothing from them"
        )
    if config.k == 1:
        lines.append("with k = 1 there is nothing to choose between for a prompt")
    if counts.held_out == 0:
        lines.append("no prompts are held out: whether the gain carries over to other prompts will not be known")
    lines += [found.failed] if found.failed else []
    lines += [f"{name} could not score {failure}" for name, failure in found.failures.items()]
    return lines
