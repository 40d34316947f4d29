"""The opening page as HTML: what the method does, in pictures that are bundled. Pure text; knows no Gradio."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from raft_core.evaluation.table import number
from raft_demo.shared.assets import asset

CSS = asset("story/story.css")
TOUR = (
    ("Compare", "Type a prompt and see the same noise drawn before and after training, side by side."),
    ("Align", "Choose what is rewarded, press Start, and watch the samples of every round arrive, the best first."),
    ("Runs", "Look through every sample of every run, and take the trained weights and the report away."),
    ("Preferences", "Say which of two pictures you like. A reward is learned from your answers, and a model can follow it."),
)
TERMS = {
    "K": "How many samples are drawn of each prompt in a round. More give the reward more to choose from, and take longer.",
    "reward": "A number for every sample: what the model is trained towards.",
    "judge": "Another number for every sample. Only measured and never trained on, it shows whether the reward is gamed.",
    "KL": "How far the trained model has moved away from the one that it began as.",
    "strength": "How strongly what was trained acts when the model draws: 0 not at all, 1 as trained.",
}


def read_story() -> Mapping[str, Any]:
    """What ``raft_demo.story.make`` has made."""
    return json.loads(asset("story/story.json"))


def page_html(story: Mapping[str, Any]) -> str:
    """The whole page."""
    before, after = (number(value) for value in story["means"])
    k, rounds = len(story["ranked"]), story["rounds"]
    return f"""<div class='story'>
<section aria-label='Draw several, keep the best'>
<h2>Draw several, keep the best, learn, repeat</h2>
<p>The model draws the same prompt {k} times, a reward scores every picture, and the best one is kept.</p>
<p class='story-prompt'>“{escape(story["prompt"])}”</p>
<ol class='story-ranked'>{"".join(_ranked(i, each, story["reward"]) for i, each in enumerate(story["ranked"]))}</ol>
</section>
<p class='story-arrow'><span aria-hidden='true'>↓</span> The model learns from what was kept. After {rounds} rounds of this:</p>
<section aria-label='Before and after'>
<div class='story-pairs'>{"".join(map(_pair, story["pairs"]))}</div>
<p>Each pair began with the same noise, and no prompt was trained on: {escape(story["reward"])} rose from {before} to {after}
on {story["prompts"]} such prompts. These are the first of them.</p>
</section>
<p class='story-go'><a href='?page=compare' data-page='compare' class='primary'>Try a prompt of your own</a>
<a href='?page=align' data-page='align'>Align a model</a></p>
<details class='story-tour'><summary>What is this?</summary><ol>{"".join(map(_step, TOUR))}</ol>
<dl>{"".join(f"<dt>{escape(term)}</dt><dd>{escape(told)}</dd>" for term, told in TERMS.items())}</dl></details>
</div>"""


def _ranked(place: int, sample: Mapping[str, Any], reward: str) -> str:
    score = number(sample["score"])
    told = f"number {place + 1}, {reward} {score}{', kept' if sample['kept'] else ''}"
    mark = "<b>kept</b> " if sample["kept"] else ""
    kind = "kept" if sample["kept"] else ""
    return (
        f"<li class='{kind}' title='{escape(told)}'><img src='{sample['picture']}' alt='{escape(told)}'>"
        f"<span>{mark}{score}</span></li>"
    )


def _pair(pair: Mapping[str, Any]) -> str:
    prompt = escape(pair["prompt"])
    sides = "".join(
        f"<span class='{side}'>{side}</span><img src='{pair[side]}' alt='{side}: {prompt}'>" for side in ("before", "after")
    )
    return f"<figure>{sides}<figcaption>{prompt}</figcaption></figure>"


def _step(step: tuple[str, str]) -> str:
    name, told = step
    return f"<li><a href='?page={name.lower()}' data-page='{name.lower()}'>{name}</a> {escape(told)}</li>"
