"""The page Rewards: pictures or texts of one's own, by every reward that works here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

from raft_core.errors import DataError
from raft_core.media.picture import ENDINGS
from raft_demo.rewards.uploads import lines, one_each
from raft_demo.rewards.view import guide, table
from raft_demo.shared import scores_view
from raft_demo.shared.errors import spoken
from raft_demo.shared.offered import Offer, offer, offers
from raft_demo.shared.runs import Modality
from raft_demo.shared.theme import empty
from raft_demo.shared.worker import Progress, Waiting
from raft_demo.studio import Studio

NAME = "Rewards"
PICTURES, TEXTS = "pictures", "texts"
MODALITIES: dict[str, Modality] = {PICTURES: "image", TEXTS: "text"}
INTRO = "What would each reward say? Bring pictures or texts of your own. Pictures are removed from here within a day."
EMPTY = {
    PICTURES: empty("No scores yet", "Drop some pictures above, choose rewards, and press Score."),
    TEXTS: empty("No scores yet", "Paste some texts above, a line for each, choose rewards, and press Score."),
}
CSS = """
.rewards-scores { width: auto; min-width: 100%; }
.rewards-scores thead th { vertical-align: bottom; white-space: normal; max-width: 9rem; }
.rewards-scores tbody th { font-weight: 400; text-align: left; min-width: 7.5rem; }
.rewards-scores tbody th, .rewards-scores thead .rewards-what { position: sticky; left: 0; z-index: 1;
  background: var(--background-fill-primary); }
