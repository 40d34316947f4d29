"""The page Compare: the same prompt and the same noise before and after training, by one model or several."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio import processing_utils

from raft_core.errors import ConfigError
from raft_demo.compare import view as compare_view
from raft_demo.compare.card import card_png
from raft_demo.compare.comparison import Asked, Comparison, row_png
from raft_demo.shared import comparable, scores_view
from raft_demo.shared.errors import spoken
from raft_demo.shared.limits import LARGEST_SEED, within
from raft_demo.shared.reporting import waiting
from raft_demo.shared.theme import empty
from raft_demo.shared.worker import Progress, Waiting
from raft_demo.studio import Studio

NAME = "Compare"
CSS = compare_view.CSS
PAIRS, SLIDER, STRIP = "Side by side", "Slider", "Strength strip"
STRIP_STRENGTHS = (0.25, 0.5, 0.75, 1.0)  # before training is the first of the strip
STRONGEST = 1.5
HINT = empty("Nothing drawn yet", "Choose a prompt and press <b>Compare</b>: every picture is drawn before and after training.")
#: In a narrow window the result lies below the settings.
SHOW_RESULT = "() => { if (innerWidth < 700) document.querySelector('#compare-result').scrollIntoView({behavior: 'smooth'}) }"
JOB = "raft_demo.compare.work:compare"


def build(studio: Studio) -> None:
    """Lay the page out."""
    known = comparable.comparables(studio.all_runs())
    first = _defaults(studio, known[:1])
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            models, prompt, seed, images = _what(studio, known, first)
            with gr.Row():
                start = gr.Button("Compare", variant="primary", min_width=100, elem_id="compare-start")
                stop = gr.Button("Stop", min_width=100, elem_id="compare-stop")
            status = gr.HTML(scores_view.progress(""), elem_id="compare-status")
            prompts = gr.Dataset(
                components=[prompt],
                samples=[[text] for text in first.prompts],
                label="Prompts of the run",
                samples_per_page=4,
                elem_id="compare-prompts",
            )
            view, strength, steps, guidance, size, score = _how(studio, first)
        with gr.Column(scale=5, min_width=320):
            result = gr.HTML(HINT, elem_id="compare-result", min_height=420)
            files = gr.Files(
                label="Download: rows with their settings embedded, and cards to post",
                visible=False,
                interactive=False,
                elem_id="compare-files",
            )

    asked = [models, prompt, seed, images, view, strength, steps, guidance, size, score]
    shown = [status, result, files]

    @spoken
    def compare(
        models: str | list[str],
        prompt: str,
        seed: float | str,
        images: float | str,
        view: str,
        strength: float | str,
        steps: float | str,
        guidance: float | str,
        size: str,
        score: bool,
    ) -> Iterator[tuple[Any, ...]]:
        """Yields (progress, result, files)."""
        try:
            yield from drawn(read(studio, models, prompt, seed, images, view, strength, steps, guidance, size, score))
        except Exception:
            # Here and not by a listener to failures, which would answer to Stop as well.
            yield scores_view.progress(""), gr.skip(), gr.skip()
            raise

    def drawn(wanted: Asked) -> Iterator[tuple[Any, ...]]:
        yield scores_view.progress("starting"), gr.skip(), gr.update(visible=False)
        comparison: Comparison | None = None
        with contextlib.closing(studio.worker.run(JOB, asked=wanted)) as events:
            for event in events:
                if isinstance(event, Waiting):
                    yield scores_view.progress(waiting(event)), gr.skip(), gr.skip()
                elif isinstance(event, Progress):
                    yield scores_view.progress(event.text, event.done, event.total), gr.skip(), gr.skip()
                else:
                    comparison = event
                    yield gr.skip(), compare_view.shown(event), gr.skip()
        if comparison is not None:
            done = f"done: {comparison.seconds:.2f} s per picture"
            yield scores_view.progress(done, 1, 1), gr.skip(), gr.update(value=_files(comparison, files), visible=True)

    def own_settings(chosen: list[comparable.Comparable]) -> tuple[Any, ...]:
        own = _defaults(studio, chosen)
        sizes = gr.update(choices=comparable.sizes(own.size, studio.limits), value=own.size)
        return (
            own.steps,
            own.guidance_scale,
            sizes,
            gr.Dataset(samples=[[text] for text in own.prompts]),
        )

    @spoken
    def model_chosen(keys: str | list[str] | None) -> tuple[Any, ...]:
        """The first model's own settings and prompts, as soon as it is chosen."""
        now = comparable.comparables(studio.all_runs())
        return own_settings(comparable.chosen(keys, now, studio.limits.models) if keys else [])

    @spoken
    def refresh() -> Any:
        """Runs may have come since the page was opened."""
        return gr.update(choices=[(each.label, each.key) for each in comparable.comparables(studio.all_runs())])

    @spoken
    def opened(request: gr.Request) -> tuple[Any, ...]:
        """Begin with the newest run, as it draws by itself; what was there from the start is left alone, for a person may
        have begun to write."""
        now = comparable.comparables(studio.all_runs())
        asked = request.query_params.get("run") if request.query_params.get("page") == NAME.lower() else None
        now = sorted(now, key=lambda each: each.key != asked)  # the run that the address names comes first
        if [each.key for each in now[:1]] == [each.key for each in known[:1]]:
            return (gr.skip(),) * 6
        chosen = gr.update(choices=[(each.label, each.key) for each in now], value=[each.key for each in now[:1]])
        text = _defaults(studio, now[:1]).opening
        return chosen, text, *own_settings(now[:1])

    def of_row(row: list[str]) -> str:
        """The prompt that a row of the list holds."""
        return row[0] if row else ""

    drawing = gr.on(
        [start.click, prompt.submit],
        compare,
        asked,
        shown,
        api_name="compare",
        concurrency_limit=None,
        show_progress="hidden",
        trigger_mode="once",
    )
    quietly: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    drawing.success(None, js=SHOW_RESULT)
    stopping = stop.click(lambda: scores_view.progress("stopped"), None, status, cancels=[drawing], api_visibility="private")
    stopping.then(lambda: scores_view.progress("stopped"), None, status, **quietly)  # over what was still under way
    settings = [steps, guidance, size, prompts]
    models.input(model_chosen, models, settings, **quietly)
    gr.on(None, opened, None, [models, prompt, *settings], **quietly)
    view.change(lambda chosen: gr.update(interactive=chosen != STRIP), view, strength, **quietly)
    models.focus(refresh, None, models, **quietly)
    prompts.click(spoken(of_row), prompts, prompt, **quietly)


