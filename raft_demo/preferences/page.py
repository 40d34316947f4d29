"""The page Preferences: a person's taste, put down choice by choice, then learned as a reward."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from gradio.context import Context

from raft_demo.preferences.ballot_box import FEWEST, BallotBox
from raft_demo.preferences.choices import Choices
from raft_demo.preferences.learning import job, outcome
from raft_demo.shared import scores_view
from raft_demo.shared.assets import asset
from raft_demo.shared.errors import spoken
from raft_demo.shared.theme import empty
from raft_demo.shared.worker import Progress, Waiting
from raft_demo.studio import Studio

NAME = "Preferences"
TWO, FOUR = "two", "four"
INTRO = (
    "Which one is better? Click it, or use the keys <kbd>←</kbd> <kbd>→</kbd> (with four: <kbd>1</kbd> to <kbd>4</kbd>), "
    "<kbd>↑</kbd> for equally good, <kbd>↓</kbd> to pass over, <kbd>U</kbd> to undo. Every choice is kept at once; from ten "
    "on, a reward can be learned from them and followed on the page Align."
)
NO_RUN = empty(
    "Nothing to compare yet", "Samples come from a run: start one on the page <b>Align</b>, then choose between them here."
)
PRESS = "() => document.querySelector('#preferences-file a, a#preferences-file, #preferences-file').click()"
IDLE = f"<p class='raft-muted'>From {FEWEST} choices on, for two prompts or more, a reward can be learned here.</p>"


def build(studio: Studio) -> None:
    """Lay the page out."""
    box = BallotBox(studio.runs)

    # Functions and not the methods themselves, for Gradio marks what a browser may call.
    def begin(asked: Any) -> dict[str, Any]:
        return box.begin(asked)

    def choose(asked: Any) -> dict[str, Any]:
        return box.choose(asked)

    def undo(asked: Any) -> dict[str, Any]:
        return box.undo(asked)

    def runs_with_samples() -> list[str]:
        return [
            run.name
            for run in studio.all_runs()
            if run.status != "damaged" and any(run.folder.glob("rounds/*/samples.parquet"))
        ]

    def board(run: str | None, candidates: str) -> dict[str, Any]:
        """What the board goes by; ``run`` None shows what to do first."""
        known = run in runs_with_samples()
        return {"run": run if known else None, "n": 4 if candidates == FOUR else 2, "least": FEWEST, "empty": NO_RUN}

    @spoken
    def refreshed(run: str | None, candidates: str, shown: Any) -> tuple[Any, Any]:
        """The list of runs when the tab is opened; the board goes on as it is unless its run is gone."""
        names = runs_with_samples()
        chosen = run if run in names else (names[0] if names else None)
        value = board(chosen, candidates)
        return gr.update(choices=names, value=chosen), gr.skip() if value == shown else value

    @spoken
    def learned(run: str | None, name: str) -> Iterator[str]:
        """Learn a reward from the choices between the run's samples."""
        arguments = job(studio, run, name)
        yield _progress("Getting ready …")
        for event in studio.worker.run("raft_demo.preferences.work:learn", **arguments):
            if isinstance(event, Waiting):
                yield _progress(f"{event.ahead} others are before you …")
            elif isinstance(event, Progress):
                yield _progress(event.text, event.done, event.total)
            else:
                yield outcome(Path(arguments["folder"]).name, event)

    @spoken
    def exported(run: str | None) -> str:
        """The choices as one file."""
        folder = studio.run_folder(str(run))
        with tempfile.TemporaryDirectory() as place:  # Gradio serves what is in its cache, and nothing of the runs folder
            made = Choices(studio.runs, folder.name).as_parquet(Path(place) / f"{folder.name}-preferences.parquet")
            return processing_utils.save_file_to_cache(made, file.GRADIO_CACHE)

    gr.HTML(f"<p class='raft-muted' id='preferences-intro'>{INTRO}</p>")
    with gr.Row():
        run = gr.Dropdown([], label="Samples of the run", elem_id="preferences-run", scale=3, allow_custom_value=False)
        candidates = gr.Radio(
            [TWO, FOUR], value=TWO, label="At a time", elem_id="preferences-candidates", scale=1, min_width=160
        )
    shown = gr.HTML(
        {"run": None, "n": 2, "least": FEWEST, "empty": ""},  # what there is, is looked up when the tab is opened
        html_template=asset("preferences/preferences.html"),
        css_template=asset("preferences/preferences.css"),
        js_on_load=asset("preferences/preferences.js"),
        server_functions=[begin, choose, undo],
        elem_id="preferences-board",
        apply_default_css=False,
        min_height=420,
    )
    name = gr.Textbox(label="Name of the reward", placeholder="my-taste", max_length=40, elem_id="preferences-name")
    with gr.Row():
        learn = gr.Button("Learn a reward from the choices", variant="primary", elem_id="preferences-learn", min_width=240)
        export = gr.Button("Download the choices (Parquet)", elem_id="preferences-export", min_width=240)
    # A download button hands out what it held before it was pressed; this one is filled, then pressed by the script.
    file = gr.DownloadButton("Download", visible="hidden", elem_id="preferences-file")
    told = gr.HTML(IDLE, elem_id="preferences-outcome", min_height=72)

    tab = Context.block
    assert isinstance(tab, gr.Tab), "a page is laid out inside its tab"
    tab.select(refreshed, [run, candidates, shown], [run, shown], show_progress="hidden", api_visibility="private")
    for changed in (run, candidates):
        changed.input(spoken(board), [run, candidates], shown, show_progress="hidden", api_visibility="private")
    gr.on(
        [learn.click, name.submit],
        learned,
        [run, name],
        told,
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="once",
    )
    ready = export.click(exported, run, file, show_progress="hidden", api_visibility="private")
    ready.success(None, None, None, js=PRESS)


def _progress(text: str, done: int = 0, total: int = 0) -> str:
    return scores_view.progress(f"{text} {done} of {total}" if total else text, done, total)
