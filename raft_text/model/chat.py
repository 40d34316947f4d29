"""Chat templates: conversations as a model reads them, and replies as it would have to write them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from raft_core.conversations import INSTRUCTIONS
from raft_core.errors import DataError, nearest
from raft_core.types import Message, Prompt
from raft_text.model.template import render, tools_of, variables
from raft_text.options import PLACE, Prompting

#: Columns of a prompts' table that the template takes beside a conversation.
FOR_TEMPLATE = ("tools", "chat_template_kwargs")
T = TypeVar("T")
THOUGHT, THOUGHT_END = "<think>", "</think>"


class Closing(NamedTuple):
    """How a template ends an assistant's turn.

    Attributes:
        whole: all that it writes behind the content.
        text: of that, what the model itself has to write: up to and with the token that ends the turn.
        end: that token's id; None where the template ends a turn with ordinary text alone.
    """

    whole: str
    text: str
    end: int | None


def finished(tokenizer: Any, prompt: Prompt, reply: str, name: str, arguments: Mapping[str, Any] | None = None) -> str:
    """A prompt's conversation with the reply to it, as a model that judges reads it: with all that the template writes.

    Raises:
        DataError: the template refuses it.
    """
    messages = messages_of(prompt)
    begun = messages.pop()["content"] if messages[-1]["role"] == "assistant" else ""  # a reply of which the beginning was given
    answer: Message = {"role": "assistant", "content": begun + reply}
    return render(tokenizer, [*messages, answer], name, arguments, tools=tools_of(prompt.meta.get("tools")))


class Chat:
    """A tokenizer's chat template with the settings of a run.

    Args:
        tokenizer: with a template.
        prompting: its system message, template and arguments.
        ends: ids of tokens that end a text.
        name: of the model, for messages.
        tools: JSON schemas of functions that conversations are offered which bring none of their own.
    """

    def __init__(self, tokenizer: Any, prompting: Prompting, ends: Sequence[int], name: str, tools: Sequence[Any] = ()):
        self._offered = list(tools)
        self._tokenizer = tokenizer
        self._prompting = prompting
        self._ends = frozenset(ends)
        self._name = name

    # ------------------------------------------------------------------ what is written

    def opened(self, prompt: Prompt) -> str:
        """The conversation that a prompt is, up to where the model writes.

        Raises:
            DataError: the template refuses it.
        """
        messages = self.framed(messages_of(prompt))
        prefilled = messages[-1]["role"] == "assistant"
        return self._render(messages, prompt, answer=not prefilled, go_on=prefilled)

    def reply(self, prompt: Prompt, reply: Message) -> str:
        """What the model would have to write behind ``opened`` for its turn to be this reply, the end of the turn with it.

        Raises:
            DataError: the template refuses the conversation with the reply.
        """
        messages = self.framed(messages_of(prompt))
        opened = self.opened(prompt)
        if messages[-1]["role"] == "assistant":  # the reply goes on from a beginning that was given
            last = {**messages[-1], **reply, "content": messages[-1]["content"] + reply["content"]}
            whole = self._render([*messages[:-1], last], prompt)
        else:
            whole = self._render([*messages, reply], prompt)
        closing = self.closing
        if whole.startswith(opened) and whole.endswith(closing.whole) and len(whole) >= len(opened) + len(closing.whole):
            return whole[len(opened) : len(whole) - len(closing.whole)] + closing.text
        # The template writes a turn that is over otherwise than it opens one: DeepSeek-R1's opens a thought, and leaves the
        # thoughts of earlier turns out.
        if reply.get("tool_calls"):
            raise DataError(
                f"the chat template of {self._name} opens a turn otherwise than it writes one that calls tools, so it is not "
                "known what the model would have to write: leave such conversations out"
            )
        return _behind(opened, reply) + closing.text

    def told(self, reply: str, prompt: Prompt) -> str:
        """What stands between the end of a turn and the next one, where a tool has replied between them.

        Raises:
            DataError: the template refuses a tool's message, or does not write a turn as the model has to.
        """
        said = "x0x"
        talk = [{"role": "user", "content": "0"}, {"role": "assistant", "content": said}, {"role": "tool", "content": reply}]
        _, found, behind = self._render(self.framed(talk), prompt, answer=True).partition(said)
        if not found or not behind.startswith(self.closing.text) or reply.strip() not in behind:
            raise DataError(
                f"the chat template of {self._name} does not write a tool's message behind a turn, so the environment cannot "
                "be heard: choose a model that knows tools, or an environment whose replies stand in the text"
            )
        return behind.removeprefix(self.closing.text)

    @cached_property
    def closing(self) -> Closing:
        """How a turn ends, by what the template writes behind two contents that differ.

        Raises:
            DataError: the template refuses a conversation of a user and an assistant, or does not write what they say.
        """
        asked = self.framed([{"role": "user", "content": "0"}])
        turns = [self._render([*asked, {"role": "assistant", "content": content}]) for content in ("x", "y")]
        if turns[0] == turns[1]:
            raise DataError(
                f"the chat template of {self._name} does not write what is said: it expects parts and not texts, as models of "
                "pictures do; choose a model of text"
            )
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*(turn[::-1] for turn in turns), strict=False))
        whole = "".join(letter for letter, _ in same)[::-1]
        if (found := self._ending(whole)) is not None:
            return Closing(whole, *found)
        # GLM ends a turn by beginning the next one.
        followed = self._render([*asked, {"role": "assistant", "content": "x"}, {"role": "user", "content": "0"}])
        rest = followed.removeprefix(turns[0].removesuffix(whole))
        ids = self._tokenizer(rest, add_special_tokens=False)["input_ids"] if rest != followed else []
        if ids and ids[0] in self._ends:
            return Closing(whole, self._tokenizer.convert_ids_to_tokens(ids[0]), ids[0])
        return Closing(whole, "", None)

    def _ending(self, text: str) -> tuple[str, int] | None:
        """(a text up to where it ends a turn, the token that does): its first token that is not text, and those right behind it
        as long as none of them ends a text."""
        added = frozenset(self._tokenizer.all_special_ids) | frozenset(self._tokenizer.added_tokens_decoder)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        place, end = 0, None
        for token in ids:
            written = self._tokenizer.convert_ids_to_tokens(token)
            if token not in added | self._ends:
                if end is not None:
                    break
            elif end is None and written in text:
                place, end = text.index(written) + len(written), token
            elif end is not None and end not in self._ends and text.startswith(written, place):
                place, end = place + len(written), token
            else:
                break
        return None if end is None else (text[:place], end)

    def _render(self, messages: Sequence[Message], prompt: Prompt | None = None, **how: bool) -> str:
        meta = {} if prompt is None else prompt.meta
        own = meta.get("chat_template_kwargs")
        arguments = {**self._prompting.chat_template_kwargs, **(own if isinstance(own, Mapping) else {})}
        tools = tools_of(meta.get("tools")) or self._offered
        return render(self._tokenizer, messages, self._name, arguments, tools=tools, **how)

    # ------------------------------------------------------------------ what is put into it

    def framed(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The conversation with the run's system message, unless it has its own, and the run's template around what the user
        said last."""
        found: list[dict[str, Any]] = [dict(message) for message in messages]
        if self._prompting.system is not None and found[0]["role"] not in INSTRUCTIONS:
            found.insert(0, {"role": "system", "content": self._prompting.system})
        last = next((turn for turn in reversed(found) if turn["role"] == "user"), None)
        if last is not None:
            last["content"] = self._prompting.template.replace(PLACE, last["content"])
        first = next((turn for turn in found if turn["role"] == "user"), None)
        if self._prompting.system_in_user and found[0]["role"] in INSTRUCTIONS and first is not None:
            first["content"] = f"{found.pop(0)['content']}\n\n{first['content']}"
        return found

    def mistakes(self) -> list[str]:
        """What the template refuses whatever the prompts, and arguments that it does not read; in words."""
        found = []
        known = variables(self._tokenizer)
        for argument in self._prompting.chat_template_kwargs:
            if known is not None and argument not in known:
                near = nearest(argument, known)
                found.append(
                    f"prompting.chat_template_kwargs has {argument!r}, which the template of {self._name} never reads{near}"
                )
        try:
            self.opened(Prompt("0"))
            _ = self.closing
        except DataError as error:
            found.append(str(error))
        return found


