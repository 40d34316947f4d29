"""A tokenizer's chat template: what it writes, what it refuses, and what it reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from raft_core.conversations import INSTRUCTIONS
from raft_core.errors import DataError
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import parse_json
from raft_core.types import Message
from raft_text.options import TEMPLATE_OWN

_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # transformers' own mark around what the assistant writes


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    name: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    tools: Sequence[Any] | None = None,
    answer: bool = False,
    go_on: bool = False,
) -> str:
    """A conversation as the tokenizer's chat template writes it.

    Args:
        name: of the model, for messages.
        arguments: of the template (``enable_thinking: false``).
        tools: JSON schemas of functions.
        answer: write the head of the assistant's turn behind it.
        go_on: leave the last message open.

    Raises:
        DataError: the template refuses the conversation.
    """
    shown = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
    try:
        return tokenizer.apply_chat_template(
            shown,
            tools=list(tools) if tools else None,
            add_generation_prompt=answer,
            continue_final_message=go_on,
            tokenize=False,
            **(arguments or {}),
        )
    except Exception as error:  # a template is code of the model's authors, and raises whatever it likes
        raise DataError(_refusal(messages, name, error)) from error


def _refusal(messages: Sequence[Message], name: str, error: Exception) -> str:
    roles = [message["role"] for message in messages]
    shown = ", ".join(roles[:8]) + (f" … ({len(roles)} messages)" if len(roles) > 8 else "")
    reason = " ".join(str(error).split()) or type(error).__name__
    remedy = "mend the conversation, or choose a model whose template takes it"
    if any(role in INSTRUCTIONS for role in roles):
        remedy = (
            "if it takes no system message, leave that out (prompting.system), or put it before the user's first message with "
            "prompting.system_in_user: true"
        )
    return f"the chat template of {name} refuses a conversation of {shown}: {reason}; {remedy}"


def variables(tokenizer: Any) -> set[str] | None:
    """Names that a tokenizer's chat template reads and a user can set; None where that cannot be told."""
    import jinja2
    from jinja2 import meta

    try:
        template = tokenizer.get_chat_template()
        environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
        read = meta.find_undeclared_variables(environment.parse(_GENERATION.sub("", template)))
    except (ValueError, jinja2.TemplateError):
        return None
    return read - {*TEMPLATE_OWN, *tokenizer.special_tokens_map, "raise_exception", "strftime_now"}


def tools_of(value: Any) -> list[Any] | None:
    """JSON schemas of functions, as a table holds them: a list, or the JSON of one."""
    if isinstance(value, str) and value.strip():
        try:
            value = parse_json(value)
        except Unreadable:
            raise DataError(f"tools is {value[:60]!r}, but must be a list of JSON schemas") from None
    return list(value) if isinstance(value, (list, tuple)) and value else None
