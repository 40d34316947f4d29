"""Scores of a batch: every reward and judge, each part of a combined reward once, failures counted and never zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raft_core import capabilities
from raft_core.capabilities import FollowsJudge, Recalls
from raft_core.errors import RaftError, nearest
from raft_core.machine.out_of_memory import is_out_of_memory
from raft_core.protocols import Combinator, Policy, Reward
from raft_core.soundness import failed_mask
from raft_core.types import Failure, Sample, Scores


def with_parts(reward: Reward | Combinator) -> Iterator[Reward | Combinator]:
    """Every part, however deep, before what it is a part of, and the reward itself last."""
    for part in getattr(reward, "parts", ()):
        yield from with_parts(part)
    yield reward


Scored = tuple[np.ndarray, Failure | None]  # [N] float64, NaN = not scored, and why


class PartlyScored(Exception):  # noqa: N818 - an outcome, and not wholly an error
    """Raised by a reward that has scores for some samples of a batch and knows why the others have none.

    Args:
        values: what it would have returned, NaN = not scored.
        reason: in words, for the first of the others.
    """

    def __init__(self, values: object, reason: str):
        super().__init__(reason)
        self.values, self.reason = values, reason


class Begun(Protocol):
    """Scores that were begun before all samples were there."""

    def take(self, reward: Reward, samples: Sequence[Sample]) -> Scored | None:
        """What the reward gave these very samples, waiting for it if need be; None if it was not asked about them."""
        ...


def score(
    reward: Reward | Combinator,
    samples: Sequence[Sample],
    known: Mapping[str, np.ndarray] | None = None,
    begun: Begun | None = None,
    *,
    in_turn: bool = False,
) -> tuple[dict[str, np.ndarray], dict[str, Failure]]:
    """Columns and failures of one reward, the parts of a combined one included.

    Args:
        known: columns of these samples that are there already; a part of such a name is not scored again.
        begun: scores that are on their way.
        in_turn: a reward that was on the accelerator gives its memory back before the next one is asked.
    """
    columns: dict[str, np.ndarray] = dict(known or {})
    failures: dict[str, Failure] = {}
    for part in with_parts(reward):
        name = part.info.name
        if name in columns:
            continue
        if isinstance(part, Combinator):
            columns[name], failure = _combined(part, columns, samples)
        else:
            ahead = begun.take(part, samples) if begun is not None else None
            columns[name], failure = ahead or scored_by(part, samples)
            if in_turn and part.info.gpu:
                capabilities.sleep(part)
        if failure:
            failures[name] = failure
    return columns, failures


def scored_by(reward: Reward, samples: Sequence[Sample]) -> Scored:
    """Scores of one reward in batches of its size. Whatever it raises leaves its batch unscored, and the others are scored.

    It is not asked about samples that failed or were given up; the former do not count as its failures.

    Raises:
        RuntimeError, MemoryError: memory ran out: it will again, and a smaller batch is the remedy.
    """
    whole = scorable(samples)
    size = reward.info.batch_size or max(len(samples), 1)
    values = np.full(len(samples), np.nan)
    errors: list[str] = []
    for start in range(0, len(whole), size):
        part = whole[start : start + size]
        try:
            values[part], partly = answered(reward, [samples[i] for i in part])
            errors += [partly] if partly else []
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # Whatever else a user's reward raises, the samples are unscored and the run goes on.
            errors.append(f"{type(error).__name__}: {error}")
    failed = failed_mask(samples)
    if not errors and not np.isnan(values[whole]).any():
        errors += [sample.unscorable for sample in samples if sample.unscorable and not sample.failed][:1]
    return values, _failure(values[~failed], errors)


def scorable(samples: Sequence[Sample]) -> np.ndarray:
    """[n] int64 places of the samples that a reward is asked about."""
    return np.array([i for i, sample in enumerate(samples) if not sample.unscorable], dtype=np.int64)


def answered(reward: Reward, samples: Sequence[Sample]) -> tuple[np.ndarray, str]:
    """([n] checked scores, why some are missing or "") of one call."""
    try:
        return checked(reward(samples), len(samples)), ""
    except PartlyScored as partly:
        return checked(partly.values, len(samples)), partly.reason


def _combined(reward: Combinator, columns: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> Scored:
    failed, asked = failed_mask(samples), scorable(samples)
    values = np.full(len(samples), np.nan)
    try:
        if len(asked):
            own = {name: column[asked] for name, column in columns.items()}
            values[asked] = checked(reward.combine(own, [samples[i] for i in asked]), len(asked))
    except RaftError:
        raise  # misused, as a KL penalty without a policy is: the same for every sample of every round
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return values, _failure(values[~failed], [f"{type(error).__name__}: {error}"])
    parts = [part.info.name for part in reward.parts]
    without = np.isnan(values) & ~np.any([np.isnan(columns[name]) for name in parts], axis=0)
    reason = getattr(reward, "unscored_reason", "")
    if reason and without.any():
        return values, _failure(values[~failed], [reason])
    missing = [name for name in parts if np.isnan(columns[name][~failed]).any()]
    return values, _failure(values[~failed], [f"not scored by {', '.join(missing)}"] if missing else [])


def _failure(values: np.ndarray, errors: Sequence[str]) -> Failure | None:
    missing = int(np.isnan(values).sum())
    return Failure(missing, errors[0] if errors else "the reward returned NaN or an infinity") if missing else None


def told(scores: np.ndarray, reason: str) -> np.ndarray:
    """The scores, all of which are there.

    Raises:
        PartlyScored: some are not; carries those that are, and the reason.
    """
    if np.isnan(scores).any():
        raise PartlyScored(scores, reason)
    return scores


def checked(values: object, n: int) -> np.ndarray:
    """[n] float64 with infinities as NaN.

    Raises:
        ValueError: a scalar, another shape, or not n numbers; nothing is ever broadcast.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()  # type: ignore[attr-defined]
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (n,):
        got = "None" if values is None else "a single number" if array.ndim == 0 else f"shape {array.shape}"
        raise ValueError(f"the reward returned {got} for {n} samples; it must return one score per sample, shape ({n},)")
    return finite(array)


