"""Advantages within a group by property, and against numbers derived by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raft_core.errors import ConfigError
from raft_core.selectors.group_advantages import GroupAdvantages, Rloo
from raft_core.selectors.select import select
from raft_core.types import Advantages, Grouping, Scores

NAN = np.nan
RECORD = json.loads((Path(__file__).parents[3] / "benchmarks/references/trl.json").read_text())["advantages"]
SELECTORS = [
    GroupAdvantages(),
    GroupAdvantages(drop_flat=False),
    GroupAdvantages("batch", clip=5.0),
    GroupAdvantages("none"),
    Rloo(),
    Rloo(drop_flat=False),
]
WITHIN = [selector for selector in SELECTORS if getattr(selector, "scale", "") != "batch"]
by_selector = pytest.mark.parametrize("selector", SELECTORS, ids=str)
values = st.one_of(st.sampled_from([-1.0, 0.0, 0.5, 2.0, NAN]), st.floats(-1e3, 1e3, width=32))
tables = st.tuples(st.integers(0, 5), st.integers(1, 6)).flatmap(lambda shape: arrays(np.float64, shape, elements=values))


def table(selection: Advantages, shape: tuple[int, ...]) -> np.ndarray:
    full = np.full(shape, NAN).ravel()
    full[selection.index] = selection.advantage
    return full.reshape(shape)


@by_selector
@given(scores=tables)
@settings(max_examples=100, deadline=None)
def test_advantages_are_of_scored_samples_and_add_up_to_nothing_in_each_prompt(selector, scores):
    before = scores.copy()
    selection = selector(scores)
    np.testing.assert_array_equal(scores, before)
    assert selection.index.dtype == np.int64 and selection.advantage.dtype == np.float64
    assert np.isfinite(selection.advantage).all() and not np.isnan(scores.ravel()[selection.index]).any()
    assert len(set(selection.index.tolist())) == len(selection)
    for row, own in zip(table(selection, scores.shape), scores, strict=True):
        kept = row[~np.isnan(row)]
        if getattr(selector, "clip", None) is None:
            assert abs(kept.sum()) <= 1e-9 * max(1.0, np.abs(kept).sum())
        if len(kept):
            assert len(kept) == (~np.isnan(own)).sum()  # a prompt is whole or not there
            order = np.argsort(own[~np.isnan(own)], kind="stable")
            assert (np.diff(kept[order]) >= -1e-12).all()  # better is never worse


@by_selector
@given(scores=tables)
@settings(max_examples=80, deadline=None)
def test_prompts_that_are_all_alike_teach_nothing(selector, scores):
    found = table(selector(scores), scores.shape)
    for row, own in zip(found, scores, strict=True):
        scored = own[~np.isnan(own)]
        if len(set(scored.tolist())) <= 1:
            assert np.isnan(row).all() if selector.drop_flat else np.nansum(np.abs(row)) == 0
        else:
            assert not np.isnan(row).all()


@pytest.mark.parametrize("selector", WITHIN, ids=str)
@given(groups=st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, NAN]), min_size=1, max_size=5), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_each_prompt_is_treated_as_if_it_stood_alone(selector, groups):
    def chosen(rows):
        flat = np.array([value for row in rows for value in row])
        found = select(selector, Scores("r", {"r": flat}), Grouping(np.array([len(row) for row in rows])))
        return {i: round(a, 12) for i, a in zip(found.index.tolist(), found.advantage.tolist(), strict=True)}

    expected, start = {}, 0
    for row in groups:
        expected |= {start + i: a for i, a in chosen([row]).items()}
        start += len(row)
    assert chosen(groups) == expected


@by_selector
@given(scores=tables, data=st.data())
@settings(max_examples=60, deadline=None)
def test_permuting_prompts_and_samples_permutes_the_advantages(selector, scores, data):
    p, k = scores.shape
    rows, columns = data.draw(st.permutations(range(p))), data.draw(st.permutations(range(k)))
    permuted = scores[rows][:, columns] if p else scores
    expected = table(selector(scores), scores.shape)
    expected = expected[rows][:, columns] if p else expected
    found = table(selector(permuted), scores.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@given(scores=tables)
@settings(max_examples=60, deadline=None)
def test_a_constant_added_to_a_prompts_scores_changes_nothing(scores):
    for selector in (GroupAdvantages("none"), Rloo()):
        shifted = selector(scores + 64.0)
        np.testing.assert_array_equal(selector(scores).index, shifted.index)
        np.testing.assert_allclose(selector(scores).advantage, shifted.advantage, rtol=1e-6, atol=1e-9)


def test_by_hand():
    # Means 2 and 4; deviations (n − 1) √2 and 2; of all five scores, mean 2.8 and squares 10.8, √(10.8/4) = 1.6432.
    scores = np.array([[1.0, 3.0, NAN], [2.0, 4.0, 6.0], [7.0, NAN, NAN], [5.0, 5.0, 5.0]])
    assert table(GroupAdvantages()(scores), scores.shape)[:2].tolist() == [
        pytest.approx([-1 / (2**0.5 + 1e-4), 1 / (2**0.5 + 1e-4), NAN], nan_ok=True),
        pytest.approx([-2 / (2 + 1e-4), 0.0, 2 / (2 + 1e-4)]),
    ]
    assert GroupAdvantages("none")(scores).advantage.tolist() == [-1, 1, -2, 0, 2]
    assert GroupAdvantages()(scores).index.tolist() == [0, 1, 3, 4, 5]
    assert GroupAdvantages(drop_flat=False)(scores).index.tolist() == [0, 1, 3, 4, 5, 6, 9, 10, 11]
    two = np.array([[1.0, 3.0, NAN], [2.0, 3.0, 5.0]])
    deviation = np.std([1, 3, 2, 3, 5], ddof=1) + 1e-4
    assert GroupAdvantages("batch")(two).advantage.tolist() == pytest.approx(
        [-1 / deviation, 1 / deviation, -4 / 3 / deviation, -1 / 3 / deviation, 5 / 3 / deviation]
    )
    assert GroupAdvantages("none", clip=1.5)(two).advantage.tolist() == pytest.approx([-1, 1, -4 / 3, -1 / 3, 1.5])
    # Leave one out: 1 − 3, 3 − 1; 2 − 4, 3 − 3.5, 5 − 2.5.
    assert Rloo()(two).advantage.tolist() == pytest.approx([-2, 2, -2, -0.5, 2.5])
    assert Rloo(drop_flat=False)(scores).index.tolist() == [0, 1, 3, 4, 5, 9, 10, 11]  # one alone has no others


@pytest.mark.parametrize("scale", ["group", "batch", "none", "rloo"])
def test_as_trl_computes_them(scale):
    scores = np.array([[NAN if score is None else score for score in row] for row in RECORD["scores"]])
    found = (Rloo() if scale == "rloo" else GroupAdvantages(scale))(scores)
    expected = np.array(RECORD["cases"][scale])
    np.testing.assert_allclose(found.advantage, expected[found.index], rtol=1e-6)
    assert (np.delete(expected, found.index) == 0).all() and len(found) == 13


@by_selector
@pytest.mark.parametrize("scores", [np.full((2, 3), NAN), np.empty((0, 3))])
def test_nothing_scored_selects_nothing(selector, scores):
    assert len(selector(scores)) == 0


@pytest.mark.parametrize(("arguments", "message"), [({"scale": "std"}, "scale is 'std'"), ({"clip": 0.0}, "clip is 0")])
def test_settings_that_make_no_sense(arguments, message):
    with pytest.raises(ConfigError, match=message):
        GroupAdvantages(**arguments)
