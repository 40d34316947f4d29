"""Process rewards: a score for each step, one number for the whole, by a function and by a model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text_models import tokenizer

from raft_core.errors import ConfigError
from raft_core.rewards.scoring import score
from raft_core.selectors.best_of_k import BestOfK
from raft_core.types import Prompt, Request, Sample
from raft_text.rewards import StepReward, StepRewardModel
from raft_text.rewards.steps import aggregated, arithmetic, split_steps, value_of


def samples_of(*texts):
    return [Sample(Request(Prompt("a question"), i, i), output=text) for i, text in enumerate(texts)]


def scored(reward, samples):
    return score(reward, samples)[0][reward.info.name]


def test_steps_are_what_stands_between_the_separators():
    assert split_steps("a\n\n b \nc\n", "\n") == ["a", "b", "c"] and split_steps(" \n", "\n") == []
    assert split_steps("a\n\nb\nc", "\n\n") == ["a", "b\nc"]


def test_one_number_for_all_steps_by_hand():
    scores = [0.5, 0.2, 0.8]
    assert [aggregated(scores, how) for how in ("min", "last", "product", "mean")] == pytest.approx([0.2, 0.8, 0.08, 0.5])
    assert all(math.isnan(aggregated(scores, "min")) for scores in ([], [0.5, math.nan], [math.inf]))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 * (3 + 4)", 14),
        ("1,000 / 4.", 250),
        ("6 ÷ 3 × 2", 4),
        ("-2 + 5", 3),
        ("2 ** 3", None),
        ("1 / 0", None),
        ("", None),
        (".", None),
        ("2 3", None),
        ("(" * 300, None),
        ("9" * 201, None),
    ],
)
def test_an_expression_is_arithmetic_or_nothing(text, value):
    assert value_of(text) == value


@settings(deadline=None)
@given(st.text(max_size=60))
def test_whatever_a_step_says_it_is_right_or_wrong(text):
    assert arithmetic(["p"], [[text]])[0][0] in (0.0, 1.0)


@pytest.mark.parametrize(
    ("step", "right"),
    [
        ("2 * 10 = 20.", 1),
        ("He has 2 * 10 = 20 buttons.", 1),
        ("2 * 10 = 21 buttons", 0),
        ("$1,000 / 4 = 250 = 5 * 50", 1),
        ("250 = 5 * 51", 0),
        ("1 / 3 = 0.3333333333", 1),
        ("x = 5", 1),
        ("Therefore, the answer is: 20", 1),
        ("a = b = 3", 1),
        ("2 + 2 = 4, so 4 + 1 = 6", 0),
    ],
)
def test_a_step_holds_if_its_equations_do(step, right):
    assert arithmetic(["p"], [[step]]) == [[right]]


def test_a_text_is_as_sound_as_its_worst_step_and_selected_by_it():
    texts = ["2 * 2 = 4\n4 + 1 = 5\nTherefore, 5", "2 * 2 = 5\n5 + 1 = 6\nTherefore, 6", "  "]
    samples = samples_of(*texts)
    found = scored(StepReward(), samples)
    assert np.array_equal(found, [1, 0, np.nan], equal_nan=True)
    assert scored(StepReward(aggregate="mean"), samples)[:2] == pytest.approx([1, 2 / 3])
    assert scored(StepReward(aggregate="last"), samples)[:2].tolist() == [1, 1]
    assert BestOfK()(found.reshape(1, 3)).index.tolist() == [0]


def test_a_function_of_ones_own_scores_the_steps(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def lengths(prompts, steps):\n    return [[len(step) / 10 for step in each] for each in steps]\n")
    reward = StepReward(f"{path}:lengths", "product", separator=";")
    assert reward.check() == []
    assert scored(reward, samples_of("aaaaa;bb", "cccccccccc")) == pytest.approx([0.1, 1.0])
    path.with_name("bad.py").write_text("def f(prompts, steps):\n    return [[1.0] for each in steps]\n")
    values, failures = score(StepReward(f"{path.with_name('bad.py')}:f"), samples_of("a\nb"))
    assert np.isnan(values["steps"]).all() and "a number for each step" in failures["steps"].first_error
    assert "has no function 'nothing'" in StepReward(f"{path}:nothing").check()[0]


def test_settings_that_make_no_sense_are_told():
    for arguments in ({"aggregate": "max"}, {"separator": ""}):
        with pytest.raises(ConfigError):
            StepReward(**arguments)
        with pytest.raises(ConfigError):
            StepRewardModel("x", **arguments)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        StepRewardModel("x", batch_size=0)


@pytest.fixture(scope="module")
def process_model(tmp_path_factory):
    """A tiny token classifier, as TRL's PRMTrainer would leave it."""
    from transformers import GPT2Config, GPT2ForTokenClassification

    folder = tmp_path_factory.mktemp("process")
    size = len(tokenizer(folder, pad=True, chat=False, limit=64))
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=size, n_positions=64, n_embd=16, n_layer=2, n_head=2, num_labels=2, initializer_range=0.5)
    config.id2label = {0: "wrong", 1: "right"}
    config.bos_token_id = config.eos_token_id = 4
    config.pad_token_id = 0
    GPT2ForTokenClassification(config).save_pretrained(folder)
    return folder


def test_a_model_scores_each_step_at_its_separator(process_model):
    samples = samples_of("one\ntwo two", "three\nfour\nfive", "", "one " * 100)
    by_step = {}
    for how in ("min", "last", "product", "mean"):
        reward = StepRewardModel(str(process_model), how, device="cpu", batch_size=2)
        assert reward.check() == []
        by_step[how] = scored(reward, samples)
    loaded = reward._loaded
    expected = []
    for sample in samples[:2]:  # by hand: the prompt, and each step with its separator behind it
        ids = loaded.tokenizer(sample.prompt.text, add_special_tokens=False)["input_ids"]
        ids = [*([] if loaded.tokenizer.bos_token_id is None else [loaded.tokenizer.bos_token_id]), *ids]
        ends = []
        for step in sample.output.split("\n"):
            ids = ids + loaded.tokenizer(step, add_special_tokens=False)["input_ids"]
            ids = ids + loaded.tokenizer("\n", add_special_tokens=False)["input_ids"]
            ends.append(len(ids) - 1)
        with torch.no_grad():
            logits = loaded.model(torch.tensor([ids])).logits[0, ends]
        expected.append(logits.softmax(dim=-1)[:, 1].numpy())
    assert len(expected[0]) == 2 and len(expected[1]) == 3 and 0 < expected[0].min() < 1
    for how, scores in by_step.items():
        reduce = {"min": np.min, "last": lambda row: row[-1], "product": np.prod, "mean": np.mean}[how]
        assert scores[:2] == pytest.approx([reduce(row) for row in expected], rel=1e-4)
        assert np.isnan(scores[2:]).all()  # no step; too long


def test_a_label_is_found_by_name_or_number_and_told_when_it_is_not(process_model):
    by_name, by_number = (StepRewardModel(str(process_model), label=label, device="cpu") for label in ("wrong", 0))
    assert by_name.check() == by_number.check() == []
    samples = samples_of("one\ntwo")
    assert scored(by_name, samples) == scored(by_number, samples)
    (told,) = StepRewardModel(str(process_model), label="rihgt").check()
    assert "no label 'rihgt' (did you mean 'right'?)" in told
    (told,) = StepRewardModel(str(process_model.parent / "nowhere")).check()
    assert "there is no model folder" in told
