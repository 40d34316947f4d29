"""The page Text: the same prompt and seeds before and after training, and chains of thought that vote on an answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gradio as gr

from raft_core.errors import ConfigError
from raft_core.types import Prompt
from raft_demo.shared import comparable
from raft_demo.shared.errors import spoken
from raft_demo.shared.limits import LARGEST_SEED, within
from raft_demo.shared.offered import offer, offers
from raft_demo.shared.reporting import waiting
from raft_demo.shared.scores_view import progress
from raft_demo.shared.theme import empty
from raft_demo.shared.worker import Progress, Waiting
from raft_demo.studio import Studio
from raft_demo.text import texts
from raft_demo.text import view as text_view
from raft_demo.text.texts import Accuracies, Asked, Completions, Verdict

NAME = "Text"
CSS = text_view.CSS
COMPARE, VOTE, MEASURE = "Before and after", "Vote on a question", "Accuracy on problems"
BEFORE, AFTER = "before training", "after training"
MARKS = [text_view.DIFFERENCES, text_view.LIKELIHOOD, text_view.NOTHING]
NO_RERANKER, OWN = "", "own"  # OWN as in text_work
ANSWER_CHARACTERS = 50
EVERY = "every problem"  # stands where one prompt would
HINT = empty(
    "Nothing written yet",
    "Choose a prompt and press <b>Write</b>: every text is written before and after training, with the same seed.",
)
NO_MODEL = empty(
    "There is no text run yet",
    "Make one in a few minutes, <code>raft align text/sums_raft</code>, with the runs folder as its <code>--output</code>.",
)
#: In a narrow window the result lies below the settings.
SHOW_RESULT = "() => { if (innerWidth < 700) document.querySelector('#text-result').scrollIntoView({behavior: 'smooth'}) }"
WORK = "raft_demo.text.work"
# Marks are a matter of looks: the browser changes them by itself, also while texts are being written.
SET_MARK = f"(mark) => {{ document.getElementById('text-result').dataset.mark = {{'{MARKS[1]}': 'likelihood', \
'{MARKS[2]}': 'nothing'}}[mark] ?? 'differences'; }}"


def build(studio: Studio) -> None:
    """Lay the page out."""
    known = _known(studio)
    first = texts.defaults(known[0] if known else None, studio.limits)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            model, view, prompt = _what(studio, known, first)
            k, votes, count, side, reranker, answer = _how(studio)
            with gr.Row():
                start = gr.Button("Write", variant="primary", min_width=100, elem_id="text-start")
                stop = gr.Button("Stop", min_width=100, elem_id="text-stop")
            status = gr.HTML(progress(""), elem_id="text-status")
            prompts = gr.Dataset(
                components=[prompt],
                samples=[[text] for text in first.prompts],
                label="Prompts of the run",
                samples_per_page=4,
                elem_id="text-prompts",
            )
            temperature, seed, tokens = _sampling(first)
        with gr.Column(scale=5, min_width=320):
            mark = gr.Radio(MARKS, value=MARKS[0], label="Mark", container=False, elem_id="text-mark")
            result = gr.HTML(HINT if known else NO_MODEL, elem_id="text-result", min_height=420)

    inputs = [view, model, prompt, seed, temperature, tokens, k, votes, side, reranker, count, answer]

    @spoken
    def write(
        view: str,
        model: str,
        prompt: str,
        seed: float | str,
        temperature: float | str,
        tokens: float | str,
        k: float | str,
        votes: float | str,
        side: str,
        reranker: str,
        count: float | str,
        answer: str,
    ) -> Iterator[tuple[Any, Any]]:
        """Yields (progress, result)."""
        settings = (seed, temperature, tokens)
        if view == COMPARE:
            amount = int(within("the number of completions", k, 1, studio.limits.completions))
            yield from _shown(studio, "complete", asked=read(studio, model, prompt, *settings, amount))
            return
        if view not in (VOTE, MEASURE):
            raise ConfigError(f"there is no way to show {str(view)[:50]!r}; choose {COMPARE!r}, {VOTE!r} or {MEASURE!r}")
        voters, ways = _voters(studio, votes, temperature), _ways(studio, side, reranker)
        if view == VOTE:
            asked, right = read(studio, model, prompt, *settings, voters), str(answer or "").strip()[:ANSWER_CHARACTERS]
            yield from _shown(studio, "reason", asked=asked, **ways, answer=right)
        else:
            asked = read(studio, model, EVERY, *settings, voters)
            yield from _shown(studio, "measure", asked=asked, prompts=_problems(studio, model, count), **ways)

    @spoken
    def model_chosen(key: str | None) -> tuple[Any, ...]:
        """The model's own settings and prompts, as soon as it is chosen."""
        found = comparable.chosen(key, _known(studio), 1) if key else []
        return own_settings(found)

    def own_settings(found: list[comparable.Comparable]) -> tuple[Any, ...]:
        own = texts.defaults(found[0] if found else None, studio.limits)
        length = gr.update(maximum=own.tokens, value=own.tokens)
        return own.opening, "", own.temperature, length, gr.Dataset(samples=[[each] for each in own.prompts])

    @spoken
    def refresh() -> tuple[Any, Any]:
        """Runs and rewards may have come since the page was opened."""
        return gr.update(choices=_choices(_known(studio))), gr.update(choices=_rerankers(studio))

    @spoken
    def opened() -> tuple[Any, ...]:
        """Begin with the newest run, as it writes by itself; what was there from the start is left alone, for a person may have
        begun to write."""
        now = _known(studio)
        if now[:1] == known[:1]:
            return (gr.skip(),) * 8
        chosen = gr.update(choices=_choices(now), value=now[0].key if now else None)
        return chosen, gr.update(choices=_rerankers(studio)), HINT if now else NO_MODEL, *own_settings(now[:1])

    def of_row(row: list[str]) -> tuple[str, str]:
        """The prompt that a row of the list holds, and no answer yet."""
        return row[0] if row else "", ""

    def arranged(view: Any) -> tuple[Any, ...]:
        """The inputs that matter to what is to be shown."""
        thinks, asks = view != COMPARE, view != MEASURE
        shown = [asks, asks, not thinks, thinks, view == MEASURE, thinks, thinks, view == VOTE, not thinks]
        label = {COMPARE: "Write", VOTE: "Vote", MEASURE: "Measure"}.get(view, "Write")
        return *(gr.update(visible=each) for each in shown), gr.update(value=label)

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    running = gr.on(
        [start.click, prompt.submit],
        write,
        inputs,
        [status, result],
        api_name="write",
        concurrency_limit=None,
        show_progress="hidden",
        trigger_mode="once",
    )
    running.failure(lambda: progress(""), None, status, **quiet)
    running.success(None, js=SHOW_RESULT)
    stopping = stop.click(lambda: progress("stopped"), None, status, cancels=[running], api_visibility="private")
    stopping.then(lambda: progress("stopped"), None, status, **quiet)  # over what was still under way
    settings = [prompt, answer, temperature, tokens, prompts]
    model.input(model_chosen, model, settings, **quiet)
    model.focus(refresh, None, [model, reranker], **quiet)
    gr.on(None, opened, None, [model, reranker, result, *settings], **quiet)
    prompts.click(spoken(of_row), prompts, [prompt, answer], **quiet)
    view.input(arranged, view, [prompt, prompts, k, votes, count, side, reranker, answer, mark, start], **quiet)
    mark.input(None, mark, None, js=SET_MARK, **quiet)


