"""The page Preferences: questions that teach, choices that stay, a reward learned from them."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import NARROW, WIDE, go_to, served, shot, until

from raft_core.errors import DataError, RaftError
from raft_core.preferences.read import read_preferences
from raft_core.rng import numpy_rng
from raft_core.store.rounds import SAMPLES, round_folder
from raft_core.store.tables import write_samples
from raft_core.types import Prompt, Request, Sample, Scores
from raft_demo.preferences.ballot_box import FEWEST, BallotBox, agreement
from raft_demo.preferences.choices import Choices
from raft_demo.preferences.learning import job
from raft_demo.preferences.pairs import Scored, draw, standardised, value
from raft_demo.preferences.pool import pool_of
from raft_demo.preferences.work import learn
from raft_demo.shared.limits import Limits
from raft_demo.shared.offered import LEARNED, learned, offer
from raft_demo.shared.runs import inside

PROMPTS = 6
K = 4


def picture(shade: int) -> Any:
    from PIL import Image

    return Image.new("RGB", (16, 16), (shade, 255 - shade, 7 * shade % 256))


def write_run(folder: Path, *, texts: bool = False, twins: bool = False) -> Path:
    """The store of a run of one round, of which nothing was made by a model."""
    samples, n = [], PROMPTS * K
    for i in range(n):
        shade = 0 if twins else 10 * i
        output = f"answer {i}" if texts else picture(shade)
        samples.append(Sample(Request(Prompt(f"prompt {i // K}"), i % K, i), output=output))
    rng = numpy_rng(0)
    columns = {"taste": np.arange(n, dtype=float), "judge": rng.normal(size=n), "cost": rng.normal(size=n)}
    columns["judge"][3] = np.nan
    scores = Scores("taste", columns, descending=frozenset({"cost"}))
    write_samples(round_folder(folder, 1) / SAMPLES, samples, scores, np.zeros(n, dtype=bool), rnd=1)
    config = "policy: {class_path: raft_diffusion.policy.StableDiffusion, init_args: {model: 'bundled:shapes'}}\nrounds: 1\n"
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    (folder / "run.json").write_text('{"status": "finished", "config": {}}', encoding="utf-8")
    return folder


def test_choices_between_answers_in_a_conversation_keep_its_roles(tmp_path):
    folder = tmp_path / "runs" / "chat"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    prompt = Prompt("transcript", {"messages": messages})
    samples = [Sample(Request(prompt, i, i), output=text) for i, text in enumerate("xyz")]
    scores = Scores("taste", {"taste": np.arange(3.0)})
    write_samples(round_folder(folder, 1) / SAMPLES, samples, scores, np.zeros(3, dtype=bool), rnd=1)
    choices = Choices(tmp_path / "runs", "chat")
    choices.add(pool_of(folder), [0, 2], [1], "random")
    for path in (choices.path, choices.as_parquet(tmp_path / "choices.parquet")):
        (read,) = read_preferences(path).preferences
        assert read.candidates == ("x", "z") and read.target == (0, 1)
        assert [item.context for item in read.items] == [messages] * 2


# ---------------------------------------------------------------------- what is asked


def scored(columns: dict[str, list[float]], prompts: list[str] | None = None) -> Scored:
    n = len(next(iter(columns.values())))
    arrays = {name: np.array(values, dtype=float) for name, values in columns.items()}
    return Scored(prompts or ["p"] * n, arrays, "r")


def values(table: Scored, a: int, b: int) -> float:
    return float(value(table, np.array([a]), np.array([b]))[0])


def test_value_of_a_comparison_is_as_derived_by_hand():
    # r puts them ln 3 apart: p = 3/4, u = 4·3/4·1/4 = 3/4. j pulls the other way just as hard: v = 1. s = ln 3.
    table = scored({"r": [np.log(3), 0.0], "j": [0.0, np.log(3)]})
    assert values(table, 0, 1) == pytest.approx((0.75 + 1) / 2 * np.log(3))
    # Both on the same side: v = 0.
    table = scored({"r": [np.log(3), 0.0], "j": [np.log(3), 0.0]})
    assert values(table, 0, 1) == pytest.approx(0.75 / 2 * np.log(3))


def test_twins_teach_nothing_and_unscored_samples_count_nothing():
    table = scored({"r": [1.0, 1.0, np.nan], "j": [2.0, 2.0, 0.0]})
    assert values(table, 0, 1) == 0
    assert values(table, 0, 2) == pytest.approx(0)  # j alone agrees with itself, r says nothing
    assert values(Scored(["p", "p"], {}), 0, 1) == 0


def test_standardised_turns_what_is_better_when_lower():
    found = standardised(np.array([1.0, 3.0, np.nan]), descending=True)
    assert found[:2].tolist() == [1.0, -1.0]
    assert np.isnan(found[2])
    assert standardised(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]


def test_every_other_question_is_the_most_valuable_and_the_rest_are_any():
    rng = numpy_rng(1)
    table = scored({"r": rng.normal(size=11).tolist(), "j": rng.normal(size=11).tolist()})
    a, b = np.triu_indices(11, 1)
    top = (a[(best := int(np.argmax(value(table, a, b))))], b[best])
    drawn = [draw(table, set(), 2, numpy_rng(2, i)) for i in range(200)]
    hows = Counter(each.how for each in drawn if each)
    assert 70 < hows["random"] < 130
    assert all(set(each.samples) == set(map(int, top)) for each in drawn if each and each.how == "teaching")
    assert len({frozenset(each.samples) for each in drawn if each and each.how == "random"}) > 15
    assert len({each.samples[0] for each in drawn if each and each.how == "teaching"}) == 2  # now on the left, now on the right


def test_nothing_is_asked_twice_and_prompts_take_turns():
    prompts = [f"p{i // 3}" for i in range(9)]
    table = scored({"r": numpy_rng(3).normal(size=9).tolist()}, prompts)
    done: set[frozenset[int]] = set()
    while (drawn := draw(table, done, 2, numpy_rng(4, len(done)))) is not None:
        assert frozenset(drawn.samples) not in done
        assert len({prompts[i] for i in drawn.samples}) == 1
        done.add(frozenset(drawn.samples))
        counts = Counter(prompts[next(iter(samples))] for samples in done)
        assert max(counts.values()) - min(counts.get(prompt, 0) for prompt in set(prompts)) <= 1
    assert len(done) == 9  # 3 pairs of each of 3 prompts


def test_the_same_seed_asks_the_same():
    table = scored({"r": numpy_rng(3).normal(size=9).tolist()})
    first, again = (draw(table, set(), 4, numpy_rng(5)) for _ in range(2))
    assert first and again and first.samples == again.samples
    assert len(set(first.samples)) == 4


def test_fours_are_filled_up_as_far_as_a_prompt_has_samples():
    table = scored({"r": [0.0, 1.0, 2.0]})
    drawn = draw(table, set(), 4, numpy_rng(0))
    assert drawn and sorted(drawn.samples) == [0, 1, 2]


# ---------------------------------------------------------------------- what is kept


def test_choices_are_read_by_the_command_that_learns_from_them(tmp_path: Path):
    pool = pool_of(write_run(tmp_path / "mine"))
    choices = Choices(tmp_path, "mine")
    choices.add(pool, [0, 1], [1], "teaching")
    choices.add(pool, [4, 5], [0, 1], "random")
    choices.add(pool, [8, 9], [], "teaching")
    choices.add(pool, [8, 9, 10, 11], [2], "teaching")
    parquet = choices.as_parquet(tmp_path / "mine.parquet")
    for file in (choices.path, parquet):
        reading = read_preferences(file)
        assert (reading.modality, reading.unlabelled) == ("image", 1)
        assert [p.target for p in reading.preferences] == [(0.0, 1.0), (0.5, 0.5), (0.0, 0.0, 1.0, 0.0)]
        assert reading.preferences[0].prompt == "prompt 0"
        assert reading.preferences[0].candidates[1].load().getpixel((0, 0)) == picture(10).getpixel((0, 0))


def test_choices_of_texts_are_read_too(tmp_path: Path):
    pool = pool_of(write_run(tmp_path / "mine", texts=True))
    choices = Choices(tmp_path, "mine")
    choices.add(pool, [1, 0], [0], "random")
    for file in (choices.path, choices.as_parquet(tmp_path / "mine.parquet")):
        (preference,) = read_preferences(file).preferences
        assert preference.candidates == ("answer 1", "answer 0")
        assert preference.choice == 0


def test_two_who_choose_at_once_lose_nothing(tmp_path: Path):
    pool = pool_of(write_run(tmp_path / "mine"))
    ids: list[str] = []

    def label() -> None:
        own = Choices(tmp_path, "mine")  # as another visitor's request has it
        for i in range(10):
            ids.append(own.add(pool, [2 * (i % 2), 2 * (i % 2) + 1], [0], "teaching"))
            if i % 5 == 4:
                assert own.take_back(ids[-1])

    threads = [threading.Thread(target=label) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = Choices(tmp_path, "mine").read()
    assert len(made) == 4 * 8
    assert len({choice.id for choice in made}) == 32


def test_half_a_line_is_cut_off_and_costs_no_other(tmp_path: Path):
    pool = pool_of(write_run(tmp_path / "mine"))
    choices = Choices(tmp_path, "mine")
    choices.add(pool, [0, 1], [0], "teaching")
    with choices.path.open("a") as file:
        file.write('{"prompt": "a crash came')
    assert len(choices.read()) == 1
    choices.add(pool, [0, 2], [0], "teaching")
    assert [len(choice.samples) for choice in choices.read()] == [2, 2]
    assert all(json.loads(line) for line in choices.path.read_text().splitlines())


def test_pictures_of_older_choices_stay_when_a_run_of_the_same_name_is_made_anew(tmp_path: Path):
    choices = Choices(tmp_path, "mine")
    choices.add(pool_of(write_run(tmp_path / "mine")), [0, 1], [0], "teaching")
    before = choices.path.read_text()
    shutil.rmtree(tmp_path / "mine")
    write_run(tmp_path / "mine", twins=True)
    pool = pool_of(tmp_path / "mine")
    choices.add(pool, [0, 1], [0], "teaching")
    assert choices.path.read_text().startswith(before)
    (first, *_) = read_preferences(choices.path, skip_invalid=True).preferences
    assert first.candidates[1].load().getpixel((0, 0)) == picture(10).getpixel((0, 0))


# ---------------------------------------------------------------------- what the page asks of the server


def begun(box: BallotBox, n: int = 2) -> dict[str, Any]:
    return box.begin({"run": "mine", "n": n, "visitor": 7})


def choose(box: BallotBox, question: dict[str, Any], best: list[int], **other: Any) -> dict[str, Any]:
    asked = {"run": "mine", "n": 2, "visitor": 7, "samples": question["samples"], "drawn": question["drawn"], "pending": []}
    return box.choose({**asked, "best": best, **other})


def test_a_page_is_given_questions_ahead(tmp_path: Path):
    write_run(tmp_path / "mine")
    box = BallotBox(tmp_path)
    found = begun(box)
    assert [len(question["outputs"]) for question in found["questions"]] == [2, 2, 2]
    assert found["questions"][0]["outputs"][0].startswith("data:image/webp;base64,")
    pending = [question["samples"] for question in found["questions"][1:]]
    answer = choose(box, found["questions"][0], [1], pending=pending)
    assert answer["counts"] == {"chosen": 1, "ties": 0, "passed": 0, "prompts": 1}
    (more,) = answer["questions"]
    assert sorted(more["samples"]) not in [sorted(samples) for samples in [*pending, found["questions"][0]["samples"]]]
    assert box.undo({"run": "mine", "id": answer["id"]})["counts"]["chosen"] == 0


def test_equal_pictures_are_not_asked_about(tmp_path: Path):
    write_run(tmp_path / "mine", twins=True)
    assert begun(BallotBox(tmp_path))["questions"] == []


def test_agreement_is_that_of_the_reward_with_what_was_chosen(tmp_path: Path):
    pool = pool_of(write_run(tmp_path / "mine"))
    choices = Choices(tmp_path, "mine")
    choices.add(pool, [0, 1], [1], "teaching")  # taste rises with the row
    choices.add(pool, [5, 4], [0], "random")
    choices.add(pool, [8, 9], [0], "random")
    choices.add(pool, [8, 10], [0, 1], "random")  # a tie, and what was passed over, say nothing
    choices.add(pool, [8, 11], [], "random")
    choices.add(pool, [2, 3], [1], "teaching")
    rates = agreement(pool, choices.read())
    assert (rates["taste"].n, rates["taste"].value) == (4, 0.75)
    assert rates["taste"].prompts == len({choice.prompt for choice in choices.read()[:3]} | {choices.read()[-1].prompt})
    assert rates["judge"].n == 3  # it has not scored one of them
    assert agreement(pool, choices.read(), "random")["taste"].value == 0.5


@pytest.mark.parametrize(
    "changed",
    [
        {"run": "../mine"},
        {"run": "/etc"},
        {"run": ""},
        {"n": 100000},
        {"samples": [[1, 0], [1, 999]]},
        {"samples": [[1, 0], [1, K]]},  # of two prompts
        {"samples": [[1, 0], [1, 0]]},
        {"samples": [[1, 0]]},
        {"samples": "everything"},
        {"samples": [[1, [0]], [{}, 1]]},
        {"best": [2]},
        {"best": [0, 0]},
        {"best": "left"},
        {"best": [True]},
        {"drawn": "<script>"},
        {"drawn": ["teaching"]},
    ],
)
def test_what_no_page_would_ask_is_refused_in_words(tmp_path: Path, changed: dict[str, Any]):
    write_run(tmp_path / "mine")
    box = BallotBox(tmp_path)
    question = begun(box)["questions"][0]
    answer = choose(box, question, **{"best": [0], **changed})
    assert set(answer) == {"error"}
    assert "not foreseen" not in answer["error"]
    assert not Choices(tmp_path, "mine").read()


def test_calls_that_are_no_calls_are_refused(tmp_path: Path):
    box = BallotBox(tmp_path)
    for call in (box.begin, box.choose, box.undo):
        for asked in (None, [], "x", {}):
            assert "error" in call(asked)
    with pytest.raises(DataError):
        inside(tmp_path, "..")


# ---------------------------------------------------------------------- what is learned


class FakeStudio:
    """What ``job`` needs of a studio."""

    def __init__(self, runs: Path):
        self.runs, self.limits = runs, Limits()

    def run_folder(self, name: str) -> Path:
        return inside(self.runs, name)


def labelled(runs: Path, count: int, prompts: int = PROMPTS) -> Choices:
    pool = pool_of(write_run(runs / "mine"))
    choices = Choices(runs, "mine")
    for i in range(count):
        first = (i % prompts) * K
        choices.add(pool, [first + i // prompts % (K - 1), first + K - 1], [1], "teaching")
    return choices


@pytest.mark.parametrize(
    ("count", "prompts", "name", "said"),
    [
        (FEWEST - 1, PROMPTS, "mine", "1 more"),
        (FEWEST, 1, "mine", "one prompt"),
        (FEWEST, PROMPTS, "", "no name"),
        (FEWEST, PROMPTS, "../mine", "cannot be used"),
        (FEWEST, PROMPTS, "a/b", "cannot be used"),
        (FEWEST, PROMPTS, "os.system", "cannot be used"),
        (FEWEST, PROMPTS, "taste", "another reward"),
        (FEWEST, PROMPTS, "there", "already"),
    ],
)
def test_what_cannot_be_learned_is_said_before_a_model_is_loaded(
    tmp_path: Path, count: int, prompts: int, name: str, said: str
):
    labelled(tmp_path, count, prompts)
    (tmp_path / "rewards" / "there").mkdir(parents=True)
    with pytest.raises(RaftError, match=said):
        job(FakeStudio(tmp_path), "mine", name)  # type: ignore[arg-type]


def test_a_reward_is_learned_and_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    labelled(tmp_path, FEWEST + 2)
    (told,) = learn(**job(FakeStudio(tmp_path), "mine", "my-taste"))  # type: ignore[arg-type]
    assert told["preferences"] == FEWEST + 2
    assert told["held_out"]["n"] == 2  # one prompt of six
    (found,) = learned(tmp_path)
    assert (found.key, found.name, found.modality) == (f"{LEARNED}my-taste", "my-taste", "image")
    assert offer(tmp_path, found.key).spec["init_args"]["folder"] == str(tmp_path / "rewards" / "my-taste")
    with pytest.raises(RaftError, match="already"):
        job(FakeStudio(tmp_path), "mine", "my-taste")  # type: ignore[arg-type]


# ---------------------------------------------------------------------- in a browser

COUNTS = "#preferences-board .counts"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    runs = tmp_path_factory.mktemp("labelling") / "runs"
    write_run(runs / "small")
    with served(
        runs, XDG_CACHE_HOME=str(runs.parent / "cache"), MPLCONFIGDIR=str(Path.home() / ".cache" / "matplotlib")
    ) as app:
        yield app


def press(page: Any, key: str) -> None:
    page.wait_for_timeout(200)  # a key within a moment of a new question is taken for one that came late
    page.keyboard.press(key)


def answer(page: Any, key: str) -> None:
    """Answer the question that is shown. The next one is there at once, before the server has answered.

    A page that has no next question yet, because the server is busy, lets the key pass.
    """
    picture = page.locator("#preferences-board .candidate img").first
    before = picture.get_attribute("src")
    until(page, lambda: press(page, key), lambda: picture.get_attribute("src") != before)


def wait_for_counts(page: Any, text: str) -> None:
    page.locator(COUNTS).get_by_text(text).wait_for()


@pytest.mark.slow
def test_ten_preferences_by_keyboard_become_a_reward_in_align(app: Any, open_page: Any):
    page = open_page(app.url, tab="Preferences", size=WIDE)
    page.locator("#preferences-board .candidate img").first.wait_for()
    assert page.locator("#preferences-board .candidate img").first.get_attribute("alt").startswith("the left sample for: ")
    for i in range(10):
        answer(page, "ArrowLeft" if i % 2 else "ArrowRight")
    wait_for_counts(page, "10 chosen")
    press(page, "u")
    wait_for_counts(page, "9 chosen")
    answer(page, "ArrowUp")
    wait_for_counts(page, "9 chosen · 1 equal")
    answer(page, "ArrowDown")
    wait_for_counts(page, "1 passed over")
    answer(page, "ArrowRight")
    wait_for_counts(page, "10 chosen")
    lines = [json.loads(line) for line in (app.runs / "preferences" / "small.jsonl").read_text().splitlines()]
    assert [line["best"] for line in lines] == [1, 0] * 4 + [1, [0, 1], None, 1]
    shot(page, "preferences_wide")

    name = page.get_by_label("Name of the reward")
    name.fill("u-taste")  # its letters are no answers
    wait_for_counts(page, "10 chosen")
    page.get_by_role("button", name="Learn a reward").click()
    page.locator("#preferences-outcome").get_by_text("was learned from 11 choices").wait_for(timeout=270_000)
    shot(page, "preferences_learned")
    assert [each.name for each in learned(app.runs)] == ["u-taste"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the choices").click()
    assert len(read_preferences(shutil.copy(download.value.path(), app.runs.parent / "got.parquet")).preferences) == 11

    go_to(page, "Align")
    box, offered = page.locator("#align-reward input"), page.get_by_role("option", name="u-taste").first
    until(page, lambda: (box.blur(), box.click()), offered.is_visible)  # the page asks the server what there is by now


@pytest.mark.slow
def test_four_at_a_time_on_a_narrow_dark_page(app: Any, open_page: Any):
    page = open_page(app.url, tab="Preferences", size=NARROW, dark=True)
    page.locator("#preferences-board .candidate img").first.wait_for()
    page.get_by_label("four").check()
    page.locator("#preferences-board .candidate").nth(3).wait_for()
    shot(page, "preferences_narrow_dark")
    before = len(Choices(app.runs, "small").read())
    page.locator("#preferences-board .candidate").nth(2).click()
    page.locator("#preferences-board [data-act=undo]:enabled").wait_for()
    until(page, lambda: None, lambda: len(Choices(app.runs, "small").read()) > before)
    made = Choices(app.runs, "small").read()
    assert len(made) == before + 1
    assert (len(made[-1].samples), made[-1].best) == (4, (2,))
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


@pytest.mark.slow
def test_without_a_run_the_page_says_what_to_do(tmp_path: Path, open_page: Any):
    with served(tmp_path / "runs") as app:
        page = open_page(app.url, tab="Preferences")
        page.get_by_text("Nothing to compare yet").wait_for()
        shot(page, "preferences_empty")
