"""Asking an endpoint over HTTP: several questions at once, each in a time that covers everything, and again what may pass."""

from __future__ import annotations

import asyncio
import functools
import math
import os
import re
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raft_core.errors import ConfigError, MachineLack
from raft_core.reading.files import BeyondLimitsError, Unreadable, excerpt
from raft_core.reading.json_data import parse_json

TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504})  # worth another attempt
REFUSED = frozenset({401, 403, 404, 405})  # the same for every question
LONGEST_WAIT_S = 60.0
LARGEST_BYTES = 4_000_000  # of a reply


@dataclass(frozen=True)
class Connection:
    """How patiently an endpoint is asked.

    Args:
        timeout_s: seconds for one attempt, from the connection to the last byte of the reply.
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
    def key(self) -> str:
        """The token, "" when there is none."""
        return os.environ.get(self.key_variable, "").strip() if self.key_variable else ""

    def check(self) -> list[str]:
        """Mistakes that show without asking anything."""
        if self.key_variable and not self.key:
            unset = f"key_variable is {self.key_variable!r}, but that environment variable is not set: export the token in it"
            return [MachineLack(unset)]
        if not re.fullmatch(r"[\x21-\x7e]*", self.key):
            return [f"the environment variable {self.key_variable} holds what no HTTP header can carry, so it is no token"]
        return []


def address_mistakes(url: str) -> list[str]:
    """What is wrong with the base address of an endpoint, in words."""
    fits = re.match(r"https?://[^/\s]+", url)
    return [] if fits else [f"url is {url!r}, but must begin with http:// or https:// and a host"]


class Trouble(Exception):  # noqa: N818 - an outcome, and handed on as one
    """A question that was not answered.

    Attributes:
        again: whether another attempt may succeed.
        hopeless: whether the endpoint itself is the trouble, so that asking it anything else is in vain.
        wait_s: that the server asks to wait; None = it does not say.
        status: HTTP status; 0 = none came.
    """

    def __init__(
        self, reason: str, *, again: bool = False, hopeless: bool = False, wait_s: float | None = None, status: int = 0
    ):
        super().__init__(reason)
        self.again, self.hopeless, self.wait_s, self.status = again, hopeless, wait_s, status


def _as_it_is(reply: Any) -> Any:
    return reply


@dataclass(frozen=True)
class Question:
    """A request.

    Attributes:
        address: where.
        content: makes the JSON that is posted there, when its turn has come; None asks for what is there.
        read: from the reply's JSON to the answer; raises ``Trouble`` where there is none in it.
        words: the reply is no JSON, but words that nobody reads; its status says all.
    """

    address: str
    content: Callable[[], bytes] | None = None
    read: Callable[[Any], Any] = _as_it_is
    words: bool = False


class Client:
    """Open connections to one endpoint. They live on a thread of their own, where an attempt can be cut off at any instant.

    The usual limits of HTTP clients are for the time between two bytes: a server that sends a header every second would hold
    whoever waits for as long as it likes.

    Args:
        connection: how patiently it asks.
        parallel: questions at once.
        secure: whether certificates are needed; loading them takes a while.
    """

    def __init__(self, connection: Connection, *, parallel: int = 1, secure: bool = True):
        self._connection, self._parallel = connection, parallel
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="http-client")
        thread.start()
        try:
            self._http = self._finish(_opened(parallel, secure))
        except BaseException:
            _end(self._loop, thread, None)
            raise
        self._end = weakref.finalize(self, _end, self._loop, thread, self._http)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._end()

    def ask_all(self, questions: Sequence[Question]) -> list[Any]:
        """One answer per question, or a ``Trouble``, in the same order.

        A question that fails does not stop the others, unless the endpoint itself is the trouble (nobody there, a wrong
        address, no permission): the rest is then given up for the same reason.
        """
        return self._finish(self._ask_all(questions))

    def ask(self, question: Question) -> Any:
        """The answer to one question.

        Raises:
            Trouble: there is none.
        """
        (answer,) = self.ask_all([question])
        if isinstance(answer, Trouble):
            raise answer
        return answer

    def _finish(self, work: Any) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # an interrupt: nothing goes on behind the caller's back
            future.cancel()
            raise

    async def _ask_all(self, questions: Sequence[Question]) -> list[Any]:
        answers: dict[int, Any] = {}
        given_up: list[Trouble] = []

        async def work_off(waiting: Iterator[tuple[int, Question]]) -> None:
            for number, question in waiting:
                answer = given_up[0] if given_up else await self._asked(question)
                if isinstance(answer, Trouble) and answer.hopeless:
                    given_up.append(answer)
                answers[number] = answer

        waiting = iter(enumerate(questions))
        await asyncio.gather(*(work_off(waiting) for _ in range(min(self._parallel, len(questions)))))
        return [answers[number] for number in range(len(questions))]

    async def _asked(self, question: Question) -> Any:
        """The one retry rule: what may pass is asked again, with twice the wait each time, or as the server says."""
        wait_s, attempts = self._connection.backoff_s, self._connection.attempts
        content = await asyncio.to_thread(question.content) if question.content else None  # it may be many pictures
        for number in range(1, attempts + 1):
            try:
                return question.read(await self._attempted(question.address, content, question.words))
            except Trouble as trouble:
                if not trouble.again:
                    return trouble
                if number == attempts:
                    return _after(trouble, attempts)
                await asyncio.sleep(min(wait_s if trouble.wait_s is None else trouble.wait_s, LONGEST_WAIT_S))
                wait_s *= 2
        raise AssertionError("attempts is at least 1")

    async def _attempted(self, address: str, content: bytes | None, words: bool) -> Any:
        """The JSON of one reply.

        Raises:
            Trouble: no reply, or none that can be read.
        """
        import httpx

        timeout_s = self._connection.timeout_s
        try:
            response, body = await asyncio.wait_for(_exchange(self._http, address, content, self._connection.key), timeout_s)
        except (asyncio.TimeoutError, httpx.TimeoutException):
            raise Trouble(f"{address} did not answer within {timeout_s:g} s", again=True) from None
        except httpx.ConnectError as error:
            reason = f"{address} cannot be reached ({excerpt(error)}): is the server running?"
            raise Trouble(reason, again=True, hopeless=True) from error
        except httpx.InvalidURL as error:
            raise Trouble(f"{address!r} is no address: {error}", hopeless=True) from error
        except (
            httpx.HTTPError,
            httpx.StreamError,
        ) as error:  # a connection that broke, a body of another length than announced
            raise Trouble(f"{address} broke off: {excerpt(error)}", again=True) from error
        return _read(response, body, address, words)


async def _opened(parallel: int, secure: bool) -> Any:
    import httpx

    return httpx.AsyncClient(
        timeout=None,  # every attempt has one that covers all of it
        limits=httpx.Limits(max_connections=parallel, max_keepalive_connections=parallel),
        verify=_certificates() if secure else False,
    )


@functools.cache
def _certificates() -> ssl.SSLContext:
    import httpx

    return httpx.create_ssl_context()


async def _exchange(http: Any, address: str, content: bytes | None, key: str) -> tuple[Any, bytes]:
    """(response, body).

    Raises:
        RemoteProtocolError: the body is larger than any answer.
    """
    import httpx

    method = "GET" if content is None else "POST"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= {} if content is None else {"Content-Type": "application/json"}
    body = bytearray()
    async with http.stream(method, address, content=content, headers=headers) as response:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > LARGEST_BYTES:
                raise httpx.RemoteProtocolError("the body is larger than any answer", request=response.request)
    return response, bytes(body)


def _read(response: Any, content: bytes, address: str, words: bool) -> Any:
    """The JSON of a reply, or None where it is words.

    Raises:
        Trouble: it is no answer.
    """
    status = response.status_code
    if response.is_redirect:
        raise Trouble(f"{address} redirects to {excerpt(response.headers.get('location'))}: give that address", hopeless=True)
    if "html" in response.headers.get("content-type", ""):
        reason = f"{address} answered with a web page (status {status}: {_words(content)}): give the address of the API as url"
        again = status in TRANSIENT
        raise Trouble(reason, again=again, hopeless=not again, wait_s=retry_after(response.headers), status=status)
    if status != 200:
        reason = f"{address} answered with status {status}: {_words(content)}"
        again, hopeless = status in TRANSIENT, status in REFUSED
        raise Trouble(reason, again=again, hopeless=hopeless, wait_s=retry_after(response.headers), status=status)
    if words:
        return None
    try:
        return parse_json(content)
    except BeyondLimitsError as error:  # it will say the same again
        raise Trouble(f"{address} answered, but {error}") from None
    except Unreadable as error:
        raise Trouble(f"{address} answered, but {error}", again=True) from None


def _words(content: bytes) -> str:
    """What the server says of the matter: the ``error`` of its JSON, or the beginning of whatever it sent."""
    try:
        said = parse_json(content, repeated_keys=True)
    except Unreadable:
        said = None
    error = said.get("error") if isinstance(said, dict) else None
    error = error.get("message") if isinstance(error, dict) else error
    return excerpt(error if isinstance(error, str) else content[:2000].decode("utf-8", "replace"), 200)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait; the form with a date is rare, and clocks differ."""
    text = headers.get("retry-after", "")
    return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _after(trouble: Trouble, attempts: int) -> Trouble:
    return Trouble(f"{trouble} (after {attempts} attempts)", hopeless=trouble.hopeless, status=trouble.status)


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, http: Any) -> None:
    """Close the connections and end the thread that they live on."""

    async def close() -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if http is not None:
            await http.aclose()
        await loop.shutdown_default_executor()

    if threading.current_thread() is thread:  # the last to let go of an interrupted client was its own work
        loop.call_soon(loop.stop)
        return
    asyncio.run_coroutine_threadsafe(close(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
