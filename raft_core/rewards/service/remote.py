"""A reward behind HTTP."""

from __future__ import annotations

import math
import os
import re
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raft_core.errors import ConfigError, RewardError
from raft_core.protocols import RewardInfo
from raft_core.rewards.scoring import PartlyScored
from raft_core.rewards.service import messages as wire
from raft_core.rewards.service.http import LONGEST_WAIT_S, TRANSIENT, body_of, retry_after
from raft_core.sampling import chunks
from raft_core.types import Sample

if TYPE_CHECKING:
    import httpx

NOT_OFFERED = frozenset({404, 405, 501})


@dataclass(frozen=True)
class Connection:
    """How patiently an endpoint is asked.

    Args:
        timeout_s: seconds for one attempt, the whole reply included.
        attempts: per request. Timeouts, broken replies and the statuses 408, 409, 425, 429 and 5xx are tried again.
        backoff_s: seconds before the second attempt; doubled before each further one. ``Retry-After`` goes before it.
        key_variable: environment variable that holds a bearer token; null = none is sent. The token itself is never stored.
    """

    timeout_s: float = 60.0
    attempts: int = 4
    backoff_s: float = 0.5
    key_variable: str | None = None

    def __post_init__(self) -> None:
        found = []
        if not 0 < self.timeout_s < math.inf:
            found.append(f"timeout_s is {self.timeout_s}, but must be positive")
        if self.attempts < 1:
            found.append(f"attempts is {self.attempts}, but must be at least 1")
        if not 0 <= self.backoff_s < math.inf:
            found.append(f"backoff_s is {self.backoff_s}, but must not be negative")
        if found:
            raise ConfigError(found)

    @property
    def headers(self) -> dict[str, str]:
        key = os.environ.get(self.key_variable, "") if self.key_variable else ""
        return {"Authorization": f"Bearer {key}"} if key else {}


class RemoteReward:
    """A reward behind HTTP: another machine's GPU, another environment, a service of your own.

    ``raft reward serve`` puts any reward behind the two addresses that are used: ``POST url/score`` and, once before work
    starts, ``GET url/info``, which an endpoint of your own need not have. The JSON is described in ``docs/combinators.md``;
    pictures go as PNG. A request that fails leaves its samples unscored.

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
        connection: Connection = Connection(),
    ):
        mistakes = []
        if not re.match(r"https?://[^/\s]+", url):
            mistakes.append(f"url is {url!r}, but must begin with http:// or https:// and a host")
        for argument, value in (("batch_size", batch_size), ("parallel", parallel)):
            if value < 1:
                mistakes.append(f"{argument} is {value}, but must be at least 1")
        if mistakes:
            raise ConfigError(mistakes)
        self.url = url.rstrip("/").removesuffix("/score")
        self.batch_size, self.parallel = batch_size, parallel
        self.connection = connection
        self._client: httpx.Client | None = None
        self.info = RewardInfo(
            name=name,
            scale=scale,
            higher_is_better=higher_is_better,
            batch_size=batch_size * parallel,
            background=background,
        )

    def check(self) -> list[str]:
        """Mistakes that show without asking anything."""
        variable = self.connection.key_variable
        if variable and not os.environ.get(variable):
            return [f"key_variable is {variable!r}, but that environment variable is not set: export the token in it"]
        return []

    def load(self) -> None:
        """Ask the endpoint what it is, so that one that is not there is told before work starts.

        Raises:
            RewardError: it cannot be reached, refuses, or is something else.
            ConfigError: it says that its direction is the other one.
        """
        client = self._connected()
        try:
            facts = patiently(self.connection, lambda: _exchange(client, "GET", f"{self.url}/info", None, self.connection))
        except _Trouble as trouble:
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
            self._close()
            self._client = None

    def _connected(self) -> httpx.Client:
        """The client of this round: making one for every batch would cost more than the batch."""
        if self._client is None:
            import httpx

            client = httpx.Client(
                timeout=self.connection.timeout_s,
                verify=self.url.startswith("https"),  # certificates take longest to load, and plain HTTP has none
            )
            self._client, self._close = client, weakref.finalize(self, client.close)
        return self._client

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N].

        Raises:
            PartlyScored: some requests failed, or the endpoint could not score some samples.
            RewardError: all of them failed.
        """
        client = self._connected()
        parts = list(chunks(samples, self.batch_size))
        if len(parts) == 1:
            answers = [self._asked(client, parts[0])]
        else:
            with ThreadPoolExecutor(max_workers=self.parallel) as pool:
                answers = list(pool.map(lambda part: self._asked(client, part), parts))
        values = np.concatenate([values for values, _ in answers]) if answers else np.empty(0)
        errors = [error for _, error in answers if error]
        if not errors:
            return values
        if np.isnan(values).all():
            raise RewardError(errors[0])
        raise PartlyScored(values, errors[0])

    def _asked(self, client: httpx.Client, part: Sequence[Sample]) -> tuple[np.ndarray, str]:
        address = f"{self.url}/score"
        body = wire.plain(wire.asked(part))

        def attempt() -> tuple[np.ndarray, str]:
            reply = _exchange(client, "POST", address, body, self.connection)
            try:
                return wire.answered(reply, len(part))
            except wire.WireError as error:  # it will say the same again
                raise _Trouble(f"{address}: {error}", again=False) from error

        try:
            return patiently(self.connection, attempt)
        except _Trouble as trouble:
            return np.full(len(part), np.nan), str(trouble)


