"""What the report tells, as plain data: read from the run folder, nothing else, and put into words and figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raft_core.errors import RaftError, StoreError
from raft_core.evaluation.evaluate import Evaluation
from raft_core.evaluation.files import read_results
from raft_core.evaluation.table import number, split_name
from raft_core.format import evenly
from raft_core.media.medium import stills
from raft_core.metrics.history import ERROR_OF
from raft_core.monitoring import stopping
from raft_core.report.facts import label
from raft_core.report.plots import Chart, chart
from raft_core.store.manifest import read_config, read_history, read_run
from raft_core.store.rounds import read_round, rounds_in
from raft_core.types import Failure, Sample, Scores

PHASES = ("sample", "render", "train")
MODALITIES = ("text/", "image/")
# Where every other figure of a round comes from; what is under another name is the objective's own.
COMMON = (
    *MODALITIES,
    "reward/",
    "select/",
    "judge/",
    "judge_kept/",
    "score/",
    "unscored/",
    "sample/",
    "train/",
    "time/",
    "memory/",
    ERROR_OF,
)
SHEETS = 12


@dataclass(frozen=True)
class StoredRound:
    """Samples of a round as they are shown."""

    rnd: int
    samples: Sequence[Sample]
    scores: Scores
    kept: Sequence[bool]

    @property
    def k(self) -> int:
        return 1 + max(sample.request.index for sample in self.samples)

    @property
    def rewards(self) -> Sequence[float]:
        """[N] the score that selected; NaN where there is none, all of them in a table that lacks it."""
        return [float(x) for x in self.scores.columns.get(self.scores.reward, [math.nan] * len(self.samples))]


@dataclass(frozen=True)
class RunData:
    """A run folder, read.

    Attributes:
        name: of the folder.
        run: ``run.json``.
        config: ``config.yaml``.
        history: metrics by round.
        checkpoint: number of the round whose checkpoint was compared with the start; None without an evaluation.
        evaluations: before/after by set of prompts, the held-out ones first.
        rounds: at most ``SHEETS`` stored rounds, evenly spaced, first and last among them.
        stored: how many rounds are stored in all.
        troubles: what could not be read, in words.
    """

    name: str
    run: Mapping[str, Any]
    config: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    checkpoint: int | None
    evaluations: Sequence[Evaluation]
    rounds: Sequence[StoredRound]
    stored: int
    troubles: Sequence[str]


def read_run_data(folder: Path) -> RunData:
    """Read everything that the report needs. What is damaged is left out and said; what is not there yet is left out.

    Raises:
        StoreError: the folder holds no run.
    """
    from raft_core.store.integrity import damages  # leads to torch, which the app's pages of charts do without

    folder = Path(folder)
    run, config, troubles = read_run(folder), read_config(folder), []
    try:
        results = read_results(folder)
    except StoreError as error:
        results = None
        troubles.append(str(error))
    rounds, stored = [], rounds_in(folder)
    for rnd in evenly(stored, SHEETS):
        try:
            samples, scores, kept = read_round(folder, rnd)
            rounds.append(StoredRound(rnd, stills(samples), scores, [bool(k) for k in kept]))
        except StoreError as error:
            troubles.append(str(error))
    troubles += damages(folder)
    found = [replace(e, before=stills(e.before), after=stills(e.after)) for e in results.evaluations] if results else []
    evaluations = sorted(found, key=lambda e: e.split != "heldout")
    return RunData(
        name=folder.resolve().name,
        run=run,
        config=config,
        history=read_history(folder),
        checkpoint=results.checkpoint if results else None,
        evaluations=evaluations,
        rounds=rounds,
        stored=len(stored),
        troubles=troubles,
    )


# ---------------------------------------------------------------------- curves


def charts(history: Sequence[Mapping[str, Any]], reward: str = "") -> list[Chart]:
    """Curves by round: the reward, every judge, parts of the reward, KL, diversity, loss, what objective and policy say."""
    rounds = [row["round"] for row in history]
    if not rounds:
        return []

    def curve(metric: str) -> list[float]:
        return [float(value) if isinstance(value := row.get(metric), (int, float)) else math.nan for row in history]

    keys = dict.fromkeys(key for row in history for key in row)
    judges = [key.removeprefix("judge/") for key in keys if key.startswith("judge/")]
    parts = [key.removeprefix("score/") for key in keys if key.startswith("score/")]
    said = [key for key in keys if key.startswith(MODALITIES)]  # what the policy says of its samples
    own = [key for key in keys if "/" in key and not key.startswith(COMMON)]  # what the objective says of its round
    found = [
        chart(
            f"Reward{f': {reward}' if reward else ''}",
            rounds,
            {"mean": curve("reward/mean"), "best": curve("reward/best"), "kept": curve("reward/kept")},
            "best = best of K, by prompt",
        ),
        *[
            chart(
                f"Judge: {label(name)}",
                rounds,
                {"all": curve(f"judge/{name}"), "kept": curve(f"judge_kept/{name}")},
                "not trained on",
            )
            for name in judges
        ],
        *[chart(f"Part: {label(name)}", rounds, {"all": curve(f"score/{name}")}, "part of the reward") for name in parts],
        chart("Diversity", rounds, {"within prompts": curve("diversity")}, "mean 1 − cosine of two samples"),
        chart("Different samples", rounds, {"of a prompt": curve("vendi")}, "effective number, Vendi score"),
        chart("KL", rounds, {"to the start": curve("kl")}, "estimate, before each update"),
        chart("Loss", rounds, {"last": curve("train/loss_last"), "first": curve("train/loss_first")}, "per round of training"),
        *[chart(_title(key), rounds, {"all": curve(key)}, "of the objective") for key in own],
        *[chart(_title(key), rounds, {"all": curve(key)}, "of all samples") for key in said],
    ]
    return [drawn for drawn in found if drawn]


def _title(key: str) -> str:
    """``text/distinct_1`` → ``Text: distinct 1``."""
    source, _, name = key.partition("/")
    return f"{source.capitalize()}: {name.replace('_', ' ')}"


# ---------------------------------------------------------------------- costs


@dataclass(frozen=True)
class PhaseCost:
    """What a phase took over the whole run.

    Attributes:
        seconds: in all rounds together.
        share: of the seconds of all phases.
        peak_bytes: largest peak of any round; None when it was not measured.
    """

    phase: str
    seconds: float
    per_round: float
    share: float
    peak_bytes: float | None


def costs(history: Sequence[Mapping[str, Any]]) -> list[PhaseCost]:
    """Timings and peak memory by phase."""
    seconds = {phase: [row[f"time/{phase}_s"] for row in history if f"time/{phase}_s" in row] for phase in PHASES}
    total = sum(sum(values) for values in seconds.values())
    found = []
    for phase, values in seconds.items():
        if values:
            peaks = [row[f"memory/{phase}_bytes"] for row in history if row.get(f"memory/{phase}_bytes")]
            share = sum(values) / total if total else 0.0
            found.append(PhaseCost(phase, sum(values), sum(values) / len(values), share, max(peaks, default=None)))
    return found


# ---------------------------------------------------------------------- alarms and failures


def alarms(data: RunData) -> list[str]:
    """What a reader should not miss, gravest first."""
    return [
        *_endings(data.run),
        *_failed(data),
        *_worse(data.evaluations),
        *_warnings(data.config, data.history),
        *data.troubles,
    ]


def _endings(run: Mapping[str, Any]) -> Iterator[str]:
    endings = {"failed": "failed", "interrupted": "was interrupted"}
    if run.get("status") in endings:
        yield f"The run {endings[run['status']]}: {run.get('reason', 'no reason is known')}"
    for change in run.get("changes", []):
        changed = "; ".join(change["changed"])
        yield f"After round {change['after_round']} the run went on with another configuration: {changed}"


def _failed(data: RunData) -> Iterator[str]:
    """Samples that failed, in all rounds together and in each comparison."""
    counts = {row["round"]: int(row["sample/failed"]) for row in data.history if row.get("sample/failed")}
    if counts:
        reason = next((sample.failed for shown in data.rounds for sample in shown.samples if sample.failed), "")
        where = f"round {min(counts)}" if len(counts) == 1 else f"{len(counts)} rounds, last in round {max(counts)}"
        yield f"{sum(counts.values())} samples failed in {where}{reason and f': {reason}'}"
    for evaluation in data.evaluations:
        for side, words in evaluation.failed.items():
            yield f"On {split_name(evaluation.split)}, {side}: {words}"


def _worse(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    for evaluation in evaluations:
        for comparison in evaluation.comparisons:
            if comparison.verdict == "worse":
                kind = "judge" if comparison.role == "judge" else "reward"
                yield (
                    f"The {kind} {comparison.name} got worse on {split_name(evaluation.split)}: from "
                    f"{number(comparison.before)} to {number(comparison.after)}"
                )


def _warnings(config: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the run's own warning rules say of it; each once, with the rounds."""
    for rule in known_rules(config.get("warn_when") or []):
        fired = {history[i]["round"]: reason for i in range(len(history)) if (reason := rule(history[: i + 1]))}
        if fired:
            last = max(fired)
            where = f"round {last}" if len(fired) == 1 else f"{len(fired)} rounds, last in round {last}"
            yield f"{fired[last][0].upper()}{fired[last][1:]} ({where})"


