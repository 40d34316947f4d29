"""Sums of rewards and the KL-penalised ranking."""

import contextlib
import math

import numpy as np
import pytest
import torch

from raft_core.errors import ConfigError, RewardError
from raft_core.protocols import Combinator, RewardInfo
from raft_core.rewards.combine import KLPenalised, Weighted
from raft_core.rewards.scoring import Scorer
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK
from raft_core.testing import FakePolicy, FakeReward, close
from raft_core.types import Prompt

NAN = math.nan


class Fixed:
    """Scores that are written down."""

    def __init__(self, name: str, *values: float, higher_is_better: bool = True):
        self.info = RewardInfo(name, higher_is_better=higher_is_better)
        self.values = values

    def __call__(self, samples):
        return self.values


def drawn(n: int, policy: FakePolicy | None = None):
    policy = policy or FakePolicy()
    return policy.render(policy.sample(requests([Prompt("p")], n, 0, 1)))


# --- weighted sum


def test_weighted_sum_by_hand():
    # 1 · 6 + 0.1 · 27 − 2 · (lower is better: 3 turned to −3 …) = 6 + 2.7 − 6
    parts = [Fixed("aesthetic", 6, 5), Fixed("clip", 27, 30), Fixed("blur", 3, 0, higher_is_better=False)]
    scores = Scorer(Weighted(parts, [1, 0.1, 2]))(drawn(2))
    np.testing.assert_allclose(scores.columns["weighted_sum"], [2.7, 8.0])
    assert scores.columns["clip"].tolist() == [27, 30]
    assert scores.columns["blur"].tolist() == [3, 0]
    assert scores.parts == {"aesthetic", "clip", "blur"}
    assert BestOfK()(scores.grid(2)).index.tolist() == [1]


def test_weights_are_one_if_left_out():
    combined = Weighted([Fixed("a", 1, 2), Fixed("b", 3, 4)], name="sum")
    assert isinstance(combined, Combinator)
    assert Scorer(combined)(drawn(2)).columns["sum"].tolist() == [4, 6]
    assert combined.info.scale == "1 × a + 1 × b"


def test_what_one_part_could_not_score_is_not_scored():
    scores = Scorer(Weighted([Fixed("a", 1, NAN, 3), Fixed("b", 1, 1, math.inf)]))(drawn(3))
    np.testing.assert_array_equal(scores.columns["weighted_sum"], [2, NAN, NAN])
    assert scores.failures["weighted_sum"].count == 2
    assert scores.failures["weighted_sum"].first_error == "not scored by a, b"


@pytest.mark.parametrize(
    ("rewards", "weights", "message"),
    [
        ([], None, "without rewards"),
        ([Fixed("a"), Fixed("b")], [1], "1 numbers for 2 rewards"),
        ([Fixed("a")], [0], "leave that reward out"),
        ([Fixed("a")], [NAN], "leave that reward out"),
        ([Fixed("a"), Fixed("a")], None, "two rewards named 'a'"),
        ([Fixed("weighted_sum")], None, "another name"),
    ],
)
def test_a_sum_that_makes_no_sense(rewards, weights, message):
    with pytest.raises(ConfigError, match=message):
        Weighted(rewards, weights)


# --- KL-penalised ranking


def moved() -> FakePolicy:
    policy = FakePolicy()
    policy.mean.data[:, 0] = 1.0
    return policy


def test_kl_penalty_by_hand():
    # FakePolicy's log-ratio after a move by (1, 0) is x₀ − 1/2, without noise whatever the draws.
    policy = moved()
    samples = drawn(3, policy)
    x = torch.stack([s.tensors["x"] for s in samples]).numpy()
    penalised = KLPenalised(FakeReward("mean"), beta=0.5, draws=3)
    penalised.attach(policy)
    scores = Scorer(penalised)(samples)
    close(scores.columns["mean_kl"], x.mean(axis=1) - 0.5 * (x[:, 0] - 0.5))
    np.testing.assert_allclose(scores.columns["mean"], x.mean(axis=1))
    assert scores.reward == "mean_kl" and scores.parts == {"mean"}


def test_at_the_start_and_at_beta_0_the_penalty_is_nothing():
    at_start, free = KLPenalised(FakeReward(), beta=10.0), KLPenalised(FakeReward(), beta=0.0)
    at_start.attach(FakePolicy())
    for penalised in (at_start, free):  # the second needs no policy
        scores = Scorer(penalised)(drawn(4))
        np.testing.assert_array_equal(scores.columns["mean_kl"], scores.columns["mean"])


def test_a_large_penalty_changes_the_ranking():
    policy = moved()
    samples = drawn(8, policy)
    closest = int(np.argmin([float(s.tensors["x"][0]) for s in samples]))
    chosen = []
    for beta in (0.0, 100.0):
        penalised = KLPenalised(FakeReward(), beta)
        penalised.attach(policy)
        chosen.append(int(BestOfK()(Scorer(penalised)(samples).grid(8)).index[0]))
    assert chosen[1] == closest != chosen[0]


def test_lower_is_better_is_turned_first():
    penalised = KLPenalised(Fixed("loss", 1, 5, higher_is_better=False), beta=0.1, name="kl")
    penalised.attach(FakePolicy())
    scores = Scorer(penalised)(drawn(2))
    assert scores.columns["kl"].tolist() == [-1, -5]
    assert BestOfK()(scores.grid(2)).index.tolist() == [0]


def test_no_draw_is_spent_on_what_is_not_scored_and_the_policy_is_resident():
    class Watched(FakePolicy):
        phases: tuple = ()
        seen: tuple = ()

        @contextlib.contextmanager
        def resident(self, phase):
            self.phases += (phase,)
            yield

        def draw(self, samples, seeds):
            self.seen += tuple(s.request.index for s in samples)

    policy = Watched()
    penalised = KLPenalised(Fixed("a", 1, NAN, 3), beta=1.0, draws=2)
    penalised.attach(policy)
    np.testing.assert_array_equal(Scorer(penalised)(drawn(3)).columns["a_kl"], [1, NAN, 3])
    assert policy.phases == ("train",)
    assert policy.seen == (0, 2, 0, 2)


def test_a_penalty_without_a_policy_is_refused():
    with pytest.raises(RewardError, match="use its part 'mean'"):
        Scorer(KLPenalised(FakeReward(), beta=0.1))(drawn(2))


@pytest.mark.parametrize("settings", [{"beta": -1}, {"beta": NAN}, {"beta": 1, "draws": 0}, {"beta": 1, "name": "mean"}])
def test_a_penalty_that_makes_no_sense(settings):
    with pytest.raises(ConfigError):
        KLPenalised(FakeReward(), **settings)


def test_combinators_nest():
    policy = moved()
    inner = KLPenalised(Fixed("a", 1, 2), beta=0.5)
    scorer = Scorer(Weighted([inner, Fixed("b", 10, 20)], [2, 1], name="sum"), judges=[Fixed("b", 0, 0), Fixed("j", 7, 8)])
    scorer.attach(policy)
    samples = drawn(2, policy)
    scores = scorer(samples)
    assert list(scores.columns) == ["a", "a_kl", "b", "sum", "j"]
    np.testing.assert_allclose(scores.columns["sum"], 2 * scores.columns["a_kl"] + [10, 20])
    assert scores.parts == {"a", "a_kl", "b"}
