"""Scoring while the rest is sampled: it overlaps, changes no number, and hides no error."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from raft_core.errors import DeviceError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.protocols import RewardInfo
from raft_core.rewards.background import ahead_of
from raft_core.rewards.combine import Weighted
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.best_of_k import BestOfK
from raft_core.store.rounds import earlier_scores
from raft_core.store.store import Store
from raft_core.testing import FakePolicy, FakeReward
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt


class Remote(FakeReward):
    """A reward that scores on another thread, in batches of 3 where the policy draws 4."""

    def __init__(self, name="remote", fails_on=0, background=True):
        super().__init__(name, fails_on)
        self.info = replace(self.info, batch_size=3, background=background)
        self.began = threading.Event()
        self.threads: set[str] = set()
        self.sizes: list[int] = []

    def __call__(self, samples):
        self.began.set()
        self.threads.add(threading.current_thread().name)
        self.sizes.append(len(samples))
        return super().__call__(samples)


class Waiting(FakePolicy):
    """Draws its second batch only when the first one is being scored."""

    def __init__(self, reward: Remote):
        super().__init__()
        self.reward, self.batches = reward, 0

    def sample(self, requests, **settings):
        self.batches += 1
        if self.batches == 2:
            assert self.reward.began.wait(20)
        return super().sample(requests, **settings)


def run(folder, reward, policy=None, rounds=2, resume=False, judges=()):
    policy, trainer = policy or FakePolicy(), Trainer()
    prompts = PromptSet([Prompt("one"), Prompt("two")], (), 2, 0)
    with Store.resume(folder) if resume else Store.create(folder, {}, 0) as store:
        trainer.attach(policy, 0, 3)
        store.restore(policy, trainer)
        parts = (policy, prompts, Scorer(reward, judges), BestOfK(), Sft(), trainer, store, Monitor(stop_when=()))
        align(*parts, rounds=rounds, k=4)
    return policy.mean.detach().numpy().copy()


def test_a_batch_is_scored_while_the_next_is_drawn(tmp_path):
    reward = Remote()
    run(tmp_path / "run", reward, Waiting(reward), rounds=1)
    assert reward.threads == {"score-remote"} and reward.sizes == [3, 1, 3, 1]


def test_it_changes_nothing_and_a_resumed_run_ends_the_same(tmp_path):
    def made(background):
        return Weighted([Remote("a", fails_on=3, background=background), FakeReward("b")])

    plain = run(tmp_path / "plain", made(False), rounds=3, judges=[Remote("j", background=False)])
    ahead = run(tmp_path / "ahead", made(True), rounds=3, judges=[Remote("j")])
    run(tmp_path / "halves", made(True), rounds=1, judges=[Remote("j")])
    halves = run(tmp_path / "halves", made(True), rounds=3, resume=True, judges=[Remote("j")])
    np.testing.assert_array_equal(ahead, plain)
    np.testing.assert_array_equal(halves, plain)
    rows = zip(*(earlier_scores(tmp_path / name) for name in ("plain", "ahead", "halves")), strict=True)
    for one, two, three in rows:
        assert list(one) == list(two) == ["a", "b", "weighted_sum", "j"]
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
            np.testing.assert_array_equal(one[name], three[name])


def test_memory_that_runs_out_in_the_background_ends_the_run_in_words(tmp_path):
    class Hungry(Remote):
        def __call__(self, samples):
            raise RuntimeError("CUDA out of memory")

    with pytest.raises(DeviceError, match="out of memory while rendering and scoring"):
        run(tmp_path / "run", Hungry())


def test_sampling_that_fails_leaves_no_thread_at_work(tmp_path):
    class Broken(FakePolicy):
        batches = 0

        def sample(self, requests, **settings):
            self.batches += 1
            if self.batches == 2:
                raise ValueError("broken")
            return super().sample(requests, **settings)

    with pytest.raises(ValueError, match="broken"):
        run(tmp_path / "run", Remote("gone"), Broken())
    for thread in threading.enumerate():
        if thread.name == "score-gone":
            thread.join(20)
            assert not thread.is_alive()


def test_only_what_may_be_asked_ahead_is():
    class Whole(FakeReward):
        info = RewardInfo("whole", background=True)  # sees all samples at once

        def __init__(self):
            pass

    assert ahead_of(Scorer(FakeReward(), [Whole()]), FakePolicy()) is None
    judge = Remote("judge")
    ahead = ahead_of(Scorer(FakeReward(), [judge]), FakePolicy())
    assert ahead is not None
    assert ahead.take(FakeReward(), []) is None
    assert ahead.take(judge, [object()]) is None  # type: ignore[list-item] - samples that were not begun
