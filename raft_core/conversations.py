"""Conversations with roles, as data sets publish them, in one form: a list of ``{"role": …, "content": …}``.

==========================  =============================================================================================
OpenAI, TRL                 ``messages``; the last assistant's message is the response. ``"weight": 0`` keeps an earlier one
                            from being learned
ShareGPT                    ``conversations`` of ``{"from": "human" | "gpt" | …, "value": …}``, with ``system`` beside it
TRL, prompt and completion  ``prompt`` and ``completion`` as lists of messages; assistants in the prompt are not learned
TRL, preferences            ``prompt``, ``chosen``, ``rejected`` as lists of messages, or the last two alone, which then begin
                            with the prompt; ``chosen`` is the response
Alpaca                      ``instruction``, ``input``, ``output``, with ``system`` and ``history`` (pairs of texts)
==========================  =============================================================================================

``tools`` and ``chat_template_kwargs`` beside a conversation are for the chat template.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from raft_core.errors import nearest
from raft_core.types import MESSAGES, Message, Prompt

CONVERSATIONS = ("messages", "conversations", "conversation")
#: Columns that hold what is to be answered, the first that is there.
ANSWERS = ("response", "completion", "answer", "chosen")
#: A reply that is more than a text (thoughts, tool calls), beside its text under ``response``.
REPLY = "reply"
ROLES = {
    **{role: role for role in ("system", "developer", "user", "assistant", "tool")},
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bard", "bing", "bot", "model", "function_call"), "assistant"),
    **dict.fromkeys(("function", "ipython", "observation"), "tool"),
}
INSTRUCTIONS = ("system", "developer")
NAMES = {"assistant": "Assistant", "system": "System", "developer": "System", "tool": "Tool"}
ANSWER = "\n\nAssistant:"


class BadConversation(ValueError):  # noqa: N818 - a signal between parts, never shown as such
    """What is wrong with a conversation, in words, without its place."""


def looks_like_messages(value: Any) -> bool:
    """Whether a value is meant as a conversation: a list of objects with roles, sound or not."""
    turns = value if isinstance(value, (list, tuple)) else []
    return bool(turns) and all(isinstance(turn, Mapping) for turn in turns) and any(r in turns[0] for r in ("role", "from"))


def messages_of(value: Any, field: str) -> list[Message]:
    """The messages of a conversation in the one form.

    Args:
        value: OpenAI's or ShareGPT's.
        field: its name, for messages.

    Raises:
        BadConversation: it is none, or one of its messages is not what it should be.
    """
    if not looks_like_messages(value):
        raise BadConversation(f"{field} is {shortened(value)}, but must be a list of messages with role and content")
    messages = [_message(turn, f"{field}[{i}]") for i, turn in enumerate(value)]
    for i, (one, other) in enumerate(itertools.pairwise(messages)):
        if one["role"] == other["role"] == "assistant":
            raise BadConversation(f"{field}[{i}] and {field}[{i + 1}] are answers, one after the other: join them")
    return messages


def _message(turn: Mapping[str, Any], where: str) -> Message:
    name = turn.get("role", turn.get("from"))
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise BadConversation(f"{where} has the role {name!r}, which is not known{nearest(str(name), ROLES)}")
    # A Parquet file has every key in every message, null where it was not given.
    others = {key: _without_nulls(each) for key, each in turn.items() if key not in ("role", "from", "content", "value")}
    others = {key: each for key, each in others.items() if each is not None}
    content = _text(turn.get("content", turn.get("value")), where)
    if content is None and not others.keys() - {"weight", "name"}:
        raise BadConversation(f"{where} has neither a content nor anything in its place")
    return {"role": role, "content": content or "", **others}


def _text(content: Any, where: str) -> str | None:
    """Content as a text; the parts of OpenAI's list of them are joined."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)) and all(isinstance(part, Mapping) for part in content):
        other = next((part for part in content if not isinstance(part.get("text"), str)), None)
        if other is None:
            return "".join(part["text"] for part in content)
        raise BadConversation(f"{where} holds a part of the type {other.get('type')!r}: only texts can be read here")
    raise BadConversation(f"{where} holds the content {shortened(content)}, which is not a text")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, (list, tuple)) else value


def transcript(messages: Sequence[Message]) -> str:
    r"""A conversation as a text that a person reads, and a model without a chat template goes on from.

    Of one message by a user that message. Otherwise HH-RLHF's form, ``\n\nHuman: …\n\nAssistant:``, open for the answer unless
    it ends with a beginning of it.
    """
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    turns = "".join(f"\n\n{NAMES.get(turn['role'], 'Human')}: {_spoken(turn)}" for turn in messages)
    return turns if messages[-1]["role"] == "assistant" else turns + ANSWER


def _spoken(turn: Message) -> str:
    calls = turn.get("tool_calls")
    return turn["content"] + (json.dumps(calls, ensure_ascii=False) if calls else "")


class Exchange(NamedTuple):
    """A conversation up to a reply, and the reply, None where there is none."""

    context: list[Message]
    reply: Message | None


def exchange(messages: Sequence[Message], field: str) -> Exchange:
    """A conversation cut before its last message, if that is an assistant's.

    Raises:
        BadConversation: nothing is left before it.
    """
    if messages[-1]["role"] != "assistant":
        return Exchange(list(messages), None)
    if len(messages) == 1:
        raise BadConversation(f"{field} begins with an answer: there is nothing that it answers")
    return Exchange(list(messages[:-1]), messages[-1])


def in_common(one: Sequence[Message], other: Sequence[Message]) -> int:
    """How many messages two conversations begin with that are the same."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def response(prompt: Prompt) -> str | None:
    """What a prompt's table says is to be answered; None when it says nothing."""
    return next((text for name in ANSWERS if isinstance(text := prompt.meta.get(name), str)), None)


