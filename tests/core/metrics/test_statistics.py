import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raft_core.metrics.statistics import (
    cluster_sums,
    clustered_rate,
    design_effect,
    jackknife_variance,
    mean_interval,
    standard_error,
    wilson,
    win_rate,
    wins,
)


def test_wilson_matches_the_textbook():
    # 15 of 20 at 95 %: Wilson 1927 gives 0.531 … 0.888.
    assert wilson(0.75, 20) == pytest.approx((0.531, 0.888), abs=1e-3)


@given(st.floats(0, 1), st.floats(1, 1e4))
def test_wilson_stays_in_the_unit_interval_and_holds_the_rate(rate, n):
    low, high = wilson(rate, n)
    assert 0 <= low <= rate + 1e-9
    assert rate - 1e-9 <= high <= 1


def test_ties_count_half_and_missing_pairs_do_not_count():
    before = np.array([[1.0, 1.0], [1.0, np.nan]])
    after = np.array([[2.0, 1.0], [0.5, 3.0]])
    won = wins(before, after)
    np.testing.assert_array_equal(won, [[1, 0.5], [0, np.nan]])
    assert win_rate(won).value == pytest.approx(0.5)
    np.testing.assert_array_equal(wins(before, after, higher_is_better=False), [[0, 0.5], [1, np.nan]])


def test_mean_is_over_pairs_and_nan_counts_for_nothing():
    values = np.array([[1.0, 2.0, 3.0], [np.nan, 6.0, np.nan], [np.nan] * 3])
    assert mean_interval(values, seed=0).value == pytest.approx(12 / 4)


def test_interval_is_wide_when_prompts_differ_and_their_samples_agree():
    """40 values from 10 prompts whose samples are copies carry the information of 10 values."""
    rng = np.random.default_rng(0)
    per_prompt = rng.normal(1, 1, size=(10, 1))
    copies = mean_interval(np.repeat(per_prompt, 4, axis=1), seed=1)
    alone = mean_interval(per_prompt, seed=1)
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    trials = [rng.normal(0, 1, (24, 1)) + rng.normal(0, 1, (24, 3)) for _ in range(60)]
    found = [mean_interval(trial, seed=i) for i, trial in enumerate(trials)]
    covered = np.mean([estimate.low <= 0 <= estimate.high for estimate in found])
    assert 0.85 <= covered <= 1.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full((4, 3), 0.25), (0.25, 0.25, 0.25)),  # nothing varies
        (np.array([[1.0, 2.0]]), (1.5, math.nan, math.nan)),  # one prompt says nothing about others
        (np.full((2, 2), np.nan), (math.nan, math.nan, math.nan)),
    ],
)
def test_degenerate_samples_have_defined_intervals(values, expected):
    estimate = mean_interval(values, seed=0)
    np.testing.assert_allclose([estimate.value, estimate.low, estimate.high], expected)


def test_same_seed_same_interval():
    values = np.random.default_rng(0).normal(size=(8, 2))
    assert mean_interval(values, 5) == mean_interval(values, 5)
    assert mean_interval(values, 5) != mean_interval(values, 6)


def test_the_jackknife_and_the_standard_error_by_hand():
    """Prompts' means 2 and 5: variance 4.5, over 2 prompts. Of unequal ones: mean 3, without the first 4, the second 1."""
    assert standard_error(np.array([[1.0, 3.0], [4.0, 6.0]])) == pytest.approx(1.5)
    sums, counts = cluster_sums(np.array([1.0, 4.0, 4.0, np.nan]), np.array([7, 2, 2, 7]))
    np.testing.assert_array_equal((sums, counts), ([8, 1], [2, 1]))
    assert jackknife_variance(sums, counts) == pytest.approx(((1 - 3) ** 2 + (4 - 3) ** 2) / 2)
    assert math.isnan(standard_error(np.array([[1.0, 2.0]])))


def test_design_effect_is_one_for_independent_pairs_and_k_for_copies():
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(400), 4)
    assert design_effect(rng.integers(0, 2, 1600).astype(float), prompts) == pytest.approx(1, abs=0.3)
    assert design_effect(np.repeat(rng.integers(0, 2, 400), 4).astype(float), prompts) == pytest.approx(4, rel=0.05)


def test_a_rate_of_independent_values_has_wilsons_interval():
    hits = np.array([1.0] * 15 + [0.0] * 5)
    estimate = clustered_rate(hits, np.arange(20))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.75, *wilson(0.75, 20)))


def test_a_clean_sweep_is_counted_by_prompts():
    """All pairs won: the interval is that of as many wins as there are prompts, not pairs."""
    assert win_rate(np.ones((10, 8))).low == pytest.approx(wilson(1.0, 10, freedom=9)[0])


def test_one_prompt_says_next_to_nothing_about_others():
    estimate = clustered_rate(np.array([1.0, 1.0, 1.0, 0.0]), np.zeros(4, dtype=int))
    assert estimate.value == 0.75 and estimate.low < 0.01 and estimate.high > 0.99


@pytest.mark.parametrize(
    ("sizes", "agreement", "least"),
    [
        ([8] * 20, 0.0, 0.93),  # the pairs of a prompt are independent
        ([10] * 10, 0.3, 0.93),  # Wilson's interval of 100 pairs covers 70 %
        ([10] * 40, 0.3, 0.93),
        ([10] * 40, 0.8, 0.93),
        (range(1, 31), 0.3, 0.93),
        ([*[1] * 12, *[4] * 16, *[12] * 8, *[60] * 4], 0.3, 0.92),  # as collected data has them; Wilson's covers 40 %
    ],
)
def test_an_interval_of_a_rate_covers_the_truth_as_often_as_it_says(sizes, agreement, least):
    """1000 sets of pairs whose prompts are right with chances of a beta distribution of mean 0.7.

    ``sizes`` are the numbers of pairs of each prompt, ``agreement`` is the correlation of two pairs of a prompt. At a
    coverage of 0.95 the share of 1000 has a standard error of 0.007.
    """
    rng = np.random.default_rng(11)
    truth, covered = 0.7, 0
    for _ in range(1000):
        weight = 1 / agreement - 1 if agreement else 1e9
        chances = rng.beta(truth * weight, (1 - truth) * weight, len(sizes))
        prompts = np.repeat(np.arange(len(sizes)), sizes)
        hits = (rng.random(len(prompts)) < chances[prompts]).astype(float)
        estimate = clustered_rate(hits, prompts)
        covered += estimate.low <= truth <= estimate.high
    assert least <= covered / 1000 <= 0.995


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, (5, 3), elements=st.sampled_from([0.0, 0.5, 1.0, np.nan])))
def test_win_rate_is_defined_for_any_outcome(won):
    estimate = win_rate(won)
    if np.isnan(won).all():
        assert math.isnan(estimate.value)
    else:
        assert 0 <= estimate.low <= estimate.value + 1e-9
        assert estimate.value - 1e-9 <= estimate.high <= 1
