"""Score pictures or texts of your own.

  raft score pictures/ --reward ClipScore
  raft score pictures/ --prompt "" --reward Aesthetic --reward Sharpness
  raft score answers.jsonl --reward Sentiment --output scores.csv

A folder is searched for pictures; the caption of a.png is in a.txt beside it.
A .jsonl has lines with "prompt" and "image" (a path from the file's folder) or
"text". What cannot be read is named, stays without a score, and the rest goes
on. Several rewards may follow one another, each with its own arguments.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from raft_core.media.files import Row
    from raft_core.reporter import Reporter
    from raft_core.rewards.scoring import Scorer
    from raft_core.types import Failure

USAGE = "raft score IMAGES_OR_JSONL --reward NAME [--reward.ARGUMENT VALUE …] …"
TAKES_SETTINGS = True
PART = 256  # pictures in memory at a time
SHOWN = 20
LABEL = 40  # characters
MISTAKES_SHOWN = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help=".parquet or .csv; by default NAME.scores.parquet, here")
    parser.add_argument("--prompt", help='of what has no caption or prompt of its own; "" = none is needed')


def main(args: argparse.Namespace) -> None:
    from raft_cli.reward_eval import by_reward
    from raft_core.errors import ConfigError, RewardError
    from raft_core.machine.out_of_memory import in_words
    from raft_core.media.files import read_rows
    from raft_core.rewards.scoring import Scorer
    from raft_core.terminal import progress
    from raft_core.workflows.rescore import built_reward

    output = free_output(args.output, args.target)
    rewards = [built_reward(words, USAGE).reward for words in by_reward(args.settings, USAGE)]
    names = [reward.info.name for reward in rewards]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two rewards are named {twice[0]!r}: give one another name (--reward.name NAME behind it)")
    scorer = Scorer(rewards[0], tuple(rewards[1:]))
    if mistakes := scorer.check():
        raise ConfigError(mistakes)
    rows = read_rows(args.target, args.prompt)
    reporter = progress.reporter()
    scorer.load()
    with in_words("render"):
        columns, failures, mistakes = scored_rows(rows, scorer, reporter)
    write_scores(output, rows, columns, mistakes)
    show(rows, columns, failures, mistakes, reporter)
    reporter.line(f"\n{len(rows)} rows are in {output}")
    if not any(values == values for column in columns.values() for values in column):
        why = next(iter(failures.values())).first_error if failures else mistakes[0]
        raise RewardError(f"nothing could be scored: {why}")


def free_output(given: Path | None, target: str) -> Path:
    """Where the scores go.

    Raises:
        ConfigError: it is there already, or is neither Parquet nor CSV.
    """
    from raft_core.errors import ConfigError

    name = Path(target).resolve().name.split(".")[0] or "scores"
    if given is None:
        numbers = ("", *(f"-{number}" for number in range(2, 10_000)))
        return next(path for path in (Path(f"{name}{n}.scores.parquet") for n in numbers) if not path.exists())
    if given.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"--output is {str(given)!r}, but must end in .parquet or .csv")
    if given.exists():
        raise ConfigError(f"--output {given} is there already: name another file, or remove it")
    return given


def scored_rows(
    rows: Sequence[Row], scorer: Scorer, reporter: Reporter
) -> tuple[dict[str, np.ndarray], dict[str, Failure], list[str]]:
    """(name → [rows] scores with NaN = not scored, failures, why each row could not be read or "")."""
    import numpy as np

    from raft_core.media.files import loaded
    from raft_core.sampling import chunks
    from raft_core.types import Failure

    # Rewards that compare samples have to see all of them.
    together = any(reward.info.batch_size is None for reward in scorer.all)
    columns: dict[str, list[np.ndarray]] = {}
    failures: dict[str, Failure] = {}
    mistakes: list[str] = []
    with reporter.phase("scoring", len(rows)) as bar:
        for part in chunks(rows, len(rows) if together else PART):
            samples, wrong = loaded(part)
            good = np.array([not each for each in wrong])
            scores = scorer(samples) if samples else None
            for name in scorer.infos:
                values = np.full(len(part), np.nan)
                if scores:
                    values[good] = scores.columns[name]
                columns.setdefault(name, []).append(values)
            for name, failure in (scores.failures if scores else {}).items():
                before = failures.get(name, Failure(0, failure.first_error))
                failures[name] = Failure(before.count + failure.count, before.first_error)
            mistakes += wrong
            bar.advance(len(part))
    return {name: np.concatenate(values) for name, values in columns.items()}, failures, mistakes


def write_scores(path: Path, rows: Sequence[Row], columns: dict[str, np.ndarray], mistakes: Sequence[str]) -> None:
    """One line per row: where it is from, its prompt, its scores (empty = not scored), and what was wrong with it.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    from raft_core.machine.files import replacing

    table = pa.table(
        {
            "source": pa.array([row.where for row in rows], pa.string()),
            "prompt": pa.array([row.prompt for row in rows], pa.string()),
            "output": pa.array([row.text if row.path is None else str(row.path) for row in rows], pa.string()),
            **{name: pa.array(values, pa.float64(), from_pandas=True) for name, values in columns.items()},
            "error": pa.array([mistake or None for mistake in mistakes], pa.string()),
        }
    )
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, temporary)
        else:
            pyarrow.parquet.write_table(table, temporary)


def show(
    rows: Sequence[Row],
    columns: dict[str, np.ndarray],
    failures: dict[str, Failure],
    mistakes: Sequence[str],
    reporter: Reporter,
) -> None:
    """The first rows, what is known of each reward, and what went wrong."""
    from raft_core.terminal import progress

    console = progress.console()
    for table in (_first(rows, columns), _summary(columns)):
        console.print(table)
        console.print()
    wrong = [(row.where, mistake) for row, mistake in zip(rows, mistakes, strict=True) if mistake]
    for where, mistake in wrong[:MISTAKES_SHOWN]:
        reporter.warn(f"{where}: {mistake}")
    if len(wrong) > MISTAKES_SHOWN:
        reporter.warn(f"{len(wrong) - MISTAKES_SHOWN} more could not be read; the column error says why")
    for name, failure in failures.items():
        reporter.warn(f"{name} could not score {failure.count} of {len(rows)}: {failure.first_error}")


def _table(headings: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True, overflow="ellipsis")
    return table


def _first(rows: Sequence[Row], columns: dict[str, np.ndarray]) -> Any:
    from rich.markup import escape

    from raft_core.format import figure

    table = _table(("", *columns))
    for number, row in enumerate(rows[:SHOWN]):
        label = row.path.name if row.path else " ".join((row.text or row.where).split())
        table.add_row(escape(elided(label, LABEL)), *(figure(values[number]) for values in columns.values()))
    if len(rows) > SHOWN:
        table.add_row(f"… {len(rows) - SHOWN} more", *("" for _ in columns))
    return table


def elided(label: str, width: int) -> str:
    """At most ``width`` characters: the middle goes, for what tells names apart is often at their ends."""
    if len(label) <= width:
        return label
    head = (width - 1) // 2
    return f"{label[:head]}…{label[head + 1 - width :]}"


def _summary(columns: dict[str, np.ndarray]) -> Any:
    import numpy as np

    from raft_core.format import figure

    table = _table(("reward", "mean", "deviation", "lowest", "highest", "unscored"))
    for name, values in columns.items():
        scored = values[~np.isnan(values)]
        figures = [scored.mean(), scored.std(), scored.min(), scored.max()] if len(scored) else [float("nan")] * 4
        table.add_row(name, *(figure(float(value)) for value in figures), str(len(values) - len(scored) or ""))
    return table
