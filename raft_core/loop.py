"""Reward-ranked fine-tuning: sample K per prompt, score, select, update, round after round.

Source: RAFT (2304.06767), algorithm 1. Every method and every modality is a choice of the parts handed in here.
"""

from __future__ import annotations

from raft_core.monitoring.figures import measure
from raft_core.monitoring.monitor import Monitor
from raft_core.prompts import PromptSet
from raft_core.protocols import Objective, Policy, Selector, Source
from raft_core.rewards.scoring import Scorer
from raft_core.rollout import Rollout
from raft_core.sources.from_policy import FromPolicy
from raft_core.store.store import Store
from raft_core.training.trainer import Trainer


def align(
    policy: Policy,
    prompts: PromptSet,
    scorer: Scorer,
    selector: Selector,
    objective: Objective,
    trainer: Trainer,
    store: Store,
    monitor: Monitor,
    *,
    rounds: int,
    k: int,
    source: Source = FromPolicy(),  # noqa: B008 - frozen
) -> str:
    """Align ``policy`` in place and return in words why it ended.

    Everything goes through the store: what a killed run has already made is read back, not made again.

    Raises:
        NotFiniteError: a round in which every sample failed, or too many steps in a row without a finite loss and gradient.
        RewardError: a round in which no sample could be scored.
    """
    rollout = Rollout(policy, source, scorer, selector, objective.needs_trace, store.reporter)
    for rnd in store.unfinished(rounds):
        # Asked before a round and not after: a run killed between its last round and this question then ends as it would have.
        if reason := monitor.verdict(store.history()):
            return reason
        made = rollout.begin(store.open(rnd, policy))
        with monitor.phase(rnd, "sample", policy):
            samples = made.sample(source.requests(prompts.draw(rnd), k, store.seed, rnd))
        with monitor.phase(rnd, "render", policy):
            samples, scores, selection = made.judge(samples)
        with monitor.phase(rnd, "train", policy):
            metrics = measure(policy, samples, scores, selection, store.seed)
            metrics |= trainer.fit(policy, objective, samples, selection, rnd)
        store.finish(rnd, policy, trainer, metrics | monitor.costs(rnd))
        monitor.report(rnd, store.history(), scores.failures)
    return f"all {rounds} rounds are done"