def _what(studio: Studio, known: list[comparable.Comparable], first: comparable.Defaults) -> tuple[Any, ...]:
    """Models, prompt, seed, number of pictures."""
    models = gr.Dropdown(
        [(each.label, each.key) for each in known],
        value=[each.key for each in known[:1]],
        multiselect=True,
        allow_custom_value=True,  # runs come while the page is open; a key that is not on the list is refused in words
        max_choices=studio.limits.models,
        label="Models",
        info="Runs, their checkpoints, and the bundled example",
        elem_id="compare-models",
    )
    prompt = gr.Textbox(
        first.opening,
        label="Prompt",
        lines=2,
        max_length=studio.limits.prompt_characters,
        elem_id="compare-prompt",
    )
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, min_width=100, elem_id="compare-seed")
        fresh = gr.Button("New seed", min_width=90, scale=0, elem_id="compare-new-seed")
        images = gr.Slider(1, studio.limits.images, 4, step=1, label="Pictures", min_width=100, elem_id="compare-images")
    fresh.click(None, None, seed, js=f"() => Math.floor(Math.random() * {LARGEST_SEED})", api_visibility="private")
    return models, prompt, seed, images


def _how(studio: Studio, first: comparable.Defaults) -> tuple[Any, ...]:
    """View, strength, steps, guidance, size, whether to score."""
    view = gr.Radio([PAIRS, SLIDER, STRIP], value=PAIRS, label="Show", elem_id="compare-view")
    strength = gr.Slider(
        0,
        STRONGEST,
        1,
        step=0.05,
        label="Strength",
        info="of what was trained: 0 none, 1 as trained, more goes beyond",
        elem_id="compare-strength",
    )
    with gr.Accordion("Sampling", open=False):
        steps = gr.Slider(1, studio.limits.steps, first.steps, step=1, label="Steps", elem_id="compare-steps")
        guidance = gr.Slider(0, 20, first.guidance_scale, step=0.1, label="Guidance", elem_id="compare-guidance")
        size = gr.Dropdown(
            comparable.sizes(first.size, studio.limits),
            value=first.size,
            allow_custom_value=True,
            label="Size",
            info="width × height in pixels",
            elem_id="compare-size",
        )
        score = gr.Checkbox(True, label="Score with the run's rewards and judges", elem_id="compare-score")
    return view, strength, steps, guidance, size, score


