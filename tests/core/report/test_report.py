import base64
import hashlib
import html
import html.parser
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageSequence

from raft_core.errors import DataError, StoreError
from raft_core.evaluation.evaluate import evaluate
from raft_core.evaluation.files import write_results
from raft_core.format import evenly, size
from raft_core.loop import align
from raft_core.metrics.statistics import Estimate
from raft_core.monitoring.monitor import Monitor
from raft_core.monitoring.stopping import KlAbove
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.report.animation import frames, write_animation
from raft_core.report.data import charts, costs, known_rules, read_run_data
from raft_core.report.differing import marked_words
from raft_core.report.facts import component, policy_facts
from raft_core.report.page import page_of, write_report
from raft_core.report.pictures import best_median_worst, first_of_each, view
from raft_core.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Series, chart, plot, tick_label, whisker
from raft_core.report.render import render_page, write_plot
from raft_core.report.rounds import SHOWN_SAMPLES, story
from raft_core.report.words import account, headline
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.best_of_k import BestOfK
from raft_core.store.store import Store
from raft_core.testing import FakePolicy, FakeReward
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt, Request

ROUNDS, K = 3, 3
TRAIN = [Prompt(f"a thing of kind {i}") for i in range(3)]
HELD_OUT = [Prompt("<script>alert('held & out')</script>"), *[Prompt(f"another of kind {i}") for i in range(4)]]


class Worse(FakeReward):
    """A judge that falls as the reward rises."""

    def __call__(self, samples):
        return -super().__call__(samples)


def make_run(folder, modality="image", rounds=ROUNDS):
    policy = FakePolicy(modality, buckets=2)
    scorer = Scorer(FakeReward("brightness"), [Worse("darkness"), FakeReward("flaky", fails_on=5)])
    rule = {"class_path": "raft_core.monitoring.stopping.KlAbove", "init_args": {"limit": 1e-6}}
    config = {"rounds": rounds, "selector": {"class_path": "raft_core.selectors.best_of_k.BestOfK"}, "warn_when": [rule]}
    with Store.create(folder, config, seed=7) as store:
        store.note(policy=policy.describe())
        trainer = Trainer(optimizer=Optimizer(lr=0.3), steps=4)
        trainer.attach(policy, 7, rounds)
        parts = (policy, PromptSet(TRAIN, HELD_OUT, 3, 7), scorer, BestOfK(), Sft(), trainer, store)
        reason = align(*parts, Monitor(stop_when=[]), rounds=rounds, k=K)
        evaluations = [
            evaluate(policy, prompts, scorer, k=3, seed=7, split=split)
            for split, prompts in (("train", TRAIN), ("heldout", HELD_OUT))
        ]
        write_results(folder, rounds, evaluations)
        store.ended("finished", reason)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report") / "shapes")


@pytest.fixture(scope="module")
def page(run):
    return write_report(run).read_text(encoding="utf-8")


class Elements(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, name):
        return [attrs for tag, attrs in self.found if tag == name]


def test_the_page_stands_alone(page):
    elements = Elements(page)
    assert not elements.all("link") and not elements.all("iframe") and not any("src" in each for each in elements.all("script"))
    images = elements.all("img")
    assert images and all(image["src"].startswith("data:image/webp;base64,") and image["alt"] for image in images)
    assert (
        "http" not in page.replace("http-equiv", "")
        and page.count("url(") == page.count("url(data:image/webp;base64,") == ROUNDS
    )
    assert len(page) < 500_000