def _what(studio: Studio, known: list[comparable.Comparable], first: texts.Defaults) -> tuple[Any, ...]:
    """Model, what is shown, prompt."""
    model = gr.Dropdown(
        _choices(known),
        value=known[0].key if known else None,
        allow_custom_value=True,  # runs come while the page is open; a key that is not on the list is refused in words
        label="Model",
        info="Text runs, their checkpoints, and the bundled examples",
        elem_id="text-model",
    )
    view = gr.Radio([COMPARE, VOTE, MEASURE], value=COMPARE, label="Show", elem_id="text-view")
    prompt = gr.Textbox(
        first.opening,
        label="Prompt",
        lines=3,
        max_lines=8,
        max_length=studio.limits.prompt_characters,
        elem_id="text-prompt",
    )
    return model, view, prompt


def _how(studio: Studio) -> tuple[Any, ...]:
    """Completions; chains of thought, problems, whose, the reward that chooses and the right answer, for what thinks."""
    limits = studio.limits
    k = gr.Slider(1, limits.completions, min(3, limits.completions), step=1, label="Completions", elem_id="text-k")
    votes = gr.Slider(2, limits.votes, 16, step=1, label="Chains of thought", visible=False, elem_id="text-votes")
    count = gr.Slider(10, limits.problems, 30, step=10, label="Problems", visible=False, elem_id="text-count")
    side = gr.Radio([BEFORE, AFTER], value=AFTER, label="Model as it was", visible=False, elem_id="text-side")
    reranker = gr.Dropdown(
        _rerankers(studio),
        value=NO_RERANKER,
        label="Reward that chooses",
        info="besides the vote",
        visible=False,
        elem_id="text-reranker",
    )
    answer = gr.Textbox(
        "",
        label="Right answer",
        placeholder="known for the run's own prompts",
        max_length=ANSWER_CHARACTERS,
        visible=False,
        elem_id="text-answer",
    )
    return k, votes, count, side, reranker, answer


