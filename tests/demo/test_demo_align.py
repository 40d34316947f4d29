"""The page Align: what its knobs make of a recipe, the line of alignments, and the page itself in a browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import NARROW, WIDE, served, shot
from pretended import pretended_run

from raft_core.errors import ConfigError, DataError, StoreError
from raft_core.machine.lock import Lock
from raft_demo.align import recipes
from raft_demo.align.knobs import MIXES, NONE, OWN, Knobs, order, prompt_lines, reward_choices, run_name
from raft_demo.queue import line as alignments
from raft_demo.queue import stages
from raft_demo.queue import standing as live
from raft_demo.queue.files import Entry
from raft_demo.queue.line import Alignments
from raft_demo.shared.limits import Limits

JOB = (sys.executable, str(Path(__file__).parent / "pretended_job.py"))
RESOLUTION = Knobs("shapes/resolution")


def raw_of(knobs: Knobs, runs: Path) -> dict[str, Any]:
    return order(knobs, runs, Limits(), ()).raw


# ---------------------------------------------------------------------- recipes and knobs


def test_recipes_are_listed_with_what_their_files_tell_of_them():
    found = recipes.recipes()
    assert found[0].name == "shapes/resolution"
    assert "headline" in found[0].about and "minute" in found[0].facts["Cost"] and found[0].rank == 8
    assert {each.modality for each in found} == {"image", "text"}
    assert "text/sums_sft" not in [each.name for each in found]  # another command's


def test_a_recipe_whose_model_would_have_to_be_fetched_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recipes, "_is_cached", lambda _: False)
    with pytest.raises(DataError, match="raft align sd15/aesthetic"):
        recipes.recipe("sd15/aesthetic")


def test_the_knobs_change_what_they_name_and_nothing_else(tmp_path: Path):
    knobs = replace(RESOLUTION, k=6, rounds=3, rank=4, learning_rate=1e-3, seed=7, steps=5, compared=2)
    raw, own = raw_of(knobs, tmp_path), recipes.recipe("shapes/resolution").raw
    assert (raw["k"], raw["rounds"], raw["seed"]) == (6, 3, 7)
    assert raw["policy"]["init_args"]["lora"] == {"rank": 4, "conv": True}
    assert raw["trainer"] == {"optimizer": {"lr": 1e-3}, "batch_size": 30, "steps": 5}
    assert raw["evaluation"] == {"k": 4, "prompts": 2}
    assert {key: raw[key] for key in ("reward", "judges", "prompts")} == {k: own[k] for k in ("reward", "judges", "prompts")}


def test_a_judge_that_is_followed_is_none_any_more_and_the_reward_that_is_not_becomes_one(tmp_path: Path):
    raw = raw_of(Knobs("shapes/aesthetic", rewards=[("gold", 1.0)]), tmp_path)
    assert raw["reward"] == {"class_path": "Gold", "init_args": {"name": "gold"}}
    assert "Gold" not in raw["judges"] and raw["judges"][-1]["init_args"]["name"] == "taste"
    assert raw["stop_when"] == ["Plateau"]  # the rule that went by the judge is gone


def test_rewards_are_mixed_by_a_combinator(tmp_path: Path):
    mixed = replace(RESOLUTION, rewards=[(OWN, 1.0), ("sharpness", -0.5), (NONE, 3.0)])
    reward = raw_of(mixed, tmp_path)["reward"]
    assert reward["class_path"] == "Weighted" and reward["init_args"]["weights"] == [1.0, -0.5]
    assert [part["class_path"] for part in reward["init_args"]["rewards"]] == ["Aesthetic", "Sharpness"]
    ranked = raw_of(replace(mixed, mix=list(MIXES)[2], rewards=[(OWN, 1.0), ("sharpness", 1.0)]), tmp_path)["reward"]
    assert ranked["class_path"] == "RankAggregate"


def test_a_page_offers_rewards_for_what_the_recipe_makes(tmp_path: Path):
    images = dict(reward_choices(tmp_path, recipes.recipe("shapes/resolution")))
    texts = dict(reward_choices(tmp_path, recipes.recipe("text/sums_raft")))
    assert "gold" in images.values() and "sentiment" not in images.values()
    assert "sentiment" in texts.values() and "gold" not in texts.values()


def test_every_mistake_is_told_at_once(tmp_path: Path):
    hostile = Knobs(
        "shapes/resolution",
        rewards=[("os.system", 1.0)],
        k=10_000,
        rounds=0,
        rank=float("nan"),
        learning_rate="fast",  # type: ignore[arg-type] - a request need not come from the page
        name="../outside",
    )
    with pytest.raises(ConfigError) as caught:
        order(hostile, tmp_path, Limits(), ())
    text = str(caught.value)
    for part in ("K is 10000", "rounds is 0", "rank is nan", "'fast'", "'../outside'", "no reward 'os.system'"):
        assert part in text
    with pytest.raises(ConfigError, match=r"no recipe '\.\./\.\./etc/passwd'"):
        order(replace(RESOLUTION, recipe="../../etc/passwd"), tmp_path, Limits(), ())


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "x" * 61, "-x", "a\n", None])
def test_a_name_that_is_no_plain_word_is_refused(name: Any):
    with pytest.raises(ConfigError, match="the name is"):
        run_name(name, (), False)


def test_a_name_that_is_taken_gets_a_number_unless_it_was_asked_for():
    assert run_name("resolution", {"Resolution", "resolution-2"}, True) == "resolution-3"
    with pytest.raises(ConfigError, match="choose another"):
        run_name("resolution", {"resolution"}, False)
    with pytest.raises(ConfigError, match="choose another"):
        run_name("rewards", (), False)  # where learned rewards are kept
    with pytest.raises(ConfigError, match="choose another name"):
        run_name("preferences", (), False)  # and choices


def test_prompts_of_a_box_are_bounded():
    assert prompt_lines(" a \n\na\nb", Limits()) == ["a", "b"]
    for text, why in (
        ("one", "at least two"),
        ("a\n" + "b" * 2001, "2001 characters"),
        ("\n".join(map(str, range(501))), "501"),
    ):
        with pytest.raises(ConfigError, match=why):
            prompt_lines(text, Limits())


# ---------------------------------------------------------------------- the line


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Alignments]:
    """A line whose alignments are pretended; what they still do is ended with the test."""
    (tmp_path / "runs").mkdir()
    made = Alignments(tmp_path / "runs", 2, JOB)
    apps.append(made)
    yield made
    while apps:
        for child in apps.pop()._children:
            child.kill()
            child.wait()


apps: list[Alignments] = []  # all that a test has made over the same folder


def restarted(line: Alignments) -> Alignments:
    """The line as the next app has it."""
    line.close()
    apps.append(Alignments(line.folder.parent, 2, JOB))
    return apps[-1]


def with_pid(entry: Entry | None, number: int) -> None:
    assert entry is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(entry.pid, number)


def until(line: Alignments, holds: Callable[[], bool]) -> None:
    """Let the line move on until something holds."""
    for _ in range(1000):
        line.tick()
        if holds():
            return
        time.sleep(0.03)
    pytest.fail(f"it never came: {line.entries()}")


def state(line: Alignments, name: str) -> str:
    entry = line.entry(name)
    return entry.state if entry else ""


def do(line: Alignments, name: str, what: str) -> None:
    (line.folder.parent.parent / f"{name}.do").write_text(what)


def began(line: Alignments) -> list[str]:
    file = line.folder.parent.parent / "began.txt"
    return file.read_text().split() if file.exists() else []


def test_alignments_run_one_at_a_time_in_the_order_in_which_they_came(line: Alignments):
    for name in ("b", "a"):
        do(line, name, "wait")
        line.add(name, "k: 1\n")
    until(line, lambda: began(line) == ["b"])
    for _ in range(5):
        line.tick()
    assert (state(line, "b"), state(line, "a"), line.ahead("a")) == ("running", "waiting", 1)
    assert "1 is before it" in live.standing(line, line.folder.parent, "a").detail
    do(line, "b", "finish")
    until(line, lambda: began(line) == ["b", "a"])
    assert state(line, "b") == "finished"
    do(line, "a", "finish")
    until(line, lambda: state(line, "a") == "finished")


def test_what_runs_outlives_the_app_and_holds_the_device_against_another(line: Alignments):
    for name in ("first", "second"):
        do(line, name, "wait")
        line.add(name, "")
    until(line, lambda: began(line) == ["first"])
    again = restarted(line)
    for _ in range(5):
        again.tick()
    assert began(line) == ["first"] and state(again, "first") == "running"
    again.stop("first")
    until(again, lambda: state(again, "first") == "stopped" and "second" in began(line))


def test_a_stopped_alignment_goes_to_the_end_of_the_line_when_it_is_resumed(line: Alignments):
    for name in ("one", "two"):
        do(line, name, "wait")
        line.add(name, "")
    until(line, lambda: began(line) == ["one"])
    line.stop("one")
    until(line, lambda: began(line) == ["one", "two"])
    with pytest.raises(DataError, match="nothing to stop"):
        line.stop("one")
    line.resume("one")
    assert line.ahead("one") == 1
    with pytest.raises(StoreError, match="waiting already"):
        line.resume("one")
    line.stop("one")  # while it waits
    assert state(line, "one") == "stopped"
    do(line, "two", "finish")
    until(line, lambda: state(line, "two") == "finished")
    with pytest.raises(StoreError, match="nothing to resume"):
        line.resume("two")


def test_one_that_was_killed_with_the_app_is_begun_again_before_those_that_wait(line: Alignments):
    for name in ("killed", "waiting"):
        do(line, name, "wait")
        line.add(name, "")
    until(line, lambda: began(line) == ["killed"])
    with_pid(line.entry("killed"), signal.SIGKILL)
    for child in line._children:
        child.wait()
    again = restarted(line)
    until(again, lambda: began(line) == ["killed", "killed"])
    assert state(again, "waiting") == "waiting"
    again.stop("killed")
    until(again, lambda: state(again, "killed") == "stopped")
    again.stop("waiting")
    until(again, lambda: not again._children)


def test_one_that_is_killed_again_and_again_is_given_up(line: Alignments):
    do(line, "big", "die")
    line.add("big", "")
    until(line, lambda: state(line, "big") == "failed")
    assert began(line) == ["big"] * alignments.ATTEMPTS
    assert "memory" in live.standing(line, line.folder.parent, "big").detail


def test_why_an_alignment_failed_is_told_in_the_words_of_its_log(line: Alignments):
    do(line, "bad", "fail")
    line.add("bad", "")
    until(line, lambda: state(line, "bad") == "failed")
    found = live.standing(line, line.folder.parent, "bad")
    assert found.detail == "the model is gone; fetch it again" and found.can_resume and not found.can_stop


def test_the_line_has_an_end_and_no_name_comes_twice(line: Alignments):
    for name in ("a", "b"):
        line.add(name, "")
    with pytest.raises(StoreError, match="2 alignments are waiting"):
        line.add("c", "")
    with pytest.raises(StoreError, match="another name"):
        line.add("a", "")
    for name in ("../x", "/etc", "nobody"):
        with pytest.raises(DataError, match="among the runs"):
            line.resume(name)
    for name in ("a", "b"):
        line.stop(name)


def test_a_run_that_was_killed_elsewhere_is_shown_as_interrupted_and_can_be_resumed(tmp_path: Path):
    pretended_run(tmp_path / "old", status="running")
    found = live.standing(Alignments(tmp_path), tmp_path, "old")
    assert found.status == "interrupted" and found.can_resume


def test_a_run_that_another_process_has_is_left_alone(tmp_path: Path):
    held = Lock(pretended_run(tmp_path / "held", status="running"))
    line = Alignments(tmp_path)
    assert live.standing(line, tmp_path, "held").status == "running"
    with pytest.raises(StoreError, match="in use by process"):
        line.resume("held")
    held.release()
    assert live.standing(line, tmp_path, "held").status == "interrupted"


def test_one_bar_goes_over_all_stages_and_never_back():
    told = [stages.done([], 0, 2)]
    for rounds in (0, 1):
        for name in ("sampling", "rendering", "scoring", "training"):
            told += [stages.done([{"name": "rounds", "done": rounds, "total": 2}, phase(name, n)], rounds, 2) for n in (0, 10)]
    told += [stages.done([phase(name, n)], 2, 2) for name in stages.COMPARISON for n in (0, 10)]
    told = [round(each, 9) for each in told]
    assert told == sorted(told) and told[0] == 0 and told[-1] == 3
    assert stages.time_left([{"time/round_s": 10.0}, {"time/round_s": 20.0}], 2.0, 2) == "about 15 s left"
    assert stages.time_left([], 0.5, 2) == ""


def phase(name: str, done: int) -> dict[str, Any]:
    return {"name": name, "done": done, "total": 10}


def test_the_bar_of_the_rounds_moves_within_a_round(tmp_path: Path):
    line = Alignments(tmp_path)
    pretended_run(tmp_path / "run", rounds=2)
    line._write(Entry("run", "running", 0.0))
    phases = [{"name": "rounds", "done": 1, "total": 2}, {"name": "sampling", "done": 5, "total": 10}]
    line.file("run", "progress").write_text(json.dumps(phases))
    shown = live.status_html(live.standing(line, tmp_path, "run"))
    planned = 2
    share = 100 * (2 + 0.35 / 2) / (planned + 1)
    assert f"Round 2 of {planned}: drawing samples" in shown and f"width:{share:.1f}%" in shown


def test_what_a_run_says_of_itself_is_escaped(tmp_path: Path):
    line = Alignments(tmp_path)
    line._write(Entry("run", "failed", 0.0, message="<script>alert(1)</script>"))
    assert "<script>" not in live.status_html(live.standing(line, tmp_path, "run"))


# ---------------------------------------------------------------------- in a browser


def choose_small(page: Any, name: str, rounds: int) -> None:
    """The bundled recipe, as small as it goes."""
    page.get_by_label("number input for Rounds").fill(str(rounds))
    page.get_by_label("number input for K").fill("2")
    page.get_by_role("button", name="Prompts, seed and more").click()
    page.locator("#align-prompts textarea").fill("a red circle\na blue square\na green triangle\n")
    page.locator("#align-steps input").fill("2")
    page.locator("#align-compared input").fill("1")
    page.locator("#align-name input").fill(name)


def wait_for(happened: Callable[[], bool], timeout_s: float = 280) -> None:
    """Look again and again: what is shown for a moment only may be gone when a page is looked at."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def status_is(page: Any, name: str, *status: str, timeout_s: float = 280) -> None:
    """Wait until the page shows one of these."""
    shown = page.locator("#align-status .raft-status", has_text=name).locator(
        ".raft-badge", has_text=re.compile("|".join(status))
    )
    shown.wait_for(timeout=1000 * timeout_s)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_rounds_are_planned_run_and_watched(tmp_path: Path, open_page: Callable[..., Any]):
    with served(tmp_path / "runs", OMP_NUM_THREADS="1") as app:
        page = open_page(app.url, tab="Align")
        page.get_by_text("Nothing is being aligned").wait_for()
        choose_small(page, "tiny", 3)
        page.locator("#align-plan-button").click()
        page.locator("#align-plan dt", has_text="memory").wait_for(timeout=150_000)
        page.locator("#align-start").click()
        status_is(page, "tiny", "running", "finished")  # it may be over before a slow page has looked
        watcher = open_page(app.url, tab="Align", size=NARROW, dark=True)  # a second tab sees it, and the first one goes
        status_is(watcher, "tiny", "running", "finished")
        page.close()
        status_is(watcher, "tiny", "finished")
        reward = watcher.locator("#align-curves .chart", has_text="Reward").locator(".n0 circle:not(.hit)")
        reward.nth(2).wait_for()
        assert reward.count() == 3
        watcher.locator("#align-best img").first.wait_for()
        assert all(text for text in watcher.locator("#align-best img").evaluate_all("all => all.map(i => i.alt)"))
        watcher.get_by_role("button", name="Log").click()
        watcher.locator("#align-log textarea").wait_for()
        watcher.wait_for_function("document.querySelector('#align-log textarea')?.value.includes('run folder')")
        shot(watcher, "align-narrow-dark")
        shot(wide := open_page(app.url, tab="Align", size=WIDE), "align-wide")
        for each in (watcher, wide):
            each.close()  # before the app: they would miss it
    assert json.loads((tmp_path / "runs" / "tiny" / "run.json").read_text())["status"] == "finished"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_is_stopped_and_resumed_and_when_all_is_killed_the_next_app_goes_on(
    tmp_path: Path, open_page: Callable[..., Any]
):
    runs = tmp_path / "runs"
    line = Alignments(runs)
    try:
        with served(runs, OMP_NUM_THREADS="1") as app:
            page = open_page(app.url, tab="Align")
            choose_small(page, "long", 50)
            page.get_by_label("number input for K").fill("16")  # long enough to be stopped twice on a fast machine
            page.locator("#align-steps input").fill("20")
            page.locator("#align-start").click()
            page.locator("#align-curves .chart").first.wait_for(timeout=280_000)  # a round is finished
            page.locator("#align-stop").click()
            status_is(page, "long", "stopped")
            done = live.standing(line, runs, "long").rounds
            page.locator("#align-resume").click()
            status_is(page, "long", "running")
            page.close()
        with_pid(line.entry("long"), signal.SIGKILL)
        with served(runs, OMP_NUM_THREADS="1") as app:
            page = open_page(app.url, tab="Align")
            status_is(page, "long", "running")
            wait_for(lambda: live.standing(line, runs, "long").rounds > done)
            page.locator("#align-stop").click()
            status_is(page, "long", "stopped")
            page.close()
        assert live.standing(line, runs, "long").rounds > done >= 1
    finally:
        entry = line.entry("long")
        if entry and entry.pid:
            with_pid(entry, signal.SIGKILL)


@pytest.mark.slow
def test_hostile_knobs_are_refused_in_words_on_the_page(tmp_path: Path, open_page: Callable[..., Any]):
    with served(tmp_path / "runs") as app:
        page = open_page(app.url, tab="Align")
        choose_small(page, "../outside", 2)
        page.locator("#align-start").click()
        page.get_by_text("use letters, digits").wait_for()
        assert not list((tmp_path / "runs").glob(".queue/*.json")) and not (tmp_path / "outside").exists()
        page.close()