# ---------------------------------------------------------------------- rows of a table


def prompt_of(row: Mapping[str, Any], column: str | None = None) -> Prompt | None:
    """The prompt of a row of a table that holds a conversation; None where it holds a text.

    A conversation stands under ``messages`` in the prompt's meta, without its reply, whose text stands under ``response``.

    Args:
        row: the columns by name.
        column: which one holds the prompt; None = found by its name.

    Raises:
        BadConversation: what is wrong with it.
    """
    found = _conversation(row, column)
    if found is None:
        return _alpaca(row) if column is None and _is_alpaca(row) else None
    messages = _with_system(found.context, row)
    taken = [name for name, value in row.items() if looks_like_messages(value)]
    others = {**meta_of(row, *taken, "prompt" if column is None else column), **_response(found.reply)}
    if isinstance(row.get("prompt"), str) and messages == [{"role": "user", "content": row["prompt"]}]:
        return Prompt(row["prompt"].strip(), others)
    return Prompt(transcript(messages), {**others, MESSAGES: messages})


def meta_of(row: Mapping[str, Any], *taken: str) -> dict[str, Any]:
    """What a row says besides the columns that are taken; a conversation that is not the prompt, and pictures, are left out."""
    left = {str(key): value for key, value in row.items() if key not in taken and key != MESSAGES}
    return {key: value for key, value in left.items() if not _is_picture(value)}


def _is_picture(value: Any) -> bool:
    """Whether a cell holds bytes, as Parquet files hold pictures."""
    held = value.get("bytes") if isinstance(value, Mapping) else value
    return isinstance(held, (bytes, bytearray))


def _conversation(row: Mapping[str, Any], column: str | None) -> Exchange | None:
    """The conversation of a row, wherever it stands."""
    names = (*CONVERSATIONS, "prompt") if column is None else (column,)
    name = next((name for name in names if _holds_messages(row, name)), None)
    if name is not None:
        messages = messages_of(row[name], name)
        asked = Exchange(_unlearned(messages), None) if name == "prompt" else exchange(messages, name)
        return asked if asked.reply is not None else _replied(row, asked.context) or asked
    if column is not None:
        return None
    if isinstance(row.get("prompt"), str):
        return _replied(row, [{"role": "user", "content": row["prompt"]}])
    return _preferred(row) if "prompt" not in row else None


def _holds_messages(row: Mapping[str, Any], name: str) -> bool:
    """Whether a column is a conversation, or should be one by its name."""
    value = row.get(name)
    return looks_like_messages(value) or (name in CONVERSATIONS and isinstance(value, (list, tuple)))


def _unlearned(messages: Sequence[Message]) -> list[Message]:
    """The same with its assistant's turns marked as given."""
    return [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in messages]


def _replied(row: Mapping[str, Any], context: Sequence[Message]) -> Exchange | None:
    """The conversation on to the reply that another column holds as messages; None where none does."""
    name = next((name for name in ANSWERS if row.get(name) is not None), None)
    if name is None or not looks_like_messages(row[name]):
        return None
    said = messages_of(row[name], name)
    plain = [{key: value for key, value in turn.items() if key != "weight"} for turn in context]
    if in_common(said, plain) == len(plain):
        said = said[len(plain) :]
    elif said[0]["role"] != "assistant":  # a conversation of its own, such as one with a system message before the prompt
        context, said = [], said
    if not said or said[-1]["role"] != "assistant":
        raise BadConversation(f"{name} does not end with an assistant's message")
    return Exchange([*context, *said[:-1]], said[-1])


def _preferred(row: Mapping[str, Any]) -> Exchange | None:
    """The chosen one of two conversations that begin alike."""
    if not (looks_like_messages(row.get("chosen")) and looks_like_messages(row.get("rejected"))):
        return None
    chosen, rejected = (messages_of(row[name], name) for name in ("chosen", "rejected"))
    context, reply = exchange(chosen, "chosen")
    alike = in_common(context, rejected)
    return Exchange([*_unlearned(context[:alike]), *context[alike:]], reply)


def _with_system(messages: Sequence[Message], row: Mapping[str, Any]) -> list[Message]:
    """The conversation behind the system message that stands in a column of its own."""
    system = row.get("system")
    if not isinstance(system, str) or not system.strip() or messages[0]["role"] in INSTRUCTIONS:
        return list(messages)
    return [{"role": "system", "content": system}, *messages]


def _response(reply: Message | None) -> dict[str, Any]:
    if reply is None:
        return {}
    more = {REPLY: dict(reply)} if reply.keys() - {"role", "content", "weight"} else {}
    return {"response": reply["content"], **more}


def _is_alpaca(row: Mapping[str, Any]) -> bool:
    return "prompt" not in row and isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str)


def _alpaca(row: Mapping[str, Any]) -> Prompt:
    """Alpaca's row; a text unless it has a system message or a history.

    Source: LLaMA-Factory, which puts the input on a line of its own behind the instruction.
    """
    text = "\n".join(part.strip() for part in (row["instruction"], row.get("input") or "") if part.strip())
    others = {**meta_of(row, "instruction", "input", "output", "system", "history"), "response": row["output"]}
    turns: list[Message] = []
    for pair in row.get("history") or []:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise BadConversation(f"history holds {shortened(pair)}, but must be pairs of instruction and answer")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    messages = _with_system([*turns, {"role": "user", "content": text}], row)
    return Prompt(text, others) if len(messages) == 1 else Prompt(transcript(messages), {**others, MESSAGES: messages})


def shortened(value: Any, width: int = 60) -> str:
    """A value as written in Python, in at most ``width`` characters."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