def known_rules(entries: Sequence[Any]) -> Iterator[Any]:
    """The rules of a configuration that this package defines. A report runs no code that a run folder names."""
    for entry in entries:
        name = entry.get("class_path", "") if isinstance(entry, Mapping) else str(entry)
        name = name.removeprefix(f"{stopping.__name__}.")  # as runs were stored before they kept short names
        kind = getattr(stopping, name, None) if name.isidentifier() else None
        if isinstance(kind, type) and kind.__module__ == stopping.__name__:
            try:
                yield kind(**(entry.get("init_args") or {} if isinstance(entry, Mapping) else {}))
            except (RaftError, TypeError):  # an edited configuration; the run itself would have refused it
                continue


@dataclass(frozen=True)
class FailureLine:
    """Where samples could not be scored."""

    where: str
    name: str
    count: int
    first_error: str


def failures(data: RunData) -> list[FailureLine]:
    """Every count of unscored samples, with the first error where it is stored; rounds with the same error in one line."""
    stored: dict[int, Mapping[str, Failure]] = {shown.rnd: shown.scores.failures for shown in data.rounds}
    groups: dict[tuple[str, str], dict[int, int]] = {}
    for row in data.history:
        for key in row:
            if key.startswith("unscored/") and row[key]:
                name = key.removeprefix("unscored/")
                known = stored.get(row["round"], {}).get(name)
                groups.setdefault((name, known.first_error if known else ""), {})[row["round"]] = int(row[key])
    found = [
        FailureLine(f"round{'s' * (len(counts) > 1)} {', '.join(map(str, counts))}", name, sum(counts.values()), error)
        for (name, error), counts in groups.items()
    ]
    for evaluation in data.evaluations:
        for name, failure in evaluation.failures.items():
            found.append(FailureLine(split_name(evaluation.split), name, failure.count, failure.first_error))
    return found
