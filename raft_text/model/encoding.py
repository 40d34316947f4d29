"""Text to tokens and back: what the model reads of a prompt, and what a person reads of a completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from raft_core.conversations import REPLY
from raft_core.errors import DataError
from raft_core.types import MESSAGES, Message, Prompt
from raft_text.model.chat import FOR_TEMPLATE, Chat
from raft_text.model.visible import Visible, shortened
from raft_text.options import PLACE, Prompting

#: Prompts whose tokens are kept, so that a round tokenises each of its own once.
REMEMBERED = 4096

Ids = tuple[int, ...]
#: JSON schemas of functions that an environment offers to every chat; None without an environment.
Tools = Sequence[Mapping[str, Any]] | None


class PromptEncoder:
    """Prompts as the model reads them, and completions as it would have to write them.

    Args:
        tokenizer: of the model.
        prompting: templates and the longest prompt.
        context: longest text in tokens that the model takes; None = no limit.
        room: tokens that must be left for the completion.
        ends: ids of end-of-text tokens.
        name: of the model, for messages.
        vocabulary: tokens that the model knows, which may be fewer than the tokenizer's; None = all of them.
        tools: JSON schemas of functions that every chat is offered.

    Attributes:
        seen: what the model takes in of a prompt.
        context: as given.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompting: Prompting,
        context: int | None,
        room: int,
        ends: Sequence[int],
        name: str = "the model",
        vocabulary: int | None = None,
        tools: Sequence[Any] = (),
    ):
        self.tokenizer = tokenizer
        self._prompting = prompting
        self.context = context
        self._tools = tuple(tools)
        self._room = room
        self._ends = tuple(ends)
        self._name = name
        self._vocabulary = vocabulary
        self._known: dict[str, Ids] = {}
        self.seen = Visible(tokenizer, prompting.max_tokens, self._ids)

    @cached_property
    def chat(self) -> Chat:
        """The tokenizer's chat template.

        Raises:
            DataError: it has none.
        """
        if not self.tokenizer.chat_template:
            raise DataError(
                f"the prompts are conversations, but the tokenizer of {self._name} has no chat template to write them by: "
                "choose a chat model, or give plain texts"
            )
        return Chat(self.tokenizer, self._prompting, self._ends, self._name, self._tools)

    def is_chat(self, prompt: Prompt | str) -> bool:
        """Whether a prompt goes through the chat template."""
        return self._prompting.chat or as_prompt(prompt).messages is not None

    def ends(self, *, chat: bool) -> Ids:
        """Ids of the tokens that end a completion: those that end a text, and in a chat the one that ends a turn."""
        turn = self.chat.closing.end if chat else None
        return self._ends if turn is None or turn in self._ends else (*self._ends, turn)

    # ------------------------------------------------------------------ prompts

    def __call__(self, prompt: Prompt | str) -> Ids:
        """Token ids of a prompt, templates included, at least one.

        Raises:
            DataError: it leaves no room for a completion, is empty, or its conversation is refused by the chat template.
        """
        prompt = as_prompt(prompt)
        ids = self._known_ids(prompt)
        if not ids:
            raise DataError(
                f"the prompt {shortened(prompt.text)!r} has no tokens, and the tokenizer adds none: nothing to continue"
            )
        self._require_known(ids, prompt.text)
        if self.context is not None and len(ids) + self._room > self.context:
            raise DataError(
                f"a prompt has {len(ids)} tokens, which with max_new_tokens {self._room} exceeds the model's context of "
                f"{self.context}: {shortened(prompt.text)!r}; shorten it, lower sampling.max_new_tokens, or set "
                "prompting.max_tokens"
            )
        return ids

    def _known_ids(self, prompt: Prompt) -> Ids:
        """Token ids of a prompt, whatever its length; computed once."""
        key = prompt.id if any(name in prompt.meta for name in (MESSAGES, *FOR_TEMPLATE)) else prompt.text
        if key not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = tuple(self._ids(self._opened(prompt), whole=not self.is_chat(prompt)))
        return self._known[key]

    def _require_known(self, ids: Sequence[int], text: str) -> None:
        """A tokenizer to which tokens were added may give ids that the model's embedding does not have.

        Raises:
            DataError: a token that the model does not know.
        """
        if self._vocabulary is None or max(ids, default=0) < self._vocabulary:
            return
        token = self.tokenizer.convert_ids_to_tokens(max(ids))
        raise DataError(
            f"{shortened(text)!r} has the token {token!r} (number {max(ids)}), but {self._name} knows {self._vocabulary} "
            "tokens: its tokenizer was extended and its embedding was not. Leave the token out, or extend the model with "
            "model.resize_token_embeddings(len(tokenizer)) and save it"
        )

    def _opened(self, prompt: Prompt) -> str:
        """All that stands before the completion, special tokens of a plain text excepted."""
        if self.is_chat(prompt):
            return self.chat.opened(self.seen.prompt(prompt))
        return self._prompting.template.replace(PLACE, self.seen.text(prompt.text))

    def _ids(self, text: str, *, whole: bool = False) -> list[int]:
        """Token ids; what is too long is told by this class, in its own words.

        Args:
            whole: with the special tokens that the tokenizer puts around a text, but none at its end: it is to go on.
        """
        ids = list(self.tokenizer(text, add_special_tokens=whole, verbose=False)["input_ids"])
        while whole and len(ids) > 1 and ids[-1] in self._ends:  # some tokenizers close every text
            ids.pop()
        return ids

    # ------------------------------------------------------------------ completions

    def completion(self, prompt: Prompt | str, reply: str | Message) -> Ids:
        """Token ids of a completion that was written elsewhere, with the token that ends it.

        Args:
            reply: its text, or the assistant's message whose content it is.

        Raises:
            DataError: prompt and completion together exceed the model's context, or the chat template refuses them.
        """
        prompt = as_prompt(prompt)
        message: Message = {"role": "assistant", "content": reply} if isinstance(reply, str) else reply
        before = self._opened(prompt)
        if self.is_chat(prompt):
            ids = self._behind(before, self.chat.reply(self.seen.prompt(prompt), message), whole=False)
            end = self.chat.closing.end
        else:
            ids = self._behind(before, message["content"], whole=True)
            end = None
        if end is None:  # a template that ends a turn with ordinary text ends it like any text
            eos = self.tokenizer.eos_token_id
            ids = [*ids, min(self._ends) if eos is None else eos]
        self._require_known(ids, message["content"])
        length = len(self(prompt)) + len(ids)
        if self.context is not None and length > self.context:
            raise DataError(
                f"prompt and response have {length} tokens, but the model's context is {self.context}: "
                f"{shortened(message['content'])!r}; leave it out or shorten it"
            )
        return tuple(ids)

    def _behind(self, before: str, text: str, *, whole: bool) -> list[int]:
        """Token ids of a text that stands behind another, whose tokens are not to change."""
        first, both = self._ids(before, whole=whole), self._ids(before + text, whole=whole)
        if both[: len(first)] == first:
            return both[len(first) :]
        # Their border lies within a token. The text alone, but behind a line end: some tokenizers put a space before a text.
        line, both = self._ids("\n"), self._ids("\n" + text)
        return both[len(line) :] if both[: len(line)] == line else self._ids(text)

    def told(self, reply: str, prompt: Prompt, *, ended: bool) -> Ids:
        """Token ids of what an environment says behind a turn of the model.

        Args:
            ended: the turn has ended, so the reply is a tool's message and the head of the next turn follows, as the chat
                template writes both; else it stands in the midst of what the model writes.

        Raises:
            DataError: the template refuses a tool's message.
        """
        return tuple(self._ids(self.chat.told(reply, prompt)) if ended else self._behind("\n", reply, whole=False))

    def contexts(self, prompt: Prompt) -> list[Ids]:
        """What stands before each turn of the assistant that is learned from a prompt; the last is the prompt itself."""
        return [*(self._known_ids(before) for before, _ in self._earlier(prompt)), self(prompt)]

    def turns(self, prompt: Prompt, text: str) -> list[Ids]:
        """Token ids of every turn of the assistant that is learned from a prompt with its response; each has its context.

        Each is as the model would draw it: behind what goes before it, as the template opens a turn there.

        Args:
            text: the response, which is the last of them.

        Raises:
            DataError: see ``completion``.
        """
        reply = prompt.meta.get(REPLY)
        last: str | Message = reply if isinstance(reply, dict) and reply.get("content") == text else text
        return [*(self.completion(before, message) for before, message in self._earlier(prompt)), self.completion(prompt, last)]

    def _earlier(self, prompt: Prompt) -> list[tuple[Prompt, Message]]:
        """The assistant's turns in a conversation that are learned, each behind what goes before it."""
        if self._prompting.learned_turns == "last":
            return []
        messages = list(prompt.messages or [])
        return [
            (Prompt(prompt.text, {**prompt.meta, MESSAGES: messages[:i]}), message)
            for i, message in enumerate(messages[:-1])  # a last one is the beginning of the response
            if i > 0 and message["role"] == "assistant" and message.get("weight") != 0
        ]

    def text(self, tokens: Sequence[int] | torch.Tensor) -> str:
        """What a person reads of a completion's tokens, the space that it may begin with included.

        Some tokenizers put a space before a text and take one off where they read it. A completion stands behind a prompt, so
        it is read behind other text: ``completion`` then makes the same tokens of it.
        """
        ids = torch.as_tensor(tokens).tolist()
        if ids and ids[-1] == self._turn_end:  # need not be a special token
            ids.pop()
        before, both = self._read(self._letter), self._read([*self._letter, *ids])
        return both[len(before) :] if both.startswith(before) else self._read(ids)

    def _read(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    @cached_property
    def _letter(self) -> list[int]:
        return self._ids("a")

    @cached_property
    def _turn_end(self) -> int | None:
        try:
            return self.chat.closing.end
        except DataError:  # no template, or none for chats
            return None


def as_prompt(prompt: Prompt | str) -> Prompt:
    return Prompt(prompt) if isinstance(prompt, str) else prompt
