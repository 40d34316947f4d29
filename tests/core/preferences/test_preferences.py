"""Preferences: read from every layout, refused by file and line, learned from, and what a reward makes of them."""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from raft_core.errors import ConfigError, DataError, RewardError
from raft_core.media.picture import opaque
from raft_core.metrics.statistics import wilson
from raft_core.preferences.evaluate import evaluate_rewards
from raft_core.preferences.fit import FitSettings, fit
from raft_core.preferences.learner import Scale, raw_scores
from raft_core.preferences.loss import choice_loss, padded
from raft_core.preferences.metrics import (
    Rate,
    accuracy,
    agreement,
    best_scale,
    by_group,
    calibration,
    within_prompt_correlation,
)
from raft_core.preferences.preference import Item, Picture, Preference, flattened
from raft_core.preferences.read import read_items, read_preferences, split
from raft_core.protocols import RewardInfo
from raft_core.reporter import Silent
from raft_core.rewards.scoring import Scorer
from raft_core.testing import close
from raft_core.training.optim import Optimizer
from raft_core.types import Prompt, Request, Sample
from raft_core.workflows.study import StudySettings, best_of_n, best_of_n_kl, distilled_kl, labelled_pairs


def pair(chosen="a", rejected="b", prompt="p", **more) -> Preference:
    return Preference(prompt, (chosen, rejected), more.pop("target", (1.0, 0.0)), **more)


# ---------------------------------------------------------------------- loss


@pytest.mark.parametrize(
    ("scores", "target", "margin", "expected"),
    [
        ([1.0, 0.0], [1.0, 0.0], 0.0, math.log(1 + math.exp(-1))),  # 0.3133
        ([1.0, 0.0], [1.0, 0.0], 0.5, math.log(1 + math.exp(-0.5))),  # 0.4741
        ([1.0, 0.0], [0.0, 1.0], 0.5, math.log(1 + math.exp(1.5))),
        ([1.0, 0.0], [0.5, 0.5], 0.5, math.log(1 + math.exp(-1)) + 0.5),  # a tie has no margin
        ([1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], 0.0, math.log(math.e + 3) - 1),  # 0.7437
        ([2.0, 0.0, -math.inf], [1.0, 0.0, 0.0], 0.0, math.log(1 + math.exp(-2))),  # padded
    ],
)
def test_losses_are_what_they_are_by_hand(scores, target, margin, expected):
    loss = choice_loss(torch.tensor([scores]), torch.tensor([target]), torch.tensor([margin]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_padded_candidate_gets_no_gradient_and_no_nan():
    flat = torch.tensor([1.0, 0.0, 3.0, 2.0, 1.0], requires_grad=True)
    scores = padded(flat, [2, 3])
    target = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    choice_loss(scores, target, torch.tensor([0.0, 1.0])).sum().backward()
    assert torch.isfinite(flat.grad).all()
    assert flat.grad[0].item() == pytest.approx(1 / (1 + math.exp(-1)) - 0.5)


# ---------------------------------------------------------------------- reading

HUMAN = "\n\nHuman: hi\n\nAssistant:"
TURNS = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "x"}]
LAYOUTS = {
    "pairs": ({"prompt": "p", "chosen": "x", "rejected": "y", "margin": 2}, "p", ("x", "y"), (1, 0)),
    "conversations": (
        {"prompt": "p", "chosen": TURNS, "rejected": [{"role": "assistant", "content": "y"}]},
        "p",
        ("x", "y"),
        (1, 0),
    ),
    "choices": ({"prompt": "p", "candidates": ["x", "y", "z", "u"], "choice": 2}, "p", ("x", "y", "z", "u"), (0, 0, 1, 0)),
    "tie of two": ({"prompt": "p", "candidates": ["x", "y", "z"], "choice": [0, 2]}, "p", ("x", "y", "z"), (0.5, 0, 0.5)),
    "tie of all": ({"prompt": "p", "candidates": ["x", "y"], "choice": None}, "p", ("x", "y"), (0.5, 0.5)),
    "said to be a tie": ({"prompt": "p", "chosen": "x", "rejected": "y", "tie": True}, "p", ("x", "y"), (0.5, 0.5)),
    "hh": ({"chosen": f"{HUMAN} yes", "rejected": f"{HUMAN} you no"}, HUMAN, (" yes", " you no"), (1, 0)),
    "ultrafeedback": (
        {"instruction": "p", "completions": [{"response": r, "overall_score": s} for r, s in (("x", 3), ("y", 9), ("z", 9))]},
        "p",
        ("x", "y", "z"),
        (0, 0.5, 0.5),
    ),
}


