"""Combinators by property and by hand: directions, missing parts, scales, ranks, vetoes, noise; and across a resumed run."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raft_core.config.components import Walk
from raft_core.errors import ConfigError, StoreError
from raft_core.protocols import Combinator, RewardInfo
from raft_core.rewards.combine import Clipped, Ensemble, Noisy, RankAggregate, Threshold, Weighted
from raft_core.rewards.combine.scales import moments, running, within_prompts
from raft_core.rewards.scoring import Scorer
from raft_core.store.rounds import earlier_scores
from raft_core.types import Prompt, Request, Sample

NAN = math.nan
FAST = settings(max_examples=25, deadline=None)


class Fixed:
    """Scores that are written down."""

    def __init__(self, name, values, higher_is_better=True):
        self.info = RewardInfo(name, higher_is_better=higher_is_better)
        self.values = np.asarray(values, dtype=float)

    def __call__(self, samples):
        return self.values


def samples_of(prompts: int, k: int, seed: int = 0) -> list[Sample]:
    return [
        Sample(Request(Prompt(f"p{p}"), j, seed + p * k + j), output=f"text {p} {j}") for p in range(prompts) for j in range(k)
    ]


def combined(reward, samples):
    return Scorer(reward)(samples).columns[reward.info.name]


# A grid of scores [2 parts, 3 prompts × 4 samples] on a scale where rounding hides nothing, some of them missing.
number = st.integers(-50, 50).map(lambda n: n / 4)
score = st.one_of(number, st.just(NAN))
grid = arrays(float, (2, 12), elements=score)
whole = arrays(float, (2, 12), elements=number)
SAMPLES = samples_of(3, 4)

MAKERS = {
    "own": lambda parts: Weighted(parts, [1, 0.5]),
    "prompt": lambda parts: Weighted(parts, [1, 0.5], "prompt"),
    "running": lambda parts: Weighted(parts, [1, 0.5], "running"),
    "rank": lambda parts: RankAggregate(parts, [2, 1]),
    "mean": lambda parts: Ensemble(parts),
    "minimum": lambda parts: Ensemble(parts, "minimum"),
    "penalised": lambda parts: Ensemble(parts, "penalised", alpha=0.7),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@given(values=grid)
@FAST
def test_what_a_part_could_not_score_is_not_scored_and_all_else_is(make, values):
    result = combined(make([Fixed("a", values[0]), Fixed("b", values[1])]), SAMPLES)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(values).any(axis=0))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@given(values=grid)
@FAST
def test_lower_is_better_is_the_same_as_the_negative(make, values):
    turned = combined(make([Fixed("a", values[0]), Fixed("b", values[1], higher_is_better=False)]), SAMPLES)
    plain = combined(make([Fixed("a", values[0]), Fixed("b", -values[1])]), SAMPLES)
    np.testing.assert_array_equal(turned, plain)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@given(values=whole, order=st.permutations(range(12)))
@FAST
def test_the_order_of_samples_does_not_matter(make, values, order):
    order = list(order)
    plain = combined(make([Fixed("a", values[0]), Fixed("b", values[1])]), SAMPLES)
    mixed = combined(make([Fixed("a", values[0][order]), Fixed("b", values[1][order])]), [SAMPLES[i] for i in order])
    np.testing.assert_allclose(mixed, plain[order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("how", ["prompt", "running"])
@given(values=whole, factor=st.sampled_from([0.25, 8, 1000]), shift=st.sampled_from([-64, 0, 16]))
@FAST
def test_normalised_parts_do_not_depend_on_their_units(how, values, factor, shift):
    plain = combined(Weighted([Fixed("a", values[0]), Fixed("b", values[1])], normalise=how), SAMPLES)
    other = combined(Weighted([Fixed("a", values[0] * factor + shift), Fixed("b", values[1])], normalise=how), SAMPLES)
    np.testing.assert_allclose(other, plain, rtol=1e-9, atol=1e-9)


@given(values=whole, factor=st.sampled_from([0.25, 8, 1000]))
@FAST
def test_ranks_do_not_depend_on_scale_or_outliers(values, factor):
    plain = combined(RankAggregate([Fixed("a", values[0]), Fixed("b", values[1])]), SAMPLES)
    other = combined(RankAggregate([Fixed("a", np.exp(values[0] / 4)), Fixed("b", values[1] * factor)]), SAMPLES)
    np.testing.assert_array_equal(other, plain)
    np.testing.assert_allclose(plain.reshape(3, 4).mean(axis=1), 0.5)


@given(values=whole)
@FAST
def test_an_ensemble_is_no_bolder_than_its_mean(values):
    parts = [Fixed("a", values[0]), Fixed("b", values[1])]
    mean, low = combined(Ensemble(parts), SAMPLES), combined(Ensemble(parts, "minimum"), SAMPLES)
    assert (low <= mean).all()
    np.testing.assert_allclose(combined(Ensemble(parts, "penalised", alpha=0), SAMPLES), mean)
    # Of two, half the difference is the standard deviation, so alpha 1 is the minimum.
    np.testing.assert_allclose(combined(Ensemble(parts, "penalised"), SAMPLES), low, atol=1e-12)


# --- by hand


def test_per_prompt_normalisation_by_hand():
    # (1, 3): mean 2, spread 1. (5, 5): no spread. (NaN, 4): one alone.
    values = np.array([1, 3, 5, 5, NAN, 4])
    np.testing.assert_array_equal(within_prompts(values, np.array([0, 0, 1, 1, 2, 2])), [-1, 1, 0, 0, NAN, 0])
    # 0.1 three times: its rounded mean differs from it, which is no spread.
    np.testing.assert_array_equal(within_prompts(np.full(3, 0.1), np.zeros(3, int)), [0, 0, 0])


def test_a_prompt_that_comes_twice_is_one_group():
    samples = [*samples_of(1, 2), *samples_of(1, 2, seed=100)]
    result = combined(Weighted([Fixed("a", [0, 0, 2, 2])], normalise="prompt"), samples)
    assert result.tolist() == [-1, -1, 1, 1]


def test_running_moments_by_hand():
    # Spread within rounds: 1 and 3 → √((1 + 9)/2) = √5; the centre is the first round's, 2.
    found = moments([np.array([1.0, 3.0, NAN]), np.array([4.0, 10.0])])
    assert found.centre == 2 and found.spread == math.sqrt(5)
    earlier = [{"loss": np.array([1.0, 3.0])}, {"other": np.array([9.0])}]
    # Lower is better: turned, round 1 was (−1, −3) with centre −2 and spread 1.
    assert running(np.array([-1.0, NAN]), "loss", -1.0, earlier)[0] == 1
    assert moments([np.array([NAN])]).spread == moments([np.array([5.0, 5.0])]).spread == 1


def test_running_keeps_its_level_from_round_to_round():
    reward = Weighted([Fixed("a", [10, 12])], normalise="running")
    reward.recall([{"a": np.array([0.0, 2.0])}])
    assert combined(reward, samples_of(1, 2)).tolist() == [9, 11]
    assert not reward.info.relative and Weighted([Fixed("a", [1])], normalise="prompt").info.relative


def test_mean_rank_by_hand():
    # a ranks 1, 2, 3 of 3; b is lower-is-better and has a tie: 2.5, 2.5, 1. The fourth is out, b lacks it.
    parts = [Fixed("a", [1, 2, 9, 5]), Fixed("b", [0, 0, 7, NAN], higher_is_better=False)]
    expected = [(0.5 + 2.0) / 6, (1.5 + 2.0) / 6, (2.5 + 0.5) / 6, NAN]
    np.testing.assert_allclose(combined(RankAggregate(parts), samples_of(1, 4)), expected)


def test_an_ensemble_may_do_without_some():
    parts = [Fixed("a", [1, NAN, NAN]), Fixed("b", [3, 4, NAN])]
    np.testing.assert_array_equal(combined(Ensemble(parts, at_least=1), samples_of(1, 3)), [2, 4, NAN])
    np.testing.assert_array_equal(combined(Ensemble(parts, "minimum", at_least=1), samples_of(1, 3)), [1, 4, NAN])
    np.testing.assert_array_equal(combined(Ensemble(parts, "penalised", 0.5, 1), samples_of(1, 3)), [1.5, 4, NAN])


def test_a_veto_by_hand():
    parts = Fixed("beauty", [5, 9, 7, NAN, 8]), Fixed("length", [10, 99, 20, 10, NAN])
    reward = Threshold(*parts, at_most=20)
    scores = Scorer(reward)(samples_of(1, 5))
    np.testing.assert_array_equal(scores.columns["beauty_or_veto"], [5, NAN, 7, NAN, NAN])
    assert scores.failures["beauty_or_veto"].first_error == "vetoed: not length ≤ 20"
    np.testing.assert_array_equal(combined(Threshold(*parts, at_most=20, vetoed=-1), samples_of(1, 5)), [5, -1, 7, NAN, NAN])
    np.testing.assert_array_equal(combined(Threshold(*parts, at_least=15, at_most=20), samples_of(1, 5))[:3], [NAN, NAN, 7])


def test_a_veto_and_a_cut_keep_the_direction():
    loss = Fixed("loss", [1, 2, NAN], higher_is_better=False)
    vetoed = Threshold(loss, Fixed("ok", [1, 0, 1]), at_least=1, vetoed=99)
    assert not vetoed.info.higher_is_better and not Clipped(loss, high=1.5).info.higher_is_better
    np.testing.assert_array_equal(combined(Clipped(loss, high=1.5), samples_of(1, 3)), [1, 1.5, NAN])


# --- noise


def test_noise_is_fixed_by_its_seed_and_by_what_it_belongs_to():
    zero = Fixed("a", np.zeros(8))
    samples, again = samples_of(2, 4), samples_of(2, 4, seed=1000)  # the same outputs, drawn anew

    def error(samples, **sizes):
        return combined(Noisy(zero, **sizes), samples)

    for sizes in ({"iid": 1}, {"prompt_bias": 1}, {"sample_bias": 1}):
        np.testing.assert_array_equal(error(samples, **sizes), error(samples, **sizes))
        assert (error(samples, **sizes) != error(samples, seed=1, **sizes)).all()
    assert (error(samples, iid=1) != error(again, iid=1)).all()
    np.testing.assert_array_equal(error(samples, sample_bias=1), error(again, sample_bias=1))
    by_prompt = error(samples, prompt_bias=1).reshape(2, 4)
    assert (by_prompt == by_prompt[:, :1]).all() and by_prompt[0, 0] != by_prompt[1, 0]
    assert len(set(error(samples, sample_bias=1))) == 8


def test_noise_has_the_size_that_was_asked_for():
    samples = samples_of(500, 2)
    for sizes in ({"iid": 3}, {"sample_bias": 3}):
        found = combined(Noisy(Fixed("a", np.full(1000, 10.0)), **sizes), samples)
        assert abs(found.mean() - 10) < 0.5 and abs(found.std() - 3) < 0.3


# --- mistakes


A, B = Fixed("a", [1]), Fixed("b", [1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Weighted([A, B], normalise="round"), "normalise is 'round'"),  # type: ignore[arg-type]
        (lambda: RankAggregate([A, B], [1, -1]), "leave that reward out"),
        (lambda: RankAggregate([A], [1, 2]), "2 numbers for 1 rewards"),
        (lambda: RankAggregate([]), "without rewards"),
        (lambda: Ensemble([A, B], "median"), "how is 'median'"),  # type: ignore[arg-type]
        (lambda: Ensemble([A, B], alpha=-1), "alpha is -1"),
        (lambda: Ensemble([A, B], at_least=3), "from 1 to 2"),
        (lambda: Ensemble([A, A]), "two rewards named 'a'"),
        (lambda: Threshold(A, B), "give a bound"),
        (lambda: Threshold(A, B, at_least=2, at_most=1), "no number is both"),
        (lambda: Threshold(A, B, at_least=2, vetoed=NAN), "vetoed is nan"),
        (lambda: Threshold(A, B, at_least=2, name="b"), "another name"),
        (lambda: Clipped(A), "give a bound"),
        (lambda: Clipped(A, 2, 1), "low must not be larger"),
        (lambda: Clipped(A, 2, name="a"), "another name"),
        (lambda: Noisy(A, iid=-1), "iid is -1"),
    ],
)
def test_a_combination_that_makes_no_sense(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# --- in a configuration and a run


TREE = {
    "class_path": "Threshold",
    "init_args": {
        "reward": {
            "class_path": "Weighted",
            "init_args": {
                "normalise": "running",
                "rewards": [
                    {"class_path": "FakeReward", "init_args": {"name": "a"}},
                    {"class_path": "Noisy", "init_args": {"reward": {"class_path": "FakeReward"}, "iid": 0.3}},
                    {
                        "class_path": "Ensemble",
                        "init_args": {
                            "rewards": [
                                {"class_path": "FakeReward", "init_args": {"name": "c"}},
                                {"class_path": "FakeReward", "init_args": {"name": "d"}},
                            ],
                            "how": "minimum",
                        },
                    },
                ],
            },
        },
        "veto": {"class_path": "FakeReward", "init_args": {"name": "v"}},
        "at_least": -2.0,
    },
}


def test_all_of_them_nest_in_a_configuration():
    walk = Walk()
    part = walk.component(TREE, "reward", "reward")
    reward = part.make()
    assert walk.mistakes == [] and isinstance(reward, Combinator)
    names = set(Scorer(reward).infos)
    assert names == {"a", "mean", "mean_noisy", "c", "d", "ensemble", "weighted_sum", "v", "weighted_sum_or_veto"}
    again = Walk().component(part.plain, "reward", "reward")
    assert again.plain == part.plain


def test_running_statistics_survive_resume_to_the_bit(tmp_path):
    """A run with the statistics in it, whole and in two halves with new objects, selects and ends the same."""
    from raft_core.loop import align
    from raft_core.monitoring.monitor import Monitor
    from raft_core.objectives.sft import Sft
    from raft_core.prompts import PromptSet
    from raft_core.selectors.best_of_k import TopFraction
    from raft_core.store.store import Store
    from raft_core.testing import FakePolicy
    from raft_core.training.trainer import Trainer

    def run(folder, rounds, resume=False):
        reward = Walk().component(TREE, "reward", "reward").make()
        policy, trainer = FakePolicy(), Trainer()
        prompts = PromptSet([Prompt("one"), Prompt("two")], (), 2, 0)
        with Store.resume(folder) if resume else Store.create(folder, {}, 0) as store:
            trainer.attach(policy, 0, 4)
            store.restore(policy, trainer)
            parts = (policy, prompts, Scorer(reward), TopFraction(0.3), Sft(), trainer, store, Monitor(stop_when=()))
            align(*parts, rounds=rounds, k=4)
        return policy.mean.detach().numpy().copy()

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "halves", 2)
    np.testing.assert_array_equal(run(tmp_path / "halves", 4, resume=True), whole)
    for first, second in zip(earlier_scores(tmp_path / "whole"), earlier_scores(tmp_path / "halves"), strict=True):
        for name, values in first.items():
            np.testing.assert_array_equal(values, second[name])
    (tmp_path / "whole/rounds/0002/samples.parquet").unlink()
    with pytest.raises(StoreError, match="no samples of round 2"):
        earlier_scores(tmp_path / "whole", before=4)


def test_a_rule_does_not_go_by_a_level_that_never_changes(tmp_path):
    from raft_core.config.run_config import check

    (tmp_path / "p.txt").write_text("one\ntwo\nthree\nfour")
    ranks = {"class_path": "RankAggregate", "init_args": {"rewards": ["FakeReward"]}}
    raw = {"policy": "FakePolicy", "reward": ranks, "prompts": {"train": str(tmp_path / "p.txt")}, "trackers": []}
    with pytest.raises(ConfigError) as caught:
        check(raw)
    assert len(caught.value.mistakes) == 2
    assert "stop_when.0 goes by reward/mean" in caught.value.mistakes[0] and "score/mean" in caught.value.mistakes[0]
    plateau = {"class_path": "Plateau", "init_args": {"metric": "score/mean", "absolute": 0.1}}
    assert check({**raw, "stop_when": [plateau], "keep": {"best": "score/mean"}})


def test_the_page_on_combinators_names_what_there_is():
    import re
    from pathlib import Path

    from raft_core.config.listing import classes

    page = (Path(__file__).parents[3] / "docs/reference/combining_rewards.md").read_text(encoding="utf-8")
    table = page.split("## Combinators\n")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)`", table, re.M))
    core = (found for found in classes("reward") if found.class_path.startswith("raft_core."))
    assert named == {found.name for found in core if "combine" in found.members and found.public}
    assert {"Isolated", "Cached", "RemoteReward"} <= {found.name for found in classes("reward")}


def test_what_is_made_of_relative_rewards_alone_is_relative():
    ranks = RankAggregate([Fixed("a", [1.0])])
    assert Weighted([ranks]).info.relative and Ensemble([ranks]).info.relative
    assert not Weighted([ranks, Fixed("b", [1.0])]).info.relative
