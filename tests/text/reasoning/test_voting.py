import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raft_core.errors import DataError
from raft_core.metrics.statistics import wilson
from raft_core.metrics.voting import groups
from raft_text.reasoning.reading import is_right
from raft_text.reasoning.voting import Vote, accuracy_table, rerank, table_lines, vote

answers = st.one_of(st.none(), st.sampled_from("ABC"), st.sampled_from([1.0, 2.0, 3.0, math.nan]))


def test_the_most_frequent_answer_wins():
    assert vote([3.0, 5.0, 5.0, None]) == Vote(5.0, 1, 2, 3)
    assert vote(["B", "A", "B"]) == Vote("B", 0, 2, 3)


def test_of_equally_many_the_first_wins():
    assert vote([7.0, 5.0, 5.0, 7.0]) == Vote(7.0, 0, 2, 4)
    assert vote([4.0, 5.0]) == Vote(4.0, 0, 1, 2)


def test_answers_within_the_tolerance_are_one():
    assert vote([1.0, 2.004, 2.0, 2.009]) == Vote(2.004, 1, 3, 4)
    assert vote([1.0, 2.004, 2.0], tolerance=0) == Vote(1.0, 0, 1, 3)


def test_samples_of_one_answer_are_a_group_and_those_without_are_in_none():
    assert groups(["B", None, "A", "B", math.nan], is_right) == [[0, 3], [2]]
    assert groups([2.0, 2.009, 2.014], is_right) == [[0, 1], [2]], "each is compared with the first of its group"


def test_nobody_votes():
    assert vote([None, math.nan]) is None
    assert vote([]) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(answers, max_size=8))
def test_the_winner_has_as_many_voters_as_anyone(given_answers):
    won = vote(given_answers)
    voters = [a for a in given_answers if a is not None and a == a]
    if won is None:
        assert not voters
        return
    assert given_answers[won.index] == won.answer
    assert won.of == len(voters)
    assert won.count >= max(sum(a == b for b in voters) for a in voters)


def test_reranking_takes_the_best_scored():
    assert rerank([0.1, 0.9, 0.9, np.nan]) == 1
    assert rerank([np.nan, np.nan]) is None


def test_what_is_right():
    assert is_right(2.005, 2.0)
    assert not is_right(None, 2.0)
    assert not is_right(None, None)
    assert not is_right(math.nan, math.nan)
    assert is_right("B", "B")
    assert not is_right("B", 2.0)


def test_the_table_by_hand():
    """Three questions of four samples: 2, 3 and 1 right; the vote finds 2 of 3, the reranker 3 of 3."""
    given_answers = [[1.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, None], [9.0, 8.0, 8.0, 7.0]]
    scores = np.array([[0.9, 0.1, 0.2, 0.3], [0.1, 0.5, 0.2, 0.9], [0.8, 0.1, np.nan, 0.2]])
    scores[1, 3] = np.nan
    rows = {row.method: row for row in accuracy_table(given_answers, [1.0, 5.0, 9.0], scores)}
    assert rows["top-1"].accuracy.value == pytest.approx(6 / 12)
    assert rows["vote"].accuracy.value == pytest.approx(2 / 3)
    assert rows["rerank"].accuracy.value == 1
    assert (rows["vote"].accuracy.low, rows["vote"].accuracy.high) == pytest.approx(wilson(2 / 3, 3))
    assert [row.questions for row in rows.values()] == [3, 3, 3]
    assert table_lines(list(rows.values()))[2].split() == ["vote", "4", "3", "66.7%", "20.8", "…", "93.9"]


def test_samples_of_a_question_are_not_counted_as_independent():
    """Ten questions whose samples agree: the interval of top-1 is that of ten, not of eighty."""
    alike = [[float(p < 6)] * 8 for p in range(10)]
    top = accuracy_table(alike, [1.0] * 10)[0].accuracy
    assert (top.low, top.high) == pytest.approx(wilson(0.6, 10, freedom=9))


def test_voting_beats_a_single_sample_that_is_mostly_right():
    rng = np.random.default_rng(0)
    drawn = np.where(rng.random((300, 15)) < 0.5, 1.0, rng.integers(2, 9, (300, 15)).astype(float))
    top, voted = accuracy_table(drawn.tolist(), [1.0] * 300)
    assert top.accuracy.value == pytest.approx(0.5, abs=0.03)
    assert voted.accuracy.low > 0.9


def test_questions_without_a_reference_or_a_score_do_not_count():
    rows = accuracy_table([[1.0], [1.0], [1.0]], [1.0, None, 2.0], np.array([[0.5], [0.5], [np.nan]]))
    assert [row.questions for row in rows] == [2, 2, 1]
    assert [row.accuracy.value for row in rows] == [0.5, 0.5, 1.0]


def test_shapes_that_do_not_fit():
    with pytest.raises(DataError, match="same number of samples"):
        accuracy_table([[1.0], [1.0, 2.0]], [1.0, 1.0])
    with pytest.raises(DataError, match="1 references"):
        accuracy_table([[1.0], [1.0]], [1.0])
    with pytest.raises(DataError, match="same number of samples"):
        accuracy_table([], [])
    with pytest.raises(DataError, match=r"scores have the shape \(1, 2\)"):
        accuracy_table([[1.0]], [1.0], np.zeros((1, 2)))