def written(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read(name, tmp_path):
    row, prompt, candidates, target = LAYOUTS[name]
    (preference,) = read_preferences(written(tmp_path / "data.jsonl", [row])).preferences
    assert (preference.prompt, preference.candidates, preference.target) == (prompt, candidates, target)
    assert preference.margin == row.get("margin", 0)


def png(colour, mode="RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (4, 4), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def test_pictures_come_as_files_bytes_or_base64(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.png").write_bytes(png("red"))
    uri = "data:image/png;base64," + base64.b64encode(png("blue")).decode()
    reading = read_preferences(written(tmp_path / "data.jsonl", [{"prompt": "p", "chosen": "a.png", "rejected": uri}]))
    assert reading.modality == "image"
    assert [c.load().getpixel((0, 0)) for c in reading.preferences[0].candidates] == [(255, 0, 0), (0, 0, 255)]

    rows = [
        {"caption": "p", "jpg_0": png("red"), "jpg_1": png("blue"), "label_0": a, "label_1": 1 - a, "has_label": has}
        for a, has in ((0.0, True), (0.5, True), (0.0, False))
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pick.parquet")
    reading = read_preferences(tmp_path / "pick.parquet")
    assert [p.target for p in reading.preferences] == [(0, 1), (0.5, 0.5)]
    assert reading.unlabelled == 1


def test_what_is_transparent_lies_on_white_and_16_bits_become_8():
    assert opaque(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(DataError, match="floating-point pixels"):
        opaque(Image.new("F", (1, 1)))
    assert opaque(Image.fromarray(np.full((1, 1), 257 * 100, np.uint16))).getpixel((0, 0)) == (100, 100, 100)


BAD = {
    "no JSON": ("{", "not JSON"),
    "a list": ("[1]", "is no JSON object"),
    "no rejected": ('{"prompt": "p", "chosen": "x"}', "'rejected' is missing"),
    "no layout": ('{"question": "p"}', "no layout of preferences"),
    "equal": ('{"prompt": "p", "chosen": "x", "rejected": "x"}', "candidates 0 and 1 are equal"),
    "out of range": (
        '{"prompt": "p", "candidates": ["x", "y"], "choice": 2}',
        "choice is 2, but there are 2 candidates: 0 to 1",
    ),
    "no index": ('{"prompt": "p", "candidates": ["x", "y"], "choice": "x"}', "must be an index"),
    "one candidate": ('{"prompt": "p", "candidates": ["x"], "choice": 0}', "two or more"),
    "margin": ('{"prompt": "p", "chosen": "x", "rejected": "y", "margin": -1}', "margin is -1"),
    "null": ('{"prompt": "p", "chosen": "x", "rejected": null}', "rejected is None"),
    "no picture": ('{"prompt": "p", "chosen": "bad.png", "rejected": "good.png"}', "no readable picture"),
    "no file": ('{"prompt": "p", "chosen": "none.png", "rejected": "good.png"}', "there is no picture none.png"),
    "mixed": ('{"prompt": "p", "chosen": "text", "rejected": "good.png"}', "some candidates are pictures"),
    "labels": ('{"caption": "p", "jpg_0": "x", "jpg_1": "y", "label_0": 1, "label_1": 1}', "label_0 and label_1 are 1 and 1"),
}


def test_every_bad_row_is_named_by_file_and_line_and_can_be_left_out(tmp_path):
    (tmp_path / "bad.png").write_text("<html>")
    (tmp_path / "good.png").write_bytes(png("red"))
    good = '{"prompt": "p", "chosen": "x", "rejected": "y"}'
    data = tmp_path / "data.jsonl"
    for line, expected in BAD.values():
        data.write_text(f"{good}\n\n{line}\n")
        with pytest.raises(DataError) as error:
            read_preferences(data)
        assert f"{data}, line 3: " in str(error.value)
        assert expected in str(error.value)
    data.write_text("\n".join([good, *(line for line, _ in BAD.values())]))
    reading = read_preferences(data, skip_invalid=True)
    assert len(reading.preferences) == 1
    assert len(reading.invalid) == len(BAD)


def test_files_that_are_not_there_or_are_something_else(tmp_path):
    (tmp_path / "data.jsonl").write_text("")
    for name, expected in (
        ("dota.jsonl", "did you mean 'data.jsonl'"),
        ("data.jsonl", "holds no preference"),
        ("x.csv", "does not exist"),
    ):
        with pytest.raises(DataError, match=expected):
            read_preferences(tmp_path / name)
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_preferences(tmp_path / "x.parquet")


def test_a_gzipped_folder_is_read_in_order(tmp_path):
    for name in ("b", "a"):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.write(json.dumps({"prompt": name, "chosen": "x", "rejected": "y", "category": "c"}))
    reading = read_preferences(tmp_path)
    assert [(p.prompt, p.group) for p in reading.preferences] == [("a", "c"), ("b", "c")]


def test_samples_are_read_as_generate_writes_them(tmp_path):
    (tmp_path / "1.png").write_bytes(png("red"))
    written(tmp_path / "samples.jsonl", [{"prompt": "p", "file": "1.png"}])
    (item,) = read_items(tmp_path)
    assert item.loaded().getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(DataError, match="line 1: a sample needs prompt"):
        read_items(written(tmp_path / "other.jsonl", [{"prompt": "p"}]))


def test_a_prompt_is_on_one_side_and_stays_there_when_data_is_added():
    preferences = [pair(prompt=f"prompt {i % 50}") for i in range(200)]
    train, held_out = split(preferences, 0.2, 0)
    assert len({p.prompt for p in held_out}) == 10
    assert not {p.prompt for p in train} & {p.prompt for p in held_out}
    assert split(preferences[::-1], 0.2, 0)[1] == held_out[::-1]
    more = [*preferences, *(pair(prompt=f"new {i}") for i in range(50))]
    moved = {p.prompt for p in held_out} - {p.prompt for p in split(more, 0.2, 0)[1]}
    assert len(moved) <= 5
    assert {p.prompt for p in split(preferences, 0.2, 1)[1]} != {p.prompt for p in held_out}


# ---------------------------------------------------------------------- fitting


class CountsLetters:
    """How often a, b and c occur, weighted: learns which letters people like."""

    modality: ClassVar[str] = "text"

    def __init__(self, batch_size: int = 4):
        self.batch_size = batch_size
        self.weight = torch.nn.Parameter(torch.tensor([0.3, 0.2, -0.1]))

    def encode(self, items):
        return [torch.tensor([float(item.output.count(letter)) for letter in "abc"]) for item in items]

    def __call__(self, encoded):
        return torch.stack(list(encoded)) @ self.weight

    def parameters(self):
        return {"weight": self.weight}


def letters(n, seed=0, flip=0.0) -> list[Preference]:
    """Who has more a's minus c's is preferred."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < n:
        one, other = ("".join(rng.choice(list("abc"), 6)) for _ in range(2))
        gain = [text.count("a") - text.count("c") for text in (one, other)]
        if gain[0] != gain[1]:
            better, worse = (one, other) if (gain[0] > gain[1]) != (rng.random() < flip) else (other, one)
            found.append(pair(better, worse, f"prompt {len(found)}"))
    return found


QUICK = {"optimizer": Optimizer(lr=0.05), "batch_size": 16}


def test_a_fit_learns_what_is_preferred_and_is_normalised_before_and_after():
    learner, train, held_out = CountsLetters(), letters(80), letters(30, seed=1)
    reference = [Item("p", text) for text in ("aab", "abc", "ccb", "bbb", "aaa")]
    before = raw_scores(learner, learner.encode(reference))
    fitted = fit(learner, train, held_out, reference, FitSettings(epochs=8, **QUICK), Silent())
    scores = fitted.after(raw_scores(learner, learner.encode(reference)))
    assert (scores.mean(), scores.var()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, rel=1e-5))
    assert fitted.before == Scale(before.mean(), before.std())
    a, b, c = learner.weight.tolist()
    assert a > b > c
    assert fitted.epochs[fitted.best].held_out_accuracy > 0.95
    # Normalised differences times the scale are the log-odds that the loss has seen.
    raw = raw_scores(learner, learner.encode(reference))
    assert fitted.preference_scale * (scores[0] - scores[1]) == pytest.approx((raw[0] - raw[1]) / fitted.before.std)


def test_the_best_epoch_is_kept_and_patience_ends_it():
    class Recorded(Silent):
        lines: ClassVar[list[str]] = []

        def line(self, text):
            self.lines.append(text)

    learner, noise, held_out = CountsLetters(), letters(12, flip=0.5), letters(40, seed=3)
    settings = FitSettings(epochs=60, patience=2, optimizer=Optimizer(lr=0.3), batch_size=2)
    fitted = fit(learner, noise, held_out, flattened(noise), settings, Recorded())
    losses = [epoch.held_out_loss for epoch in fitted.epochs]
    assert fitted.best == 1 + int(np.argmin(losses[1:]))
    assert len(losses) - 1 == fitted.best + 2 < 60
    assert f"the weights of epoch {fitted.best} are kept" in Recorded.lines[-1]
    unseen = raw_scores(learner, learner.encode(flattened(held_out))) / fitted.before.std
    deltas = unseen[::2] - unseen[1::2]
    assert np.logaddexp(0, -deltas).mean() == pytest.approx(losses[fitted.best], rel=1e-4)


def test_micro_batches_change_nothing_and_the_seed_decides():
    def weights(**settings):
        learner = CountsLetters()
        fit(
            learner,
            letters(20),
            letters(8, seed=1),
            flattened(letters(20)),
            FitSettings(epochs=2, **QUICK, **settings),
            Silent(),
        )
        return learner.weight.tolist()

    close(weights(), weights(micro_batch_size=3))
    assert weights() == weights()
    assert weights(seed=1) != weights()


def test_what_cannot_be_fitted_is_told():
    with pytest.raises(RewardError, match="0 to hold out"):
        fit(CountsLetters(), letters(2), [], [Item("p", "a")], FitSettings(), Silent())
    with pytest.raises(RewardError, match="one and the same score"):
        fit(CountsLetters(), letters(2), letters(2), [Item("p", "a")] * 3, FitSettings(), Silent())
    with pytest.raises(ConfigError, match=r"epochs is 0.*\n.*held_out_fraction is 1"):
        FitSettings(epochs=0, held_out_fraction=1)


# ---------------------------------------------------------------------- metrics


def test_accuracy_counts_equal_scores_half_and_ties_of_labels_not():
    preferences = [pair(), pair(), pair(), pair(target=(0.5, 0.5)), pair()]
    scores = [np.array(row, float) for row in ([2, 1], [1, 2], [1, 1], [1, 2], [np.nan, 1])]
    rate = accuracy(scores, preferences)
    assert (rate.n, rate.value) == (3, 0.5)
    independent = Rate.of([1] * 8 + [0] * 2, range(10))
    assert (independent.low, independent.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson's for 8 of 10


def test_choices_about_one_prompt_tell_less_than_as_many_about_different_ones():
    """20 prompts of which the reward ranks 14 right, ten pairs each: the interval is that of 20 values, not of 200."""
    preferences = [pair(prompt=f"p{i}", group="all") for i in range(20) for _ in range(10)]
    scores = [np.array([1.0, 0.0] if i < 14 else [0.0, 1.0]) for i in range(20) for _ in range(10)]
    rate = accuracy(scores, preferences)
    assert (rate.n, rate.prompts, rate.value) == (200, 20, 0.7)
    assert (rate.low, rate.high) == pytest.approx(wilson(0.7, 20, freedom=19))
    assert by_group(scores, preferences)["all"] == rate


def test_groups_are_told_apart():
    preferences = [pair(group="cats"), pair(group="dogs"), pair(group="dogs")]
    rates = by_group([np.array([1, 0]), np.array([0, 1]), np.array([1, 0])], preferences)
    assert {name: (rate.n, rate.value) for name, rate in rates.items()} == {"dogs": (2, 0.5), "cats": (1, 1.0)}


def test_the_calibration_error_is_what_it_is_by_hand():
    found = calibration(np.array([math.log(3), -math.log(3)]))
    assert found.ece == pytest.approx(0.25)
    assert found.log_loss == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    rng = np.random.default_rng(0)
    true = rng.normal(size=20000) * 2
    deltas = np.where(rng.random(20000) < 1 / (1 + np.exp(-true)), true, -true)
    assert calibration(deltas).ece < 0.02
    assert calibration(deltas * 10).ece > 0.1
    assert best_scale(deltas * 10) == pytest.approx(0.1, rel=0.05)


def test_without_a_difference_there_is_no_calibration():
    scale = best_scale(np.zeros(3))
    assert math.isnan(scale)
    assert math.isnan(calibration(np.zeros(3), scale).ece)


def test_a_reward_that_follows_size_shows_itself():
    sizes = [np.array(row, float) for row in ([1, 5], [20, 10], [7, 8])]
    assert within_prompt_correlation([2 * row + 100 * i for i, row in enumerate(sizes)], sizes) == pytest.approx(1)
    assert within_prompt_correlation([-row for row in sizes], sizes) == pytest.approx(-1)
    assert math.isnan(within_prompt_correlation([np.zeros(2)] * 3, sizes))


def test_agreement_is_symmetric_and_one_with_itself():
    table = agreement({"a": [np.array([1, 0]), np.array([0, 1])], "b": [np.array([1, 0]), np.array([1, 0])]})
    assert table["a"]["a"] == table["b"]["b"] == 1
    assert table["a"]["b"] == table["b"]["a"] == 0.5


class Length:
    def __init__(self, name="length", sign=1):
        self.info = RewardInfo(name, higher_is_better=sign > 0)
        self.sign = sign

    def __call__(self, samples):
        if any("?" in sample.output for sample in samples):
            raise ValueError("a question")
        return [self.sign * len(sample.output) for sample in samples]


def test_any_reward_is_evaluated_in_its_own_direction():
    preferences = [pair("long one", "x", group="g"), pair("short", "very long text"), pair("aa", "b", target=(0.5, 0.5))]
    findings = evaluate_rewards([Scorer(Length()), Scorer(Length("brevity", -1))], preferences, Silent())
    assert [verdict.accuracy.value for verdict in findings.verdicts] == [0.5, 0.5]
    assert (findings.preferences, findings.ties, findings.chance) == (3, 1, 0.5)
    assert findings.agreement["length"]["brevity"] == 1  # minus the letters, lower is better: the same order
    assert findings.agreement["length"]["labels"] == pytest.approx(0.5)
    assert json.dumps(findings.as_json())
    with pytest.raises(RewardError, match="two rewards are named 'length'"):
        evaluate_rewards([Scorer(Length()), Scorer(Length())], preferences, Silent())
    with pytest.raises(RewardError, match="could score nothing: ValueError: a question"):
        evaluate_rewards([Scorer(Length())], [pair("a?", "b")], Silent())


# ---------------------------------------------------------------------- over-optimisation


def test_best_of_n_over_all_subsets_is_what_it_is_by_hand():
    by, values = np.array([1.0, 2.0, 3.0]), np.array([5.0, 1.0, 3.0])
    assert best_of_n(by, values, 1) == pytest.approx(3)
    assert best_of_n(by, values, 2) == pytest.approx(7 / 3)
    assert best_of_n(by, values, 3) == pytest.approx(3)
    assert best_of_n(np.zeros(3), values, 3) == 5  # among equals the first
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(0.6363, abs=1e-4)
    assert distilled_kl(1, 4) == pytest.approx(best_of_n_kl(4))
    assert distilled_kl(3, 2) == pytest.approx(best_of_n_kl(8))


def test_labels_are_the_golds_and_nested():
    samples = [Sample(Request(Prompt(f"prompt {i // 8}"), i % 8, i), output=f"text {i}") for i in range(32)]
    gold = np.random.default_rng(0).normal(size=32)
    gold[3] = np.nan
    settings = StudySettings(labels=(5, 60), samples=8, pool=8)
    labelled = labelled_pairs(samples, gold, 60, settings)
    value = {sample.output: score for sample, score in zip(samples, gold, strict=True)}
    assert all(value[p.candidates[p.choice]] > value[p.candidates[1 - p.choice]] for p in labelled)
    few = labelled_pairs(samples, gold, 5, settings)
    assert [p.candidates for p in few] == [p.candidates for p in labelled[:5]]
    with pytest.raises(RewardError, match="105 of 1000 pairs"):  # 4 × 28, less the 7 of the unscored sample
        labelled_pairs(samples, gold, 1000, settings)
    noisy = labelled_pairs(samples, gold, 60, StudySettings(labels=(60,), samples=8, pool=8, temperature=1.0))
    right = [value[p.candidates[p.choice]] > value[p.candidates[1 - p.choice]] for p in noisy]
    assert 0.5 < np.mean(right) < 1


def test_a_picture_is_either_a_file_or_bytes():
    with pytest.raises(ValueError, match="either"):
        Picture()
