"""What the page Runs shows, read from run folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from raft_core.errors import RaftError, StoreError
from raft_core.evaluation.table import number
from raft_core.report.page import PAGE
from raft_core.report.plots import chart
from raft_core.store.manifest import read_history
from raft_core.store.rounds import rounds_in
from raft_core.workflows.whatif import Stored, best_of, doublings, known_column, stored_rounds
from raft_demo.queue.files import Entry
from raft_demo.shared.run_view import badge, charts_html, table_html
from raft_demo.shared.runs import RunInfo
from raft_demo.shared.theme import empty

CSS = """
.raft-report { width: 100%; height: 75vh; min-height: 420px; border: 1px solid var(--border-color-primary);
  border-radius: var(--radius-lg); background: #fff; color-scheme: light; }
"""
PROMPTS_LISTED = 300
LARGEST_REPORT = 64 * 2**20
NO_MATCH = empty("No sample passes these filters", "Choose another prompt, or show all.")
NO_STORE = empty("No samples", "A run stores its samples from its first round on.")


def list_html(found: Sequence[RunInfo], statuses: Mapping[str, str], waiting: Sequence[Entry]) -> str:
    """The runs as a table, the line first.

    Args:
        statuses: name → how it stands.
        waiting: alignments without a run folder yet.
    """
    rows = [[escape(entry.name), badge(entry.state), "", "", "", ""] for entry in waiting]
    rows += [_row(run, statuses.get(run.name, run.status)) for run in found]
    return table_html(("Run", "Status", "Rounds", "Reward", "First → last", "Model"), rows)


def _row(run: RunInfo, status: str) -> list[str]:
    rewards = [row["reward/mean"] for row in history(run.folder) if isinstance(row.get("reward/mean"), (int, float))]
    change = f"{number(rewards[0])} → {number(rewards[-1])}" if rewards else "–"
    trouble = f"<br><span class='raft-muted raft-wrap'>{escape(run.trouble[:200])}</span>" if run.trouble else ""
    name = f"<span class='raft-wrap raft-name'>{escape(run.name)}</span>{trouble}"
    rounds = f"{run.rounds} of {run.planned}" if run.planned else str(run.rounds)
    return [name, badge(status), rounds, escape(run.reward), change, f"<span class='raft-wrap'>{escape(run.model)}</span>"]


def history(folder: Path) -> Sequence[Mapping[str, Any]]:
    """Metrics by round; empty when they cannot be read, which the list says of the run."""
    try:
        return read_history(folder)
    except RaftError:
        return []


def rounds(folder: Path) -> list[int]:
    """Rounds whose samples are stored."""
    return rounds_in(folder)


def stored(folder: Path) -> list[Stored]:
    """The scores of all stored rounds; none when there are none yet.

    Raises:
        StoreError: a round is damaged.
    """
    return stored_rounds(folder) if rounds_in(folder) else []


def whatif_html(folder: Path, k: int, by: str | None) -> str:
    """The expected best of K by round: a curve for each power of two, and the figures.

    Raises:
        ConfigError: more than are stored, or an unknown score.
    """
    found = stored(folder)
    if not found:
        return NO_STORE
    column = known_column(found[0], by)
    most = min(each.k for each in found)
    ks = sorted({*doublings(most), k})
    values = {n: [best_of(each, column, n) for each in found] for n in ks}
    numbers = [each.rnd for each in found]
    shown = dict.fromkeys((1, k, most))  # more curves than these say little more
    curves = {"mean (K = 1)" if n == 1 else f"K = {n}": values[n] for n in shown}
    drawn = chart(f"Expected {column} of the best of K", numbers, curves, f"{most} samples per prompt are stored")
    head = ["Round", *(f"<b>K = {n}</b>" if n == k else f"K = {n}" for n in ks)]
    rows = [[str(rnd), *(number(values[n][i]) for n in ks)] for i, rnd in enumerate(numbers)]
    best, mean = values[k][0], values[1][0]
    told = f"Round {numbers[0]}: the best of {k} is expected at {number(best)}, {number(best - mean, signed=True)} to the mean."
    return f"<p>{escape(told)}</p>{charts_html([drawn] if drawn else [])}{table_html(head, rows)}"


def report(folder: Path) -> str | None:
    """The run's report as HTML; None when there is none yet.

    Raises:
        StoreError: it is too large to be shown in a page.
    """
    file = folder / "report" / PAGE
    if not file.is_file():
        return None
    if file.stat().st_size > LARGEST_REPORT:
        raise StoreError(f"the report of {folder.name} is too large to be shown here; open {file.name} in its folder")
    return file.read_text(encoding="utf-8", errors="replace")
