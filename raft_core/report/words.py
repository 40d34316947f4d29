"""A run in sentences: what came of it, what was done, and what it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from raft_core.evaluation.evaluate import Comparison, Evaluation
from raft_core.evaluation.table import number, split_name
from raft_core.format import duration, size
from raft_core.report.data import PhaseCost, RunData
from raft_core.report.facts import component, in_words, label

PHASES = {"sample": "drawing", "render": "decoding and scoring", "train": "training"}


def headline(data: RunData) -> list[str]:
    """What came of the run, in one sentence for the reward, one for the judges, one for the diversity."""
    if not data.evaluations:
        return []
    evaluation = data.evaluations[0]
    found = [_of_the_reward(evaluation)]
    judges = [c for c in evaluation.comparisons if c.role == "judge" and c.pairs]
    if judges:
        told = "; ".join(f"{label(c.name)} {_moved(c)}" for c in judges)
        found.append(f"{'Judge' if len(judges) == 1 else 'Judges'} that it was not trained on: {told}.")
    if evaluation.diversity and (lost := _lost(evaluation.diversity.before, evaluation.diversity.after)):
        found.append(f"What one prompt gives became {lost}.")
    return found


def _of_the_reward(evaluation: Evaluation) -> str:
    where = f"{len(evaluation.prompts)} {split_name(evaluation.split)}"
    reward = evaluation.comparisons[0]
    if not reward.pairs:
        return f"On {where} the reward {label(reward.name)} scored no pair, so nothing can be said."
    won = f"; {100 * reward.win_rate.value:.0f} % of the samples got better"
    unsure = ", which may be chance" if reward.verdict == "unclear" else ""
    return f"On {where}, {label(reward.name)} {_moved(reward)}{unsure}{won}."


def _moved(c: Comparison) -> str:
    if c.after == c.before:
        return f"stayed at {number(c.before)}"
    return f"{'rose' if c.after > c.before else 'fell'} from {number(c.before)} to {number(c.after)}"


def _lost(before: float, after: float) -> str:
    """How much less or more diverse, in words; "" where it is about the same."""
    if not before > 0 or not after > 0 or abs(1 - after / before) < 0.05:
        return ""
    return (
        f"more alike: its diversity fell to {number(after)} from {number(before)}"
        if after < before
        else (f"more varied: its diversity rose to {number(after)} from {number(before)}")
    )


def ending(data: RunData) -> str:
    """Why there are no more rounds; "" while they go on.

    The report is part of a run, so the run that it tells of may still be marked as running, with its rounds done and compared.
    """
    over = data.run.get("status") != "running" or data.evaluations
    return str(data.run.get("reason", "")) if over else ""


def account(data: RunData, spent: Sequence[PhaseCost]) -> list[list[str]]:
    """What was done, how it ended and what it took: paragraphs of sentences."""
    told = [
        [*_model(data.run.get("policy", {})), *_rounds(data)],
        [*_end(data)],
        [*_cost(data, spent), *_when(data)],
    ]
    return [sentences for sentences in told if sentences]


def _model(policy: Mapping[str, Any]) -> Iterator[str]:
    name = policy.get("model")
    if not name:
        return
    trained, whole = policy.get("trained_parameters"), policy.get("parameters")
    how = f" by {in_words(policy['method'])}" if policy.get("method") else ""
    share = f": {trained:,} of its {whole:,} parameters" if isinstance(trained, int) and isinstance(whole, int) else ""
    where = f", on {'a CPU' if policy['device'] == 'cpu' else in_words(policy['device'])}" if policy.get("device") else ""
    yield f"The model {in_words(name)} was trained{how}{share}{where}."


def _rounds(data: RunData) -> Iterator[str]:
    done = len(data.history)
    if not done or not data.rounds:
        return
    first = data.rounds[0]
    prompts, drawn, kept = len({s.prompt.text for s in first.samples}), len(first.samples), sum(first.kept)
    every = "Its one round" if done == 1 else f"Each of its {done} rounds"
    yield (
        f"{every} drew {drawn} samples, {first.k} for each of {prompts} prompts, and {label(first.scores.reward)} scored them."
    )
    if selector := component(data.config.get("selector")):
        yield f"Of the first round's samples {kept} were kept, chosen by {selector}, and the model was trained on these."
    if data.config.get("objective"):
        yield f"The objective was {component(data.config['objective'])}, the seed {data.run.get('seed', 'is not stored')}."


def _end(data: RunData) -> Iterator[str]:
    if reason := ending(data):
        yield f"It ended early: {reason}." if ended_early(data) else f"It ended because {reason}."
    if data.checkpoint is not None:
        yield f"What was compared and exported is the model after round {data.checkpoint}."


def ended_early(data: RunData) -> bool:
    return data.run.get("status") in ("failed", "interrupted")


def _cost(data: RunData, spent: Sequence[PhaseCost]) -> Iterator[str]:
    wall = sum(row.get("time/round_s", 0.0) for row in data.history)
    if not spent or not wall:
        return
    parts = ", ".join(f"{duration(cost.seconds)} of {PHASES[cost.phase]}" for cost in spent)
    yield f"The rounds took {duration(wall)}: {parts}."
    peaks = [cost.peak_bytes for cost in spent if cost.peak_bytes]
    if peaks:
        yield f"At its peak it used {size(max(peaks))} of memory: only what a phase needs is loaded while it runs."


def _when(data: RunData) -> Iterator[str]:
    started, ended = (_moment(data.run.get(key)) for key in ("started", "ended"))
    if started and ended and ending(data):
        until = f"{ended:%H:%M}" if started.date() == ended.date() else f"{_day(ended)}, {ended:%H:%M}"
        yield f"It ran from {_day(started)}, {started:%H:%M}, to {until} UTC."
    elif started:
        yield f"It began on {_day(started)} at {started:%H:%M} UTC."


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
