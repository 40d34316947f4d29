"""One of several samples of a prompt: by what most of them say, or by a reward."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raft_core.errors import RewardError
from raft_core.machine.files import write_text
from raft_core.machine.out_of_memory import in_words
from raft_core.media.medium import medium_of
from raft_core.metrics.voting import Row, Vote, Voter, accuracy_table, is_answer, rerank, vote
from raft_core.reporter import Reporter
from raft_core.rewards.scoring import Scorer
from raft_core.soundness import failed_mask, sound_of
from raft_core.types import Sample, Scores
from raft_core.workflows.trained import Source


@dataclass(frozen=True, eq=False)
class Chosen:
    """What is known of P prompts with K samples each.

    Attributes:
        answers: [P][K] with a voter; else empty.
        references: [P] the right answers, None = not known; empty without a voter.
        votes: [P] what the majority says, None = no sample states an answer; empty when nobody was asked to vote.
        scores: of the samples with a reward to rerank by, else None.
        best: [P] index of the sample that scores best, None = none is scored; empty without such a reward.
        table: accuracies; empty when no reference is known.
    """

    answers: list[list[Any]]
    references: list[Any]
    votes: list[Vote | None]
    scores: Scores | None
    best: list[int | None]
    table: list[Row]

    def flags(self, k: int, prompts: int) -> np.ndarray:
        """[P·K] bool: the sample that the reward chooses, or else the first voter of the majority."""
        winners = self.best or [None if v is None else v.index for v in self.votes]
        found = np.zeros(prompts * k, dtype=bool)
        found[[p * k + j for p, j in enumerate(winners) if j is not None]] = True
        return found


def choose(
    samples: Sequence[Sample], k: int, *, voter: Voter | None, votes: bool, scorer: Scorer | None, reporter: Reporter
) -> Chosen:
    """Read, count, score and compare rendered samples, prompt-major, ``k`` of each prompt.

    Args:
        voter: reads answers; loaded. Without one nothing is voted on, and no accuracy is known.
        votes: whether the majority is asked for.
        scorer: to rerank by; loaded.

    Raises:
        RewardError: no sample could be scored.
        DeviceError: memory ran out.
    """
    rows = [samples[start : start + k] for start in range(0, len(samples), k)]
    scores = None if scorer is None else _scored(samples, scorer, reporter)
    grid = None if scores is None else scores.grid(k)
    flat = [] if voter is None else read_answers(voter, samples)
    answers = [flat[start : start + k] for start in range(0, len(flat), k)]
    references = [] if voter is None else [voter.reference(row[0].prompt) for row in rows]
    known = voter is not None and any(reference is not None for reference in references)
    failed = failed_mask(samples).reshape(-1, k)
    return Chosen(
        answers=answers,
        references=references,
        votes=[vote(row, voter.same) for row in answers] if voter is not None and votes else [],
        scores=scores,
        best=[] if grid is None else [rerank(row) for row in grid],
        table=accuracy_table(answers, references, voter.same, grid, failed) if voter is not None and known else [],
    )


def read_answers(voter: Voter, samples: Sequence[Sample]) -> list[Any]:
    """The answer of each sample; of one that failed None, as of one that states none."""
    sound = sound_of(samples)
    answers = iter(voter.answers(sound) if sound else [])
    return [None if sample.failed else next(answers) for sample in samples]


def voter_of(source: Source) -> Voter | None:
    """The reward, part or judge of a run that reads answers, the first of several, not loaded; None when it has none.

    Raises:
        ConfigError: the run's rewards cannot be built.
    """
    if "reward" not in source.raw:
        return None
    _, scorer = source.build(rewards=True)
    assert scorer is not None  # asked for
    return next((reward for reward in scorer.all if isinstance(reward, Voter)), None)


def _scored(samples: Sequence[Sample], scorer: Scorer, reporter: Reporter) -> Scores:
    with in_words("render"), reporter.phase("scoring", len(samples)) as bar:
        scores = scorer(samples)
        bar.advance(len(samples))
    for name, failure in scores.failures.items():
        reporter.warn(f"{name} could not score {failure.count} of {len(samples)}: {failure.first_error}")
    if np.isnan(scores.columns[scores.reward]).all():
        raise RewardError(f"no sample could be scored, so none can be chosen: {scores.failures[scores.reward].first_error}")
    return scores


def write_chosen(folder: Path, samples: Sequence[Sample], k: int, chosen: Chosen) -> Path:
    """Write ``chosen.jsonl``: for each prompt what was chosen, by which count or score; returns its path.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    lines = []
    for p, start in enumerate(range(0, len(samples), k)):
        row: dict[str, Any] = {"prompt": samples[start].prompt.text}
        if chosen.references and chosen.references[p] is not None:
            row["reference"] = chosen.references[p]
        if chosen.votes:
            won = chosen.votes[p]
            row["vote"] = won and {"answer": won.answer, "votes": won.count, "of": won.of, **_told(samples[start + won.index])}
        if chosen.scores is not None:
            j = chosen.best[p]
            row["rerank"] = None if j is None else _ranked(chosen, samples[start + j], p, k)
        lines.append(json.dumps(row, ensure_ascii=False))
    write_text(folder / "chosen.jsonl", "\n".join(lines) + "\n")
    return folder / "chosen.jsonl"


def _ranked(chosen: Chosen, sample: Sample, p: int, k: int) -> dict[str, Any]:
    assert chosen.scores is not None
    j = sample.request.index
    answer = {"answer": plain_answer(chosen.answers[p][j])} if chosen.answers else {}
    score = float(chosen.scores.columns[chosen.scores.reward][p * k + j])
    return {chosen.scores.reward: score, **answer, **_told(sample)}


def _told(sample: Sample) -> dict[str, Any]:
    return {"index": sample.request.index, **medium_of(sample.output).line(sample.output)}


def plain_answer(answer: Any) -> Any:
    """For JSON, which has no NaN."""
    return answer if is_answer(answer) and not (isinstance(answer, float) and math.isinf(answer)) else None