def test_the_page_runs_its_own_script_alone(page):
    (rule,) = [meta["content"] for meta in Elements(page).all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in rule and "default-src 'none'" in rule and "img-src data:" in rule


def test_prompts_are_text_and_never_markup(page):
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(&#39;held &amp; out&#39;)&lt;/script&gt;" in page


def test_every_part_is_there(page):
    headings = ["Round by round", "How alike they became", "Reward, judges, diversity", "Best, median and worst change"]
    headings += ["What changed", "Samples without a score", "What was run"]
    places = [page.index(f"<h2>{heading}</h2>") for heading in headings]
    assert places == sorted(places)
    assert page.index('id="hero"') < places[0]  # pictures first
    for title in ("Reward: brightness", "Judge: darkness", "KL", "Diversity", "Loss"):
        assert f"<b>{title}</b>" in page
    assert "BestOfK" in page and "all 3 rounds are done" in page


def test_json_has_the_numbers_of_the_page(run, page):
    numbers = json.loads((run / "report/report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    stored = json.loads((run / "evaluation/evaluation.json").read_text())["evaluations"]
    assert sorted(numbers["evaluations"], key=lambda e: e["split"]) == sorted(stored, key=lambda e: e["split"])
    assert [row["round"] for row in numbers["history"]] == [1, 2, 3]
    assert numbers["history"] == [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {cost["phase"] for cost in numbers["costs"]} == {"sample", "render", "train"}
    for sentence in numbers["sentences"]["On 5 held-out prompts"]:
        assert sentence in page


def test_what_went_wrong_is_at_the_top(page):
    top = page[page.index("<body>") : page.index("<h2>")]
    assert "The judge darkness got worse on held-out prompts" in top
    assert "Kl is" in top and "above 1e-06" in top
    assert "flaky" in page[page.index("Samples without a score") :]


def test_settings_are_in_words_and_not_as_a_program_writes_them():
    kl = {"beta": 0.0, "target": 6, "horizon": 10_000}
    ppo = {
        "class_path": "raft_core.objectives.ppo.Ppo",
        "init_args": {"clip": 0.2, "clip_high": None, "whiten": True, "kl": kl},
    }
    assert component(ppo) == "Ppo: clip 0.2, whiten, kl (beta 0.0, target 6, horizon 10,000)"
    mixed = {"class_path": "Weighted", "init_args": {"rewards": [{"class_path": "Gold"}, ppo], "weights": [1, 0.5]}}
    assert component(mixed).startswith("Weighted: rewards Gold Ppo: clip 0.2") and component(mixed).endswith("weights 1 0.5")
    assert (component({"class_path": "a.b.BestOfK"}), component("BestOfK"), component(None)) == ("BestOfK", "BestOfK", "")
    described = {"lora": {"rank": 8, "alpha": None, "targets": ["to_q", "to_k"], "conv": True, "text_encoder": False}}
    facts = policy_facts(described | {"trained_parameters": 236032, "template": "Question:\n{prompt}\n"})
    assert facts == {
        "Policy: lora": "rank 8, targets to_q to_k, conv",
        "Policy: trained parameters": "236,032",
        "Policy: template": "Question: {prompt}",
    }


@pytest.mark.parametrize("name", ["raft_diffusion/bundled/examples/resolution", "raft_text/bundled/examples/sums_raft"])
def test_no_page_shows_python(name):
    page = html.unescape(render_page(page_of(read_run_data(Path(__file__).parents[3] / name))))
    shown = page[page.index("<h2>What was run</h2>") : page.index("<summary>Configuration</summary>")]
    assert "lora" in shown
    for python in ("{'", "['", "None", "True", "False", "_parameters", "Selector: "):
        assert python not in shown


def test_pairs_are_chosen_by_rule(run):
    evaluation = next(e for e in read_run_data(run).evaluations if e.split == "heldout")
    assert [(pair.prompt, pair.index) for pair in first_of_each(evaluation)] == [(p.text, 0) for p in HELD_OUT]
    chosen = best_median_worst(evaluation)
    changes = [pair.change for pairs in chosen.values() for pair in pairs]
    assert list(chosen) == ["Best change", "Median change", "Worst change"]
    assert changes == sorted(changes, reverse=True)
    reward = evaluation.scores_after.columns["brightness"] - evaluation.scores_before.columns["brightness"]
    assert changes[0] == reward.max() and changes[-1] == reward.min()


def test_the_rounds_show_every_sample_best_first_and_mark_the_kept(run, page):
    data = read_run_data(run)
    told = story(data.rounds, {row["round"]: row for row in data.history}, data.stored)
    assert told is not None and set(told.prompts) == {p.text for p in TRAIN} and told.shared and not told.note
    scores = data.rounds[0].scores.columns["brightness"]
    for place, prompt in enumerate(told.prompts):
        panel = told.rounds[0].panels[place]
        assert panel is not None
        rows = [i for i, sample in enumerate(data.rounds[0].samples) if sample.prompt.text == prompt]
        assert panel.best == f"{max(scores[i] for i in rows):.3f}"
        assert [cell.kept for cell in panel.cells] == [True, False, False]  # BestOfK
        assert [cell.title.split(" · ")[0] for cell in panel.cells] == ["1 of 3", "2 of 3", "3 of 3"]
        assert [(cell.x, cell.y) for cell in panel.cells] == [(0, place), (1, place), (2, place)]
    assert all(both for both in told.ends)
    cells = ROUNDS * len(TRAIN) * K
    assert page.count('class="cell kept"') >= ROUNDS * len(TRAIN) and page.count('<i class="pic"') >= cells


def test_of_many_samples_the_kept_ones_are_among_those_shown(run):
    data = read_run_data(run)
    one = data.rounds[0]
    n = 2 * SHOWN_SAMPLES
    prompt = one.samples[0].prompt
    samples = [replace(one.samples[0], request=Request(prompt, i, i)) for i in range(n)]
    scores = replace(one.scores, columns={"brightness": np.arange(n, dtype=float)}, failures={})
    told = story([replace(one, samples=samples, scores=scores, kept=[i == n - 1 for i in range(n)])], {}, 1)
    assert told is not None and told.rounds[0].panels[0] is not None
    cells = told.rounds[0].panels[0].cells
    assert len(cells) == SHOWN_SAMPLES and [cell.kept for cell in cells] == [True] + [False] * (SHOWN_SAMPLES - 1)
    assert f"{SHOWN_SAMPLES} of {n} samples" in told.note
    assert told.ends == [None]  # of one round there is no before and after


def test_rounds_of_other_prompts_each_show_some_of_theirs(run):
    data = read_run_data(run)
    others = []
    for one in data.rounds:
        requests = [replace(s.request, prompt=Prompt(f"{s.prompt.text}, {one.rnd}")) for s in one.samples]
        others.append(replace(one, samples=[replace(s, request=r) for s, r in zip(one.samples, requests, strict=True)]))
    told = story(others, {}, ROUNDS)
    assert told is not None and not told.shared
    assert all(sum(panel is not None for panel in one.panels) == len(TRAIN) for one in told.rounds)
    assert told.rounds[-1].panels[told.begins] is not None
    page = render_page(replace(page_of(data), story=told))
    assert "The best of every prompt in every round" not in page and "How alike they became" not in page


def test_what_came_of_a_run_in_sentences(run):
    data = read_run_data(run)
    first, judges, *_ = headline(data)
    assert first.startswith("On 5 held-out prompts, brightness rose from ") and "% of the samples got better" in first
    assert "darkness fell from" in judges and "flaky" in judges
    told = " ".join(sentence for paragraph in account(data, costs(data.history)) for sentence in paragraph)
    assert "Each of its 3 rounds drew 9 samples, 3 for each of 3 prompts, and brightness scored them." in told
    assert "It ended because all 3 rounds are done." in told and "The rounds took" in told
    assert not re.search(r"[{}\[\]_]", told)


def test_texts_are_shown_as_texts(tmp_path):
    folder = make_run(tmp_path / "texts", "text", rounds=1)
    elements = Elements(page := write_report(folder).read_text(encoding="utf-8"))
    assert not elements.all("img") and 'class="pic"' not in page
    assert read_run_data(folder).rounds[0].samples[0].output in page
    assert "<h2>Round by round</h2>" in page
    assert page.index("Best change") < page.index("Worst change") < page.index("The first samples")


def test_words_that_differ_are_marked():
    before, after = marked_words("the cat sat on the mat, quite still", "the dog sat on the mat, quite still")
    assert before == (("the ", False), ("cat ", True), ("sat on the mat, quite still", False))
    assert after == (("the ", False), ("dog ", True), ("sat on the mat, quite still", False))
    assert marked_words("one thing", "something else") == ((("one thing", False),), (("something else", False),))
    long = "word " * 3000
    assert marked_words(long, "word") == (((long, False),), (("word", False),))


def test_an_animation_shows_the_same_prompts_round_after_round(run):
    for kind in ("gif", "webp"):
        with Image.open(write_animation(run, kind)) as moving:
            assert sum(1 for _ in ImageSequence.Iterator(moving)) == ROUNDS + 1  # and the trained model
            assert moving.info["loop"] == 0
    shown = frames(read_run_data(run))
    assert [frame.heading for frame in shown] == ["Round 1 of 3", "Round 2 of 3", "Round 3 of 3", "Trained"]
    assert [len(row) for row in shown[0].samples] == [len(TRAIN)] * K
    assert sum(mark for row in shown[0].kept for mark in row) == len(TRAIN)


def test_there_is_no_animation_of_texts(tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        write_animation(make_run(tmp_path / "texts", "text", rounds=1))


def test_a_run_that_has_only_begun_has_a_report(tmp_path):
    folder = tmp_path / "begun"
    with Store.create(folder, {"rounds": 5}, seed=1) as store:
        store.ended("interrupted", "stopped by a signal")
    page = write_report(folder).read_text(encoding="utf-8")
    assert "The run was interrupted: stopped by a signal" in page
    assert "No round is finished yet." in page and "No before/after comparison" in page


def test_damage_is_said_and_the_rest_is_shown(tmp_path):
    folder = make_run(tmp_path / "damaged", rounds=2)
    (folder / "evaluation/heldout.parquet").write_bytes(b"not a table")
    (folder / "rounds/0002/samples.parquet").write_bytes(b"not a table")
    page = write_report(folder).read_text(encoding="utf-8")
    top = page[page.index("<body>") : page.index("<h2>")]
    assert "evaluation" in top and "round 2" in top
    assert "<b>Round 1</b>" in page and "<b>Round 2</b>" not in page and "<b>Reward: brightness</b>" in page


def test_no_run_no_report(tmp_path):
    with pytest.raises(StoreError, match="holds no run"):
        write_report(tmp_path)


def test_a_report_runs_no_code_that_a_run_folder_names():
    entries = [
        {"class_path": "os.system", "init_args": {"command": "false"}},
        {"class_path": "raft_core.monitoring.stopping.importlib"},
        {"class_path": "raft_core.monitoring.stopping.KlAbove", "init_args": {"limit": -1}},  # refused by the rule itself
        {"class_path": "raft_core.monitoring.stopping.KlAbove", "init_args": {"limit": 2.0}},
        {"class_path": "KlAbove", "init_args": {"limit": 3.0}},
    ]
    assert list(known_rules(entries)) == [KlAbove(2.0), KlAbove(3.0)]


def test_chart_by_hand():
    drawn = chart("t", [1, 2, 3], {"a": [0.0, math.nan, 2.0], "b": [1.0, 1.0, 1.0]})
    assert drawn is not None
    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    first, second = drawn.lines
    assert first.path == f"M{left:.1f} {bottom:.1f} M{right:.1f} 10.0"  # the missing value breaks the line
    assert [dot.text for dot in first.dots] == ["round 1, a: 0.000", "round 3, a: 2.000"]
    assert second.dots[1].x == (left + right) / 2 and second.dots[1].y == pytest.approx((10 + bottom) / 2)
    assert [tick.label for tick in drawn.x_ticks] == ["1", "2", "3"]
    assert drawn.y_ticks[0].label == "0.0"
    assert "a from 0.000 to 2.000" in drawn.summary


def test_a_plot_over_any_x_by_hand():
    """Between 62 and 190 of 200 and 10 and 62 of 100: the room that the names of the axes leave."""
    rising = Series("a & b", [0, 2], [0, 4], low=[0, 2], high=[0, math.nan], radii=[3, 4])
    flat = Series("", [0, 1, 2], [2, math.nan, 2], dashed=True, colour=7)
    drawn = plot("t", [rising, flat], x_label="x", y_label="y", x_span=(0, 2), y_span=(0, 4), size=(200, 100))
    first, second = drawn.lines
    assert first.path == "M62.0 62.0 L190.0 10.0" and second.path == "M62.0 36.0 M190.0 36.0"
    assert [(dot.x, dot.y, dot.radius, dot.text) for dot in first.dots][1] == (190.0, 10.0, 4, "a & b: 2.000, 4.000")
    assert (first.colour, first.band, second.colour, second.dashed, second.label) == (0, "", 7, True, "")
    assert drawn.legend == [first]
    banded = plot("t", [replace(rising, high=[1, 4])], x_span=(0, 2), y_span=(0, 4), size=(200, 100))
    assert banded.lines[0].band == "M46.0 61.0 L190.0 10.0 L190.0 44.0 L46.0 78.0 Z"
    with pytest.raises(ValueError, match="no finite value"):
        plot("t", [Series("a", [1], [math.nan])])


def test_plots_side_by_side_are_one_file_that_is_xml(tmp_path):
    first = plot("<one>", [Series("a & b", [0, 1], [0, 1]), Series("", [0, 1], [0, 2], dashed=True, colour=0)], y_label="y")
    second = plot("two", [Series("c", [0, 1], [1, 1])], size=(480, 330))
    tree = ElementTree.parse(write_plot([first, second], tmp_path / "plot.svg"))
    texts = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<one>", "two", "a & b", "c", "y"} <= set(texts)
    assert tree.getroot().get("width") == "800"
    groups = [element.get("class") for element in tree.iter("{http://www.w3.org/2000/svg}g") if element.get("class")]
    assert groups.count("line n0 dashed") == 1


def test_what_the_objective_says_of_its_rounds_is_drawn_and_what_costs_are_is_not():
    rows = [{"round": r, "ppo/value_loss": 1 / r, "ppo/kl_coefficient": 0.1, "time/train_s": 1.0, "kl": 0.0} for r in (1, 2)]
    titles = {drawn.title: drawn.note for drawn in charts([{**row, "select/kept": 3, "train/lr": 0.1} for row in rows])}
    assert titles == {
        "Ppo: value loss": "of the objective",
        "Ppo: kl coefficient": "of the objective",
        "KL": "estimate, before each update",
    }


def test_chart_of_one_round_of_constants_and_of_nothing():
    single = chart("t", [1], {"a": [5.0]})
    assert single is not None and len(single.lines[0].dots) == 1
    assert chart("t", [1, 2], {"a": [math.nan, math.nan]}) is None
    merged = chart("t", [1, 2], {"mean": [0.0, 1.0], "best": [1.0, 2.0], "kept": [1.0, 2.0]})
    assert merged is not None and [line.label for line in merged.lines] == ["mean", "best = kept"]


@pytest.mark.parametrize(("ticks", "labels"), [([0, 0.25, 0.5], ["0.00", "0.25", "0.50"]), ([-10, 0, 10], ["−10", "0", "10"])])
def test_tick_labels_have_the_decimals_they_need(ticks, labels):
    assert [tick_label(t, ticks) for t in ticks] == labels


def test_whisker_shows_the_side_of_zero():
    clear, unclear = whisker(Estimate(2, 1, 3)), whisker(Estimate(1, -1, 3))
    assert clear is not None and clear.low > 50
    assert unclear is not None and unclear.low < 50 < unclear.high <= 100
    assert whisker(Estimate(1, math.nan, math.nan)) is None


def test_costs_by_phase():
    rows = [
        {"time/sample_s": 2.0, "time/train_s": 1.0, "memory/sample_bytes": 5},
        {"time/sample_s": 4.0, "time/train_s": 1.0, "memory/sample_bytes": 9},
    ]
    sampling, training = costs(rows)
    assert (sampling.seconds, sampling.per_round, sampling.share, sampling.peak_bytes) == (6.0, 3.0, 0.75, 9)
    assert training.peak_bytes is None
    assert costs([]) == []


def test_figures_for_people():
    assert [size(n) for n in (None, 2**20 * 300, 2**30 * 1.5)] == ["–", "300 MiB", "1.50 GiB"]
    assert evenly([1, 2, 3, 4, 5], 3) == [1, 3, 5] and evenly([1, 2], 5) == [1, 2]


@pytest.mark.parametrize("side", [8, 32, 64, 100, 512])
def test_pictures_are_shown_at_one_size(side):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8))
    shown = view(noise, "noise")
    assert shown.width == shown.height == 160
