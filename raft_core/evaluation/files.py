"""An evaluation on disk: the numbers as JSON, every pair with both outputs and all its scores as Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raft_core.errors import StoreError
from raft_core.evaluation.evaluate import Comparison, Evaluation, Spread
from raft_core.machine.files import plain_json, write_json
from raft_core.media.medium import Medium, common_medium
from raft_core.metrics.statistics import Estimate
from raft_core.reading.files import Unreadable, excerpt
from raft_core.reading.json_data import read_object
from raft_core.reading.shapes import NUMBER, require_shape, taken_apart
from raft_core.store.tables import failures_of, medium_of_column, object_of, read_table, require_columns, write_table
from raft_core.store.tensors import UnusableError
from raft_core.types import Prompt, Request, Sample, Scores

LARGEST = 2**28  # bytes of ``evaluation.json``, which repeats the prompts
ESTIMATE = {"value": NUMBER, "low": NUMBER, "high": NUMBER}
COMPARISON = {
    **dict.fromkeys(("name", "role", "scale", "verdict"), str),
    **dict.fromkeys(("before", "after"), NUMBER),
    **dict.fromkeys(("difference", "win_rate"), ESTIMATE),
    **dict.fromkeys(("pairs", "unscored"), int),
    "higher_is_better": bool,
}
SHAPE = {
    "checkpoint": int,
    "evaluations": [{"split": str, "k": int, "seed": int, "level": float, "comparisons": [COMPARISON], "prompts": [str]}],
}
FOLDER = "evaluation"
NUMBERS = "evaluation.json"


@dataclass(frozen=True)
class Results:
    """What a run was evaluated to.

    Attributes:
        checkpoint: number of the round whose checkpoint is the after side.
        evaluations: one per set of prompts.
    """

    checkpoint: int
    evaluations: Sequence[Evaluation]


def write_results(run_folder: Path, checkpoint: int, evaluations: Sequence[Evaluation]) -> Path:
    """Write ``evaluation/SPLIT.parquet`` for each and ``evaluation/evaluation.json`` for all; returns the JSON's path.

    The JSON comes last: where it is, the pairs are.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    folder = Path(run_folder) / FOLDER
    for evaluation in evaluations:
        write_pairs(folder / f"{evaluation.split}.parquet", evaluation)
    path = folder / NUMBERS
    write_json(path, {"checkpoint": checkpoint, "evaluations": [as_plain(evaluation) for evaluation in evaluations]})
    return path


