"""The page Runs: what it reads from run folders, what it hands out, and the page itself in a browser."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import NARROW, WIDE, App, served, shot
from pretended import PROMPTS, export, pretended_run

from raft_core.errors import ConfigError, DataError, StoreError
from raft_demo.queue.files import Entry
from raft_demo.runs import downloads
from raft_demo.runs import view as runs_view
from raft_demo.shared import gallery, run_view
from raft_demo.shared.runs import all_runs, inside


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return pretended_run(tmp_path / "run")


# ---------------------------------------------------------------------- samples


def test_samples_are_filtered_by_prompt_and_by_kept_or_dropped(run: Path):
    found = gallery.facts(run, 2)
    assert gallery.chosen(found, which=gallery.KEPT, order=gallery.DRAWN) == [3, 7]
    assert gallery.chosen(found, prompt=PROMPTS[1], which=gallery.DROPPED, order=gallery.DRAWN) == [4, 5, 6]
    assert gallery.chosen(found, prompt="another") == []


def test_samples_are_ordered_by_any_score_in_its_own_direction_and_unscored_ones_last(run: Path):
    found = gallery.facts(run, 1)
    assert gallery.chosen(found)[0] in (3, 7) and gallery.chosen(found, order=gallery.WORST)[0] in (0, 4)
    values = found.scores["noise"]
    for order, sign in ((gallery.BEST, 1), (gallery.WORST, -1)):  # of this one lower is better
        rows = gallery.chosen(found, by="noise", order=order)
        ordered = [sign * values[i] for i in rows[:-1]]
        assert ordered == sorted(ordered) and math.isnan(values[rows[-1]])
    with pytest.raises(ConfigError, match="did you mean 'taste'"):
        gallery.chosen(found, by="taset")
    with pytest.raises(ConfigError, match="choose of the lists"):
        gallery.chosen(found, which="all'; drop")


def test_cards_carry_a_picture_or_a_text_with_what_is_known_of_it(run: Path, tmp_path: Path):
    card = gallery.cards(run, 1, [5])[0]
    assert card.uri.startswith("data:image/webp") and card.prompt == PROMPTS[1] and PROMPTS[1] in card.alt
    assert card.scores["taste"] == 0.75 and not card.kept
    html = run_view.cards_html([card])
    assert "<b>blue</b>" not in html and "&lt;b&gt;blue" in html
    text = gallery.cards(pretended_run(tmp_path / "text", text=True), 1, [7, 0])
    assert [card.text for card in text] == ["<i>completion</i> 1.1.3", "<i>completion</i> 1.0.0"] and text[0].kept
    assert "<i>" not in run_view.cards_html(text)


def test_samples_of_the_newest_rounds_first_prompt_are_ranked(run: Path):
    rnd, cards = gallery.newest_ranked(run, 8)
    scores = [card.scores[gallery.facts(run, 3).reward] for card in cards]
    assert rnd == 3 and len({card.prompt for card in cards}) == 1 and scores == sorted(scores, reverse=True)
    assert len(gallery.newest_ranked(run, 1)[1]) == 1
    with pytest.raises(StoreError, match="no samples of round 9"):
        gallery.facts(run, 9)


# ---------------------------------------------------------------------- curves, lists, another K


def test_curves_of_several_runs_lie_over_one_another(tmp_path: Path):
    histories = {n: runs_view.history(pretended_run(tmp_path / n, rounds=r)) for n, r in (("short", 2), ("long", 4))}
    reward = run_view.overlaid(histories)[0]
    assert {line.label: len(line.dots) for line in reward.lines} == {"short": 2, "long": 4}
    titles = [chart.title for chart in run_view.overlaid(histories)]
    assert titles == ["Reward", "Judge: gold", "Best of K", "Diversity", "KL to the start"]
    assert run_view.overlaid({}) == []


def test_the_list_tells_status_change_and_trouble_and_escapes_what_a_run_says(run: Path):
    (run.parent / "<b>x").mkdir()
    (run.parent / "<b>x" / "run.json").write_text("{")
    html = runs_view.list_html(all_runs(run.parent), {"run": "finished"}, [Entry("queued", "waiting", 0.0)])
    assert "1.000 → 3.000" in html and "3 of 3" in html and "queued" in html
    assert "damaged" in html and "cannot be read" in html and "<b>x" not in html


def test_another_k_is_told_from_the_stored_scores(run: Path):
    html = runs_view.whatif_html(run, 4, None)
    assert "the best of 4 is expected at 1.750, +0.750 to the mean" in html  # taste: 0.25, 0.75, 1.25, 1.75 of each prompt
    assert "0.2500" not in runs_view.whatif_html(run, 2, "taste")
    with pytest.raises(ConfigError, match="choose 1 to 4"):
        runs_view.whatif_html(run, 1000, None)
    with pytest.raises(ConfigError, match="no score"):
        runs_view.whatif_html(run, 2, "__class__")


# ---------------------------------------------------------------------- files


def test_a_finished_run_hands_out_its_weights_its_card_and_its_report(run: Path, tmp_path: Path):
    assert downloads.available(run) == {}
    export(run)
    assert list(downloads.available(run)) == ["diffusers", "kohya", "card", "report", "all"]
    place = tmp_path / "place"
    place.mkdir()
    assert downloads.make(run, "kohya", place).name == "run-lora_kohya.safetensors"
    assert downloads.make(run, "diffusers", place).name == "pytorch_lora_weights.safetensors"
    with zipfile.ZipFile(downloads.make(run, "all", place)) as archive:
        assert sorted(archive.namelist()) == ["README.md", "lora_kohya.safetensors", "pytorch_lora_weights.safetensors"]
    for kind in ("peft", "../run.json", "/etc/passwd"):
        with pytest.raises(DataError, match="to take away"):
            downloads.make(run, kind, place)


def test_a_link_in_a_run_folder_leads_nowhere(run: Path, tmp_path: Path):
    (tmp_path / "secret").write_text("x")
    (run / "export").mkdir()
    (run / "export" / "README.md").symlink_to(tmp_path / "secret")
    assert downloads.available(run) == {}
    for name in ("../secret", "/etc", "..", "."):
        with pytest.raises(DataError, match="among the runs"):
            inside(run, name)


# ---------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    runs = tmp_path_factory.mktemp("runs_page") / "runs"
    export(pretended_run(runs / "pictures", rounds=3))
    pretended_run(runs / "sums", text=True, rounds=4, start=2.0)
    pretended_run(runs / "broken_off", rounds=2, status="running")
    with served(runs) as served_app:
        yield served_app


@pytest.mark.slow
def test_runs_are_listed_compared_and_looked_into(app: App, open_page: Callable[..., Any]):
    page = open_page(app.url, tab="Runs")
    row = page.locator("#runs-table tr", has_text="broken_off")
    row.locator(".raft-badge", has_text="interrupted").wait_for()
    for name in ("broken_off", "pictures", "sums"):
        page.locator("#runs-ticked").get_by_label(name, exact=True).set_checked(True)
    page.locator("#runs-curves .chart", has_text="Reward").locator(".n2").first.wait_for()
    pick(page, "runs-picked", "pictures")
    page.locator("#runs-cards img").nth(7).wait_for()
    page.locator("#runs-which").get_by_label("kept", exact=True).check()
    page.locator("#runs-note", has_text="2 samples of round 3").wait_for()
    assert page.locator("#runs-cards .mark").count() == 2
    pick(page, "runs-round", "round 1")
    page.locator("#runs-note", has_text="2 samples of round 1").wait_for()
    shot(page, "runs-wide")
    page.get_by_role("tab", name="What if").click()
    page.locator("#runs-whatif tbody tr").nth(2).wait_for()
    page.get_by_role("tab", name="Report").click()
    page.frame_locator("#runs-report iframe").get_by_role("heading", name="The report").wait_for()
    page.get_by_role("tab", name="Files").click()
    with page.expect_download() as waiting:
        page.locator("#runs-take-card").click()
    assert waiting.value.suggested_filename == "pictures-README.md"
    assert Path(waiting.value.path()).read_text() == "README.md of pictures"


@pytest.mark.slow
def test_a_run_of_texts_is_shown_on_a_telephone_in_the_dark(app: App, open_page: Callable[..., Any]):
    page = open_page(app.url, tab="Runs", size=NARROW, dark=True)
    page.locator("#runs-cards").wait_for()
    pick(page, "runs-picked", "sums")
    page.locator("#runs-cards p.output", has_text="completion").first.wait_for()
    assert page.locator("#runs-take-kohya").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    shot(page, "runs-narrow-dark")
    page.set_viewport_size(WIDE)
    shot(page, "runs-texts-wide-dark")


@pytest.mark.slow
def test_a_request_that_does_not_come_from_the_page_reads_nothing_outside(app: App, open_page: Callable[..., Any]):
    page = open_page(app.url, tab="Runs")
    page.locator("#runs-cards").wait_for()
    box = page.locator("#runs-picked input")
    box.fill("../../etc")
    box.press("Enter")
    page.get_by_text("there is no '../../etc' among the runs").first.wait_for()


def pick(page: Any, element: str, choice: str) -> None:
    """Choose of a dropdown by keyboard."""
    box = page.locator(f"#{element} input")
    box.click()
    box.fill(choice)
    page.get_by_role("option", name=choice, exact=True).first.wait_for()
    box.press("Enter")
