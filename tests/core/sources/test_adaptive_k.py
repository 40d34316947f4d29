"""More samples where prompts disagree: how a budget is shared, that it is kept to, and what a run does with it."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_core.capabilities import RunPlans
from raft_core.errors import ConfigError
from raft_core.loop import align
from raft_core.metrics.best_of import expected_max_normal
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.rewards.combine import RankAggregate, Weighted
from raft_core.rewards.scoring import Scorer
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK
from raft_core.sources.adaptive_k import AdaptiveK, shares, spreads
from raft_core.store.rounds import CHOICE, round_folder
from raft_core.store.store import Store, read_round
from raft_core.testing import FakePolicy, FakeReward
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Grouping, Prompt

PROMPTS = [Prompt(f"prompt {i}") for i in range(4)]


def gain(spread, sizes):
    return sum(s * expected_max_normal(int(n)) for s, n in zip(spread, sizes, strict=True))


def test_the_budget_goes_where_the_expected_best_gains_most():
    """Of all ways to share it, the one with the greatest expected best; found here by trying them all."""
    pilot = np.array([[0, 1], [0, 3], [0, 10.0]])
    spread = spreads(pilot, 0.0)
    assert spread == pytest.approx(np.array([1, 3, 10]) / np.sqrt(2))
    sizes = shares(pilot, 12, np.full(3, 9), prior=0.0)
    ways = [way for way in product(range(2, 10), repeat=3) if sum(way) == 12]
    assert tuple(sizes) == max(ways, key=lambda way: gain(spread, way))
    assert sizes.tolist() == sorted(sizes) and sizes[2] > sizes[0]


def test_where_a_prompt_agrees_nothing_more_is_drawn_unless_others_say_that_it_may_disagree():
    pilot = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1.0]])
    assert shares(pilot, 24, np.full(3, 99), prior=0.0).tolist() == [4, 4, 16]
    some = shares(pilot, 24, np.full(3, 99), prior=1.0)
    assert some.sum() == 24 and 4 < some[0] == some[1] < some[2]
    assert shares(pilot[:2], 24, np.full(2, 99)).tolist() == [4, 4]  # all agree: the rest is saved


def test_a_prompt_whose_spread_is_not_known_has_that_of_the_others():
    pilot = np.array([[0, 2.0, 1], [np.nan, np.nan, 5], [np.nan] * 3])
    assert spreads(pilot, 1.0) == pytest.approx([1.0, 1.0, 1.0])
    assert spreads(np.full((2, 3), np.nan), 1.0).tolist() == [1, 1]
    # σ² = ((n − 1)·s² + prior·s̄²)/(n − 1 + prior), s² of 0 and 2, s̄² = 1: (2·2 + 1·1)/3 and (2·0 + 1·1)/3
    assert spreads(np.array([[1, 1, 1], [0, 1, np.sqrt(7.0) / 2 + 0.5]]), 1.0)[0] > 0


@settings(deadline=None)
@given(
    st.lists(st.lists(st.one_of(st.just(np.nan), st.floats(-5, 5)), min_size=3, max_size=3), min_size=1, max_size=6),
    st.integers(0, 60),
    st.integers(3, 12),
    st.sampled_from([0.0, 1.0, 4.0]),
)
def test_whatever_the_scores_a_share_keeps_to_its_bounds(rows, budget, most, prior):
    pilot = np.array(rows)
    sizes = shares(pilot, budget, np.full(len(rows), most), prior)
    assert (sizes >= 3).all() and (sizes <= most).all() and sizes.sum() <= max(budget, 3 * len(rows))
    order = np.argsort(np.arange(len(rows)))[::-1]
    spread = spreads(pilot, prior)
    if len(set(spread.round(9))) == len(rows):  # where no two are alike, the order of prompts does not matter
        assert (shares(pilot[order], budget, np.full(len(rows), most), prior)[order] == sizes).all()
    assert (np.diff(sizes[np.argsort(spread, kind="stable")]) >= -1).all()  # more spread, not fewer


def test_a_round_asks_for_the_pilot_and_then_for_the_next_samples_of_each_prompt():
    source = AdaptiveK(pilot=2, most=3)
    asked = source.requests(PROMPTS[:2], 4, 0, 1)
    assert Grouping.of(asked).sizes.tolist() == [12, 12]
    assert [r.seed for r in asked[:4]] == [r.seed for r in requests(PROMPTS[:1], 4, 0, 1)]  # those that FromPolicy would draw
    first = source.first(asked)
    assert np.flatnonzero(first).tolist() == [0, 1, 12, 13]
    scores = np.full(24, np.nan)
    scores[first] = [0, 0, 0, 5]
    chosen = first | source.further(asked, scores)
    groups = [np.flatnonzero(part).tolist() for part in np.split(chosen, 2)]
    assert chosen.sum() == 8 and all(group == list(range(len(group))) for group in groups)
    assert len(groups[1]) > len(groups[0])


def test_k_can_rise_over_the_rounds():
    source = AdaptiveK(pilot=2, start=4, rise=4)
    assert [source.mean_k(12, rnd) for rnd in range(1, 8)] == [4, 6, 8, 10, 12, 12, 12]
    assert [AdaptiveK(pilot=2).mean_k(12, rnd) for rnd in (1, 5)] == [12, 12]


class Noisy(FakeReward):
    """Scores of prompts 0 and 1 spread, those of the others are all alike; how often it was asked is counted."""

    def __init__(self, batch_size=4):
        super().__init__()
        self.info = self.info.__class__(name="noisy", batch_size=batch_size)
        self.asked = []

    def __call__(self, samples):
        self.asked += [sample.seed for sample in samples]
        spread = np.array([float(sample.prompt.text in ("prompt 0", "prompt 1")) for sample in samples])
        return spread * super().__call__(samples)


def run(folder, source, reward, *, judges=(), rounds=2, k=6):
    policy = FakePolicy(batch_size=3)
    trainer = Trainer(Optimizer(lr=0.1, weight_decay=0.0), steps=5)
    trainer.attach(policy, seed=1, rounds=rounds)
    with Store.create(folder, {"seed": 1}, 1) as store:
        parts = (Scorer(reward, judges), BestOfK(), Sft(), trainer, store, Monitor())
        align(policy, PromptSet(PROMPTS, [], per_round=4, seed=1), *parts, rounds=rounds, k=k, source=source)
        return store.history()


def sizes_of(folder, rnd):
    return Grouping.of(read_round(folder, rnd)[0]).sizes.tolist()


def test_a_run_samples_more_where_scores_disagree_and_scores_nothing_twice(tmp_path):
    reward = Noisy()
    run(tmp_path / "run", AdaptiveK(pilot=2, prior=0.0), reward)
    for rnd in (1, 2):
        sizes = sizes_of(tmp_path / "run", rnd)
        assert sum(sizes) == 24 and sizes[2:] == [2, 2] and min(sizes[:2]) > 2
    assert len(reward.asked) == len(set(reward.asked)) == 48
    samples, scores, kept = read_round(tmp_path / "run", 1, tensors=True)
    assert [s.request.index for s in samples] == [j for size in sizes_of(tmp_path / "run", 1) for j in range(size)]
    assert not np.isnan(scores.columns["noisy"]).any() and kept.sum() == 4
    expected = Noisy()(samples)
    assert scores.columns["noisy"].tolist() == expected.tolist()  # every score is that of its own sample


def test_parts_of_a_combined_reward_and_judges_are_scored_once_too(tmp_path):
    reward, judge = Noisy(), FakeReward("judge")
    run(tmp_path / "run", AdaptiveK(pilot=2), Weighted([reward, FakeReward("other")], [1.0, 1e-9]), judges=[judge], rounds=1)
    assert len(reward.asked) == len(set(reward.asked)) == 24
    _, scores, _ = read_round(tmp_path / "run", 1)
    assert {"noisy", "other", "judge"} < set(scores.columns) and not np.isnan(scores.columns["judge"]).any()


def test_a_reward_that_sees_the_round_as_a_whole_is_asked_about_the_whole(tmp_path):
    reward = Noisy(batch_size=None)
    run(tmp_path / "run", AdaptiveK(pilot=2), reward, rounds=1)
    assert len(reward.asked) == 8 + 24


def test_what_was_decided_is_kept_and_what_is_damaged_decided_again(tmp_path):
    run(tmp_path / "run", AdaptiveK(pilot=2), Noisy(), rounds=1)
    choice = json.loads((round_folder(tmp_path / "run", 1) / CHOICE).read_text())
    assert len(choice["further"]) == 16 and len(choice["scores"]["noisy"]) == 8


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"pilot": 1}, "pilot is 1, but a spread takes at least 2"),
        ({"most": 1}, "most is 1, but must be at least 2"),
        ({"prior": -1.0}, "prior is -1.0"),
        ({"start": 2}, "start is 2, but the pilot alone has 4"),
        ({"rise": 0}, "rise is 0"),
    ],
)
def test_settings_that_make_no_sense_are_told(arguments, told):
    with pytest.raises(ConfigError, match=told):
        AdaptiveK(**arguments)


def test_what_does_not_go_with_a_run_is_told():
    def told(source, k=8, reward=None):
        return source.check_run(RunPlans(FakePolicy(), reward or FakeReward(), PROMPTS, k, False))

    assert told(AdaptiveK()) == []
    assert "nothing left to spend" in told(AdaptiveK(), k=4)[0]
    assert "to which it rises, is 8" in told(AdaptiveK(start=9))[0]
    assert (
        "only compares the samples of a prompt"
        in told(AdaptiveK(), reward=RankAggregate([FakeReward("a"), FakeReward("b")]))[0]
    )
