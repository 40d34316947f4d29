"""A right letter behind a wrong chain is found; a wrong letter, or a right chain, is none."""

from __future__ import annotations

import numpy as np
import pytest

from raft_core.types import Prompt, Request, Sample
from raft_text.reasoning.reward import AnswerReward
from raft_text.reasoning.wrong_reason import WrongReason

META = {"answer_letter": "B", "answer_value": "27"}


def score(text, meta=META):
    return WrongReason()([Sample(Request(Prompt("How many?", meta), 0, 0), text)])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Kate begins with 24 cookies. So Olga has 24 + 3 = 27 cookies.\nTherefore, the answer is: B", 0),
        ("24 + 4 = 28.\nTherefore, the answer is: B", 1),
        ("24 + 3 = 27. 27 - 1 = 26.\nTherefore, the answer is: B", 1),
        ("All in all that makes 27 cookies.\nTherefore, the answer is: B", 0),
        ("All in all that makes 26 cookies.\nTherefore, the answer is: (B)", 1),
        ("I guess.\nTherefore, the answer is: B", 1),
        ("24 + 4 = 28.\nTherefore, the answer is: C", 0),
        ("24 + 3 = 27.", 0),
    ],
)
def test_what_is_a_wrong_reason(text, expected):
    assert score(text) == expected


def test_it_is_paid_in_full_by_the_reward():
    text = "24 + 4 = 28.\nTherefore, the answer is: B"
    reward = AnswerReward("choice", column="answer_letter")
    assert reward([Sample(Request(Prompt("How many?", META), 0, 0), text)]).tolist() == [1.0]


@pytest.mark.parametrize("missing", META)
def test_without_a_reference_it_is_not_scored(missing):
    assert np.isnan(score("The answer is: B", {name: value for name, value in META.items() if name != missing}))
