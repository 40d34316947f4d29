"""Preference pairs by property: never a tie, never across prompts, never of what is not scored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raft_core.errors import ConfigError
from raft_core.selectors.pairs import AllPairs, BestVsWorst, RandomPairs
from raft_core.selectors.select import select
from raft_core.types import Grouping, Pairs, Scores

NAN = np.nan
SELECTORS = [
    BestVsWorst(),
    BestVsWorst(gap=1.0),
    AllPairs(),
    AllPairs(gap=1.0),
    AllPairs(most=2),
    RandomPairs(n=2),
    RandomPairs(n=1, gap=1.0),
]
by_selector = pytest.mark.parametrize("selector", SELECTORS, ids=str)
coarse = st.sampled_from([-1.0, 0.0, 0.5, 2.0, NAN])
tables = st.tuples(st.integers(0, 6), st.integers(1, 6)).flatmap(lambda shape: arrays(np.float64, shape, elements=coarse))
ragged = st.lists(st.lists(coarse, min_size=1, max_size=5), min_size=1, max_size=5)


@by_selector
@given(scores=tables)
@settings(max_examples=80, deadline=None)
def test_a_pair_is_of_one_prompt_and_its_first_is_better_by_more_than_the_gap(selector, scores):
    before, k = scores.copy(), scores.shape[1]
    pairs = selector(scores)
    assert isinstance(pairs, Pairs) and pairs.chosen.dtype == pairs.rejected.dtype == np.int64
    assert (pairs.chosen // k == pairs.rejected // k).all()
    flat = scores.ravel()
    np.testing.assert_array_equal(pairs.margin, flat[pairs.chosen] - flat[pairs.rejected])
    assert (pairs.margin > selector.gap).all()
    assert len({*zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)}) == len(pairs)
    np.testing.assert_array_equal(scores, before)
    np.testing.assert_array_equal(selector(scores).chosen, pairs.chosen)  # the same again


@by_selector
@given(scores=tables)
@settings(max_examples=80, deadline=None)
def test_every_prompt_with_a_gap_gives_a_pair_and_no_other(selector, scores):
    k = scores.shape[1]
    wide = {p for p, row in enumerate(scores) if (row[:, None] - row[None, :] > selector.gap).any()}
    assert {int(i) // k for i in selector(scores).chosen} == wide


@by_selector
@given(groups=ragged)
@settings(max_examples=60, deadline=None)
def test_each_prompt_is_treated_as_if_it_stood_alone(selector, groups):
    def chosen(rows):
        values = np.array([value for row in rows for value in row])
        found = select(selector, Scores("r", {"r": values}), Grouping(np.array([len(row) for row in rows])))
        return [*zip(found.chosen.tolist(), found.rejected.tolist(), strict=True)]

    expected, start = [], 0
    for row in groups:
        expected += [(start + i, start + j) for i, j in chosen([row])]
        start += len(row)
    assert chosen(groups) == expected


@pytest.mark.parametrize("selector", [BestVsWorst(), AllPairs(), AllPairs(gap=1.5)], ids=str)
@given(order=st.permutations(range(5)), gaps=arrays(np.bool_, 5))
@settings(max_examples=60, deadline=None)
def test_permuting_a_prompts_samples_permutes_its_pairs(selector, order, gaps):
    scores = np.where(gaps, NAN, [3.0, 1.0, 4.0, 1.5, 9.0])
    permuted = selector(scores[None, order])
    found = {(order[i], order[j]) for i, j in zip(permuted.chosen.tolist(), permuted.rejected.tolist(), strict=True)}
    expected = selector(scores[None])
    assert found == {*zip(expected.chosen.tolist(), expected.rejected.tolist(), strict=True)}


def test_by_hand():
    scores = np.array([[1.0, 5.0, 5.0, 1.0], [2.0, NAN, NAN, NAN], [3.0, 3.0, 3.0, 3.0], [NAN, 0.0, 2.0, 1.0]])
    pairs = BestVsWorst()(scores)
    assert [*zip(pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.margin.tolist(), strict=True)] == [
        (1, 0, 4),
        (14, 13, 2),
    ]
    assert BestVsWorst(gap=2.0)(scores).chosen.tolist() == [1]
    assert len(AllPairs()(scores)) == 4 + 3
    widest = AllPairs(most=1)(scores)
    assert [*zip(widest.chosen.tolist(), widest.rejected.tolist(), strict=True)] == [(1, 0), (14, 13)]


def test_random_pairs_are_of_all_pairs_alike():
    """Of a prompt with three scored samples each of the three pairs is drawn about equally often over 300 seeds."""
    scores = np.array([[0.0, 1.0, 2.0, NAN]])
    drawn = [RandomPairs(seed=seed)(scores) for seed in range(300)]
    counts = {(int(p.chosen[0]), int(p.rejected[0])): 0 for p in drawn}
    for pairs in drawn:
        counts[int(pairs.chosen[0]), int(pairs.rejected[0])] += 1
    assert set(counts) == {(1, 0), (2, 0), (2, 1)} and min(counts.values()) > 70


@by_selector
@pytest.mark.parametrize("scores", [np.full((2, 3), NAN), np.empty((0, 3)), np.ones((3, 1)), np.ones((3, 4))])
def test_nothing_to_prefer_makes_no_pair(selector, scores):
    pairs = selector(scores)
    assert len(pairs) == 0 and pairs.kept.tolist() == []


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: BestVsWorst(gap=-1.0), "gap is -1"),
        (lambda: AllPairs(gap=NAN), "gap is nan"),
        (lambda: AllPairs(most=0), "most is 0"),
        (lambda: RandomPairs(n=0), "n is 0"),
    ],
)
def test_settings_that_make_no_sense(made, message):
    with pytest.raises(ConfigError, match=message):
        made()