def finite(values: np.ndarray) -> np.ndarray:
    """The same with infinities as NaN: an infinite score selects nothing sensible."""
    return np.where(np.isfinite(values), values, np.nan)


@dataclass(frozen=True)
class Scorer:
    """The reward that is trained on and the judges that are only measured.

    Args:
        reward: selects.
        judges: measured on the same samples; a judge that is also part of the reward is scored once.
    """

    reward: Reward | Combinator
    judges: Sequence[Reward | Combinator] = ()

    def __call__(self, samples: Sequence[Sample], begun: Begun | None = None) -> Scores:
        columns: dict[str, np.ndarray] = {}
        failures: dict[str, Failure] = {}
        try:
            for reward in (self.reward, *self.judges):
                columns, more = score(reward, samples, columns, begun, in_turn=True)
                failures |= more
        finally:
            self.sleep()
        descending = frozenset(name for name, (_, higher_is_better) in self.infos.items() if not higher_is_better)
        parts = frozenset(part.info.name for part in with_parts(self.reward)) - {self.reward.info.name}
        return Scores(self.reward.info.name, columns, failures, descending, parts)

    @property
    def infos(self) -> dict[str, tuple[str, bool]]:
        """name → (scale, higher is better) of the reward, its parts and the judges."""
        return {reward.info.name: (reward.info.scale, reward.info.higher_is_better) for reward in self.all}

    @property
    def all(self) -> list[Reward | Combinator]:
        """Every reward, part and judge, each object once, parts first."""
        found = [part for reward in (self.reward, *self.judges) for part in with_parts(reward)]
        return list({id(reward): reward for reward in found}.values())

    def check(self) -> list[str]:
        """Mistakes of all of them, and parts that one would mistake for one another; loads nothing."""
        found = [mistake for reward in self.all for mistake in capabilities.check(reward)]
        return found + _clashes(self) + _unfollowed(self)

    def load(self) -> None:
        """Load what has something to load, each object once."""
        for reward in self.all:
            capabilities.load(reward)

    def sleep(self) -> None:
        """Have the accelerator's memory given back once a round is scored; a reward wakes when it is called."""
        for reward in self.all:
            capabilities.sleep(reward)

    @property
    def recalls(self) -> bool:
        """Whether any of them needs the scores of earlier rounds."""
        return any(isinstance(reward, Recalls) and reward.recalls for reward in self.all)

    def recall(self, earlier: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Hand the score columns of all rounds before this one, oldest first, to what needs them."""
        for reward in self.all:
            if isinstance(reward, Recalls) and reward.recalls:
                reward.recall(earlier)

    def attach(self, policy: Policy) -> None:
        """Hand the policy to what needs it (a KL penalty, a reward that is the policy's own likelihood)."""
        capabilities.attach(self.all, policy)


def _clashes(scorer: Scorer) -> list[str]:
    """Two parts of one reward, or two judges, under one name: the second would silently not be scored."""
    found = []
    for title, group in (("parts of the reward", list(with_parts(scorer.reward))), ("judges", list(scorer.judges))):
        names = [reward.info.name for reward in {id(reward): reward for reward in group}.values()]
        twice = sorted({name for name in names if names.count(name) > 1})
        found += [f"two {title} are named {name!r}: give one of them another name" for name in twice]
    return found


def _unfollowed(scorer: Scorer) -> list[str]:
    """Rewards that go by a judge which there is not, or by one that is better the other way."""
    found = []
    judges = {part.info.name: part.info.higher_is_better for judge in scorer.judges for part in with_parts(judge)}
    for reward in scorer.all:
        if not isinstance(reward, FollowsJudge):
            continue
        own, judge = reward.info.name, reward.follows
        if judge not in judges:
            found.append(f"{own!r} goes by the judge {judge!r}, but there is no judge of that name{nearest(judge, judges)}")
        elif judges[judge] != reward.higher_is_better:
            way = "higher" if judges[judge] else "lower"
            found.append(f"{own!r} takes the judge {judge!r} the wrong way round: it is better {way}, set higher_is_better")
    return found
