"""The page that the app opens with, the address that names pages, and how messages are titled."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request

import pytest
from conftest import NARROW, WIDE, served, shot, until

from raft_core.bundled import bundled_runs
from raft_core.errors import DataError
from raft_demo.app import PAGES
from raft_demo.shared.addresses import without_page
from raft_demo.story import view
from raft_demo.story.make import story_of


def test_the_story_is_bundled_and_its_samples_are_ranked():
    story = view.read_story()
    scores = [each["score"] for each in story["ranked"]]
    assert len(scores) >= 8 and scores == sorted(scores, reverse=True)
    assert [each["kept"] for each in story["ranked"]] == [True] + [False] * (len(scores) - 1)
    html = view.page_html(story)
    assert html.count("<img ") == html.count(" alt='") == len(scores) + 2 * len(story["pairs"])
    assert len(html) < 300_000


def test_what_a_run_says_is_escaped():
    story = {**view.read_story(), "prompt": "<script>", "reward": "<b>"}
    html = view.page_html(story)
    assert "<script>" not in html and "&lt;script&gt;" in html and "<b>: " not in html


def test_every_step_of_the_tour_leads_to_a_page():
    names = {page.NAME for page in PAGES}
    assert len(view.TOUR) == 4 and {name for name, _ in view.TOUR} <= names


def test_a_run_without_pictures_makes_no_story():
    with pytest.raises(DataError, match="finished run of an image model"):
        story_of(bundled_runs()["bundled:examples/resolution"])


def test_a_proxys_path_is_in_every_address(tmp_path):
    with served(tmp_path / "runs", "--root_path", "/raft") as app, urllib.request.urlopen(f"{app.url}/config") as answer:
        assert json.load(answer)["root"].endswith("/raft")


def test_pages_in_addresses_are_kept_from_gradio():
    assert without_page(b"page=runs&run=a%20b&__theme=dark") == b"run=a+b&__theme=dark"
    assert without_page(b"page=runs") == b""


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    runs = tmp_path_factory.mktemp("story") / "runs"
    runs.mkdir()
    for name in ("first", "second"):
        shutil.copytree(bundled_runs()["bundled:examples/resolution"], runs / name)
    with served(runs) as app:
        yield app


@pytest.mark.slow
@pytest.mark.parametrize(("size", "dark"), [(WIDE, False), (NARROW, True)], ids=["wide", "narrow-dark"])
def test_the_app_opens_with_the_story(app, open_page, size, dark):
    page = open_page(app.url, size=size, dark=dark)
    page.locator(".story-ranked img").first.wait_for()
    assert page.locator(".story-ranked li.kept").count() == 1 and page.locator(".story-pairs figure").count() == 6
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    shot(page, f"story-{'narrow-dark' if dark else 'wide'}")
    page.get_by_text("What is this?").click()
    assert page.locator(".story-tour li").count() == 4


@pytest.mark.slow
def test_the_address_names_the_page_and_the_run(app, open_page):
    page = open_page(app.url)
    page.get_by_role("link", name="Try a prompt of your own").click()
    page.locator("#page-compare").wait_for()
    page.wait_for_url(re.compile("page=compare"))
    page.go_back()
    page.locator("#story").wait_for()
    page.goto(f"{app.url}/?page=runs&run=first")
    page.locator("#page-runs").wait_for()
    chosen = page.locator("#runs-picked input")
    until(page, lambda: None, lambda: chosen.input_value() == "first")
    page.reload()
    page.locator("#page-runs").wait_for()
    until(page, lambda: None, lambda: chosen.input_value() == "first")


@pytest.mark.slow
def test_a_message_is_titled_by_what_happened(app, open_page):
    page = open_page(app.url, tab="Compare")
    page.locator("#compare-prompt textarea").fill(" ")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("the prompt is empty").wait_for()
    assert page.locator(".toast-title").inner_text() == "This cannot be done"


@pytest.mark.slow
def test_a_server_that_is_gone_is_said(tmp_path, browser):
    page = browser.new_page(viewport=WIDE)
    with served(tmp_path / "runs") as app:
        page.goto(f"{app.url}/?page=compare")
        page.locator("#compare-start").wait_for()
    said = page.get_by_text(re.compile("The server does not answer"))
    page.locator("#compare-start").click()
    said.first.wait_for()
    assert not page.get_by_text("Could not parse").is_visible()
    page.close()
