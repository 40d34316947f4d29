"""Whether a class is a part of a kind, told from the class itself: nothing is called before that is known."""

from __future__ import annotations

import dis
import inspect
import types
from collections.abc import Iterator, Sequence
from typing import Any

from raft_core.config.schema import PROTOCOL_OF, protocol_members
from raft_core.protocols import Combinator


def objection(target: Any, kind: str) -> str | None:
    """Why something is no part of this kind, in words, without calling it; None when it has all that its protocol asks for."""
    if not inspect.isclass(target):
        return f"{_name(target)} is a {_what(target)}, but a {kind} is a class{_or_function(kind)}"
    lacking = [name for name in protocol_members(PROTOCOL_OF[kind]) if not declares(target, name)]
    if kind == "reward" and lacking and not [name for name in protocol_members(Combinator) if not declares(target, name)]:
        return None
    if not lacking:
        return None
    # Attributes that a helper sets are not seen here.
    hint = (
        ""
        if any(name.startswith("__") for name in lacking)
        else f"; if it sets {lacking[0]} elsewhere, annotate it in the class"
    )
    return f"{_name(target)} is no {kind}: it lacks {', '.join(lacking)}{hint}"


def declares(target: type, member: str) -> bool:
    """Whether objects of a class have a member, by what its body and those of its bases say, or set on ``self``."""
    for each in _bases(target):
        body = vars(each)
        if member in body or member in body.get("__annotations__", {}) or member in _slots(body):
            return True
        if not member.startswith("__") and ("__getattr__" in body or _sets(body, member)):
            return True
    return False


def _bases(target: type) -> Sequence[type]:
    return [each for each in target.__mro__ if each is not object]


def _slots(body: Any) -> Sequence[str]:
    slots = body.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _sets(body: Any, member: str) -> bool:
    """Whether a method of the body assigns ``self.member``, or hands its name to ``setattr``."""
    for function in _functions(body.values()):
        for code in _codes(function.__code__):
            if member in code.co_names and any(
                instruction.opname == "STORE_ATTR" and instruction.argval == member
                for instruction in dis.get_instructions(code)
            ):
                return True
            if {"setattr", "__setattr__"} & set(code.co_names) and member in code.co_consts:
                return True
    return False


def _functions(values: Any) -> Iterator[types.FunctionType]:
    for value in values:
        value = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        value = inspect.unwrap(value) if inspect.isfunction(value) else value
        if inspect.isfunction(value):
            yield value


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _name(target: Any) -> str:
    return getattr(target, "__name__", None) or type(target).__name__


def _what(target: Any) -> str:
    return "function" if inspect.isroutine(target) else type(target).__name__


def _or_function(kind: str) -> str:
    return ", or a function of prompts and outputs" if kind == "reward" else ""