def as_plain(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers without the samples, as plain data; NaN where there is no number (null once it is JSON)."""
    spread = evaluation.diversity
    return {
        "split": evaluation.split,
        "k": evaluation.k,
        "seed": evaluation.seed,
        "level": evaluation.level,
        "prompts": [prompt.text for prompt in evaluation.prompts],
        "comparisons": [asdict(comparison) | {"verdict": comparison.verdict} for comparison in evaluation.comparisons],
        "diversity": None if spread is None else asdict(spread),
        "failures": {name: asdict(failure) for name, failure in evaluation.failures.items()},
        "failed": evaluation.failed,
    }


def write_pairs(path: Path, evaluation: Evaluation) -> None:
    """One row per pair: prompt, seed, both outputs (pictures as an Image feature), ``before.NAME`` and ``after.NAME``.

    ``before_failed`` and ``after_failed`` say why a side has no output; null where it has one.
    """
    samples = evaluation.before
    sides = {"before": (samples, evaluation.scores_before), "after": (evaluation.after, evaluation.scores_after)}
    medium = common_medium([s.output for s in (*evaluation.before, *evaluation.after)])
    columns: dict[str, pa.Array] = {
        "prompt": pa.array([s.prompt.text for s in samples], pa.string()),
        "prompt_id": pa.array([s.prompt.id for s in samples], pa.string()),
        "prompt_meta": pa.array([plain_json(s.prompt.meta) for s in samples], pa.string()),
        "index": pa.array([s.request.index for s in samples], pa.int64()),
        "seed": pa.array([s.seed for s in samples], pa.int64()),
        **{
            side: medium.column([s.output for s in drawn], lambda row, side=side: f"{side}-{row:05d}")
            for side, (drawn, _) in sides.items()
        },
        **{f"{side}_failed": pa.array([s.failed or None for s in drawn], pa.string()) for side, (drawn, _) in sides.items()},
    }
    for side, (_, scores) in sides.items():
        for name, values in scores.columns.items():
            columns[f"{side}.{name}"] = pa.array(np.asarray(values, dtype=np.float64), from_pandas=True)
    facts = {
        "split": evaluation.split,
        "reward": evaluation.scores_before.reward,
        "descending": sorted(evaluation.scores_before.descending),
        "failures": {
            side: {name: [f.count, f.first_error] for name, f in scores.failures.items()} for side, (_, scores) in sides.items()
        },
    }
    write_table(path, pa.table(columns), facts)


def read_results(run_folder: Path) -> Results | None:
    """What ``write_results`` wrote; None when nothing was evaluated.

    Raises:
        StoreError: a file is damaged or missing.
    """
    folder = Path(run_folder) / FOLDER
    if not (folder / NUMBERS).exists():
        return None
    try:
        found = require_shape(read_object(folder / NUMBERS, most=LARGEST), SHAPE, "", ("checkpoint", "evaluations"))
        with taken_apart("it"):
            evaluations = [_evaluation(numbers, folder) for numbers in found["evaluations"]]
            return Results(found["checkpoint"], evaluations)
    except (OSError, Unreadable, UnusableError) as error:
        raise StoreError(f"the evaluation in {folder} cannot be read: {error}; evaluate the run again") from error


def _evaluation(numbers: Mapping[str, Any], folder: Path) -> Evaluation:
    split = numbers["split"]
    if not split or Path(split).name != split:  # it names a file
        raise Unreadable(f"it names the set of prompts {excerpt(split, 60)!r}, which cannot be the name of a file")
    table, facts = read_table(folder / f"{split}.parquet")
    require_columns(table, ("prompt", "prompt_meta", "index", "seed"))
    rows = table.to_pylist()
    if numbers["k"] < 1 or not rows or len(rows) % numbers["k"]:
        raise Unreadable(f"{split}.parquet has {len(rows)} pairs, but k is {excerpt(numbers['k'], 20)}")
    medium = medium_of_column(table, "before")
    before, after = ([_sample(row, side, medium) for row in rows] for side in ("before", "after"))
    scores_before, scores_after = (_scores(table, facts, side) for side in ("before", "after"))
    spread = numbers["diversity"]
    return Evaluation(
        split=numbers["split"],
        k=numbers["k"],
        seed=numbers["seed"],
        level=numbers["level"],
        comparisons=tuple(_comparison(comparison) for comparison in numbers["comparisons"]),
        diversity=spread and Spread(_number(spread["before"]), _number(spread["after"]), _estimate(spread["difference"])),
        before=before,
        after=after,
        scores_before=scores_before,
        scores_after=scores_after,
    )


def _sample(row: Mapping[str, Any], side: str, medium: Medium) -> Sample:
    request = Request(Prompt(row["prompt"], object_of(row["prompt_meta"])), row["index"], row["seed"])
    reason = row.get(f"{side}_failed")  # not in files of versions that did not know of failed samples
    if isinstance(reason, str) and reason:
        return Sample(request).as_failed(reason)
    return Sample(request, output=medium.from_cell(row[side]))


def _scores(table: pa.Table, facts: Mapping[str, Any], side: str) -> Scores:
    names = [name for name in table.column_names if name.startswith(f"{side}.")]
    return Scores(
        reward=facts["reward"],
        columns={name.removeprefix(f"{side}."): np.array(table[name].to_pylist(), dtype=np.float64) for name in names},
        failures=failures_of(facts["failures"][side]),
        descending=frozenset(facts["descending"]),
    )


def _comparison(plain: Mapping[str, Any]) -> Comparison:
    return Comparison(
        name=plain["name"],
        role=plain["role"],
        scale=plain["scale"],
        higher_is_better=plain["higher_is_better"],
        before=_number(plain["before"]),
        after=_number(plain["after"]),
        difference=_estimate(plain["difference"]),
        win_rate=_estimate(plain["win_rate"]),
        pairs=plain["pairs"],
        unscored=plain["unscored"],
    )


def _estimate(plain: Mapping[str, float | None]) -> Estimate:
    return Estimate(_number(plain["value"]), _number(plain["low"]), _number(plain["high"]))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