def messages_of(prompt: Prompt) -> list[Message]:
    """A prompt as a conversation: its own, or what it says as a user's message."""
    return [{"role": "user", "content": prompt.text}] if prompt.messages is None else list(prompt.messages)


def kind_of(prompt: Prompt) -> tuple[str, ...]:
    """What a template may refuse a prompt for: its roles, and what comes with them."""
    return (*(message["role"] for message in messages_of(prompt)), *(name for name in FOR_TEMPLATE if prompt.meta.get(name)))


def refusals(encode: Callable[[T], object], asked: Sequence[T]) -> list[str]:
    """Why the first of the prompts that cannot be used is refused, and how many others are; empty when all can.

    Args:
        encode: raises a DataError where a prompt cannot be used.
        asked: prompts, or what has one.
    """
    found = []
    for prompt in asked:
        try:
            encode(prompt)
        except DataError as error:
            found.append(str(error))
    more = f" ({len(found)} of {len(asked)} prompts are refused likewise)" if len(found) > 1 else ""
    return [found[0] + more] if found else []


def _behind(opened: str, reply: Message) -> str:
    """A reply behind a head that may have opened a thought."""
    content: str = reply["content"]
    if not opened.rstrip().endswith(THOUGHT):
        return content
    if (thought := reply.get("reasoning_content")) or THOUGHT_END not in content:
        return f"{(thought or '').strip()}\n{THOUGHT_END}\n\n{content}"
    return content.lstrip().removeprefix(THOUGHT).lstrip("\n") if content.lstrip().startswith(THOUGHT) else content
