"""Rendering and scoring shared by the processes of a run: each takes every n-th batch, and what they found is put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from raft_core import capabilities
from raft_core.errors import StoreError
from raft_core.machine.files import write_json
from raft_core.machine.processes import Processes
from raft_core.protocols import Combinator, Reward
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_core.rewards.known import KnownScores
from raft_core.rewards.scoring import Scored, Scorer, batches, scored_batches, why_unscored
from raft_core.sampling import chunks
from raft_core.store.tables import read_samples, write_samples
from raft_core.store.tensors import UnusableError
from raft_core.types import Sample, Scores

LARGEST_SCORES = 2**28  # bytes of one process's scores


@dataclass(frozen=True)
class Shares:
    """Where the processes leave what they have made of a round; a process writes its own and reads all.

    Attributes:
        folder: of the round's parts; it must exist for all of them.
        processes: that share the round.
    """

    folder: Path
    processes: Processes

    def places(self, samples: int, part: int) -> list[list[int]]:
        """Which samples each process renders: whole parts, as one process would cut them, for a picture's last bits follow
        from its company."""
        parts = list(chunks(range(samples), part))
        return [[place for own in parts[rank :: self.processes.count] for place in own] for rank in range(self.processes.count)]

    def render(self, samples: Sequence[Sample], part: int, render: Callable[[Sequence[Sample]], list[Sample]]) -> list[Sample]:
        """All samples of the round, rendered.

        Args:
            samples: of the round, not rendered.
            part: samples that are rendered together.
            render: makes the outputs of samples, in parts of this size.

        Raises:
            StoreError: what another process has rendered cannot be read.
        """
        places = self.places(len(samples), part)
        own = render([samples[place] for place in places[self.processes.rank]])
        write_samples(self._rendered(self.processes.rank), own, Scores("", {}), np.zeros(len(own), dtype=bool))
        self.processes.wait()
        found: dict[int, Sample] = {}
        for rank, theirs in enumerate(places):
            try:
                read, *_ = read_samples(self._rendered(rank), [samples[place].request for place in theirs])
            except UnusableError as error:
                raise StoreError(f"what process {rank} has rendered cannot be read: {error}") from error
            # Tensors stay those of the part; the file keeps none.
            found |= {i: replace(samples[i], output=s.output, meta=s.meta) for i, s in zip(theirs, read, strict=True)}
        return [found[place] for place in range(len(samples))]

    def score(self, scorer: Scorer, samples: Sequence[Sample], known: KnownScores) -> SharedScores:
        """What the rewards and judges that look at samples one by one give all samples, each batch scored by one process.

        Args:
            known: what some of them have given some samples already; the first process asks these for the rest.

        Raises:
            StoreError: what another process has scored cannot be read.
        """
        shared: list[Any] = [reward for reward in scorer.all if can_share(reward) and reward.info.name not in known.columns]
        own: dict[str, Any] = {}
        try:
            for reward in shared:
                values, errors = scored_batches(reward, samples, self.processes.share(batches(reward, samples)))
                places = np.flatnonzero(~np.isnan(values))
                own[reward.info.name] = {"places": places.tolist(), "values": values[places].tolist(), "errors": errors}
                if reward.info.gpu:
                    capabilities.sleep(reward)
        finally:
            scorer.sleep()
        write_json(self._scores(self.processes.rank), own)
        self.processes.wait()
        return SharedScores({reward.info.name: self._together(reward.info.name, samples) for reward in shared}, known)

    def _together(self, name: str, samples: Sequence[Sample]) -> Scored:
        values = np.full(len(samples), np.nan)
        errors: list[tuple[int, str]] = []
        for rank in range(self.processes.count):
            path = self._scores(rank)
            try:
                part = read_object(path, most=LARGEST_SCORES)[name]
                values[np.asarray(part["places"], dtype=np.int64)] = part["values"]
                errors += [(int(number), str(error)) for number, error in part["errors"]]
            except (OSError, Unreadable, LookupError, TypeError, ValueError) as error:
                raise StoreError(f"what process {rank} has scored cannot be read from {path}: {error}") from error
        return values, why_unscored(values, samples, [error for _, error in sorted(errors)])

    def _rendered(self, rank: int) -> Path:
        return self.folder / f"rendered-{rank}.parquet"

    def _scores(self, rank: int) -> Path:
        return self.folder / f"scores-{rank}.json"


@dataclass(frozen=True)
class SharedScores:
    """Scores that the processes have found together; see ``scoring.Begun``.

    Attributes:
        found: by the reward's name, of all samples of the round.
        known: scores that were there before.
    """

    found: dict[str, Scored]
    known: KnownScores

    def take(self, reward: Reward, samples: Sequence[Sample]) -> Scored | None:
        return self.found.get(reward.info.name) or self.known.take(reward, samples)


def can_share(reward: Reward | Combinator) -> bool:
    """Whether each process can score batches by itself: not where a reward wants to see all samples at once."""
    return not isinstance(reward, Combinator) and reward.info.batch_size is not None and not reward.info.relative