def _defaults(studio: Studio, models: list[comparable.Comparable]) -> comparable.Defaults:
    """Of the first model, within the limits; as usual where there is none."""
    if not models:
        return comparable.NO_DEFAULTS
    own = comparable.defaults(models[0].folder)
    return replace(own, steps=min(own.steps, studio.limits.steps))


def read(
    studio: Studio,
    models: Any,
    prompt: Any,
    seed: Any,
    images: Any,
    view: Any,
    strength: Any,
    steps: Any,
    guidance: Any,
    size: Any,
    score: Any,
) -> Asked:
    """What a visitor asks for, checked again: a request need not come from the page.

    Raises:
        ConfigError: a value that is missing or out of bounds.
        DataError: a model that is not on the list.
    """
    limits = studio.limits
    known = comparable.comparables(studio.all_runs())
    chosen = comparable.chosen(models, known, limits.models)
    text = str(prompt or "").strip()
    if not text:
        raise ConfigError("the prompt is empty: write what the picture shall show, or choose one of the run's prompts")
    if len(text) > limits.prompt_characters:
        raise ConfigError(f"the prompt has {len(text)} characters; give at most {limits.prompt_characters}")
    width, height = comparable.read_size(size, limits)
    if view not in (PAIRS, SLIDER, STRIP):
        raise ConfigError(f"there is no way to show {str(view)[:50]!r}; choose {PAIRS!r}, {SLIDER!r} or {STRIP!r}")
    strengths = STRIP_STRENGTHS if view == STRIP else (float(within("the strength", strength, 0, STRONGEST)),)
    return Asked(
        models=[(each.label, each.target, each.checkpoint) for each in chosen],
        prompt=text,
        k=int(within("the number of pictures", images, 1, limits.images)),
        seed=int(within("the seed", seed, 0, LARGEST_SEED)),
        steps=int(within("the number of steps", steps, 1, limits.steps)),
        guidance_scale=float(within("the guidance", guidance, 0, 20)),
        width=width,
        height=height,
        strengths=strengths,
        score=bool(score),
        slide=view == SLIDER,
    )


def _files(comparison: Comparison, component: gr.Files) -> list[str]:
    """A PNG of each row and a card of it, in Gradio's cache, out of which alone files are served."""
    cache, seed, rows = component.GRADIO_CACHE, comparison.asked.seed, range(comparison.asked.k)
    made = [(row_png(comparison, i), f"compare-seed{seed}-{i + 1}.png") for i in rows]
    made += [(card_png(comparison, i), f"card-seed{seed}-{i + 1}.png") for i in rows]
    return [processing_utils.save_bytes_to_cache(data, name, cache) for data, name in made]
