"""What the page Align shows of an alignment, read from files alone, so that any number of pages can watch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from raft_core.errors import RaftError
from raft_core.evaluation.evaluate import Evaluation
from raft_core.evaluation.files import FOLDER as EVALUATION
from raft_core.evaluation.files import NUMBERS, read_results
from raft_core.evaluation.table import sentences
from raft_core.machine.lock import holder
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_json
from raft_core.reading.shapes import require_shape
from raft_core.report.data import charts
from raft_core.report.pictures import PairView, pair_view
from raft_core.store.manifest import METRICS, RUN, read_history
from raft_core.store.rounds import rounds_in
from raft_demo.queue import stages
from raft_demo.queue.files import Entry
from raft_demo.queue.line import Alignments
from raft_demo.shared.gallery import newest_ranked
from raft_demo.shared.run_view import badge, cards_html, charts_html
from raft_demo.shared.runs import RunInfo, info
from raft_demo.shared.theme import empty

RANKED_SHOWN, PAIRS_SHOWN = 16, 6
CURVES_FIRST = ("Reward", "Judge", "KL", "Diversity")
NO_CURVES = empty("No round is finished yet", "Curves of the reward, the judges, KL and diversity grow here, a point a round.")
NO_SAMPLES = empty("No samples yet", "What the newest round drew of a prompt is shown here, the best first.")


@dataclass(frozen=True)
class Standing:
    """How an alignment stands.

    Attributes:
        name: of the run; "" when there is none to show.
        status: "waiting", "running", "stopping", "finished", "stopped", "interrupted", "failed", "damaged".
        detail: in words.
        phases: open bars, outer ones first.
        rounds: finished.
        share: of all its stages, from 0 to 1.
    """

    name: str
    status: str
    detail: str = ""
    phases: Sequence[Mapping[str, Any]] = field(default_factory=list)
    rounds: int = 0
    share: float = 0.0

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
    phases, planned = read_phases(line.file(entry.name, "progress")), run.planned if run else 0
    over = stages.done(phases, rounds, planned)
    status = "stopping" if entry.stopping else "running"
    if entry.stopping:
        detail = "It stops where it can go on from."
    elif not phases:
        detail = _between(run)
    else:
        what = stages.words(phases)
        detail = f"Round {min(rounds + 1, planned)} of {planned}: {what}" if phases[0]["name"] == "rounds" else what
        if run and (left := stages.time_left(_history(run.folder), over, planned)):
            detail = f"{detail}; {left}"
    return Standing(entry.name, status, detail, phases, rounds, over / (planned + 1))


def _between(run: RunInfo | None) -> str:
    """What is done while no bar is open."""
    if run is None:
        return "The models are being loaded."
    if run.status == "finished" or (run.folder / EVALUATION / NUMBERS).is_file():
        return "The weights and the report are written."
    return (
        "The models are being loaded." if run.status == "running" else "It goes on where it was stopped: the models are loaded."
    )


def _history(folder: Path) -> Sequence[Mapping[str, Any]]:
    try:
        return read_history(folder) if (folder / METRICS).is_file() else []
    except RaftError:  # it is told where the curves are shown
        return []


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
    """How it stands, with one bar over all its stages."""
    bar = ""
    if state.is_going:
        percent = 100 * min(1.0, state.share)
        bar = (
            f"<div class='raft-bar' role='progressbar' aria-valuemin='0' aria-valuemax='100' aria-valuenow='{percent:.0f}' "
            f"aria-label='How far {escape(state.name)} is'><div style='width:{percent:.1f}%'></div></div>"
        )
    return f"<div class='raft-status'><b>{escape(state.name)}</b>{badge(state.status)}<p>{escape(state.detail)}</p>{bar}</div>"


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
    """Before and after where they were compared; until then what the newest round drew of a prompt, the best first.

    Raises:
        StoreError: it is damaged.
    """
    if (folder / EVALUATION / NUMBERS).is_file() and (results := read_results(folder)) and results.evaluations:
        return _compared(folder.name, sorted(results.evaluations, key=lambda e: e.split != "heldout")[0])
    rnd, found = newest_ranked(folder, RANKED_SHOWN)
    if not found:
        return NO_SAMPLES
    prompt = escape(found[0].prompt)
    return (
        f"<p class='raft-muted'>Round {rnd}, the best first, of “{prompt}”. The framed ones were kept.</p>{cards_html(found)}"
    )


def _compared(name: str, evaluation: Evaluation) -> str:
    """The first pairs of a comparison, and where to go on from here."""
    first = range(0, len(evaluation.before), evaluation.k)[:PAIRS_SHOWN]
    pairs = "".join(_pair(pair_view(evaluation, i)) for i in first)
    told = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences(evaluation))
    run = escape(quote(name))
    links = "".join(
        f"<a href='?page={page}&amp;run={run}' data-page='{page}' data-run='{run}'>{words}</a>"
        for page, words in (("compare", "Try your own prompt"), ("runs", "All samples, report and downloads"))
    )
    return f"<div class='raft-pairs'>{pairs}</div><ul class='raft-notes'>{told}</ul><p class='raft-links'>{links}</p>"


def _pair(pair: PairView) -> str:
    sides = []
    for side, view in (("before", pair.before), ("after", pair.after)):
        text = f"<p class='output'>{escape(f'failed: {view.failed}' if view.failed else view.text)}</p>"
        shown = f"<img src='{view.uri}' alt='{escape(view.alt)}' width='{view.width}' height='{view.height}'>"
        sides.append(f"<div><b>{side}</b>{shown if view.uri else text}</div>")
    return f"<figure><div class='compare-two'>{''.join(sides)}</div><figcaption>{escape(pair.prompt)}</figcaption></figure>"


def signature(folder: Path) -> str:
    """Changes whenever curves or samples do."""
    stamps = [str(path.stat().st_mtime_ns) for path in (folder / METRICS, folder / EVALUATION / NUMBERS) if path.is_file()]
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
