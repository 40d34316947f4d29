"""The parts of self-training: what is good enough, and once only."""

from __future__ import annotations

import numpy as np
import pytest

from raft_core.errors import ConfigError
from raft_core.protocols import RewardInfo
from raft_core.rewards.combine import Distinct
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.at_least import AtLeast
from raft_core.types import Prompt, Request, Sample


def test_all_that_reach_the_bound_are_kept_and_no_more_than_asked():
    scores = np.array([[1.0, 0.1, 1.0, 1.0], [np.nan, 0.0, 0.1, np.nan]])
    assert AtLeast(1.0)(scores).index.tolist() == [0, 2, 3]
    found = AtLeast(1.0, most=2)(scores)
    assert found.index.tolist() == [0, 2] and found.weight.tolist() == [1.0, 1.0]
    assert AtLeast(0.1, most=1)(scores).index.tolist() == [0, 6]
    assert len(AtLeast(2.0)(scores)) == 0
    with pytest.raises(ConfigError, match=r"selector.most is 0"):
        AtLeast(1.0, most=0)


class Length:
    info = RewardInfo("length", higher_is_better=False)

    def __call__(self, samples):
        return [float(len(sample.output.strip())) for sample in samples]


def test_a_repetition_is_not_scored():
    one, other = Prompt("one"), Prompt("other")
    asked = [(one, "ab"), (one, "ab "), (one, "abc"), (other, "ab")]
    samples = [Sample(Request(prompt, i, i), output=text) for i, (prompt, text) in enumerate(asked)]
    scores = Scorer(Distinct(Length()))(samples)
    assert np.array_equal(scores.columns["length_distinct"], [2, np.nan, 3, 2], equal_nan=True)
    assert scores.columns["length"].tolist() == [2, 2, 3, 2]
    assert "length_distinct" in scores.descending
    assert scores.failures["length_distinct"].first_error == "a repetition of an earlier sample of the same prompt"
    with pytest.raises(ConfigError, match="the name of the result and of its reward"):
        Distinct(Length(), name="length")


def test_pictures_are_the_same_when_every_pixel_is():
    from PIL import Image

    red, other = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "red")
    other.putpixel((0, 0), (254, 0, 0))
    drawn = [Sample(Request(Prompt("p"), i, i), output=each) for i, each in enumerate((red, other, red.copy()))]
    values = Distinct(Length()).combine({"length": np.ones(3)}, drawn)
    assert np.isnan(values).tolist() == [False, False, True]
