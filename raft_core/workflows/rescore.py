"""Stored samples scored by another reward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raft_core.config.components import build
from raft_core.config.run_config import overridden, parse_overrides
from raft_core.errors import ConfigError, RewardError, StoreError
from raft_core.machine.out_of_memory import in_words
from raft_core.monitoring.figures import mean_scored
from raft_core.reporter import Reporter
from raft_core.rewards.scoring import Scorer
from raft_core.store.rounds import add_scores, read_round
from raft_core.workflows.whatif import Stored, best_of_scored, stored_rounds


@dataclass(frozen=True)
class Line:
    """One score of one round.

    Attributes:
        rnd: the round.
        name: of the score.
        mean: over all scored samples.
        best: mean over prompts of the prompt's best.
        kept: mean over the samples that the run has kept.
        unscored: how many have no score.
    """

    rnd: int
    name: str
    mean: float
    best: float
    kept: float
    unscored: int


def built_reward(words: Sequence[str], usage: str) -> Scorer:
    """The reward that the settings name.

    Raises:
        ConfigError: with every mistake that there is.
    """
    raw = overridden({}, parse_overrides(words))
    if unknown := [key for key in raw if key != "reward"]:
        raise ConfigError(f"--{unknown[0]} is not known here: {usage}")
    if "reward" not in raw:
        raise ConfigError(f"--reward is missing: {usage}")
    return Scorer(build("reward", raw["reward"]))


def rescored(folder: Path, scorer: Scorer, rounds: Sequence[int] | None, reporter: Reporter) -> Iterator[Line]:
    """Score every stored round and keep the scores; one line per round and score.

    Raises:
        StoreError: no such round, or one that is damaged or was stored without its outputs.
        RewardError: nothing of a round could be scored, which is then not kept.
        DeviceError: memory ran out.
    """
    for rnd in rounds or [each.rnd for each in stored_rounds(folder)]:
        samples, before, _ = read_round(folder, rnd)
        if any(sample.output is None and not sample.failed for sample in samples):
            raise StoreError(f"round {rnd} of {folder} was stored without its outputs (keep.images was off): nothing to score")
        with in_words("render"), reporter.phase(f"scoring round {rnd}", len(samples)) as bar:
            scores = scorer(samples)
            bar.advance(len(samples))
        reward = scores.columns[scores.reward]
        if np.isnan(reward).all():
            raise RewardError(f"no sample of round {rnd} could be scored: {scores.failures[scores.reward].first_error}")
        # Scores that are there already, such as a part that was a judge, are left as they are.
        new = {name: values for name, values in scores.columns.items() if name not in before.columns or name == scores.reward}
        add_scores(folder, rnd, new, scores.descending)
        stored = stored_rounds(folder, [rnd])[0]
        yield from (_line(stored, name) for name in new)


def _line(stored: Stored, name: str) -> Line:
    values = stored.columns[name]
    return Line(
        rnd=stored.rnd,
        name=name,
        mean=mean_scored(values),
        best=best_of_scored(stored, name),
        kept=mean_scored(values[stored.kept]),
        unscored=int(np.isnan(values).sum()),
    )
