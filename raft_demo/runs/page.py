"""The page Runs: all runs of the folder, their curves over one another, and of one run the report, the samples, what another K
would have given, and its files."""

from __future__ import annotations

import tempfile
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.context import Context

from raft_core.errors import ConfigError, DataError, RaftError
from raft_demo.queue import standing as live
from raft_demo.runs import downloads
from raft_demo.runs import view as runs_view
from raft_demo.shared import gallery, run_view
from raft_demo.shared.errors import spoken
from raft_demo.shared.limits import within
from raft_demo.shared.runs import RunInfo
from raft_demo.shared.theme import empty
from raft_demo.studio import Studio

NAME = "Runs"
CSS = runs_view.CSS
PER_PAGE = 24
NO_RUNS = empty(
    "There are no runs yet", "Begin one under <b>Align</b>, or by <code>raft align</code> with a folder in this one."
)
NO_CURVES = empty("No curves", "Tick runs of the list above to see their curves over one another.")
NO_REPORT = empty("No report yet", "It is written at the end of a run.")
NO_SAMPLES = empty("No samples", "A run stores its samples from its first round on.")
NO_FILES = "A run has files to take away when it is finished."
#: Gradio's button for downloads has its file before it is pressed; here the file is made when it is asked for.
TAKE = "() => { setTimeout(() => document.querySelector('#runs-file').click(), 150); }"
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def build(studio: Studio) -> None:
    """Lay the page out."""
    tab = Context.block
    with gr.Row():
        gr.Markdown("### All runs")
        refresh = gr.Button("Refresh", elem_id="runs-refresh", scale=0, min_width=110)
    table = gr.HTML(NO_RUNS, elem_id="runs-table", min_height=110)
    ticked = gr.CheckboxGroup([], label="Curves of", elem_id="runs-ticked")
    curves = gr.HTML(NO_CURVES, elem_id="runs-curves", min_height=230)
    picked = gr.Dropdown([], label="Look into a run", elem_id="runs-picked", allow_custom_value=True)
    with gr.Tabs(elem_id="runs-parts"):
        with gr.Tab("Samples"):
            samples = _samples()
        with gr.Tab("Report"):
            report = gr.HTML(NO_REPORT, elem_id="runs-report", min_height=300)
        with gr.Tab("What if"):
            gr.Markdown("What the best of another K would have scored, from the stored samples alone: nothing is drawn anew.")
            with gr.Row():
                k = gr.Slider(1, 2, value=1, step=1, label="K", elem_id="runs-k")
                whatif_by = gr.Dropdown([], label="Chosen by", elem_id="runs-whatif-by", allow_custom_value=True)
            whatif = gr.HTML(NO_SAMPLES, elem_id="runs-whatif", min_height=180)
        with gr.Tab("Files"):
            files_note = gr.HTML(NO_FILES, elem_id="runs-files")
            with gr.Row():
                buttons = {kind: gr.Button(elem_id=f"runs-take-{kind}", visible=False) for kind in downloads.KINDS}
            file = gr.DownloadButton("", elem_id="runs-file", visible="hidden")
    details = [samples["rnd"], samples["prompt"], samples["by"], report, k, whatif_by, files_note, *buttons.values()]
    filters = [picked, *(samples[name] for name in ("rnd", "prompt", "which", "by", "order", "page"))]
    shown = [samples["note"], samples["cards"], samples["page"]]

    @spoken
    def on_list(marked: list[str], name: str, request: gr.Request) -> list[Any]:
        found = studio.all_runs()
        names = [run.name for run in found]
        if request.query_params.get("page") == "runs":  # the address names a run
            name = request.query_params.get("run", name)
        kept = [each for each in marked or [] if each in names] or _first_with_curves(found)
        return [
            _table(studio, found),
            gr.update(choices=names, value=kept),
            _curves(studio, kept),
            gr.update(choices=names, value=name if name in names else next(iter(names), None)),
        ]

    @spoken
    def on_tick(marked: list[str]) -> str:
        return _curves(studio, marked)

    @spoken
    def on_pick(name: str) -> list[Any]:
        if not name:
            return [gr.skip() for _ in details]
        folder = studio.run_folder(name)
        return [*_rounds(folder), _report(folder), *_ks(folder), *_files(folder)]

    @spoken
    def on_filter(name: str, rnd: str | int, prompt: str, which: str, by: str, order: str, page: float | str) -> list[Any]:
        if not name or not rnd:
            return ["", NO_SAMPLES, gr.update(maximum=2, value=1, visible=False)]
        folder, number = studio.run_folder(name), _round(rnd)
        rows = gallery.chosen(gallery.facts(folder, number), prompt or "", which, by or "", order)
        pages = max(1, -(-len(rows) // PER_PAGE))
        at = min(int(within("the page", page, 1, 1e6)), pages)
        part = rows[(at - 1) * PER_PAGE : at * PER_PAGE]
        note = f"<p class='raft-muted'>{len(rows)} sample{'' if len(rows) == 1 else 's'} of round {number}</p>"
        cards = run_view.cards_html(gallery.cards(folder, number, part)) if part else runs_view.NO_MATCH
        return [note, cards, gr.update(maximum=max(pages, 2), value=at, visible=pages > 1)]

    def on_first_page(*values: Any) -> list[Any]:
        return on_filter(*values[:-1], 1)

    @spoken
    def on_whatif(name: str, number: float | str, by: str) -> str:
        return runs_view.whatif_html(studio.run_folder(name), _whole("K", number), by or None) if name else NO_SAMPLES

    def on_take(kind: str) -> Any:
        @spoken
        def take(name: str) -> str:
            with tempfile.TemporaryDirectory() as place:  # Gradio serves what is in its cache, and nothing of the runs folder
                made = downloads.make(studio.run_folder(name), kind, Path(place))
                return processing_utils.save_file_to_cache(made, file.GRADIO_CACHE)

        return take

    # Through the queue, though they are quick: an error that comes another way is not told on the page.
    listed = [table, ticked, curves, picked]
    asked = [picked, k, whatif_by]

    def look_into(event: Any) -> None:
        """After the run has been picked: its parts, then what hangs on their first choices."""
        event.success(on_pick, picked, details, **PRIVATE).success(on_filter, filters, shown, **PRIVATE).success(
            on_whatif, asked, whatif, **PRIVATE
        )

    look_into(refresh.click(on_list, [ticked, picked], listed, **PRIVATE))
    look_into(picked.input(None))
    picked.change(None, picked, None, js="(name) => window.raftRun?.('runs', name)", api_visibility="private")
    ticked.input(on_tick, ticked, curves, **PRIVATE)
    for name in ("rnd", "prompt", "which", "by", "order"):
        samples[name].input(on_first_page, filters, shown, **PRIVATE)
    samples["page"].release(on_filter, filters, shown, **PRIVATE)
    k.release(on_whatif, asked, whatif, **PRIVATE)
    whatif_by.input(on_whatif, asked, whatif, **PRIVATE)
    for kind, button in buttons.items():
        button.click(on_take(kind), picked, file, **PRIVATE).success(None, js=TAKE)
    if isinstance(tab, gr.Tab):
        look_into(tab.select(on_list, [ticked, picked], listed, **PRIVATE))


def _samples() -> dict[str, Any]:
    """The gallery's filters and where it is shown."""
    parts: dict[str, Any] = {}
    with gr.Row():
        parts["rnd"] = gr.Dropdown([], label="Round", elem_id="runs-round", min_width=90, allow_custom_value=True)
        parts["prompt"] = gr.Dropdown(
            [("all", "")], value="", label="Prompt", elem_id="runs-prompt", min_width=180, allow_custom_value=True
        )
        parts["by"] = gr.Dropdown([], label="Order by", elem_id="runs-by", min_width=120, allow_custom_value=True)
    with gr.Row():
        parts["which"] = gr.Radio(
            [gallery.ALL, gallery.KEPT, gallery.DROPPED], value=gallery.ALL, label="Show", elem_id="runs-which", min_width=200
        )
        parts["order"] = gr.Radio(
            [gallery.BEST, gallery.WORST, gallery.DRAWN], value=gallery.BEST, label="Order", elem_id="runs-order", min_width=200
        )
        parts["page"] = gr.Slider(1, 2, value=1, step=1, visible=False, label="Page", elem_id="runs-page", min_width=140)
    parts["note"] = gr.HTML("", elem_id="runs-note")
    parts["cards"] = gr.HTML(NO_SAMPLES, elem_id="runs-cards", min_height=320)
    return parts


def _table(studio: Studio, found: list[RunInfo]) -> str:
    statuses = {run.name: live.standing(studio.alignments, studio.runs, run.name).status for run in found}
    waiting = [entry for entry in studio.alignments.entries() if entry.name not in statuses]
    return runs_view.list_html(found, statuses, waiting) if found or waiting else NO_RUNS


def _first_with_curves(found: list[RunInfo]) -> list[str]:
    return [run.name for run in found if run.rounds][:2]


def _curves(studio: Studio, names: Any) -> str:
    """Raises ConfigError for more than can be told apart."""
    if len(names or []) > run_view.OVERLAID:
        raise ConfigError(f"{len(names)} runs are ticked; the curves of {run_view.OVERLAID} can be told apart")
    drawn = run_view.overlaid({name: runs_view.history(studio.run_folder(name)) for name in names or []})
    return run_view.charts_html(drawn) if drawn else NO_CURVES


def _rounds(folder: Path) -> list[Any]:
    """Choices of round, prompt and score."""
    rounds = runs_view.rounds(folder)
    if not rounds:
        return [
            gr.update(choices=[], value=None),
            gr.update(choices=[("all", "")], value=""),
            gr.update(choices=[], value=None),
        ]
    try:
        found = gallery.facts(folder, rounds[-1])
    except RaftError as error:
        raise DataError(str(error)) from error
    prompts = list(dict.fromkeys(text for rnd in rounds for text in gallery.facts(folder, rnd).prompts))
    return [
        gr.update(choices=[(f"round {rnd}", str(rnd)) for rnd in rounds], value=str(rounds[-1])),
        gr.update(choices=[("all", ""), *((text[:90], text) for text in prompts[: runs_view.PROMPTS_LISTED])], value=""),
        gr.update(choices=list(found.scores), value=found.reward),
    ]


def _ks(folder: Path) -> list[Any]:
    stored = runs_view.stored(folder)
    if not stored:
        return [gr.update(maximum=2, value=1, interactive=False), gr.update(choices=[], value=None)]
    most = min(each.k for each in stored)
    wanted = gr.update(maximum=max(most, 2), value=max(1, most // 2), interactive=most > 1)
    return [wanted, gr.update(choices=list(stored[0].columns), value=stored[0].reward)]


def _report(folder: Path) -> str:
    text = runs_view.report(folder)
    if text is None:
        return NO_REPORT
    # Without scripts, forms or this page's origin: the report shows what a model and a prompt file have written.
    return (
        f"<iframe class='raft-report' title='Report of {escape(folder.name)}' sandbox='allow-popups' "
        f"srcdoc='{escape(text)}'></iframe>"
    )


def _files(folder: Path) -> list[Any]:
    """A note, and a button for each thing to take away."""
    ready = downloads.available(folder)
    told = f"What {escape(folder.name)} has trained, for whoever uses it, and the card that tells of it." if ready else NO_FILES
    buttons = [
        gr.update(visible=kind in ready, value=f"{label} ({ready.get(kind, '')})") for kind, label in downloads.KINDS.items()
    ]
    return [f"<p class='raft-muted'>{told}</p>", *buttons]


def _round(value: Any) -> int:
    return _whole("the round", value)


def _whole(name: str, value: Any) -> int:
    return int(within(name, value, 1, 1e6))