def _sampling(first: texts.Defaults) -> tuple[Any, ...]:
    """Temperature, seed, longest length."""
    with gr.Accordion("Sampling", open=False):
        temperature = gr.Slider(0, texts.HOTTEST, first.temperature, step=0.05, label="Temperature", elem_id="text-temperature")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, elem_id="text-seed")
        tokens = gr.Slider(1, first.tokens, first.tokens, step=1, label="Longest, in tokens", elem_id="text-tokens")
    return temperature, seed, tokens


def read(studio: Studio, model: Any, prompt: Any, seed: Any, temperature: Any, tokens: Any, k: int) -> Asked:
    """What a visitor asks for, checked again: a request need not come from the page.

    Raises:
        ConfigError: a value that is missing or out of bounds.
        DataError: a model that is not on the list.
    """
    limits = studio.limits
    [chosen] = comparable.chosen(model, _known(studio), 1)
    text = str(prompt or "").strip()
    if not text:
        raise ConfigError("the prompt is empty: write one, or choose one of the run's prompts")
    if len(text) > limits.prompt_characters:
        raise ConfigError(f"the prompt has {len(text)} characters; give at most {limits.prompt_characters}")
    heat = float(within("the temperature", temperature, 0, texts.HOTTEST))
    return Asked(
        label=chosen.label,
        target=chosen.target,
        checkpoint=chosen.checkpoint,
        prompt=texts.known_prompt(chosen, text),
        k=1 if heat == 0 else k,  # at 0 all would be the same
        seed=int(within("the seed", seed, 0, LARGEST_SEED)),
        temperature=heat,
        tokens=int(within("the longest length", tokens, 1, limits.tokens)),
    )


def _problems(studio: Studio, model: Any, count: Any) -> list[Prompt]:
    """So many prompts of the run.

    Raises:
        ConfigError: it has none any more.
    """
    amount = int(within("the number of problems", count, 1, studio.limits.problems))
    [chosen] = comparable.chosen(model, _known(studio), 1)
    if not (found := texts.problems(chosen)[:amount]):
        raise ConfigError("the run's prompts are not here any more, so there are no problems to measure on")
    return found


def _voters(studio: Studio, votes: Any, temperature: Any) -> int:
    if temperature == 0:
        raise ConfigError("at temperature 0 every chain of thought is the same: give more than 0, so that they can differ")
    return int(within("the number of chains of thought", votes, 2, studio.limits.votes))


def _ways(studio: Studio, side: Any, reranker: Any) -> dict[str, Any]:
    """Which model thinks, and which reward chooses, as the work takes it; a reward out of the list alone."""
    if side not in (BEFORE, AFTER):
        raise ConfigError(f"the model cannot be taken {str(side)[:50]!r}; choose {BEFORE!r} or {AFTER!r}")
    key = str(reranker or NO_RERANKER)
    spec = None if key in (NO_RERANKER, OWN) else offer(studio.runs, key, "text").spec
    return {"reference": side == BEFORE, "reranker": key, "spec": spec}


def _shown(studio: Studio, job: str, **arguments: Any) -> Iterator[tuple[Any, Any]]:
    """What a job has so far, as (progress, result)."""
    yield progress("starting"), gr.skip()
    done = "done"
    with contextlib.closing(studio.worker.run(f"{WORK}:{job}", **arguments)) as events:
        for event in events:
            if isinstance(event, Waiting):
                yield progress(waiting(event)), gr.skip()
            elif isinstance(event, Progress):
                yield progress(event.text, event.done, event.total), gr.skip()
            elif isinstance(event, Completions):
                done = f"done: {event.seconds:.2f} s per completion"
                yield gr.skip(), text_view.shown(event)
            elif isinstance(event, Verdict):
                yield gr.skip(), text_view.verdict(event)
            elif isinstance(event, Accuracies):
                yield gr.skip(), text_view.accuracies(event)
    yield progress(done, 1, 1), gr.skip()


def _known(studio: Studio) -> list[comparable.Comparable]:
    return comparable.comparables(studio.all_runs(), "text")


def _choices(known: list[comparable.Comparable]) -> list[tuple[str, str]]:
    return [(each.label, each.key) for each in known]


def _rerankers(studio: Studio) -> list[tuple[str, str]]:
    """Rewards that work here and now; the list's keys alone are taken."""
    works = [(each.label, each.key) for each in offers(studio.runs, "text") if not each.needs]
    return [("none", NO_RERANKER), ("the run's own reward", OWN), *works]
