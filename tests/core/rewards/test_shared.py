"""Rendering and scoring shared by processes: what they find together is what one finds alone."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pytest

from raft_core.errors import StoreError
from raft_core.machine.processes import Processes
from raft_core.protocols import RewardInfo
from raft_core.rewards.combine.weighted import Weighted
from raft_core.rewards.known import KnownScores
from raft_core.rewards.scoring import Scorer
from raft_core.rewards.shared import Shares, can_share
from raft_core.sampling import requests
from raft_core.store.tensors import normalised
from raft_core.testing import FakePolicy, FakeReward
from raft_core.types import Prompt


class Each(FakeReward):
    """Looks at three samples at a time; one of them is too much for it."""

    def __init__(self):
        super().__init__("each")
        self.info = RewardInfo("each", batch_size=3)
        self.asked: list[int] = []

    def __call__(self, samples):
        self.asked += [sample.seed for sample in samples]
        if any(sample.request.index == 3 and sample.prompt.text == "p0" for sample in samples):
            raise ValueError("too dark")
        return super().__call__(samples)


@dataclass(frozen=True)
class Together(Processes):
    """Threads in the place of processes."""

    barrier: threading.Barrier | None = None

    def wait(self) -> None:
        assert self.barrier is not None
        self.barrier.wait(timeout=60)


def in_threads(count, work):
    """What ``work(processes)`` returns on each of several threads."""
    barrier, found = threading.Barrier(count), {}

    def run(rank):
        found[rank] = work(Together(rank, count, barrier))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(count)]


def drawn(modality="image"):
    policy = FakePolicy(modality, batch_size=4)
    return policy, normalised(policy.sample(requests([Prompt(f"p{i}") for i in range(5)], 4, 0, 1)))


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_several_find_what_one_finds(tmp_path, modality, count):
    policy, samples = drawn(modality)
    alone = Each()
    expected = Scorer(alone, [FakeReward("whole")])(policy.render(samples))
    rewards = [Each() for _ in range(count)]

    def work(processes):
        shares = Shares(tmp_path, processes)
        rendered = shares.render(samples, 4, policy.render)
        scorer = Scorer(rewards[processes.rank], [FakeReward("whole")])
        return rendered, scorer(rendered, shares.score(scorer, rendered, KnownScores()))

    for rendered, scores in in_threads(count, work):
        assert [s.request for s in rendered] == [s.request for s in samples]
        for found, own in zip(rendered, policy.render(samples), strict=True):
            np.testing.assert_array_equal(np.asarray(found.output), np.asarray(own.output))
        assert scores.failures == expected.failures  # the same sample is told of, with its reason
        for name, values in expected.columns.items():
            np.testing.assert_array_equal(scores.columns[name], values)
    assert sorted(seed for reward in rewards for seed in reward.asked) == sorted(alone.asked)  # each sample once


def test_what_is_known_is_not_asked_again(tmp_path):
    policy, samples = drawn()
    known = KnownScores.of([sample.request for sample in samples[:6]], {"each": np.arange(6.0)})
    rewards = [Each(), Each()]

    def work(processes):
        shares = Shares(tmp_path, processes)
        rendered = shares.render(samples, 4, policy.render)
        begun = shares.score(Scorer(rewards[processes.rank]), rendered, known)
        return Scorer(rewards[0])(rendered, begun) if processes.is_main else None

    scores, _ = in_threads(2, work)
    assert scores.columns["each"][:6].tolist() == list(range(6))
    assert not np.isnan(scores.columns["each"][6:]).any()
    assert rewards[1].asked == [] and len(rewards[0].asked) == 14


def test_each_renders_whole_parts():
    assert Shares(None, Processes(0, 2)).places(10, 4) == [[0, 1, 2, 3, 8, 9], [4, 5, 6, 7]]


def test_what_wants_to_see_all_samples_is_left_to_the_first():
    assert can_share(Each())
    assert not can_share(FakeReward())
    assert not can_share(Weighted([Each()]))


def test_a_share_that_is_damaged_is_told(tmp_path):
    policy, samples = drawn()

    def work(processes):
        shares = Shares(tmp_path, processes)
        rendered = shares.render(samples, 4, policy.render)
        shares.score(Scorer(Each()), rendered, KnownScores())
        processes.wait()
        if processes.rank == 0:
            (tmp_path / "scores-1.json").write_text("{}")
            with pytest.raises(StoreError, match="process 1 has scored cannot be read"):
                shares._together("each", rendered)
        return True

    assert in_threads(2, work) == [True, True]
