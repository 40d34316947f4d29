"""Asking a model behind an OpenAI-compatible endpoint. An answer that could not be had is an ``Unanswered``, which says why.

How answers are read is in ``verdicts``.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from raft_core.errors import ConfigError
from raft_core.rewards.service.http import LONGEST_WAIT_S, TRANSIENT, body_of, retry_after

if TYPE_CHECKING:
    import httpx

Conversation = Sequence[Mapping[str, Any]]  # [{"role": "user", "content": "…" or a list of parts}, …]

REFUSED = frozenset({401, 403, 404, 405})  # the same for every conversation
CUT_SHORT = "the answer was cut off at max_tokens: raise that"
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Unanswered:
    """A conversation without an answer.

    Attributes:
        reason: what happened, in words.
        hopeless: whether the endpoint itself is the trouble, so that asking it anything else is in vain.
    """

    reason: str
    hopeless: bool = False


class Chat(Protocol):
    """Whatever answers conversations: an endpoint, a local model, the policy itself."""

    def ask_all(self, conversations: Sequence[Conversation]) -> list[str | Unanswered]:
        """One answer per conversation, in the same order."""
        ...


@dataclass(frozen=True)
class ChatEndpoint:
    """An OpenAI-compatible endpoint (vLLM, llama.cpp, Ollama, a hosted service), asked over HTTP.

    Args:
        url: base address, to which ``/chat/completions`` is added: ``http://localhost:8000/v1``.
        model: name by which the endpoint knows the model.
        key_variable: environment variable that holds the API key; null = none is sent. The key itself is never stored.
        max_tokens: of an answer.
        temperature: 0 = the same answer to the same question, as far as the endpoint keeps to it.
        timeout_s: seconds for one attempt; a slow body is cut off within twice that.
        attempts: per conversation. Timeouts, broken replies and the statuses 408, 409, 425, 429 and 5xx are tried again.
        backoff_s: seconds before the second attempt; doubled before each further one. ``Retry-After`` goes before it.
        parallel: conversations asked at once.
        extra: further fields of the request's body, such as ``{seed: 0}``.
    """

    url: str
    model: str
    key_variable: str | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    timeout_s: float = 60.0
    attempts: int = 4
    backoff_s: float = 0.5
    parallel: int = 8
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = []
        if not re.match(r"https?://[^/\s]+", self.url):
            found.append(f"url is {self.url!r}, but must begin with http:// or https:// and a host")
        if not self.model:
            found.append("model is empty: give the name by which the endpoint knows the model")
        for name in ("max_tokens", "attempts", "parallel"):
            if getattr(self, name) < 1:
                found.append(f"{name} is {getattr(self, name)}, but must be at least 1")
        if not 0 < self.timeout_s < math.inf:
            found.append(f"timeout_s is {self.timeout_s}, but must be positive")
        for name in ("backoff_s", "temperature"):
            if not 0 <= getattr(self, name) < math.inf:
                found.append(f"{name} is {getattr(self, name)}, but must not be negative")
        if found:
            raise ConfigError(found)

    @property
    def address(self) -> str:
        return self.url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"

    def check(self) -> list[str]:
        """Mistakes that show without asking anything."""
        if self.key_variable and not os.environ.get(self.key_variable):
            return [
                f"key_variable is {self.key_variable!r}, but that environment variable is not set: export the API key in it"
            ]
        return []

    def ask(self, conversation: Conversation) -> str | Unanswered:
        """The answer to one conversation."""
        return self.ask_all([conversation])[0]

    def ask_all(self, conversations: Sequence[Conversation]) -> list[str | Unanswered]:
        """One answer per conversation, in the same order, several asked at once.

        A conversation that fails does not stop the others, unless the endpoint itself is the trouble (nobody there, a wrong
        address, no permission): the rest is then given up with the same reason.
        """
        import httpx

        given_up: list[Unanswered] = []
        lock = threading.Lock()

        def answer(conversation: Conversation) -> str | Unanswered:
            with lock:
                if given_up:
                    return given_up[0]
            reply = _asked(client, self, conversation)
            if isinstance(reply, Unanswered) and reply.hopeless:
                with lock:
                    given_up.append(reply)
            return reply

        key = os.environ.get(self.key_variable, "") if self.key_variable else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with (
            httpx.Client(headers=headers, timeout=self.timeout_s, limits=httpx.Limits(max_connections=self.parallel)) as client,
            ThreadPoolExecutor(max_workers=self.parallel) as pool,
        ):
            return list(pool.map(answer, conversations))


class _Trouble(Exception):  # noqa: N818 - a signal between parts, never shown
    """One attempt that failed: why, whether another may succeed, and the wait that the server asks for."""

    def __init__(self, failure: Unanswered, again: bool, wait_s: float | None = None):
        super().__init__(failure.reason)
        self.failure, self.again, self.wait_s = failure, again, wait_s


def _asked(client: httpx.Client, endpoint: ChatEndpoint, conversation: Conversation) -> str | Unanswered:
    """The answer, after as many attempts as the endpoint is worth."""
    wait_s, failure = endpoint.backoff_s, Unanswered("never asked")
    for attempt in range(1, endpoint.attempts + 1):
        try:
            return _attempt(client, endpoint, conversation)
        except _Trouble as trouble:
            failure = trouble.failure
            if not trouble.again:
                return failure
            if attempt < endpoint.attempts:
                time.sleep(min(wait_s if trouble.wait_s is None else trouble.wait_s, LONGEST_WAIT_S))
                wait_s *= 2
    return Unanswered(f"{failure.reason} (after {endpoint.attempts} attempts)", failure.hopeless)


def _attempt(client: httpx.Client, endpoint: ChatEndpoint, conversation: Conversation) -> str:
    """One request and its answer.

    Raises:
        _Trouble: no answer, or none that can be read.
    """
    import httpx

    address = endpoint.address
    body = {
        "model": endpoint.model,
        "messages": [dict(message) for message in conversation],
        "max_tokens": endpoint.max_tokens,
        "temperature": endpoint.temperature,
        **endpoint.extra,
    }
    try:
        # Escaped to ASCII: half a surrogate pair, which JSON files can hold, has no UTF-8.
        with client.stream("POST", address, content=json.dumps(body), headers=_JSON) as response:
            content = body_of(response, time.monotonic() + endpoint.timeout_s)
    except httpx.TimeoutException as error:
        raise _Trouble(Unanswered(f"{address} did not answer within {endpoint.timeout_s:g} s"), again=True) from error
    except httpx.ConnectError as error:
        failure = Unanswered(f"{address} cannot be reached ({error}): is the server running?", hopeless=True)
        raise _Trouble(failure, again=True) from error
    except httpx.InvalidURL as error:
        raise _Trouble(Unanswered(f"{address!r} is no address: {error}", hopeless=True), again=False) from error
    except httpx.HTTPError as error:  # a connection that broke, a body shorter or longer than announced
        raise _Trouble(Unanswered(f"{address} broke off: {error}"), again=True) from error
    if response.status_code != 200:
        raise _refusal(response, address, content)
    return _reply(response, address, content)


def _refusal(response: httpx.Response, address: str, content: bytes) -> _Trouble:
    status = response.status_code
    reason = f"{address} answered with status {status}: {_excerpt(content)}"
    if response.is_redirect:
        reason = f"{address} redirects to {response.headers.get('location')}: give that address as url"
        return _Trouble(Unanswered(reason, hopeless=True), again=False)
    return _Trouble(Unanswered(reason, hopeless=status in REFUSED), again=status in TRANSIENT, wait_s=retry_after(response))


def _reply(response: httpx.Response, address: str, content: bytes) -> str:
    """The text of the first choice."""
    if "html" in response.headers.get("content-type", ""):
        reason = f"{address} answered with a web page ({_excerpt(content)}): give the address of the API as url"
        raise _Trouble(Unanswered(reason, hopeless=True), again=True)
    try:
        choice = json.loads(content)["choices"][0]
        text, cut_short = choice["message"]["content"], choice.get("finish_reason") == "length"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{address} answered with something that is no chat completion: {_excerpt(content)}"
        raise _Trouble(Unanswered(reason), again=True) from error
    if cut_short:  # before it came to its verdict, and what it ends with by chance is none
        raise _Trouble(Unanswered(CUT_SHORT), again=False)
    if not isinstance(text, str):
        raise _Trouble(Unanswered(f"{address} answered without a text: {_excerpt(content)}"), again=False)
    return text


def _excerpt(content: bytes) -> str:
    text = " ".join(content[:400].decode("utf-8", "replace").split())
    return repr(text if len(text) <= 120 else text[:119] + "…")


class Overheard:
    """A chat that remembers why the last questions were not answered.

    Args:
        chat: whom to ask.

    Attributes:
        reason: of the first question of the last call that went unanswered; "" when all were answered.
    """

    def __init__(self, chat: Chat):
        self.chat = chat
        self.reason = ""

    def ask_all(self, conversations: Sequence[Conversation]) -> list[str | Unanswered]:
        answers = self.chat.ask_all(conversations)
        unanswered = [answer for answer in answers if isinstance(answer, Unanswered)]
        self.reason = f"{unanswered[0].reason} ({len(unanswered)} of {len(answers)} questions)" if unanswered else ""
        return answers
