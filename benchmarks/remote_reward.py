"""What a slow remote reward adds to a round when sampling takes longer than scoring.

    python -m benchmarks.remote_reward                       50 ms to score a sample, 75 ms to draw one
    python -m benchmarks.remote_reward --prompts 4 --k 4 --repeats 3

The policy and the reward wait instead of computing, so that the figures tell of the toolkit alone, whatever else the machine
does: the policy as if a GPU were at work, the reward behind a real socket. Three kinds of rounds take turns in one process:
without the remote reward, with it in the background, and with it after sampling. What counts is the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.protocols import Reward, RewardInfo
from raft_core.rewards.scoring import Scorer
from raft_core.rewards.service.remote import RemoteReward
from raft_core.rewards.service.serve import serving_reward
from raft_core.selectors.best_of_k import BestOfK
from raft_core.store.store import Store
from raft_core.testing import FakePolicy, FakeReward
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt, Request, Sample


class SlowPolicy(FakePolicy):
    """Takes its time for every sample that it draws."""

    def __init__(self, seconds: float, batch_size: int):
        super().__init__("image", batch_size=batch_size)
        self.seconds = seconds

    def sample(self, requests: Sequence[Request], **settings: Any) -> list[Sample]:
        time.sleep(self.seconds * len(requests))
        return super().sample(requests, **settings)


class SlowReward:
    """Takes its time for every sample that it scores."""

    info = RewardInfo("slow", batch_size=1)

    def __init__(self, seconds: float):
        self.seconds = seconds

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        time.sleep(self.seconds * len(samples))
        return np.array([float(np.asarray(sample.output).mean()) for sample in samples])


def seconds_of_round(folder: Path, policy: SlowPolicy, judges: Sequence[Reward], prompts: int, k: int) -> float:
    """One round of ``align`` with store and checkpoint, selected by a reward that costs nothing."""
    trainer = Trainer()
    asked = PromptSet([Prompt(f"prompt {number}") for number in range(prompts)], (), prompts, 0)
    with Store.create(folder, {}, 0) as store:
        trainer.attach(policy, 0, 1)
        start = time.perf_counter()
        parts = (policy, asked, Scorer(FakeReward(), judges), BestOfK(), Sft(), trainer, store, Monitor(stop_when=()))
        align(*parts, rounds=1, k=k)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample_ms", type=float, default=75.0)
    parser.add_argument("--score_ms", type=float, default=50.0)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    turns: list[dict[str, float]] = []
    with serving_reward(SlowReward(given.score_ms / 1000)) as url, tempfile.TemporaryDirectory() as scratch:
        kinds: dict[str, list[Reward]] = {
            "without": [],
            "background": [RemoteReward(url, batch_size=given.batch_size)],
            "afterwards": [RemoteReward(url, batch_size=given.batch_size, background=False)],
        }
        for turn in range(given.repeats + 1):
            row = {}
            for kind, judges in kinds.items():
                policy = SlowPolicy(given.sample_ms / 1000, given.batch_size)
                row[kind] = seconds_of_round(Path(scratch) / f"{kind}-{turn}", policy, judges, given.prompts, given.k)
            if turn:  # the first one warms up
                turns.append(row)
    for kind in turns[0]:
        print(f"{kind:>10}  {statistics.median(row[kind] for row in turns):.2f} s a round")
    for kind in ("background", "afterwards"):
        ratios = [row[kind] / row["without"] for row in turns]
        print(f"{kind} / without: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
