"""Selectors by property: what holds for every table of scores, with ties, gaps and degenerate shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raft_core.errors import ConfigError
from raft_core.selectors.all_best import AllBest
from raft_core.selectors.best_of_k import BestOfK, BestThenTop, TopFraction, best_of_each
from raft_core.types import Weighted

SELECTORS = [BestOfK(), TopFraction(0.25), TopFraction(1.0), BestThenTop(1), BestThenTop(3), AllBest()]
by_selector = pytest.mark.parametrize("selector", SELECTORS, ids=str)

shapes = st.tuples(st.integers(0, 6), st.integers(1, 6))
coarse = st.sampled_from([-1.0, 0.0, 0.5, 2.0, np.nan])  # ties and gaps in almost every table
tables = shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=coarse))
distinct = shapes.flatmap(
    lambda shape: st.permutations(range(shape[0] * shape[1])).map(lambda order: np.array(order, dtype=float).reshape(shape))
)


@st.composite
def distinct_with_gaps(draw):
    scores = draw(distinct)
    gaps = draw(arrays(np.bool_, scores.shape))
    return np.where(gaps, np.nan, scores)


def coordinates(selection: Weighted, k: int) -> list[tuple[int, int]]:
    return [(int(i) // k, int(i) % k) for i in selection.index]


@by_selector
@given(scores=tables)
@settings(max_examples=60, deadline=None)
def test_selects_scored_samples_once(selector, scores):
    before = scores.copy()
    selection = selector(scores)
    assert isinstance(selection, selector.produces)
    assert selection.index.dtype == np.int64 and selection.weight.dtype == np.float64
    assert len(set(selection.index.tolist())) == len(selection) == len(selection.weight)
    assert not np.isnan(scores.ravel()[selection.index]).any()
    assert (selection.weight == 1).all()
    assert len(selection) > 0 or np.isnan(scores).all()
    np.testing.assert_array_equal(scores, before)  # pure


@by_selector
@given(scores=distinct_with_gaps(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_permuting_prompts_and_samples_permutes_the_selection(selector, scores, data):
    p, k = scores.shape
    rows = data.draw(st.permutations(range(p)))
    columns = np.array([data.draw(st.permutations(range(k))) for _ in range(p)], dtype=int).reshape(p, k)
    permuted = np.take_along_axis(scores[rows], columns, axis=1) if p else scores
    found = {(rows[i], int(columns[i, j])) for i, j in coordinates(selector(permuted), k)}
    assert found == set(coordinates(selector(scores), k))


@by_selector
@given(scores=tables)
@settings(max_examples=60, deadline=None)
def test_a_monotone_change_of_the_reward_changes_nothing(selector, scores):
    np.testing.assert_array_equal(selector(scores).index, selector(3 * scores + 7).index)


@given(scores=tables)
@settings(max_examples=100, deadline=None)
def test_best_of_k_takes_the_first_maximum_of_every_scored_prompt(scores):
    k = scores.shape[1]
    expected = [
        (i, min(j for j in range(k) if row[j] == np.nanmax(row))) for i, row in enumerate(scores) if not np.isnan(row).all()
    ]
    assert coordinates(BestOfK()(scores), k) == expected


@given(scores=tables, fraction=st.sampled_from([0.01, 0.1, 1 / 3, 0.5, 1.0]))
@settings(max_examples=100, deadline=None)
def test_top_fraction_keeps_the_best_of_what_is_scored(scores, fraction):
    selection = TopFraction(fraction)(scores)
    scored = np.sort(scores[~np.isnan(scores)])[::-1]
    n = len(selection)
    assert n == 0 if not len(scored) else fraction * len(scored) - 1e-6 <= n < fraction * len(scored) + 1
    np.testing.assert_array_equal(scores.ravel()[selection.index], scored[:n])


@given(scores=tables, n=st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_best_then_top_keeps_the_best_winners(scores, n):
    winners = best_of_each(scores)
    selection = BestThenTop(n)(scores)
    assert len(selection) == min(n, len(winners))
    assert set(selection.index) <= set(winners)
    left_out = np.setdiff1d(winners, selection.index)
    if len(left_out):
        assert scores.ravel()[selection.index].min() >= scores.ravel()[left_out].max()


@pytest.mark.parametrize(
    ("fraction", "scored", "kept"), [(0.1, 10, 1), (0.1, 100, 10), (0.3, 10, 3), (0.05, 10, 1), (0.11, 10, 2)]
)
def test_counts_of_top_fraction(fraction, scored, kept):
    assert len(TopFraction(fraction)(np.arange(scored, dtype=float)[None])) == kept


def test_by_hand():
    scores = np.array([[1.0, 5.0, 5.0], [np.nan, np.nan, np.nan], [2.0, np.nan, 0.0], [9.0, 9.0, 1.0]])
    assert BestOfK()(scores).index.tolist() == [1, 6, 9]
    assert BestThenTop(2)(scores).index.tolist() == [9, 1]
    assert TopFraction(0.5)(scores).index.tolist() == [9, 10, 1, 2]


@by_selector
def test_ties_keep_the_first(selector):
    kept = coordinates(selector(np.ones((3, 4))), 4)
    assert kept == sorted(kept)
    assert kept[0] == (0, 0)


@by_selector
@pytest.mark.parametrize("scores", [np.full((2, 3), np.nan), np.empty((0, 3))])
def test_nothing_scored_selects_nothing(selector, scores):
    selection = selector(scores)
    assert len(selection) == 0 and selection.kept.tolist() == []


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_a_fraction_must_be_one(fraction):
    with pytest.raises(ConfigError, match=r"\(0, 1\]"):
        TopFraction(fraction)


def test_at_least_one_winner():
    with pytest.raises(ConfigError, match="at least 1"):
        BestThenTop(0)
