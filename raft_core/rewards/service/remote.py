"""A reward behind HTTP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raft_core.errors import ConfigError, RewardError
from raft_core.protocols import RewardInfo
from raft_core.rewards.scoring import PartlyScored
from raft_core.rewards.service import messages as wire
from raft_core.rewards.service.http import Client, Connection, Question, Trouble, address_mistakes
from raft_core.sampling import chunks
from raft_core.types import Sample

NOT_OFFERED = frozenset({404, 405, 501})


class RemoteReward:
    """A reward behind HTTP: another machine's GPU, another environment, a service of your own.

    ``raft reward serve`` puts any reward behind the two addresses that are used: ``POST url/score`` and, once before work
    starts, ``GET url/info``, which an endpoint of your own need not have. ``docs/reference/combining_rewards.md`` describes the
    JSON; pictures go as PNG. A request that fails leaves its samples unscored.

    Args:
        url: ``http://localhost:8600``.
        name: column in the store and label in the report.
        higher_is_better: the direction.
        scale: what its numbers mean, in words.
        batch_size: samples per request.
        parallel: requests at once.
        background: score a batch while the next one is sampled. Pictures are then decoded between batches, which needs the
            memory of the decoder beside that of the sampler.
        connection: timeouts and retries.
    """

    def __init__(
        self,
        url: str,
        name: str = "remote",
        higher_is_better: bool = True,
        scale: str = "",
        batch_size: int = 16,
        parallel: int = 1,
        background: bool = True,
        connection: Connection = Connection(),  # noqa: B008 - frozen
    ):
        mistakes = address_mistakes(url)
        for argument, value in (("batch_size", batch_size), ("parallel", parallel)):
            if value < 1:
                mistakes.append(f"{argument} is {value}, but must be at least 1")
        if mistakes:
            raise ConfigError(mistakes)
        self.url = url.rstrip("/").removesuffix("/score")
        self.batch_size, self.parallel = batch_size, parallel
        self.connection = connection
        self._client: Client | None = None
        self.info = RewardInfo(
            name=name,
            scale=scale,
            higher_is_better=higher_is_better,
            batch_size=batch_size * parallel,
            background=background,
        )

    def check(self) -> list[str]:
        """Mistakes that show without asking anything."""
        return self.connection.check()

    def load(self) -> None:
        """Ask the endpoint what it is, so that one that is not there is told before work starts.

        Raises:
            RewardError: it cannot be reached, refuses, or is something else.
            ConfigError: it says that its direction is the other one.
        """
        try:
            facts = self._connected().ask(Question(f"{self.url}/info"))
        except Trouble as trouble:
            if trouble.status in NOT_OFFERED:
                return
            raise RewardError(f"the reward {self.info.name!r}: {trouble}") from trouble
        said = facts.get("higher_is_better") if isinstance(facts, dict) else None
        if isinstance(said, bool) and said != self.info.higher_is_better:
            raise ConfigError(
                f"the reward {self.info.name!r} has higher_is_better: {str(self.info.higher_is_better).lower()}, but "
                f"{self.url} says {str(said).lower()}: give that"
            )

    def sleep(self) -> None:
        """Close the connections of the round."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> Client:
        """The client of this round: making one for every batch would cost more than the batch."""
        if self._client is None:
            self._client = Client(self.connection, parallel=self.parallel, secure=self.url.startswith("https"))
        return self._client

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N].

        Raises:
            PartlyScored: some requests failed, or the endpoint could not score some samples.
            RewardError: all of them failed.
        """
        parts = list(chunks(samples, self.batch_size))
        answers = self._connected().ask_all([self._question(part) for part in parts])
        values, errors = [], []
        for part, answer in zip(parts, answers, strict=True):
            scores, error = (np.full(len(part), np.nan), str(answer)) if isinstance(answer, Trouble) else answer
            values.append(scores)
            errors += [error] if error else []
        found = np.concatenate(values) if values else np.empty(0)
        if not errors:
            return found
        if np.isnan(found).all():
            raise RewardError(errors[0])
        raise PartlyScored(found, errors[0])

    def _question(self, part: Sequence[Sample]) -> Question:
        address = f"{self.url}/score"

        def read(reply: object) -> tuple[np.ndarray, str]:
            try:
                return wire.answered(reply, len(part))
            except wire.WireError as error:  # it will say the same again
                raise Trouble(f"{address}: {error}") from error

        return Question(address, lambda: wire.plain(wire.asked(part)), read)
