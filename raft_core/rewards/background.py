"""Scores that are begun while the rest of a round is still being sampled."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from raft_core.protocols import Policy, Reward
from raft_core.rewards.scoring import Scored, Scorer, scored_by
from raft_core.types import Failure, Sample

Render = Callable[[Sequence[Sample]], list[Sample]]


class Ahead:
    """One thread for each reward that may score in the background; each takes the batches in the order that they come.

    The same batches go to a reward whether they were just drawn or read back, so that a resumed run scores the same way.

    Args:
        rewards: with ``info.background`` and a batch size.
        render: makes the outputs of one batch while sampling goes on.
    """

    def __init__(self, rewards: Sequence[Reward], render: Render):
        self.render = render
        self._lines = {id(reward): _Line(reward) for reward in rewards}

    def begin(self, samples: Sequence[Sample]) -> None:
        """Have a batch of rendered samples scored."""
        for line in self._lines.values():
            line.put(samples)

    def take(self, reward: Reward, samples: Sequence[Sample]) -> Scored | None:
        """See ``scoring.Begun``."""
        line = self._lines.get(id(reward))
        return line.taken(samples) if line else None

    def stop(self) -> None:
        """Let the threads end; what is waiting to be scored is given up."""
        for line in self._lines.values():
            line.stop()


def ahead_of(scorer: Scorer, policy: Policy, render: Render | None = None) -> Ahead | None:
    """The rewards and judges that may score while this policy samples, or None when there are none.

    Args:
        render: makes outputs of samples, with the policy's parts for it in place; by default the policy itself.
    """
    chosen: list[Any] = [reward for reward in scorer.all if reward.info.background and reward.info.batch_size is not None]
    if not chosen:
        return None

    def in_place(samples: Sequence[Sample]) -> list[Sample]:
        with policy.resident("render"):
            return (render or policy.render)(samples)

    return Ahead(chosen, in_place)


class _Line:
    """A thread that scores batches one after the other. A daemon: an endpoint that hangs does not keep a process alive."""

    def __init__(self, reward: Reward):
        self._reward = reward
        self._begun: list[tuple[Sequence[Sample], Future[Scored]]] = []
        self._waiting: queue.SimpleQueue[tuple[Sequence[Sample], Future[Scored]] | None] = queue.SimpleQueue()
        self._stopped = False

    def put(self, samples: Sequence[Sample]) -> None:
        if not self._begun:
            threading.Thread(target=self._work, daemon=True, name=f"score-{self._reward.info.name}").start()
        entry = (samples, Future())
        self._begun.append(entry)
        self._waiting.put(entry)

    def stop(self) -> None:
        self._stopped = True
        self._waiting.put(None)

    def taken(self, samples: Sequence[Sample]) -> Scored | None:
        """The scores of exactly these samples, in this order; None if others were begun."""
        begun = [sample for batch, _ in self._begun for sample in batch]
        if self._stopped or len(begun) != len(samples) or any(a is not b for a, b in zip(begun, samples, strict=True)):
            return None
        outcomes = [future.result() for _, future in self._begun]
        values = np.concatenate([values for values, _ in outcomes]) if outcomes else np.empty(0)
        failures = [failure for _, failure in outcomes if failure]
        count = sum(failure.count for failure in failures)
        return values, Failure(count, failures[0].first_error) if failures else None

    def _work(self) -> None:
        while (entry := self._waiting.get()) is not None and not self._stopped:
            samples, future = entry
            try:
                future.set_result(scored_by(self._reward, samples))
            except BaseException as error:  # noqa: BLE001 - memory that ran out; told to who takes the scores
                future.set_exception(error)
