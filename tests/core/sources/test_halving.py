"""Samples are scored on the way and the worse half is given up: which, what it costs, and what a run keeps of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_core.capabilities import RunPlans
from raft_core.errors import ConfigError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.raft_plus_plus import RaftPlusPlus
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.rewards.scoring import Scorer
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK
from raft_core.sources.from_policy import FromPolicy
from raft_core.sources.halving import PREVIEWS, Halving
from raft_core.store.store import Store, read_round
from raft_core.testing import FakePolicy, FakeReward, FakeStages
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Grouping, Prompt

PROMPTS = [Prompt(f"prompt {i}") for i in range(3)]


def test_the_better_half_of_each_prompt_goes_on():
    scores = np.array([1, 5, 3, 4, 9, 9, 9.0])
    assert Halving().survivors(["a"] * 4 + ["b"] * 3, scores).tolist() == [False, True, False, True, True, True, False]
    assert Halving(least=3).survivors(["a"] * 4, scores[:4]).tolist() == [False, True, True, True]
    assert Halving(keep=0.1).survivors(["a"] * 4, scores[:4]).tolist() == [False, True, False, False]
    assert Halving().survivors(["a"], np.array([0.0])).tolist() == [True]


def test_unscored_samples_are_given_up_first_unless_nothing_is_known():
    nan = np.nan
    assert Halving().survivors(["a"] * 4, np.array([nan, 0, nan, nan])).tolist() == [True, True, False, False]
    assert Halving().survivors(["a"] * 2 + ["b"] * 2, np.array([nan, nan, 2, 1])).tolist() == [True, True, True, False]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.one_of(st.just(np.nan), st.integers(-3, 3).map(float))), min_size=1, max_size=20
    ),
    st.sampled_from([0.3, 0.5, 0.75]),
    st.integers(1, 3),
)
def test_whatever_the_scores_the_best_go_on_and_enough_of_them(rows, keep, least):
    prompts, scores = [name for name, _ in rows], np.array([value for _, value in rows])
    going = Halving(keep=keep, least=least).survivors(prompts, scores)
    for name in set(prompts):
        own = np.array(prompts) == name
        count = own.sum()
        if np.isnan(scores[own]).all():
            assert going[own].all()
            continue
        assert going[own].sum() == min(count, max(np.ceil(keep * count), least))
        worst, best_out = scores[own & going], scores[own & ~going]
        if len(best_out) and not np.isnan(best_out).all():
            assert not np.isnan(worst).any() and worst.min() >= np.nanmax(best_out)


def run(folder, source, *, policy=None, reward=None, objective=None, rounds=2, k=8):
    policy = policy or FakeStages(batch_size=8)
    trainer = Trainer(Optimizer(lr=0.1, weight_decay=0.0), steps=5)
    trainer.attach(policy, seed=1, rounds=rounds)
    with Store.create(folder, {"seed": 1}, 1) as store:
        parts = (Scorer(reward or FakeReward()), BestOfK(), objective or Sft(), trainer, store, Monitor())
        align(policy, PromptSet(PROMPTS, [], per_round=3, seed=1), *parts, rounds=rounds, k=k, source=source)
        return store.history()


def test_where_previews_tell_the_end_the_same_is_chosen_for_half_of_the_work(tmp_path):
    """A fake's preview is a part of its end, so the order is known from the first look: nothing may be lost."""
    alike = run(tmp_path / "alike", FromPolicy())
    history = run(tmp_path / "halving", Halving())
    for rnd in (1, 2):
        whole, _, best = read_round(tmp_path / "alike", rnd)
        samples, scores, kept = read_round(tmp_path / "halving", rnd)
        assert [s.output for s, each in zip(samples, kept, strict=True) if each] == [
            s.output for s, each in zip(whole, best, strict=True) if each
        ]
        given_up = np.array([bool(s.meta.get("rejected")) for s in samples])
        assert given_up.sum() == 3 * 7 and np.isnan(scores.columns["mean"][given_up]).all()  # 8 → 4 → 2 → 1
        assert [s.request.index for s in samples] == list(range(8)) * 3
        assert [len(s.meta[PREVIEWS]) for s in samples if not s.meta.get("rejected")] == [3, 3, 3]
        row = history[rnd - 1]
        assert row["sample/evaluations"] == sum(s.meta["evaluations"] for s in samples) == 3 * (4 * 25 + 2 * 50 + 75 + 100)
        assert row["sample/given_up"] == 21
    assert row["sample/evaluations"] <= 3 * 8 * 100 / 2 and "sample/evaluations" not in alike[0]
    assert history[1]["reward/kept"] == alike[1]["reward/kept"]


class Counting(FakeReward):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.sizes = []

    def __call__(self, samples):
        self.sizes.append(len(samples))
        return super().__call__(samples)


def test_prompts_are_not_torn_apart_and_only_the_reward_is_asked_on_the_way(tmp_path):
    reward = Counting()
    run(tmp_path / "run", Halving(at=(0.5,)), policy=FakeStages(batch_size=5), reward=reward, rounds=1)
    assert reward.sizes == [8, 8, 8, 12]  # each prompt by itself, then all that came to their end


def test_a_lower_reward_that_is_better_is_turned(tmp_path):
    class Low(FakeReward):
        def __init__(self):
            super().__init__()
            self.info = self.info.__class__(name="low", higher_is_better=False)

    run(tmp_path / "run", Halving(), reward=Low(), rounds=1)
    samples, scores, kept = read_round(tmp_path / "run", 1, tensors=True)
    best = [
        min(float(s.tensors["x"].mean()) for s in FakePolicy().sample([r.request for r in group])) for group in _groups(samples)
    ]
    assert scores.columns["low"][kept] == pytest.approx(best)


def _groups(samples):
    return [[samples[i] for i in part] for part in Grouping.of(samples).split(np.arange(len(samples)))]


def test_ratios_are_computed_of_what_came_to_its_end(tmp_path):
    (row,) = run(tmp_path / "run", Halving(), objective=RaftPlusPlus(), rounds=1)
    assert np.isfinite(row["train/loss_first"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"at": ()}, "must be ascending"),
        ({"at": (0.5, 0.25)}, "must be ascending"),
        ({"at": (0.0, 0.5)}, "must be ascending"),
        ({"at": (0.5, 1.0)}, "must be ascending"),
        ({"keep": 1.0}, "keep is 1.0"),
        ({"least": 0}, "least is 0"),
    ],
)
def test_settings_that_make_no_sense_are_told(arguments, told):
    with pytest.raises(ConfigError, match=told):
        Halving(**arguments)


def test_what_does_not_go_with_a_run_is_told():
    def told(policy, k=8, source=Halving()):  # noqa: B008 - frozen
        return source.check_run(RunPlans(policy, FakeReward(), PROMPTS, k, False))

    assert told(FakeStages()) == []
    assert "which the policy FakePolicy does not show: use FromPolicy" in told(FakePolicy())[0]
    assert "k is 1 and least 1, so nothing would be given up" in told(FakeStages(), k=1)[0]


def test_the_requests_are_those_of_the_usual_source():
    assert Halving().requests(PROMPTS, 4, 0, 2) == requests(PROMPTS, 4, 0, 2)
    assert json.dumps(Halving().at) == "[0.25, 0.5, 0.75]"
