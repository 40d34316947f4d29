"""The predicted gain: unbiased for normal rewards, right for those of a few levels, with intervals that hold."""

import math

import numpy as np
import pytest
from scipy.special import betaln

from raft_core.metrics.best_of import expected_max_normal
from raft_core.metrics.gain import binary_gain, c4, deviations, gain_of_levels, levels, predicted_gain

NAN = math.nan


def test_c4_is_what_tables_say():
    assert [c4(n) for n in (2, 4, 10, 16)] == pytest.approx([0.797885, 0.921318, 0.972659, 0.983484], abs=1e-6)


def test_up_to_the_samples_at_hand_the_gain_is_measured():
    grid = np.array([[1, 2, 3.0], [0, 1.5, 6], [1, NAN, NAN]])
    # E max of 2 minus mean: 8/3 − 2, and (1.5 + 6 + 6)/3 − 2.5 = 2; Student's quantile of one degree of freedom is 12.7.
    gain = predicted_gain(grid, 2)
    assert gain.value == pytest.approx((2 / 3 + 2) / 2)
    assert (gain.low, gain.high) == pytest.approx((0, 4 / 3 + 12.7062 * 2 / 3), rel=1e-4)
    assert deviations(grid) == pytest.approx([1 / c4(3), np.std([0, 1.5, 6], ddof=1) / c4(3)])


def test_one_prompt_gives_no_interval_and_none_no_gain():
    alone = predicted_gain(np.array([[1.0, 2.0, 4.0]]), 8)
    assert alone.value > 0 and math.isnan(alone.low) and math.isnan(alone.high)
    assert math.isnan(predicted_gain(np.full((3, 4), NAN), 8).value)


@pytest.mark.parametrize("k", [4, 16, 32])
def test_the_gain_of_normal_rewards_is_not_too_small(k):
    """From four samples s is 8 % too small on average: of 500 probes the mean prediction is right to 2 %."""
    rng = np.random.default_rng(1)
    spread = rng.uniform(0.5, 1.5, (500, 8, 1))  # prompts differ, by 1 on average
    found = [predicted_gain(scores, k) for scores in rng.normal(0, spread, (500, 8, 4))]
    truth = expected_max_normal(k)
    assert np.mean([gain.value for gain in found]) == pytest.approx(truth, rel=0.02)
    assert 0.92 <= np.mean([gain.low <= truth <= gain.high for gain in found]) <= 0.99


def of_beta(mean, correlation, k):
    """E[1 − (1 − p)^k] − E p."""
    a, b = mean * (1 / correlation - 1), (1 - mean) * (1 / correlation - 1)
    return 1 - math.exp(betaln(a, b + k) - betaln(a, b)) - mean


@pytest.mark.parametrize(
    ("mean", "correlation", "k"),
    [(0.3, 0.2, 4), (0.3, 0.5, 4), (0.3, 0.5, 16), (0.6, 0.5, 16), (0.05, 0.5, 16), (0.6, 0.9, 32)],
)
def test_the_gain_of_right_and_wrong_allows_for_prompts_that_differ(mean, correlation, k):
    """Of 60 probes of 8 prompts × 4 the predictions are nearer the truth than 1 − (1 − p̄)^k, and 90 % of intervals hold it."""
    rng = np.random.default_rng(2)
    chance = rng.beta(mean * (1 / correlation - 1), (1 - mean) * (1 / correlation - 1), (60, 8, 1))
    probes = (rng.random((60, 8, 4)) < chance).astype(float)
    found = [predicted_gain(scores, k) for scores in probes]
    truth, shares = of_beta(mean, correlation, k), probes.mean(axis=(1, 2))
    simple = 1 - (1 - shares) ** k - shares
    values = np.array([gain.value for gain in found])
    assert np.square(values - truth).mean() < np.square(simple - truth).mean()
    assert abs(values.mean() - truth) < 0.5 * abs(simple.mean() - truth)
    assert np.mean([gain.low <= truth <= gain.high for gain in found]) >= 0.9


def test_many_prompts_leave_no_doubt():
    rng = np.random.default_rng(3)
    chance = rng.beta(0.7, 0.7, 2000)  # mean ½, correlation 0.417
    gain = binary_gain(rng.binomial(4, chance), np.full(2000, 4), 32)
    assert gain.value == pytest.approx(of_beta(0.5, 1 / 2.4, 32), rel=0.05)
    assert gain.high - gain.low < 0.05


def test_where_every_prompt_is_solved_or_hopeless_nothing_is_gained():
    gain = binary_gain(np.array([4, 0] * 200), np.full(400, 4), 64)
    assert gain.high < 0.02


def test_nothing_right_yet_is_no_proof_that_nothing_can_be():
    gain = predicted_gain(np.zeros((8, 4)), 32)
    assert 0 < gain.value < 0.3 and gain.low < 0.01 < gain.high


def test_levels_add_up():
    """0, 0.1 and 1: a tenth of the gain of reaching 0.1 and nine tenths of that of reaching 1."""
    scores = np.array([[0, 0.1, 0.1, 1], [0, 0, 0, 0.1], [1, 1, 0.1, NAN], *[[0, 0.1, 0, 1]] * 5])
    assert levels(scores) == pytest.approx([0, 0.1, 1])
    of = np.array([4, 4, 3] + [4] * 5)
    some, right = binary_gain(np.array([3, 1, 3] + [2] * 5), of, 8), binary_gain(np.array([1, 0, 2] + [1] * 5), of, 8)
    gain = gain_of_levels(scores, levels(scores), 8)
    assert gain.value == pytest.approx(0.1 * some.value + 0.9 * right.value)
    assert predicted_gain(scores, 8) == gain and gain.low < gain.value < gain.high < 1


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[0.0, 1.0], [1.0, 0.0]], [0, 1]),
        ([[-1.0, 1.0], [1.0, NAN]], [-1, 1]),
        ([[0.0, 0.0]], [0, 1]),
        ([[0.3, 0.3]], []),
        ([[0.1, 0.2]], []),  # as many as samples
        ([[1.0, 2.0, 3.0], [2.0, 2.0, 1.0]], []),
        ([[NAN]], []),
    ],
)
def test_few_levels_are_told_from_many(scores, expected):
    assert levels(np.array(scores)).tolist() == expected
