"""What the page Align shows of an alignment, read from files alone, so that any number of pages can watch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from raft_core.errors import RaftError
from raft_core.machine.lock import holder
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_json
from raft_core.reading.shapes import require_shape
from raft_core.report.data import charts
from raft_core.store.manifest import METRICS, RUN, read_history
from raft_core.store.rounds import rounds_in
from raft_demo.queue.files import Entry
from raft_demo.queue.line import Alignments
from raft_demo.shared.gallery import newest_best
from raft_demo.shared.run_view import badge, cards_html, charts_html
from raft_demo.shared.runs import RunInfo, info
from raft_demo.shared.theme import empty

BEST_SHOWN = 8
CURVES_FIRST = ("Reward", "Judge", "KL", "Diversity")
NO_CURVES = empty("No round is finished yet", "Curves of the reward, the judges, KL and diversity grow here, a point a round.")
NO_SAMPLES = empty("No samples yet", "The best samples of the newest round are shown here.")


@dataclass(frozen=True)
class Standing:
    """How an alignment stands.

    Attributes:
        name: of the run; "" when there is none to show.
        status: "waiting", "running", "stopping", "finished", "stopped", "interrupted", "failed", "damaged".
        detail: in words.
        phases: open bars, outer ones first.
        rounds: finished.
    """

    name: str
    status: str
    detail: str = ""
    phases: Sequence[Mapping[str, Any]] = field(default_factory=list)
    rounds: int = 0

    @property
    def is_going(self) -> bool:
        return self.status in ("running", "waiting", "stopping")

    @property
    def can_stop(self) -> bool:
        return self.status in ("running", "waiting")

    @property
    def can_resume(self) -> bool:
        return self.status in ("stopped", "interrupted", "failed")


def standing(line: Alignments, runs: Path, name: str) -> Standing:
    """How an alignment or another run of the folder stands."""
    entry = line.entry(name)
    run = info(runs / name) if (runs / name / RUN).is_file() else None
    rounds = run.rounds if run else 0
    if entry is None or entry.state == "finished":
        if run is None:
            return Standing(name, "gone", "Its folder is not there any more.")
        status = real_status(run)
        return Standing(name, status, run.trouble or _ended(run, status), rounds=rounds)
    if entry.state == "running":
        return _running(line, entry, run, rounds)
    words = {
        "waiting": _place(line.ahead(name)),
        "stopped": f"Stopped after {_rounds(rounds, run)}. Resume goes on in the stage that it was in.",
        "failed": entry.message or "Its log says why.",
    }
    return Standing(name, entry.state, words[entry.state], rounds=rounds)


def _running(line: Alignments, entry: Entry, run: RunInfo | None, rounds: int) -> Standing:
    phases = read_phases(line.file(entry.name, "progress"))
    status = "stopping" if entry.stopping else "running"
    if entry.stopping:
        detail = "It stops where it can go on from."
    elif not phases:
        detail = "The models are being loaded." if run is None or run.status == "running" else "The last stage."
    else:
        inner = phases[-1]
        what = f"{inner['name']} {inner['done']} of {inner['total']}" if inner["name"] != "rounds" else "between two phases"
        planned = run.planned if run else 0
        detail = f"Round {min(rounds + 1, planned)} of {planned}: {what}" if phases[0]["name"] == "rounds" else what
    return Standing(entry.name, status, detail, phases, rounds)


def real_status(run: RunInfo) -> str:
    """The status of a run that this app's line does not have: one that says it runs, while nobody does, was killed."""
    if run.status == "running" and holder(run.folder) is None:
        return "interrupted"
    return run.status


def read_phases(file: Path) -> list[dict[str, Any]]:
    """The open phases that a process has told of; none when it has not yet."""
    try:
        phase = {"name": str, "done": int, "total": int}
        found = require_shape(read_json(file), [phase], "")
        for each in found:
            require_shape(each, phase, "", phase)
        return found
    except (OSError, Unreadable):
        return []


def status_html(state: Standing) -> str:
    """How it stands, with a bar."""
    bar = ""
    if state.is_going:
        done, total, label = _whole(state.phases)
        bar = f"<progress aria-label='{escape(label)}' value='{done:.3f}' max='{total or 1}'></progress>"
    return f"<div class='raft-status'><b>{escape(state.name)}</b>{badge(state.status)}<p>{escape(state.detail)}</p>{bar}</div>"


def _whole(phases: Sequence[Mapping[str, Any]]) -> tuple[float, float, str]:
    """(done, total, what) of one bar for all open phases; a phase within a round moves it by a part of the round."""
    if not phases or not phases[0]["total"]:
        return 0.0, 0.0, "not begun"
    outer, inner = phases[0], phases[-1]
    part = inner["done"] / inner["total"] if len(phases) > 1 and inner["total"] else 0.0
    return outer["done"] + 0.9 * part, outer["total"], f"{outer['name']}: {outer['done']} of {outer['total']}"


def curves_html(folder: Path) -> str:
    """Curves by round as in the report, those first that a person looks at first.

    Raises:
        StoreError: the metrics cannot be read.
    """
    drawn = charts(read_history(folder)) if (folder / METRICS).is_file() else []
    if not drawn:
        return NO_CURVES
    first = [each for each in drawn if each.title.startswith(CURVES_FIRST)]
    rest = [each for each in drawn if each not in first]
    if not rest:
        return charts_html(first)
    more = f"<details class='raft-more'><summary>More curves ({len(rest)})</summary>{charts_html(rest)}</details>"
    return charts_html(first) + more


def best_html(folder: Path) -> str:
    """The best samples of the newest round.

    Raises:
        StoreError: it is damaged.
    """
    rnd, cards = newest_best(folder, BEST_SHOWN)
    if not cards:
        return NO_SAMPLES
    return f"<p class='raft-muted'>The best that round {rnd} has kept, by the reward.</p>{cards_html(cards, with_mark=False)}"


def signature(folder: Path) -> str:
    """Changes whenever curves or samples do."""
    stamps = [str(path.stat().st_mtime_ns) for path in (folder / METRICS,) if path.is_file()]
    return "/".join([folder.name, *map(str, rounds_in(folder)[-1:]), *stamps])


def watchable(line: Alignments, known: Sequence[RunInfo]) -> list[str]:
    """What can be watched: the line, then what has left it, then the other runs of the folder, the newest first."""
    names = [entry.name for entry in line.entries()]
    return list(dict.fromkeys([*names, *(run.name for run in known)]))


def trouble(error: RaftError) -> str:
    """A part of a page that cannot be shown, and why."""
    return f"<div class='raft-empty'><b>This cannot be shown</b><br>{escape(str(error))}</div>"


def _place(ahead: int) -> str:
    if not ahead:
        return "Nobody is before it: it begins in a moment."
    return f"{ahead} {'is' if ahead == 1 else 'are'} before it. One alignment runs at a time."


def _rounds(rounds: int, run: RunInfo | None) -> str:
    planned = f" of {run.planned}" if run and run.planned else ""
    return f"{rounds}{planned} round{'' if rounds == 1 and not planned else 's'}"


def _ended(run: RunInfo, status: str) -> str:
    words = {"finished": "Look at it under Runs, compare it under Compare.", "running": "It was begun elsewhere, and runs."}
    return f"{_rounds(run.rounds, run)} done. " + words.get(status, "Resume goes on in the stage that it was in.")
