"""Every figure against numbers derived by hand."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raft_core.metrics.best_of import expected_max, expected_max_normal, gaussian_gain
from raft_core.metrics.divergence import best_of_n_kl, kl_to_reference, log_ratios
from raft_core.metrics.diversity import diversity_within, pairwise_distance, vendi, vendi_within
from raft_core.metrics.spread import flat_fraction
from raft_core.monitoring.figures import column_figures, measure, reward_figures, weight_figures
from raft_core.rng import numpy_rng
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK
from raft_core.testing import FakePolicy, close
from raft_core.types import Grouping, Pairs, Prompt, Scores, Weighted

NAN = math.nan


def scores(grid, **more) -> Scores:
    return Scores("r", {"r": np.array(grid, dtype=float).ravel(), **more.pop("columns", {})}, **more)


# --- rewards, judges, parts


def test_how_many_samples_count_by_their_weights():
    groups = Grouping(np.array([3, 2, 2]))
    found = weight_figures(Weighted(np.array([0, 2, 3]), np.array([3.0, 1.0, 2.0])), groups, 7)
    assert found == {"select/effective_samples": pytest.approx((1.6 + 1) / 2)}  # the third prompt has none
    assert weight_figures(Weighted(np.array([0, 2]), np.ones(2)), groups, 7) == {}
    assert weight_figures(Pairs(np.array([0]), np.array([1]), np.ones(1)), groups, 7) == {}


@pytest.mark.parametrize(
    ("grid", "fraction"),
    [([[1, 1], [1, 2], [3, NAN], [NAN, NAN]], 2 / 3), ([[1, 2]], 0.0), ([[NAN, NAN]], NAN), (np.empty((0, 2)), NAN)],
)
def test_prompts_without_spread(grid, fraction):
    assert flat_fraction(np.array(grid, dtype=float)) == pytest.approx(fraction, nan_ok=True)


def test_reward_figures_by_hand():
    found = reward_figures(scores([[1, 3], [2, NAN]]), np.array([1, 2]), 2)
    assert found == {
        "reward/mean": 2.0,
        "reward/best": 2.5,
        "reward/kept": 2.5,
        "reward/std_within": pytest.approx(math.sqrt(2)),
        "reward/flat_fraction": 0.5,
        "se/reward/mean": 0.0,
    }


def test_where_lower_is_better_the_best_is_the_lowest():
    found = reward_figures(scores([[1, 3], [2, 8]], descending=frozenset({"r"})), np.array([0, 2]), 2)
    assert found["reward/mean"] == 3.5
    assert found["reward/best"] == 1.5
    assert found["reward/kept"] == 1.5


def test_columns_by_hand():
    columns = {"judge": np.array([1, NAN, 3, 6.0]), "part": np.array([0, 1, 2, 3.0]), "dead": np.full(4, NAN)}
    found = column_figures(scores([[1, 3], [2, NAN]], columns=columns, parts=frozenset({"part"})), np.array([1, 2]), 2)
    dead = {name: found.pop(name) for name in ("judge/dead", "judge_kept/dead", "se/judge/dead")}
    assert all(math.isnan(value) for value in dead.values())
    assert found == {
        "judge/judge": pytest.approx(10 / 3),
        "se/judge/judge": pytest.approx(math.sqrt(((4.5 - 10 / 3) ** 2 + (1 - 10 / 3) ** 2) / 2)),  # each prompt left out
        "judge_kept/judge": 3.0,
        "score/part": 1.5,
        "se/score/part": 1.0,
        "unscored/r": 1,
        "unscored/judge": 1,
        "unscored/dead": 4,
    }


grids = st.tuples(st.integers(0, 4), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0, 5.0, np.nan]))
)


@given(grid=grids)
@settings(max_examples=40, deadline=None)
def test_whatever_is_not_scored_there_is_no_nan_and_no_warning(grid):
    policy = FakePolicy()
    prompts = [Prompt(f"p{i}") for i in range(len(grid))]
    k = grid.shape[1]
    samples = policy.render(policy.sample(requests(prompts, k, 0, 1))) if prompts else []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(policy, samples, scores(grid, columns={"j": np.full(grid.size, NAN)}), BestOfK()(grid), 0)
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())
    assert found["select/kept"] == (~np.isnan(grid)).any(axis=1).sum()
    assert ("reward/mean" in found) == (not np.isnan(grid).all())
    assert ("diversity" in found) == (k > 1 and len(grid) > 0)
    assert found.get("kl") == (0 if len(samples) else None)


# --- divergence


def test_kl_by_hand():
    # nll = |x − mean|²/2, so the log-ratio of a mean m to a mean 0 is x·m − |m|²/2; here m = (1, 0): x₀ − 1/2.
    policy = FakePolicy()
    samples = policy.sample(requests([Prompt("p")], 200, 0, 1))
    policy.mean.data[:, 0] = 1.0
    x0 = np.array([float(s.tensors["x"][0]) for s in samples])
    close(log_ratios(policy, samples, (0,)), x0 - 0.5)
    fresh = policy.sample(requests([Prompt("p")], 200, 0, 2))
    # KL(N(m, 1) ‖ N(0, 1)) = |m|²/2, here of 200 samples with standard error 1/√200 = 0.07.
    assert kl_to_reference(policy, fresh, 0, limit=200) == pytest.approx(0.5, abs=0.2)


def test_kl_spends_no_more_than_its_limit_and_builds_no_graph():
    class Counting(FakePolicy):
        passes: tuple = ()

        def nll(self, samples, draw, *, reference=False):
            values = super().nll(samples, draw, reference=reference)
            self.passes += ((len(samples), reference, values.requires_grad),)
            return values

    policy = Counting(batch_size=4)
    samples = policy.sample(requests([Prompt("p")], 100, 0, 1))
    kl_to_reference(policy, samples, 0, limit=10)
    for reference in (False, True):
        assert sum(n for n, of_reference, _ in policy.passes if of_reference == reference) == 10
    assert max(n for n, _, _ in policy.passes) == 4
    assert not any(graph for _, _, graph in policy.passes)


def test_draws_are_shared_fixed_and_averaged():
    class Noisy(FakePolicy):
        def draw(self, samples, seeds):
            self.seeds = tuple(seeds)
            return torch.tensor([float(seed % 7) for seed in seeds])

        def nll(self, samples, draw, *, reference=False):
            return draw if reference else draw / 2

    policy = Noisy()
    samples = policy.sample(requests([Prompt("p")], 3, 0, 1))
    one, again, two = (log_ratios(policy, samples, path) for path in ((0, "a"), (0, "a"), (0, "b")))
    assert np.array_equal(one, again) and not np.array_equal(one, two)
    many = log_ratios(policy, samples, (0, "a"), draws=400)
    np.testing.assert_allclose(many, 1.5, atol=0.3)  # half of the mean of 0 … 6


def test_best_of_n_kl_by_hand():
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(2) == pytest.approx(math.log(2) - 0.5)
    assert best_of_n_kl(10) == pytest.approx(1.402585, abs=1e-6)


# --- diversity

E1, E2, E3 = np.eye(3)


def test_pairwise_distance_by_hand():
    assert pairwise_distance(np.stack([E1, E1, E2])) == pytest.approx(2 / 3)
    assert pairwise_distance(np.stack([E1, -E1])) == pytest.approx(2)
    assert pairwise_distance(np.stack([E1, E2, E3])) == pytest.approx(1)
    assert math.isnan(pairwise_distance(E1[None]))


def test_diversity_is_within_prompts():
    features = np.stack([E1, E1, E2, E3])  # two prompts: 0 and 1
    assert diversity_within(features, Grouping.of_indices([0, 1] * (len(features) // 2))) == pytest.approx(0.5)
    assert math.isnan(diversity_within(features, Grouping.of_indices([0] * len(features))))
    assert math.isnan(diversity_within(np.empty((0, 3)), Grouping.of_indices([])))


def test_vendi_by_hand():
    assert vendi(np.stack([E1] * 5)) == pytest.approx(1)
    assert vendi(np.stack([E1, E2, E3])) == pytest.approx(3)
    assert vendi(np.stack([E1, E1, E2])) == pytest.approx(3 / 2 ** (2 / 3))  # exp(−⅔ ln ⅔ − ⅓ ln ⅓)
    assert math.isnan(vendi(np.empty((0, 3))))
    groups = Grouping(np.array([3, 1, 2]))  # a prompt with a single sample tells nothing
    assert vendi_within(np.stack([E1, E1, E2, E3, E1, E1]), groups) == pytest.approx((3 / 2 ** (2 / 3) + 1) / 2)
    assert math.isnan(vendi_within(np.stack([E1, E2]), Grouping(np.array([1, 1]))))


# --- best of K


def test_expected_maximum_of_normals():
    known = {1: 0, 2: 1 / math.sqrt(math.pi), 3: 1.5 / math.sqrt(math.pi), 4: 1.029375, 8: 1.423600, 16: 1.765991, 32: 2.069669}
    for k, value in known.items():
        assert expected_max_normal(k) == pytest.approx(value, abs=1e-6)
    assert gaussian_gain(2.0, 2) == pytest.approx(2 / math.sqrt(math.pi))


def test_expected_maximum_of_a_sample_by_hand():
    values = np.array([3.0, 1.0, NAN, 2.0])
    assert expected_max(values, 1) == pytest.approx(2)
    assert expected_max(values, 2) == pytest.approx(8 / 3)
    assert expected_max(values, 3) == pytest.approx(3)
    assert math.isnan(expected_max(values, 4))


def test_expected_maximum_of_a_sample_is_unbiased():
    rng = numpy_rng("unbiased")
    estimates = [expected_max(rng.normal(size=12), 4) for _ in range(4000)]
    assert np.mean(estimates) == pytest.approx(expected_max_normal(4), abs=4 * np.std(estimates) / math.sqrt(4000))


def test_expected_maximum_of_large_samples_stays_finite():
    assert expected_max(np.arange(3000.0), 1000) == pytest.approx(1000 * 3001 / 1001 - 1)  # of k of 0 … n − 1


@pytest.mark.parametrize("function", [expected_max_normal, lambda k: expected_max(np.ones(2), k)])
def test_at_least_one_sample(function):
    with pytest.raises(ValueError, match="k is 0"):
        function(0)
