"""Asking a model behind an OpenAI-compatible endpoint. An answer that could not be had is an ``Unanswered``, which says why.

How answers are read is in ``verdicts``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from raft_core.errors import ConfigError
from raft_core.reading.files import excerpt
from raft_core.rewards.service.http import Client, Connection, Question, Trouble, address_mistakes

Conversation = Sequence[Mapping[str, Any]]  # [{"role": "user", "content": "…" or a list of parts}, …]

CUT_SHORT = "the answer was cut off at max_tokens: raise that"


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
        timeout_s: seconds for one attempt, from the connection to the last byte of the answer.
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
        found = address_mistakes(self.url)
        if not self.model:
            found.append("model is empty: give the name by which the endpoint knows the model")
        for name in ("max_tokens", "parallel"):
            if getattr(self, name) < 1:
                found.append(f"{name} is {getattr(self, name)}, but must be at least 1")
        if not 0 <= self.temperature < math.inf:
            found.append(f"temperature is {self.temperature}, but must not be negative")
        try:
            self._connection  # noqa: B018 - checks its own settings
        except ConfigError as error:
            found += error.mistakes
        if found:
            raise ConfigError(found)

    @property
    def address(self) -> str:
        return self.url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"

    def check(self) -> list[str]:
        """Mistakes that show without asking anything."""
        return self._connection.check()

    def ask(self, conversation: Conversation) -> str | Unanswered:
        """The answer to one conversation."""
        return self.ask_all([conversation])[0]

    def ask_all(self, conversations: Sequence[Conversation]) -> list[str | Unanswered]:
        """One answer per conversation, in the same order, several asked at once.

        A conversation that fails does not stop the others, unless the endpoint itself is the trouble (nobody there, a wrong
        address, no permission): the rest is then given up with the same reason.
        """
        if not conversations:
            return []
        questions = [self._question(conversation) for conversation in conversations]
        with Client(self._connection, parallel=self.parallel, secure=self.url.startswith("https")) as client:
            answers = client.ask_all(questions)
        return [Unanswered(str(a), a.hopeless) if isinstance(a, Trouble) else a for a in answers]

    @property
    def _connection(self) -> Connection:
        return Connection(self.timeout_s, self.attempts, self.backoff_s, self.key_variable)

    def _question(self, conversation: Conversation) -> Question:
        body = {
            "model": self.model,
            "messages": [dict(message) for message in conversation],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            **self.extra,
        }
        # Escaped to ASCII: half a surrogate pair, which JSON files can hold, has no UTF-8.
        return Question(self.address, lambda: json.dumps(body).encode(), lambda reply: _text(reply, self.address))


def _text(reply: Any, address: str) -> str:
    """The text of the first choice.

    Raises:
        Trouble: there is none.
    """
    try:
        choice = reply["choices"][0]
        text, cut_short = choice["message"]["content"], choice.get("finish_reason") == "length"
    except (LookupError, TypeError, AttributeError) as error:
        reason = f"{address} answered with something that is no chat completion: {excerpt(json.dumps(reply))}"
        raise Trouble(reason, again=True) from error
    if cut_short:  # before it came to its verdict, and what it ends with by chance is none
        raise Trouble(CUT_SHORT)
    if not isinstance(text, str):
        raise Trouble(f"{address} answered without a text: {excerpt(json.dumps(reply))}")
    return text


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
