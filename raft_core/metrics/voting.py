"""Several samples, one answer: majority voting, reranking by a reward, and what either gains.

What an answer is and when two are the same, a ``Voter`` says; nothing here knows a modality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from raft_core.errors import DataError
from raft_core.metrics.statistics import Estimate, win_rate
from raft_core.types import Prompt, Sample

Same = Callable[[Any, Any], bool]


@runtime_checkable
class Voter(Protocol):
    """Reads answers off samples. A reward that pays for right answers usually can."""

    def answers(self, samples: Sequence[Sample]) -> list[Any]:
        """The answer of each rendered sample; None = it states none, NaN = it could not be read."""
        ...

    def reference(self, prompt: Prompt) -> Any:
        """The right answer, as far as the prompt's table says; else None."""
        ...

    def same(self, one: Any, other: Any) -> bool:
        """Whether two answers are one; None and NaN are no answer and equal to nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Vote:
    """What the majority says.

    Attributes:
        answer: as the first of its voters gave it.
        index: of that sample.
        count: of its voters.
        of: samples that gave any answer.
    """

    answer: Any
    index: int
    count: int
    of: int


def is_answer(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def vote(answers: Sequence[Any], same: Same) -> Vote | None:
    """The answer that most samples give; of equally many, the one that was given first.

    Samples without an answer do not vote, and None is elected when nobody does. An answer votes with the first earlier one that
    it is the ``same`` as.

    Source: self-consistency (2203.11171), unweighted.
    """
    parties = groups(answers, same)
    if not parties:
        return None
    winner = max(parties, key=len)
    return Vote(answers[winner[0]], winner[0], len(winner), sum(map(len, parties)))


def groups(answers: Sequence[Any], same: Same) -> list[list[int]]:
    """Indices of the samples that give one answer, in order of appearance; those without an answer are in no group.

    An answer belongs to the first group whose first answer it is the ``same`` as.
    """
    found: list[list[int]] = []
    for index, answer in enumerate(answers):
        if is_answer(answer):
            party = next((party for party in found if same(answer, answers[party[0]])), None)
            if party is None:
                found.append([index])
            else:
                party.append(index)
    return found


def rerank(scores: Sequence[float] | np.ndarray) -> int | None:
    """Index of the sample that scores highest, of equal ones the first; unscored ones (NaN) never win, None if all are."""
    values = np.asarray(scores, dtype=np.float64)
    return None if np.isnan(values).all() else int(np.nanargmax(values))


@dataclass(frozen=True, slots=True)
class Row:
    """A method's accuracy: ``top-1``, ``vote`` or ``rerank``.

    Attributes:
        accuracy: in [0, 1] with its interval over questions.
        questions: on how many.
        samples: of each question that the method looks at.
    """

    method: str
    accuracy: Estimate
    questions: int
    samples: int


def accuracy_table(
    answers: Sequence[Sequence[Any]],
    references: Sequence[Any],
    same: Same,
    scores: np.ndarray | None = None,
    failed: np.ndarray | None = None,
) -> list[Row]:
    """Top-1, majority vote and, with scores, reranking, on the same samples.

    Top-1 is the accuracy of a single sample, estimated from all K of each question; its interval allows for samples of one
    question being right or wrong together.

    Args:
        answers: [P, K].
        references: [P]; a question without one counts nowhere.
        same: whether an answer is the reference.
        scores: [P, K], higher is better; a question with none scored does not count for reranking.
        failed: [P, K] bool, samples that count nowhere: neither right nor wrong.

    Raises:
        DataError: the shapes do not fit.
    """
    k = len(answers[0]) if answers else 0
    if not k or any(len(row) != k for row in answers) or len(references) != len(answers):
        raise DataError(
            f"answers of {len(answers)} questions with {sorted({len(row) for row in answers})} samples each and "
            f"{len(references)} references: the same number of samples is needed for each question, at least 1, and a reference"
        )
    if scores is not None and scores.shape != (len(answers), k):
        raise DataError(f"scores have the shape {scores.shape}, but the answers {(len(answers), k)}")
    known = [p for p, reference in enumerate(references) if reference is not None]
    right = np.array([[same(a, references[p]) for a in answers[p]] for p in known], dtype=float).reshape(-1, k)
    if failed is not None:
        right[failed[known]] = np.nan
    votes = [vote(answers[p], same) for p in known]
    voted = [float(v is not None and same(v.answer, references[p])) for p, v in zip(known, votes, strict=True)]
    voted = np.where(np.isnan(right).all(axis=1), np.nan, voted)
    rows = [_row("top-1", right, 1), _row("vote", voted[:, None], k)]
    if scores is not None:
        chosen = [rerank(scores[p]) for p in known]
        ranked = [math.nan if j is None else right[i, j] for i, j in enumerate(chosen)]
        rows.append(_row("rerank", np.array(ranked)[:, None], k))
    return rows


def _row(method: str, right: np.ndarray, samples: int) -> Row:
    return Row(method, win_rate(right), int((~np.isnan(right)).any(axis=1).sum()), samples)


def table_lines(rows: Sequence[Row]) -> list[str]:
    """The table in aligned lines, accuracies in per cent with 95 % intervals."""
    lines = [f"{'method':<8} {'samples':>7} {'questions':>9} {'accuracy':>8}   95 %"]
    for row in rows:
        value, low, high = (100 * x for x in (row.accuracy.value, row.accuracy.low, row.accuracy.high))
        lines.append(f"{row.method:<8} {row.samples:>7} {row.questions:>9} {value:>7.1f}%   {low:.1f} … {high:.1f}")
    return lines