.rewards-scores td { font-variant-numeric: tabular-nums; white-space: nowrap; }
.rewards-place { color: var(--body-text-color-subdued); }
.rewards-by { background: var(--background-fill-secondary); }
.rewards-thumb img { width: 96px; height: 96px; object-fit: contain; border-radius: var(--radius-sm); }
.rewards-scores .rewards-what { text-align: left; }
.rewards-name { display: block; max-width: 12rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  font-size: .85rem; color: var(--body-text-color-subdued); }
.rewards-text { display: block; max-width: 34rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.rewards-remarks { margin: .6rem 0 0; padding-left: 1.2rem; color: var(--body-text-color-subdued); font-size: .92rem; }
.rewards-guide { display: grid; grid-template-columns: minmax(8rem, 14rem) 1fr; gap: .4rem 1rem; margin: 0; font-size: .92rem; }
.rewards-guide dt { font-weight: 600; } .rewards-guide dd { margin: 0; color: var(--body-text-color-subdued); }
.rewards-more { margin: 1rem 0 .4rem; font-weight: 600; }
@media (max-width: 640px) {
  .rewards-guide { grid-template-columns: 1fr; gap: .1rem; }
  .rewards-guide dd { margin-bottom: .5rem; }
}
"""


def build(studio: Studio) -> None:
    """Lay the page out."""
    limits = studio.limits

    def listed(kind: str) -> tuple[list[tuple[str, str]], list[Offer]]:
        """(label and key of those that work, all) of a modality."""
        found = offers(studio.runs, MODALITIES.get(kind, "image"))
        return [(each.label, each.key) for each in found if not each.needs], found

    @spoken
    def switched(kind: str) -> tuple[Any, ...]:
        ready, found = listed(kind)
        boxes = [gr.update(visible=kind == PICTURES), gr.update(visible=kind == TEXTS)]
        chosen = gr.update(choices=ready, value=[key for _, key in ready])
        return (*boxes, chosen, guide(found), EMPTY.get(kind, ""), gr.update(choices=[], value=None, visible=False), None)

    @spoken
    def refreshed(kind: str, ticked: Sequence[str], known: Sequence[str]) -> tuple[Any, Any, Any]:
        """What has been learned meanwhile is in the list, and ticked; the rest stays as it was."""
        ready, found = listed(kind)
        keys = [key for _, key in ready]
        value = [key for key in keys if key in ticked or key not in known]
        return gr.update(choices=ready, value=value), guide(found), keys

    @spoken
    def scored(
        kind: str, files: Sequence[str] | None, text: str, prompt: str, ticked: Sequence[str]
    ) -> Iterator[tuple[Any, Any, Any]]:
        """Score what was brought: the table, what it can be ranked by, and the figures for another ranking."""
        job = asked(kind, files, text, prompt, ticked)
        yield _progress("Getting ready …"), gr.skip(), gr.skip()
        for event in studio.worker.run("raft_demo.rewards.work:score", **job):
            if isinstance(event, Waiting):
                yield _progress(f"{event.ahead} others are before you …"), gr.skip(), gr.skip()
            elif isinstance(event, Progress):
                yield _progress(event.text, event.done, event.total), gr.skip(), gr.skip()
            else:
                choices = [(event["labels"][key], key) for key in event["columns"]]
                first = next(
                    (key for key, values in event["columns"].items() if any(v is not None for v in values)), choices[0][1]
                )
                yield table(event, first), gr.update(choices=choices, value=first, visible=len(choices) > 1), event

    def asked(kind: str, files: Sequence[str] | None, text: str, prompt: str, ticked: Sequence[str]) -> dict[str, Any]:
        """Arguments of the job, checked."""
        modality = MODALITIES.get(kind)
        if modality is None:
            raise DataError(f"what is scored is {str(kind)[:40]!r}, but must be {PICTURES} or {TEXTS}")
        if not ticked:
            raise DataError("no reward is chosen: tick one at least")
        chosen = [offer(studio.runs, key, modality) for key in dict.fromkeys(ticked)]
        prompts = lines(prompt, "prompts", limits)
        texts = lines(text, "texts", limits) if kind == TEXTS else []
        places = list(files or []) if kind == PICTURES else []
        if not texts and not places:
            raise DataError("there is nothing to score: " + ("drop a picture" if kind == PICTURES else "paste a text"))
        if len(places) > limits.upload_files:
            raise DataError(f"{len(places)} pictures at once are too many: drop at most {limits.upload_files}")
        return {
            "offers": chosen,
            "files": [(place, Path(place).name) for place in places],
            "texts": texts,
            "prompts": one_each(prompts, len(places or texts), kind),
            "limits": limits,
        }

    @spoken
    def reranked(marks: dict[str, Any] | None, by: str) -> Any:
        return table(marks, by) if marks and by in marks["columns"] else gr.skip()

    ready, found = listed(PICTURES)
    gr.HTML(f"<p class='raft-muted'>{INTRO}</p>")
    kind = gr.Radio([PICTURES, TEXTS], value=PICTURES, label="What is scored", elem_id="rewards-kind")
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            files = gr.File(
                label=f"Pictures, at most {limits.upload_files} of {limits.upload_bytes // 2**20} MB",
                file_count="multiple",
                file_types=list(ENDINGS),
                type="filepath",
                height=200,
                elem_id="rewards-files",
            )
            text = gr.Textbox(label="Texts, a line for each", lines=7, max_lines=7, visible=False, elem_id="rewards-text")
            prompt = gr.Textbox(
                label="Prompt",
                info="What they answer: one for all, or a line for each. Some rewards need none.",
                lines=2,
                max_lines=6,
                elem_id="rewards-prompt",
            )
        with gr.Column(scale=1, min_width=280):
            ticked = gr.CheckboxGroup(ready, value=[key for _, key in ready], label="Rewards", elem_id="rewards-ticked")
            go = gr.Button("Score", variant="primary", elem_id="rewards-go")
    by = gr.Dropdown([], label="Ranked by", visible=False, elem_id="rewards-by", allow_custom_value=False)
    shown = gr.HTML(EMPTY[PICTURES], elem_id="rewards-scores", min_height=160)
    with gr.Accordion("What each reward measures, and what others need", open=False, elem_id="rewards-about"):
        about = gr.HTML(guide(found))
    marks, known = gr.State(None), gr.State([key for _, key in ready])

    tab = Context.block
    assert isinstance(tab, gr.Tab), "a page is laid out inside its tab"
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    tab.select(refreshed, [kind, ticked, known], [ticked, about, known], **quiet)
    kind.input(switched, kind, [files, text, ticked, about, shown, by, marks], **quiet)
    go.click(scored, [kind, files, text, prompt, ticked], [shown, by, marks], trigger_mode="once", **quiet)
    by.input(reranked, [marks, by], shown, **quiet)


def _progress(text: str, done: int = 0, total: int = 0) -> str:
    return scores_view.progress(text, done, total)
