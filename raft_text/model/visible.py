"""The part of a prompt that a model takes in, and whether a completion has room behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raft_core.conversations import INSTRUCTIONS
from raft_core.errors import DataError
from raft_core.types import MESSAGES, Message, Prompt
from raft_text.model.chat import FOR_TEMPLATE
from raft_text.options import PLACE, Prompting

#: Tokens that a tokenizer may put around a prompt, with its chat template and without.
CHAT_ROOM, PLAIN_ROOM = 512, 8
#: And around each message of a conversation.
MESSAGE_ROOM = 64


class Visible:
    """Prompts cut to a number of tokens, which are then what the model takes in of them.

    Args:
        tokenizer: of the model.
        most: tokens of the longest prompt; None = nothing is cut.
        ids: a text's token ids, without special ones.
    """

    def __init__(self, tokenizer: Any, most: int | None, ids: Callable[[str], Sequence[int]]):
        self._tokenizer = tokenizer
        self._most = most
        self._ids = ids

    def text(self, text: str) -> str:
        """The part of a prompt that the model takes in: of one longer than ``max_tokens`` its end."""
        limit = self._most
        return text if limit is None else self._last(text, limit)

    def _last(self, text: str, limit: int) -> str:
        ids = self._ids(text)
        return text if len(ids) <= limit else self._tokenizer.decode(ids[-limit:])

    def messages(self, messages: Sequence[Message]) -> list[Message]:
        """The part of a conversation that the model takes in.

        Of one longer than ``max_tokens`` the oldest exchanges are left out, and if the last is still too long, the beginning of
        what the user said in it. What instructs the model stays.

        Raises:
            DataError: all else in the last exchange is too long already.
        """
        limit = self._most
        if limit is None:
            return list(messages)
        sizes = [len(self._ids(message["content"])) for message in messages]
        begun = [i for i, message in enumerate(messages) if message["role"] == "user"]  # where exchanges begin
        head = next((i for i, message in enumerate(messages) if message["role"] not in INSTRUCTIONS), 0)
        start = next((i for i in begun if sum(sizes[:head]) + sum(sizes[i:]) <= limit), begun[-1] if begun else head)
        start = head if sum(sizes) <= limit else start
        kept = [*messages[:head], *messages[start:]]
        excess = sum(sizes[:head]) + sum(sizes[start:]) - limit
        if excess <= 0:
            return kept
        room = sizes[start] - excess
        if room < 1 or messages[start]["role"] != "user":
            raise DataError(
                f"the last exchange of a conversation has {sizes[start] - room + limit} tokens, and prompting.max_tokens is "
                f"{limit}, with nothing by the user that could be cut: {shortened(messages[-1]['content'])!r}; raise it"
            )
        kept[head] = {**kept[head], "content": self._last(kept[head]["content"], room)}
        return kept

    def prompt(self, prompt: Prompt) -> Prompt:
        """The prompt with what the model takes in of it."""
        if prompt.messages is None:
            return Prompt(self.text(prompt.text), prompt.meta)
        return Prompt(prompt.text, {**prompt.meta, MESSAGES: self.messages(prompt.messages)})


def surely_fit(prompting: Prompting, prompts: Sequence[Prompt], context: int | None, room: int) -> bool:
    """Whether prompts leave room for their completions whatever the tokenizer: a token is a byte at least."""
    if context is None:
        return True
    if any(name in prompt.meta for prompt in prompts for name in FOR_TEMPLATE):
        return False
    around = prompting.template.replace(PLACE, "") + (prompting.system or "")
    longest = max((_most_tokens(prompt) for prompt in prompts), default=0) + len(around.encode())
    chat = prompting.chat or any(prompt.messages is not None for prompt in prompts)
    return longest + (CHAT_ROOM if chat else PLAIN_ROOM) + room <= context


def _most_tokens(prompt: Prompt) -> int:
    messages = prompt.messages or []
    return max(len(prompt.text.encode()), sum(len(m["content"].encode()) for m in messages)) + MESSAGE_ROOM * len(messages)


def shortened(text: str, width: int = 60) -> str:
    """The text in one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
