"""The page Align: a recipe, its main knobs, a plan; alignments in their line, watched while they go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import gradio as gr
from gradio.context import Context

from raft_core.errors import RaftError
from raft_demo.align import knobs, recipes
from raft_demo.align.knobs import MIXES, NONE, OWN, Knobs, Order
from raft_demo.align.recipes import Recipe
from raft_demo.queue import standing as live
from raft_demo.queue.files import tail
from raft_demo.shared import run_view
from raft_demo.shared.arguments import require_type
from raft_demo.shared.errors import spoken
from raft_demo.shared.theme import empty
from raft_demo.shared.worker import Progress, Waiting
from raft_demo.studio import Studio

NAME = "Align"
CSS = f"""{run_view.CSS}
/* Gradio lets go of a block's least height while an event is under way, which is every two seconds here. */
#align-plan {{ min-height: 110px; }} #align-status {{ min-height: 141px; }}
#align-curves {{ min-height: 230px; }} #align-best {{ min-height: 180px; }}
#align-log textarea {{ font-family: var(--font-mono); font-size: .8rem; white-space: pre; overflow-x: auto; }}
"""
PREPARE, PLAN = "raft_demo.align.work:prepare", "raft_demo.align.work:plan"
PLACES = 3  # rewards that can be mixed
WATCH_S, IDLE_S = 2.0, 8.0
LOG_LINES = 200
NO_PLAN = empty("No plan yet", "<b>Plan</b> draws and scores a few samples, to tell time, memory and gain before you start.")
NOTHING = empty("Nothing is being aligned", "Choose a recipe and press <b>Start</b>; it goes on when you close this page.")
PRIVATE: dict[str, Any] = {"api_visibility": "private"}


def build(studio: Studio) -> None:
    """Lay the page out."""
    tab, app = Context.block, Context.root_block
    offered = recipes.recipes()
    usable = [each for each in offered if not each.needs]
    first = usable[0]
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            controls, start, plan = _controls(studio, offered, first)
        with gr.Column(scale=7, min_width=320):
            plan_shown = gr.HTML(NO_PLAN, elem_id="align-plan", min_height=110)
            watched = gr.Dropdown(
                [], label="Alignment to watch", elem_id="align-watched", allow_custom_value=True, interactive=True
            )
            status = gr.HTML(NOTHING, elem_id="align-status", min_height=96)
            with gr.Row():
                stop = gr.Button("Stop", elem_id="align-stop", interactive=False)
                resume = gr.Button("Resume", elem_id="align-resume", interactive=False)
            best = gr.HTML(live.NO_SAMPLES, elem_id="align-best", min_height=180)
            curves = gr.HTML(live.NO_CURVES, elem_id="align-curves", min_height=230)
            with gr.Accordion("Log", open=False):
                log = gr.Textbox(
                    label="What it says", lines=12, max_lines=12, interactive=False, autoscroll=True, elem_id="align-log"
                )
    seen, timer = gr.State(""), gr.Timer(IDLE_S, active=False)
    shown = [watched, status, stop, resume, curves, best, log, seen, timer]
    recipe, rewards = controls["recipe"], [controls[f"reward{i}"] for i in range(PLACES)]
    knob_order = list(controls)

    @spoken
    def on_recipe(name: str) -> list[Any]:
        chosen = recipes.recipe(name)
        choices = knobs.reward_choices(studio.runs, chosen)
        fresh = [gr.update(choices=choices, value=OWN), *[gr.update(choices=_or_none(choices), value=NONE)] * (PLACES - 1)]
        rank = gr.update(value=chosen.rank or 8, interactive=chosen.rank is not None)
        return [_about(chosen), *fresh, chosen.k, chosen.rounds, rank, chosen.learning_rate, chosen.seed, *_prompts(chosen)]

    @spoken
    def on_plan(*values: Any) -> Iterator[Any]:
        asked = _order(studio, dict(zip(knob_order, values, strict=True)))
        yield _said("Planning", "the configuration is checked")
        found = None
        for event in studio.worker.run(PLAN, raw=asked.raw, recipe=asked.recipe.path, prompts=asked.prompts):
            if isinstance(event, (Waiting, Progress)):
                yield _said("Planning", _words(event), found)
            else:
                found = event
                yield _plan_html(found)

    @spoken
    def on_start(*values: Any) -> Iterator[list[Any]]:
        asked = _order(studio, dict(zip(knob_order, values, strict=True)))
        config, said = "", _said("Starting", "the configuration is checked")
        yield [said, *_skipped(len(shown))]
        file = studio.alignments.file(asked.name, "prompts.txt")
        job = {"raw": asked.raw, "recipe": asked.recipe.path, "prompts": asked.prompts, "file": file}
        for event in studio.worker.run(PREPARE, **job):
            if isinstance(event, (Waiting, Progress)):
                yield [_said("Starting", _words(event)), *_skipped(len(shown))]
            else:
                config = event
        studio.alignments.add(asked.name, config)
        yield [_said("Started", f"{asked.name} is in the line. It goes on when this page is closed."), *look(asked.name, "")]

    @spoken
    def on_stop(name: str) -> list[Any]:
        studio.alignments.stop(_known(studio, name))
        return look(name, "")

    @spoken
    def on_resume(name: str) -> list[Any]:
        studio.alignments.resume(_known(studio, name))
        return look(name, "")

    def look(name: Any, before: str) -> list[Any]:
        """The watched alignment as it is now; what has not changed is left as it is on the page."""
        names = live.watchable(studio.alignments, studio.all_runs())
        if not names:
            return [gr.update(choices=[]), NOTHING, *_skipped(len(shown) - 4), "", gr.Timer(IDLE_S, active=True)]
        name = name if name in names else names[0]
        state, folder = live.standing(studio.alignments, studio.runs, name), studio.runs / name
        sight = live.signature(folder)
        going = any(entry.state in ("running", "waiting") for entry in studio.alignments.entries())
        return [
            gr.update(choices=names, value=name),
            live.status_html(state),
            gr.update(interactive=state.can_stop),
            gr.update(interactive=state.can_resume),
            *(_skipped(2) if sight == before else [_or_trouble(show, folder) for show in (live.curves_html, live.best_html)]),
            tail(studio.alignments.file(name, "log"), LOG_LINES),
            sight,
            gr.Timer(WATCH_S if going else IDLE_S, active=True),
        ]

    @spoken
    def on_look(name: str, before: str) -> list[Any]:
        return look(name, before)

    @spoken
    def on_address(request: gr.Request) -> list[Any]:
        """The alignment that the address names."""
        asked = request.query_params
        return look(asked.get("run", ""), "") if asked.get("page") == "align" else _skipped(len(shown))

    @spoken
    def on_tab(name: str) -> list[Any]:
        return _fresh_rewards(studio, name)

    changed = [controls["about"], *rewards, *(controls[n] for n in ("k", "rounds", "rank", "learning_rate", "seed"))]
    knob_parts = list(controls.values())
    recipe.input(on_recipe, recipe, [*changed, controls["prompts_of"], controls["prompts"]], show_progress="hidden", **PRIVATE)
    plan.click(on_plan, knob_parts, plan_shown, show_progress="hidden", api_name="align_plan")
    start.click(on_start, knob_parts, [plan_shown, *shown], show_progress="hidden", api_name="align_start")
    stop.click(on_stop, watched, shown, show_progress="hidden", api_name="align_stop")
    resume.click(on_resume, watched, shown, show_progress="hidden", api_name="align_resume")
    quiet: dict[str, Any] = {"show_progress": "hidden", "queue": False, **PRIVATE}
    watched.input(lambda name: on_look(name, ""), watched, shown, **quiet)
    timer.tick(on_look, [watched, seen], shown, trigger_mode="once", **quiet)
    watched.change(None, watched, None, js="(name) => window.raftRun?.('align', name)", **PRIVATE)
    if app is not None:
        app.load(on_address, None, shown, show_progress="hidden", **PRIVATE)  # through the queue, which brings the parameters
    if isinstance(tab, gr.Tab):
        tab.select(on_look, [watched, seen], shown, **quiet)
        tab.select(on_tab, recipe, rewards, **quiet)


def _controls(studio: Studio, offered: list[Recipe], first: Recipe) -> tuple[dict[str, Any], Any, Any]:
    """(what is read when a visitor asks, in order; the buttons Start and Plan)."""
    limits, parts = studio.limits, {}
    choices = knobs.reward_choices(studio.runs, first)
    labels = [(each.name + (" (not on this machine)" if each.needs else ""), each.name) for each in offered]
    parts["recipe"] = gr.Dropdown(labels, value=first.name, label="Recipe", elem_id="align-recipe")
    parts["about"] = gr.HTML(_about(first), elem_id="align-about", min_height=120)
    parts["reward0"] = gr.Dropdown(choices, value=OWN, label="Reward to follow", elem_id="align-reward")
    with gr.Accordion("Mix it with others", open=False):
        parts["weight0"] = gr.Number(1.0, label="Weight of the first", step=0.1, elem_id="align-weight")
        for i in range(1, PLACES):
            with gr.Row():
                parts[f"reward{i}"] = gr.Dropdown(
                    _or_none(choices), value=NONE, label=f"Reward {i + 1}", scale=3, elem_id=f"align-reward-{i + 1}"
                )
                parts[f"weight{i}"] = gr.Number(
                    1.0, label="Weight", step=0.1, scale=1, min_width=90, elem_id=f"align-weight-{i + 1}"
                )
        parts["mix"] = gr.Radio(list(MIXES), value=next(iter(MIXES)), label="How", info="A negative weight is a penalty.")
    with gr.Row():
        parts["k"] = _slider("K", "samples per prompt and round", limits.k, first.k, "k")
        parts["rounds"] = _slider("Rounds", "at most", limits.rounds, first.rounds, "rounds")
    with gr.Row():
        parts["rank"] = _slider("LoRA rank", "size of what is trained", limits.rank, first.rank or 8, "rank")
        parts["learning_rate"] = gr.Number(
            first.learning_rate, label="Learning rate", info="of every step", min_width=200, elem_id="align-lr"
        )
    with gr.Accordion("Prompts, seed and more", open=False):
        about, box = _prompts(first)
        parts["prompts_of"] = gr.HTML(about, elem_id="align-prompts-of")
        parts["prompts"] = gr.Textbox(
            box, label="Prompts of your own, one a line", lines=4, max_lines=10, elem_id="align-prompts",
            info="Empty: the recipe's. A fifth of yours is held out, to see whether the gain carries over.",
        )  # fmt: skip
        with gr.Row():
            parts["seed"] = gr.Number(first.seed, label="Seed", precision=0, min_width=100, elem_id="align-seed")
            parts["steps"] = gr.Number(
                0, label="Training steps per round", info="0: the recipe's", precision=0, min_width=140, elem_id="align-steps"
            )
            parts["compared"] = gr.Number(
                0, label="Prompts of the comparison", info="0: the recipe's", precision=0, min_width=140,
                elem_id="align-compared",
            )  # fmt: skip
        parts["name"] = gr.Textbox(
            "", label="Name of the run", info="Empty: the recipe's, with a number", max_lines=1, elem_id="align-name"
        )
    with gr.Row():
        plan = gr.Button("Plan", elem_id="align-plan-button")
        start = gr.Button("Start", variant="primary", elem_id="align-start")
    return parts, start, plan


def _slider(label: str, info: str, most: int, value: int, name: str) -> gr.Slider:
    return gr.Slider(1, most, value=value, step=1, label=label, info=info, min_width=200, elem_id=f"align-{name}")


def _order(studio: Studio, values: dict[str, Any]) -> Order:
    """Raises ConfigError with every mistake, and DataError for a value of another type."""
    rewards = [(values[f"reward{i}"] or NONE, values[f"weight{i}"]) for i in range(PLACES)]
    for name, value in values.items():
        kind = str if name in ("recipe", "mix", "prompts", "name") or name.startswith("reward") else float | str
        require_type(kind, name, value)
    names = ("recipe", "mix", "k", "rounds", "prompts", "rank", "learning_rate", "seed", "steps", "compared")
    given = {name: values[name] for name in names}
    asked = Knobs(**given, rewards=rewards, name=str(values["name"] or "").strip())
    return knobs.order(asked, studio.runs, studio.limits, studio.alignments.taken())


def _known(studio: Studio, name: Any) -> str:
    """Raises DataError for anything that is not in the line and no run."""
    if studio.alignments.entry(name) is None:
        studio.run_folder(name)
    return name


def _fresh_rewards(studio: Studio, name: str) -> list[Any]:
    """Rewards may have been learned since the page was opened; what is chosen stays chosen."""
    choices = knobs.reward_choices(studio.runs, recipes.recipe(name))
    return [gr.update(choices=choices), *[gr.update(choices=_or_none(choices))] * (PLACES - 1)]


def _or_none(choices: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [("none", NONE), *choices]


def _or_trouble(make: Any, folder: Any) -> str:
    try:
        return make(folder)
    except RaftError as error:
        return live.trouble(error)


def _skipped(n: int) -> list[Any]:
    return [gr.skip() for _ in range(n)]


def _about(chosen: Recipe) -> str:
    """What the recipe's own file says."""
    facts = "".join(f"<p><b>{escape(key)}:</b> {escape(text)}</p>" for key, text in chosen.facts.items())
    return f"<div class='raft-muted raft-wrap'><p>{escape(chosen.about)}</p>{facts}</div>"


