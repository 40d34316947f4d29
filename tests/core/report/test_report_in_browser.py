"""The report in a real browser: what its script adds, and that it fits every width, light and dark."""

import shutil
from pathlib import Path

import pytest
from test_report import HELD_OUT, ROUNDS, TRAIN, K, make_run

from raft_core.report.page import write_report

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
WIDTHS = (390, 768, 1280, 1440)
CONTRASTS = (Path(__file__).parents[2] / "contrast.js").read_text()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    return {kind: write_report(make_run(folder / kind, kind)).resolve().as_uri() for kind in ("image", "text")}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def open_report(browser):
    """``open_report(address, width, **settings)``; the test fails if the console shows an error, such as a blocked script."""
    contexts, errors = [], []

    def opened(address, width=1280, **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors


def test_the_slider_shows_one_round_of_one_prompt(reports, open_report):
    page = open_report(reports["image"])
    panels = page.locator("#rounds .panel:visible")
    assert panels.count() == 1 and page.locator("#round-number").inner_text() == str(ROUNDS)
    page.locator("#round").focus()
    for _ in range(ROUNDS - 1):
        page.keyboard.press("ArrowLeft")
    assert page.locator("#round-number").inner_text() == "1" and panels.get_attribute("data-round") == "0"
    page.locator("#prompt").select_option(TRAIN[2].text)
    assert panels.count() == 1 and panels.get_attribute("data-caption") == TRAIN[2].text
    assert panels.locator(".all .cell").count() == K
    assert page.locator("#ends h3:visible").inner_text() == TRAIN[2].text  # the samples side by side follow
    page.locator("[data-go]").first.click()  # the first prompt's best of the first round
    assert panels.get_attribute("data-caption") != TRAIN[2].text and panels.get_attribute("data-round") == "0"


def test_play_goes_to_the_last_round_and_stops(reports, open_report):
    page = open_report(reports["image"])
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").wait_for()
    page.get_by_role("button", name="Play").wait_for()
    assert page.locator("#round-number").inner_text() == str(ROUNDS)


def test_samples_are_pointed_at_and_enlarged_by_the_keyboard(reports, open_report):
    page = open_report(reports["image"])
    cells = page.locator("#rounds .panel:visible .all .cell")
    cells.first.focus()
    assert page.locator("#pointed").inner_text().startswith(f"1 of {K} · brightness ")
    page.keyboard.press("ArrowRight")
    assert page.locator("#pointed").inner_text().startswith(f"2 of {K} · ")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    assert dialog.get_by_role("listitem").first.inner_text() == f"2 of {K}"
    assert dialog.locator(".pic").evaluate("e => getComputedStyle(e).backgroundImage.startsWith('url') && e.offsetWidth") > 100
    page.keyboard.press("ArrowRight")
    assert dialog.get_by_role("listitem").first.inner_text() == f"3 of {K}"
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.locator("#pairs button").first.click()
    dialog.wait_for()
    assert dialog.locator("img").count() == 2 and "brightness" in dialog.inner_text()


def test_the_filter_leaves_the_prompts_that_contain_a_word(reports, open_report):
    page = open_report(reports["image"])
    page.get_by_label("Only prompts with").fill(HELD_OUT[0].text[-12:].upper())
    assert page.locator("#pairs > figure:visible").count() == 1
    page.get_by_label("Only prompts with").fill("no such word")
    assert page.locator("#pairs > figure:visible").count() == 0
    assert page.get_by_text("No prompt contains that.").is_visible()


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_width_and_can_be_read(reports, open_report, kind, scheme):
    page = open_report(reports[kind], color_scheme=scheme)
    for details in page.locator("details").all():
        details.evaluate("e => e.open = true")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRASTS) == []


def test_it_is_whole_without_its_script(reports, open_report):
    page = open_report(reports["image"], java_script_enabled=False)
    assert page.locator("#pairs > figure:visible").count() == len(HELD_OUT)
    assert page.locator("#rounds .panel:visible").count() == 1
    assert page.locator(".matrix td .pic:visible").count() == ROUNDS * len(TRAIN)
    assert page.locator("#play").is_hidden()


def test_it_can_be_printed(reports, open_report):
    page = open_report(reports["image"])
    page.emulate_media(media="print")
    assert page.locator("#play").is_hidden() and page.locator(".matrix").is_visible()
    assert page.pdf()[:4] == b"%PDF"