class _Trouble(Exception):  # noqa: N818 - a signal between parts, never shown
    """An attempt that failed: whether another may succeed, the wait that the server asks for, and its status."""

    def __init__(self, reason: str, again: bool, wait_s: float | None = None, status: int = 0):
        super().__init__(reason)
        self.again, self.wait_s, self.status = again, wait_s, status


def patiently(connection: Connection, attempt: Any) -> Any:
    """The outcome of ``attempt()``, tried again as often as the connection says.

    Raises:
        _Trouble: the last one.
    """
    wait_s = connection.backoff_s
    for number in range(1, connection.attempts + 1):
        try:
            return attempt()
        except _Trouble as trouble:
            if not trouble.again:
                raise
            if number == connection.attempts:
                raise _Trouble(f"{trouble} (after {number} attempts)", again=False, status=trouble.status) from trouble
            time.sleep(min(wait_s if trouble.wait_s is None else trouble.wait_s, LONGEST_WAIT_S))
            wait_s *= 2
    raise AssertionError("attempts is at least 1")


def _exchange(client: httpx.Client, method: str, address: str, body: bytes | None, connection: Connection) -> Any:
    """One request and the JSON of its reply.

    Raises:
        _Trouble: no reply, or none that can be read.
    """
    import httpx

    deadline = time.monotonic() + connection.timeout_s
    headers = connection.headers | ({"Content-Type": "application/json"} if body is not None else {})
    try:
        with client.stream(method, address, content=body, headers=headers) as response:
            content = body_of(response, deadline)
    except httpx.TimeoutException as error:
        raise _Trouble(f"{address} did not answer within {connection.timeout_s:g} s", again=True) from error
    except httpx.ConnectError as error:
        raise _Trouble(f"{address} cannot be reached ({error}): is the server running?", again=True) from error
    except httpx.InvalidURL as error:
        raise _Trouble(f"{address!r} is no address: {error}", again=False) from error
    except httpx.HTTPError as error:  # a connection that broke, a body shorter or longer than announced
        raise _Trouble(f"{address} broke off: {error}", again=True) from error
    status = response.status_code
    if response.is_redirect:
        raise _Trouble(f"{address} redirects to {response.headers.get('location')}: give that address", again=False)
    if "html" in response.headers.get("content-type", ""):
        reason = f"{address} answered with a web page (status {status}): give the address of a reward as url"
        raise _Trouble(reason, again=status in TRANSIENT, status=status)
    if status != 200:
        reason = f"{address} answered with status {status}: {_excerpt(content)}"
        raise _Trouble(reason, again=status in TRANSIENT, wait_s=retry_after(response), status=status)
    try:
        return wire.parsed(content)
    except wire.WireError as error:
        raise _Trouble(f"{address} answered, but {error}", again=True) from error


def _excerpt(content: bytes) -> str:
    """What the server says of the matter: the ``error`` of its JSON, or the beginning of whatever it sent."""
    try:
        said = wire.parsed(content)
    except wire.WireError:
        said = None
    error = said.get("error") if isinstance(said, dict) else None
    text = error if isinstance(error, str) else " ".join(content[:400].decode("utf-8", "replace").split())
    return text if len(text) <= 200 else text[:199] + "…"