def _prompts(chosen: Recipe) -> tuple[str, str]:
    """(what the recipe's prompts are like, the empty box)."""
    found = chosen.prompts
    examples = "; ".join(text[:80] for text in found[:3])
    about = f"The recipe trains on {len(found)} prompts, such as: {examples}" if found else "The recipe brings its own prompts."
    return f"<p class='raft-muted raft-wrap'>{escape(about)}</p>", ""


def _words(event: Waiting | Progress) -> str:
    if isinstance(event, Waiting):
        return f"{event.ahead} other{'s are' if event.ahead > 1 else ' is'} before you"
    return f"{event.text} {event.done} of {event.total}" if event.total else event.text


def _said(headline: str, text: str, found: dict[str, Any] | None = None) -> str:
    lines = _lines(found) if found else ""
    return f"<div class='raft-status' role='status'><b>{headline}</b><p>{escape(text)} …</p>{lines}</div>"


def _plan_html(found: dict[str, Any]) -> str:
    advice = "".join(f"<p>⚠ {escape(text)}</p>" for text in found["advice"])
    rows = _rows(found["more"])
    more = (
        f"<details class='raft-more'><summary>More figures</summary><dl class='raft-facts'>{rows}</dl></details>"
        if rows
        else ""
    )
    headline = escape(found["said"] or "Plan")
    return f"<div class='raft-status' role='status'><b>{headline}</b>{_lines(found)}{advice}{more}</div>"


def _lines(found: dict[str, Any]) -> str:
    return f"<dl class='raft-facts'>{_rows(found['lines'])}</dl>"


def _rows(lines: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in lines)
