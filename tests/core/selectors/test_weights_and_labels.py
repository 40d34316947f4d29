"""Boltzmann weights, rising quantiles, labels and whole groups by property."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raft_core.errors import ConfigError
from raft_core.metrics.spread import effective_number
from raft_core.selectors.above_quantile import AboveQuantile
from raft_core.selectors.boltzmann import Boltzmann, boltzmann_shares
from raft_core.selectors.labels import MedianLabels, ThresholdLabels
from raft_core.selectors.select import select
from raft_core.selectors.whole_groups import WholeGroups
from raft_core.types import Grouping, Scores

NAN = np.nan
FLAT = [Boltzmann(0.5), Boltzmann(0.1, 0.4), AboveQuantile(0.5, None), AboveQuantile(), ThresholdLabels(0.5), MedianLabels()]
by_selector = pytest.mark.parametrize("selector", FLAT, ids=str)
coarse = st.sampled_from([-1.0, 0.0, 0.5, 2.0, NAN])
tables = st.tuples(st.integers(0, 6), st.integers(1, 6)).flatmap(lambda shape: arrays(np.float64, shape, elements=coarse))
ragged = st.lists(st.lists(coarse, min_size=1, max_size=5), min_size=1, max_size=5)


def told(selection) -> dict[int, float]:
    values = selection.weight if hasattr(selection, "weight") else selection.good.astype(float)
    return {i: round(v, 9) for i, v in zip(selection.index.tolist(), values.tolist(), strict=True)}


@by_selector
@given(scores=tables)
@settings(max_examples=80, deadline=None)
def test_only_what_is_scored_is_chosen_and_once(selector, scores):
    before = scores.copy()
    selection = selector(scores)
    assert isinstance(selection, selector.produces) and selection.index.dtype == np.int64
    assert len(set(selection.index.tolist())) == len(selection)
    assert not np.isnan(scores.ravel()[selection.index]).any() and np.isfinite([*told(selection).values()]).all()
    np.testing.assert_array_equal(scores, before)


@by_selector
@given(groups=ragged)
@settings(max_examples=60, deadline=None)
def test_each_prompt_is_treated_as_if_it_stood_alone(selector, groups):
    def chosen(rows):
        flat = np.array([value for row in rows for value in row])
        return told(select(selector, Scores("r", {"r": flat}), Grouping(np.array([len(row) for row in rows]))))

    expected, start = {}, 0
    for row in groups:
        expected |= {start + i: value for i, value in chosen([row]).items()}
        start += len(row)
    assert chosen(groups) == expected


@by_selector
@given(scores=tables, data=st.data())
@settings(max_examples=60, deadline=None)
def test_permuting_prompts_and_samples_permutes_the_selection(selector, scores, data):
    p, k = scores.shape
    rows, columns = data.draw(st.permutations(range(p))), data.draw(st.permutations(range(k)))
    permuted = scores[rows][:, columns] if p else scores
    found = {rows[i // k] * k + columns[i % k]: value for i, value in told(selector(permuted)).items()}
    assert found == told(selector(scores))


@by_selector
@pytest.mark.parametrize("scores", [np.full((2, 3), NAN), np.empty((0, 3))])
def test_nothing_scored_selects_nothing(selector, scores):
    assert len(selector(scores)) == 0 and selector(scores).kept.tolist() == []


@given(scores=tables, beta=st.sampled_from([0.01, 0.5, 100.0]), least=st.sampled_from([0.0, 0.3, 0.9]))
@settings(max_examples=100, deadline=None)
def test_weights_of_a_prompt_have_mean_1_and_enough_of_them_count(scores, beta, least):
    selection = Boltzmann(beta, least)(scores)
    full = np.zeros(scores.size)
    full[selection.index] = selection.weight
    for row, own in zip(full.reshape(scores.shape), scores, strict=True):
        scored = ~np.isnan(own)
        if scored.any():
            assert row[scored].mean() == pytest.approx(1)
            assert effective_number(row[None, scored])[0] >= least * scored.sum() - 1e-6
            assert (np.diff(row[scored][np.argsort(own[scored], kind="stable")]) >= -1e-9).all()


def test_boltzmann_by_hand():
    # exp(r/β) of (0, log 2 · β, log 5 · β): 1, 2, 5 over their mean 8/3.
    beta = 0.3
    scores = np.array([[0.0, math.log(2) * beta, math.log(5) * beta, NAN]])
    selection = Boltzmann(beta)(scores)
    assert selection.index.tolist() == [0, 1, 2]
    assert selection.weight.tolist() == pytest.approx([3 / 8, 6 / 8, 15 / 8])
    assert effective_number(selection.weight[None]).tolist() == pytest.approx([64 / 30])
    # The floor takes the least β that leaves so many: just as many are left as it asks for, and no more.
    floored = Boltzmann(1e-3, 0.75)(scores).weight
    assert effective_number(floored[None])[0] == pytest.approx(0.75 * 3)
    assert Boltzmann(1e-3)(scores).weight.tolist() == pytest.approx([0, 0, 3])
    assert boltzmann_shares(np.array([[1e8, -1e8]]), np.array([1e-3])).tolist() == [[1, 0]]


def test_the_quantile_rises_from_round_to_round_and_stays():
    selector = AboveQuantile(0.5, 0.9, over=3)
    assert [round(selector.at_round(rnd).first, 9) for rnd in (1, 2, 3, 4)] == [0.5, 0.7, 0.9, 0.9]
    assert AboveQuantile(0.5, None).at_round(9).first == 0.5 and AboveQuantile(0.5, 0.9, over=1).at_round(1).first == 0.9
    scores = np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [7.0, 7.0, NAN, NAN, 7.0]])
    assert AboveQuantile(0.5, None)(scores).index.tolist() == [2, 3, 4, 5, 6, 9]
    assert AboveQuantile(0.9, None)(scores).index.tolist() == [4, 5, 6, 9]


def test_labels_by_hand():
    scores = np.array([[1.0, 2.0, 3.0, NAN], [0.0, NAN, NAN, NAN], [2.0, 2.0, 2.0, 2.0], [4.0, 4.0, 1.0, 0.0]])
    assert told(ThresholdLabels(2.0)(scores)) == {0: 0, 1: 1, 2: 1, 4: 0, 8: 1, 9: 1, 10: 1, 11: 1, 12: 1, 13: 1, 14: 0, 15: 0}
    assert told(MedianLabels()(scores)) == {0: 0, 2: 1, 12: 1, 13: 1, 14: 0, 15: 0}


@given(groups=ragged)
@settings(max_examples=60, deadline=None)
def test_whole_groups_are_those_with_something_to_rank(groups):
    flat = np.array([value for row in groups for value in row])
    sizes = np.array([len(row) for row in groups])
    for drop in (True, False):
        found = select(WholeGroups(drop), Scores("r", {"r": flat}), Grouping(sizes))
        scored = [{value for value in row if not math.isnan(value)} for row in groups]
        wanted = [set(np.flatnonzero(np.repeat(np.arange(len(groups)), sizes) == p)) for p in range(len(groups))]
        expected = [
            {i for i in wanted[p] if not math.isnan(flat[i])}
            for p, values in enumerate(scored)
            if len(values) > (1 if drop else 0)
        ]
        assert [set(index[~np.isnan(reward)]) for index, reward in zip(found.index, found.reward, strict=True)] == expected
        for index, reward in zip(found.index, found.reward, strict=True):
            there = ~np.isnan(reward)
            np.testing.assert_array_equal(reward[there], flat[index[there]])
    assert len(WholeGroups()(np.empty((0, 3)))) == 0 and WholeGroups()(np.full((2, 3), NAN)).kept.tolist() == []


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Boltzmann(0.0), "beta is 0"),
        (lambda: Boltzmann(1.0, 1.0), "least_effective is 1"),
        (lambda: AboveQuantile(first=1.0), "first is 1"),
        (lambda: AboveQuantile(over=0), "over is 0"),
        (lambda: ThresholdLabels(NAN), "score is nan"),
    ],
)
def test_settings_that_make_no_sense(made, message):
    with pytest.raises(ConfigError, match=message):
        made()
