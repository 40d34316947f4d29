"""A reward in a process of its own: nothing that happens there ends the run or becomes a number."""

import math
import textwrap

import numpy as np
import pytest

from raft_core.config.components import Walk, reward_spec
from raft_core.errors import ConfigError, RewardError
from raft_core.machine.out_of_memory import is_out_of_memory
from raft_core.rewards.combine import Weighted
from raft_core.rewards.scoring import Scorer, score
from raft_core.rewards.service.isolated import Isolated
from raft_core.types import Prompt, Request, Sample

REWARD = """
import os, time
from raft_core.protocols import RewardInfo

class Moody:
    def __init__(self, batch_size: int = 1):
        self.info = RewardInfo("moody", higher_is_better=False, batch_size=batch_size)

    def __call__(self, samples):
        print("this is no answer")
        mood = samples[0].output
        if mood == "crash":
            os._exit(7)
        if mood == "hang":
            time.sleep(60)
        if mood == "raise":
            raise KeyError("a key")
        if mood == "memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return {"scalar": 1.0, "short": [], "nan": [float("nan")]}.get(mood, [float(len(s.output)) for s in samples])

class Unloadable(Moody):
    def load(self):
        raise OSError("no such weights")
"""


def texts(*outputs):
    return [Sample(Request(Prompt("p"), j, j), output=output) for j, output in enumerate(outputs)]


@pytest.fixture
def described(tmp_path):
    (tmp_path / "moody.py").write_text(textwrap.dedent(REWARD))
    return lambda name="Moody", **settings: {"class_path": f"{tmp_path}/moody.py:{name}", "init_args": settings}


@pytest.mark.slow
def test_whatever_happens_costs_its_own_batch(described):
    reward = Isolated(reward_spec(described()), timeout_s=200)
    outputs = ["ok", "crash", "fine", "raise", "scalar", "short", "nan", "again"]
    try:
        scores = Scorer(reward)(texts(*outputs))
        np.testing.assert_array_equal(scores.columns["moody"], [2, math.nan, 4, *[math.nan] * 4, 5])
        assert scores.descending == {"moody"} and scores.failures["moody"].count == 5
        assert "worker ended with exit code 7" in scores.failures["moody"].first_error
        for mood, message in (("raise", "KeyError: 'a key'"), ("scalar", "a single number"), ("short", "shape (0,)")):
            assert message in score(reward, texts(mood))[1]["moody"].first_error
        with pytest.raises(RuntimeError) as out_of_memory:
            score(reward, texts("memory"))
        assert is_out_of_memory(out_of_memory.value)
        reward.timeout_s = 2
        columns, failures = score(reward, texts("hang"))
        assert np.isnan(columns["moody"]).all() and "did not answer within 2 s" in failures["moody"].first_error
    finally:
        reward.close()


@pytest.mark.slow
def test_what_cannot_be_loaded_is_told_before_work_starts_and_is_not_tried_for_every_batch(described):
    reward = Isolated(reward_spec(described("Unloadable")))
    with pytest.raises(RewardError, match="could not be loaded in its worker: OSError: no such weights"):
        reward.load()
    starts = []
    reward._started = lambda: starts.append(1) or (_ for _ in ()).throw(RewardError("no worker"))  # type: ignore[method-assign]
    columns, _ = score(reward, texts("a", "b", "c"))
    assert np.isnan(columns["moody"]).all() and starts == [1]


def test_in_a_configuration_it_is_checked_here_and_written_out_in_full(described):
    walk = Walk()
    part = walk.component({"class_path": "Isolated", "init_args": {"reward": described(batch_size=3)}}, "reward", "reward")
    reward = part.make()
    assert walk.mistakes == []
    assert reward.info.batch_size == 3 and not reward.info.higher_is_better and reward.info.background
    assert part.plain["init_args"]["reward"]["init_args"] == {"batch_size": 3}
    walk = Walk()
    walk.component({"class_path": "Isolated", "init_args": {"reward": "Clipscore"}}, "reward", "reward")
    assert "there is no reward called 'Clipscore' (did you mean 'ClipScore'?)" in walk.mistakes[0]


def test_what_cannot_be_isolated(described):
    with pytest.raises(ConfigError, match="isolate its parts"):
        Isolated(reward_spec({"class_path": "Weighted", "init_args": {"rewards": [described()]}}))
    with pytest.raises(ConfigError, match="its description is needed"):
        Isolated(Weighted([Isolated(reward_spec(described()))]))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="timeout_s is 0"):
        Isolated(reward_spec(described()), timeout_s=0)
