"""The page Compare: what it refuses, what it draws, and what a person sees of it."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import NARROW, WIDE, served, shot, until
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from raft_core.bundled import bundled_runs
from raft_core.errors import ConfigError, DataError, RaftError
from raft_demo.compare import page as compare
from raft_demo.compare import view as compare_view
from raft_demo.compare.card import card_png
from raft_demo.compare.comparison import Asked, Column, Comparison, difference, row_png
from raft_demo.shared import comparable
from raft_demo.shared.limits import Limits
from raft_demo.shared.measures import Measure
from raft_demo.shared.runs import all_runs

EXAMPLE = "bundled:examples/resolution"
GOOD = {
    "models": [EXAMPLE],
    "prompt": "a small red circle",
    "seed": 0,
    "images": 2,
    "view": compare.PAIRS,
    "strength": 1,
    "steps": 12,
    "guidance": 1.5,
    "size": "32 × 32",
    "score": True,
}


class Room:
    """A studio without a worker."""

    def __init__(self, runs: Path):
        self.runs, self.limits = runs, Limits()

    def all_runs(self):
        return all_runs(self.runs)


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path / "runs")


def with_run(runs: Path, name: str) -> None:
    """A run folder: the bundled example under another name, with a checkpoint that is only listed."""
    shutil.copytree(bundled_runs()[EXAMPLE], runs / name)
    for rnd in (0, 3):
        (runs / name / "checkpoints" / f"{rnd:04d}").mkdir(parents=True)


def comparison(**changes) -> Comparison:
    asked = Asked([("mine", "runs/mine", None)], "<b>a cat</b>", 2, 7, 12, 1.5, 32, 32)
    pictures = [[Image.new("RGB", (8, 8), color) for color in pair] for pair in (("red", "green"), ("blue", "black"))]
    scores = [{"aesthetic": [1.0, math.nan]}, {"aesthetic": [1.5, 2.0]}]
    columns = [
        Column(label, "bundled:shapes", "runs/mine", None, strength, 0, images, found)
        for label, strength, images, found in zip(("before", "after"), (0.0, 1.0), pictures, scores, strict=True)
    ]
    measures = (Measure("aesthetic", "reward", "nominal 1–10", higher_is_better=True),)
    return Comparison(**{"asked": asked, "columns": columns, "measures": measures, "notes": ("<i>cut</i>",)} | changes)


def test_a_fresh_install_offers_the_bundled_example(room):
    (only,) = comparable.comparables(room.all_runs())
    assert only.key == EXAMPLE and "bundled" in only.label
    own = comparable.defaults(only.folder)
    assert (own.steps, own.guidance_scale, own.size) == (12, 1.5, "32 × 32")
    assert len(own.prompts) == 12 and len(set(own.prompts)) == 12


def test_runs_and_their_checkpoints_come_before_the_example(room):
    with_run(room.runs, "mine")
    assert [each.key for each in comparable.comparables(room.all_runs())] == ["mine", "mine@3", EXAMPLE]


def test_what_is_asked_for_is_read(room):
    asked = compare.read(room, **GOOD)
    assert asked.models == [("resolution (bundled example)", EXAMPLE, None)]
    assert (asked.k, asked.seed, asked.width, asked.height, asked.strengths) == (2, 0, 32, 32, (1.0,))
    assert compare.read(room, **GOOD | {"size": comparable.OWN_SIZE}).width is None
    assert compare.read(room, **GOOD | {"view": compare.STRIP}).strengths == (0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"models": []}, "no model is chosen"),
        ({"models": ["../../etc"]}, "no '../../etc' to compare"),
        ({"models": ["/etc/passwd"]}, "choose one of the list"),
        ({"models": list("abcdef")}, "at most 4"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": "a" * 2001}, "2001 characters"),
        ({"seed": -1}, "the seed is -1"),
        ({"images": 9}, "the number of pictures is 9"),
        ({"images": None}, "no number"),
        ({"steps": 101}, "the number of steps is 101"),
        ({"guidance": math.nan}, "the guidance is nan"),
        ({"strength": 1.6}, "the strength is 1.6"),
        ({"size": "4096 × 4096"}, "the width is 4096"),
        ({"size": "large"}, "write it as 512 × 512"),
        ({"view": "all"}, "no way to show"),
    ],
)
def test_what_cannot_be_is_refused_in_words(room, changed, words):
    with pytest.raises((ConfigError, DataError), match=words):
        compare.read(room, **GOOD | changed)


def test_a_difference_is_to_the_same_model_before_training():
    both = comparison()
    (measure,) = both.measures
    assert difference(both, both.columns[1], measure, 0) == 0.5
    assert math.isnan(difference(both, both.columns[1], measure, 1))  # not scored before, so nothing is known
    assert difference(both, both.columns[0], measure, 0) == 0


def test_texts_of_visitors_and_models_are_escaped():
    html = compare_view.shown(comparison())
    assert "<b>a cat" not in html and "&lt;b&gt;a cat" in html
    assert "<i>cut" not in html and "&lt;i&gt;cut" in html


def test_every_picture_has_an_alternative_text_and_a_slider_that_keys_move():
    html = compare_view.shown(comparison())
    assert html.count("<img ") == html.count(" alt='") == 4 and "type='range'" not in html  # side by side
    slides = compare_view.shown(comparison(asked=replace(comparison().asked, slide=True)))
    assert slides.count("<img ") == slides.count(" alt='") == 4 and slides.count("type='range'") == 2
    strip = compare_view.shown(comparison(columns=[*comparison().columns, comparison().columns[1]]))
    assert strip.count("<img ") == strip.count(" alt='") == 6 and "type='range'" not in strip


def test_while_pictures_come_they_keep_their_places():
    """What is to come has its place from the first moment on, with the labels that stay."""
    whole = comparison()
    begun = compare_view.shown(comparison(columns=whole.columns[:1], measures=()))
    assert begun.count("compare-card") == whole.asked.k and begun.count("<img ") == begun.count("compare-room") == whole.asked.k
    assert begun.count("<b>before</b>") == begun.count("<b>after</b>") == whole.asked.k
    strip = comparison(asked=replace(whole.asked, strengths=(0.5, 1.0)), columns=whole.columns[:1], measures=())
    assert "grid-template-columns: repeat(3," in compare_view.shown(strip)


def test_what_is_not_scored_is_shown_as_such_and_never_as_zero():
    html = compare_view.summary(comparison())
    assert "<td>1.000</td><td>1.750</td>" in html  # means of what is scored
    assert "+0.500<" in html  # over the one pair that is scored on both sides
    assert "–" in compare_view.shown(comparison())


def test_a_downloaded_row_tells_all_that_is_needed_to_draw_it_again():
    picture = PngImageFile(io.BytesIO(row_png(comparison(), 1)))
    picture.load()
    assert picture.size == (8 + 4 + 8, 8)
    assert picture.getpixel((0, 0)) == (0, 128, 0) and picture.getpixel((12, 0)) == (0, 0, 0)
    assert picture.text["prompt"] == "<b>a cat</b>" and picture.text["seed"] == "7"
    told = json.loads(picture.text["raft"])
    assert [each["scores"]["aesthetic"] for each in told["pictures"]] == [None, 2.0]
    assert [each["strength"] for each in told["pictures"]] == [0.0, 1.0]
    assert told["picture"] == 1 and told["steps"] == 12


def test_a_card_shows_the_pictures_crisply_with_prompt_and_scores():
    with Image.open(io.BytesIO(card_png(comparison(), 0))) as card:
        assert card.width == 2 * 384 + 3 * 28
        colours = {colour: count for count, colour in card.getcolors(2**20)}
    assert colours[(255, 0, 0)] == colours[(0, 0, 255)] == 384 * 384  # 8 pixels, each 48 times as large, and nothing blurred
    long = comparison(asked=replace(comparison().asked, prompt="word " * 500))
    with Image.open(io.BytesIO(card_png(long, 1))) as card:
        assert card.height < 700
    failed = comparison(columns=[replace(c, pictures=[None, None], failed=["no"] * 2) for c in comparison().columns])
    with Image.open(io.BytesIO(card_png(failed, 0))) as card:
        assert card.width == 384 + 2 * 28


def test_a_run_whose_settings_are_wrong_is_offered_with_usual_ones(room):
    with_run(room.runs, "mine")
    (room.runs / "mine" / "config.yaml").write_text("policy: {init_args: {sampling: {steps: many}}}")
    assert comparable.defaults(room.runs / "mine") == comparable.NO_DEFAULTS


def test_two_models_stay_loaded_and_the_one_not_used_longest_makes_room():
    from raft_demo.shared.shelf import Shelf

    made, shelf = [], Shelf(2)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert shelf.get(name, lambda name=name: made.append(name) or name) == name
    assert made == ["a", "b", "c", "b"]


@pytest.mark.slow
def test_all_columns_start_from_the_same_noise_and_strength_leads_from_one_to_the_other():
    from raft_demo.compare.work import compare as work

    asked = Asked([("it", EXAMPLE, None)], "a small red circle", 2, 3, 4, 1.5, 32, 32, strengths=(0.0, 0.5, 1.0))
    *parts, last = work(asked)
    assert [len(part.columns) for part in parts] == [1, 2, 3, 4] and not parts[-1].measures
    before, nothing, half, after = last.columns
    pixels = [[picture.tobytes() for picture in column.pictures] for column in last.columns]
    assert pixels[0] == pixels[1]  # no strength is before training
    assert len({row[0] for row in pixels[1:]}) == 3 and len(set(pixels[0])) == 2
    assert {measure.role for measure in last.measures} == {"reward", "judge"}
    assert before.scores["aesthetic"] == pytest.approx(nothing.scores["aesthetic"], abs=1e-3)
    assert (before.base, half.base, after.base) == (0, 0, 0) and after.label == "strength 1"


@pytest.mark.slow
def test_pictures_are_those_of_raft_generate_and_two_models_share_their_start(tmp_path):
    from raft_core.reporter import Silent
    from raft_core.types import Prompt
    from raft_core.workflows.generate import generate
    from raft_core.workflows.trained import open_source
    from raft_demo.compare.work import compare as work

    with_run(tmp_path, "mine")
    models = [("it", EXAMPLE, None), ("mine", str(tmp_path / "mine"), None)]
    (*_, last) = work(Asked(models, "a small red circle", 1, 3, 12, 1.5, 32, 32, score=False))
    assert [column.label for column in last.columns] == ["before", "it", "mine"]
    source = open_source(EXAMPLE, [])
    policy, _ = source.build(rewards=False)
    source.load(policy)
    (sample,) = generate(policy, [Prompt("a small red circle")], k=1, seed=3, reporter=Silent())
    assert [column.pictures[0].tobytes() for column in last.columns[1:]] == [sample.output.tobytes()] * 2
    with pytest.raises(RaftError, match="multiples of"):
        list(work(Asked(models[:1], "a small red circle", 1, 3, 12, 1.5, 33, 32)))


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with served(tmp_path_factory.mktemp("compare") / "runs") as app:
        yield app


@pytest.mark.slow
def test_a_person_compares_slides_and_takes_a_pair_away(app, open_page):
    page = open_page(app.url, tab="Compare", size=WIDE)
    assert page.get_by_text("Nothing drawn yet").is_visible()
    shot(page, "compare-empty-wide")
    page.locator("#compare-view").get_by_text("Slider", exact=True).click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("per picture").wait_for()
    slides = page.locator(".compare-slide")
    assert slides.count() == 4
    before, after = (slides.first.locator("img").nth(i).get_attribute("src") for i in (0, 1))
    assert before != after
    assert "before, picture 1, seed 0: a large white cross" in slides.first.locator("img").first.get_attribute("alt")
    for name in ("aesthetic", "clip_score", "gold"):
        assert page.locator(".compare-pairs").get_by_text(name).count() == 4
    handle = slides.first.get_by_role("slider")
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert slides.first.evaluate("node => node.style.getPropertyValue('--at')") == "51%"
    shot(page, "compare-pairs-wide")
    with page.expect_download() as download:
        page.locator("#compare-files a").first.click()
    told = json.loads(PngImageFile(download.value.path()).text["raft"])
    assert told["prompt"].startswith("a large white cross") and len(told["pictures"]) == 2
    page.get_by_label("Strength strip").check()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator(".compare-cell").nth(19).wait_for()
    page.get_by_text("per picture").wait_for()
    assert page.locator(".compare-cell figcaption").all_inner_texts()[::4] == [
        "before",
        *(f"strength {strength:g}" for strength in compare.STRIP_STRENGTHS),
    ]
    shot(page, "compare-strip-wide")


@pytest.mark.slow
def test_a_narrow_dark_window_holds_it_all(app, open_page):
    page = open_page(app.url, tab="Compare", size=NARROW, dark=True)
    page.get_by_text("a large purple cross").locator("visible=true").first.click()
    page.wait_for_function("document.querySelector('#compare-prompt textarea').value.startsWith('a large purple')")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("per picture").wait_for()
    shot(page, "compare-pairs-narrow-dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


@pytest.mark.slow
def test_a_mistake_is_told_in_words_and_stop_gives_the_work_up(app, open_page):
    page = open_page(app.url, tab="Compare")
    page.locator("#compare-prompt textarea").fill(" ")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("the prompt is empty").wait_for()
    page.locator("#compare-prompt textarea").fill("a red star")
    page.get_by_label("Strength strip").check()
    page.get_by_role("button", name="Sampling").click()
    page.locator("#compare-steps input[type=number]").fill("100")
    page.get_by_role("button", name="Compare", exact=True).click()
    status, stop = page.locator("#compare-status"), page.get_by_role("button", name="Stop", exact=True)
    status.get_by_text(re.compile("starting|of 100")).first.wait_for()  # five times 100 steps: it is far from done
    until(page, stop.click, lambda: "stopped" in status.inner_text())
    page.locator("#compare-steps input[type=number]").fill("2")
    again = page.get_by_role("button", name="Compare", exact=True)
    until(page, again.click, lambda: "stopped" not in status.inner_text())  # no click counts until the server has answered Stop
    page.get_by_text("per picture").wait_for()  # the worker is free again
