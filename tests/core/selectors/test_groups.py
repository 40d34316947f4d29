"""Groups of unequal size: every selector treats them as if each prompt stood alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_core.selectors.all_best import AllBest
from raft_core.selectors.at_least import AtLeast
from raft_core.selectors.best_of_k import BestOfK, BestThenTop, TopFraction
from raft_core.selectors.every_score import EveryScore
from raft_core.selectors.reinforce_rej import ReinforceRej
from raft_core.selectors.select import select
from raft_core.types import Grouping, Prompt, Request, Scores

WITHIN_A_PROMPT = [AllBest(), AtLeast(1.0), BestOfK(), EveryScore(), ReinforceRej(right=1.0)]
ACROSS_PROMPTS = [TopFraction(0.5), BestThenTop(2)]
groups_of_scores = st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), min_size=1, max_size=5), min_size=1, max_size=5)


def flat(groups: list[list[float]]) -> tuple[Scores, Grouping]:
    values = np.array([value for group in groups for value in group])
    return Scores("r", {"r": values}), Grouping(np.array([len(group) for group in groups]))


def chosen(selection) -> dict[int, float]:
    """Flat index → what else the selection says of it."""
    values = next(getattr(selection, name) for name in ("weight", "advantage", "score") if hasattr(selection, name))
    return dict(zip(selection.index.tolist(), values.tolist(), strict=True))


@pytest.mark.parametrize("selector", WITHIN_A_PROMPT, ids=lambda selector: type(selector).__name__)
@given(groups=groups_of_scores)
@settings(max_examples=60, deadline=None)
def test_each_prompt_is_treated_as_if_it_stood_alone(selector, groups):
    expected, start = {}, 0
    for group in groups:
        alone = chosen(select(selector, *flat([group])))
        expected |= {start + index: value for index, value in alone.items()}
        start += len(group)
    assert chosen(select(selector, *flat(groups))) == expected


@pytest.mark.parametrize("selector", [*WITHIN_A_PROMPT, *ACROSS_PROMPTS], ids=lambda selector: type(selector).__name__)
@given(groups=groups_of_scores)
@settings(max_examples=60, deadline=None)
def test_what_is_not_there_or_not_scored_is_never_chosen(selector, groups):
    scores, grouping = flat(groups)
    kept = select(selector, scores, grouping).kept
    assert len(kept) == 0 or (kept.min() >= 0 and kept.max() < len(scores.columns["r"]))
    assert not np.isnan(scores.columns["r"][kept]).any()


def test_global_selectors_compare_over_all_groups():
    scores, grouping = flat([[5.0], [1.0, 9.0, 2.0], [7.0, 0.0]])
    assert select(TopFraction(0.5), scores, grouping).kept.tolist() == [0, 2, 4]
    assert select(BestThenTop(2), scores, grouping).kept.tolist() == [2, 4]


def test_a_group_begins_where_the_index_starts_again():
    requests = [Request(Prompt(text), index, 0) for text, index in [("a", 0), ("a", 1), ("b", 0), ("b", 0), ("c", 0), ("c", 2)]]
    assert Grouping.of(requests).sizes.tolist() == [2, 1, 1, 2]
    np.testing.assert_array_equal(Grouping.of(requests).pad(np.arange(6.0)), [[0, 1], [2, np.nan], [3, np.nan], [4, 5]])
    assert Grouping.of([]).pad(np.empty(0)).shape == (0, 0)
