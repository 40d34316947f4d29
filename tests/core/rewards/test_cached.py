"""Scores that are kept: nothing is scored twice, nothing is taken for something else."""

import math
import os
import threading

import numpy as np
import pytest
from PIL import Image

from raft_core.config.components import Walk, reward_spec
from raft_core.errors import ConfigError
from raft_core.protocols import RewardInfo
from raft_core.rewards.cached import Cached
from raft_core.rewards.scoring import Scorer, score
from raft_core.rewards.spec import RewardSpec
from raft_core.types import Prompt, Request, Sample


class Counting:
    """Length of the output; remembers what it was asked."""

    def __init__(self, batch_size: int | None = 4, scale: float = 1.0):
        self.info = RewardInfo("counting", batch_size=batch_size)
        self.scale = scale
        self.asked: list = []
        self.fails = False

    def __call__(self, samples):
        self.asked += [sample.output for sample in samples]
        if self.fails:
            raise OSError("down")
        return [math.nan if s.output == "bad" else self.scale * len(s.output) for s in samples]


def cached(path, reward=None, plain=None, version=""):
    reward = reward or Counting()
    return Cached(RewardSpec(plain or {"class_path": "tests.Counting", "init_args": {}}, reward), str(path), version), reward


def texts(*outputs, prompt="p", seed=0):
    return [Sample(Request(Prompt(prompt), j, seed + j), output=output) for j, output in enumerate(outputs)]


def test_the_same_output_for_the_same_prompt_is_scored_once_across_runs(tmp_path):
    reward, counting = cached(tmp_path / "a.sqlite")
    assert score(reward, texts("a", "bb", "a"))[0]["counting"].tolist() == [1, 2, 1]
    assert counting.asked == ["a", "bb"]
    again, other = cached(tmp_path / "a.sqlite")  # another run
    assert score(again, texts("bb", "ccc", seed=99))[0]["counting"].tolist() == [2, 3]
    assert other.asked == ["ccc"]
    score(again, texts("a", prompt="q"))
    assert other.asked == ["ccc", "a"]  # another prompt


def test_pictures_are_told_by_their_pixels(tmp_path):
    class Mean(Counting):
        def __call__(self, samples):
            self.asked += samples
            return [float(np.asarray(s.output).mean()) for s in samples]

    reward, mean = cached(tmp_path / "a.sqlite", Mean())
    for level in (3, 4, 3):
        picture = Image.new("RGB", (2, 2), (level,) * 3)
        assert score(reward, [Sample(Request(Prompt("p"), 0, 0), output=picture)])[0]["counting"].tolist() == [level]
    wide = [Sample(Request(Prompt("p"), 0, 0), output=Image.new("RGB", (4, 1), (3, 3, 3)))]  # the same bytes in another shape
    score(reward, wide)
    assert len(mean.asked) == 3


def test_what_was_not_scored_is_tried_again_and_keeps_its_reason(tmp_path):
    reward, counting = cached(tmp_path / "a.sqlite")
    columns, failures = score(reward, texts("a", "bad"))
    np.testing.assert_array_equal(columns["counting"], [1, math.nan])
    assert failures["counting"].count == 1
    counting.fails = True
    columns, failures = score(reward, texts("a", "bad", "new"))
    np.testing.assert_array_equal(columns["counting"], [1, math.nan, math.nan])
    assert failures["counting"].first_error == "OSError: down"
    counting.fails = False
    assert score(reward, texts("new"))[0]["counting"].tolist() == [3]


def test_another_setting_version_or_file_is_another_score(tmp_path):
    weights = tmp_path / "head.safetensors"
    weights.write_bytes(b"one")
    plain = {"class_path": "a.B", "init_args": {"weights": str(weights), "factor": 1, "device": "cpu", "name": "b"}}

    def prints(version="", **changed):
        return RewardSpec({**plain, "init_args": {**plain["init_args"], **changed}}, Counting()).fingerprint(version)

    first = prints()
    assert first == prints(device="cuda", name="other", batch_size=7)
    assert len({first, prints(factor=2), prints(version="2"), prints(weights="elsewhere")}) == 4
    weights.write_bytes(b"two, retrained")
    assert prints() != first
    code = tmp_path / "mine.py"
    code.write_text("def f(): ...")
    spec = RewardSpec({"class_path": "F", "init_args": {"path": f"{code}:f"}}, Counting())
    before = spec.fingerprint()
    os.utime(code, (1, 1))
    assert spec.fingerprint() == before  # code goes by its content
    code.write_text("def f(): return 1")
    assert spec.fingerprint() != before


def test_a_reward_that_compares_samples_is_only_found_for_the_same_company(tmp_path):
    reward, counting = cached(tmp_path / "a.sqlite", Counting(batch_size=None))
    score(reward, texts("a", "a", "bb"))
    score(reward, texts("a", "a", "bb"))
    assert counting.asked == ["a", "a", "bb"]
    score(reward, texts("a", "bb"))
    assert counting.asked == ["a", "a", "bb", "a", "bb"]


def test_several_writers_at_once_agree(tmp_path):
    results = []

    def work(scale):
        reward, _ = cached(tmp_path / "a.sqlite", Counting(scale=scale))
        results.append(score(reward, texts(*("x" * n for n in range(1, 30))))[0]["counting"])

    threads = [threading.Thread(target=work, args=(scale,)) for scale in (1.0, 2.0, 3.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_a_file_that_is_no_cache_is_told_early_and_costs_no_score(tmp_path):
    (tmp_path / "a.sqlite").write_text("this is a letter to my aunt, and long enough to be read as a header" * 20)
    reward, _ = cached(tmp_path / "a.sqlite")
    (mistake,) = reward.check()
    assert "a.sqlite cannot be used (file is not a database)" in mistake
    with pytest.warns(UserWarning, match="cannot be read"), pytest.warns(UserWarning, match="cannot be written"):
        assert score(reward, texts("a"))[0]["counting"].tolist() == [1]


def test_in_a_configuration(tmp_path):
    inner = {"class_path": "FakeReward", "init_args": {"name": "m"}}
    raw = {"class_path": "Cached", "init_args": {"reward": inner, "path": str(tmp_path / "a.sqlite")}}
    walk = Walk()
    part = walk.component({"class_path": "Weighted", "init_args": {"rewards": [raw], "weights": [2]}}, "reward", "reward")
    scorer = Scorer(part.make())
    assert walk.mistakes == [] and set(scorer.infos) == {"m", "weighted_sum"}
    with pytest.raises(ConfigError, match="cache its parts"):
        Cached(reward_spec({"class_path": "Weighted", "init_args": {"rewards": [inner]}}))
