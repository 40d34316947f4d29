"""Constructor signatures as schemas: argument names, types and defaults, and values as plain data."""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import math
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raft_core.environment import Environment
from raft_core.protocols import Combinator, Objective, Policy, Reward, Rule, Selector, Source, Tracker
from raft_core.reading.files import Unreadable, excerpt
from raft_core.reading.yaml_data import parse_yaml

KIND_OF: dict[Any, str] = {
    Policy: "policy",
    Reward: "reward",
    Combinator: "reward",
    Source: "source",
    Environment: "environment",
    Selector: "selector",
    Objective: "objective",
    Rule: "rule",
    Tracker: "tracker",
}
PROTOCOL_OF: dict[str, type] = {
    "policy": Policy,
    "reward": Reward,
    "source": Source,
    "environment": Environment,
    "selector": Selector,
    "objective": Objective,
    "rule": Rule,
    "tracker": Tracker,
}
LARGEST = 2**63
SEQUENCES = (list, tuple, Sequence, set, frozenset)
OMITTED = object()  # the plain form of a default that YAML cannot hold; left to the constructor


class Typed(str):
    """Text as typed on the command line: what it means (a number, a list, null) depends on the type of its argument."""


def parameters(target: Any) -> dict[str, inspect.Parameter]:
    """Constructor arguments by name, with annotations resolved as far as they can be."""
    try:
        signature = inspect.signature(target)
    except ValueError:  # some built-in types
        return {}
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # a name imported for type checkers only: no check is better than no run
        hints = {}
    factories = {f.name: f.default_factory for f in dataclasses.fields(target)} if dataclasses.is_dataclass(target) else {}
    found = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        factory = factories.get(name, dataclasses.MISSING)
        default = parameter.default if factory is dataclasses.MISSING else factory()  # type: ignore[operator]
        found[name] = parameter.replace(annotation=hints.get(name, Any), default=default)
    return found


def known_keys(target: Any) -> str:
    return f"the keys {', '.join(parameters(target))}" if parameters(target) else "no keys"


def protocol_members(protocol: type) -> list[str]:
    """What an object must have, by the protocol's own body."""
    body = [name for name, value in vars(protocol).items() if inspect.isfunction(value) or isinstance(value, property)]
    members = [*getattr(protocol, "__annotations__", {}), *body]
    return [name for name in members if not name.startswith("_") or name == "__call__"]


def union_members(kind: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def without_none(kind: Any) -> tuple[Any, bool]:
    """(the type without None, whether None is allowed)."""
    members = union_members(kind)
    rest = tuple(member for member in members if member is not types.NoneType)
    if len(rest) == len(members):
        return kind, kind in (Any, inspect.Parameter.empty)
    return functools.reduce(operator.or_, rest), True


def component_kind(kind: Any) -> str | None:
    """``policy``, ``reward`` … of a protocol, or of a union of protocols of one kind."""
    try:
        names = {KIND_OF.get(member) for member in union_members(kind)}
    except TypeError:  # unhashable metadata
        return None
    return names.pop() if len(names) == 1 else None


def component_list(kind: Any) -> str | None:
    """The kind of component that a list, a sequence or a tuple of any length holds."""
    if typing.get_origin(kind) in SEQUENCES and typing.get_args(kind):
        return component_kind(typing.get_args(kind)[0])
    return None


def section_list(kind: Any) -> Any:
    """The class of settings that a list, a sequence or a tuple of any length holds; None where it holds something else."""
    element = typing.get_args(kind)[0] if typing.get_origin(kind) in SEQUENCES and typing.get_args(kind) else None
    return element if dataclasses.is_dataclass(element) else None


def is_section(kind: Any) -> bool:
    """Whether a type is a class of settings rather than a plain value."""
    if dataclasses.is_dataclass(kind):
        return True
    if not inspect.isclass(kind) or typing.get_origin(kind) or issubclass(kind, (enum.Enum, Path, str)):
        return False
    return kind.__module__.split(".")[0] != "builtins" and kind.__init__ is not object.__init__ and kind not in KIND_OF


def settles_itself(annotation: Any, default: Any) -> bool:
    """Whether a default is a section that its constructor makes anew, so that nobody shares the default's instance."""
    kind, _ = without_none(annotation)
    return is_section(kind) and not dataclasses.is_dataclass(kind) and isinstance(default, kind)


def takes_text(kind: Any) -> bool:
    """Whether any text will do as a value: not one of a few words, not a number."""
    return kind in (Any, inspect.Parameter.empty) or any(member in (str, Path) for member in union_members(kind))


def type_name(kind: Any) -> str:
    """A type as a person would write it."""
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(kind))
    if inspect.isclass(kind) and not typing.get_args(kind):
        return {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}.get(
            kind.__name__, kind.__name__
        )
    if len(union_members(kind)) > 1:
        return " or ".join(type_name(member) for member in union_members(kind))
    return str(kind).replace("typing.", "").replace("collections.abc.", "")


def shown(value: Any, width: int = 60) -> str:
    return "missing" if value is None else excerpt(repr(str(value)) if isinstance(value, str) else repr(value), width)


def from_yaml(text: str) -> Any:
    """Plain data from YAML; the text itself where it is none."""
    try:
        return parse_yaml(str(text))
    except Unreadable:
        return str(text)


def odd_number(value: Any) -> str | None:
    """A number in plain data that no setting means: one that is not finite, or beyond 64 bits; None when there is none."""
    if isinstance(value, Mapping):
        return next((found for item in value.values() if (found := odd_number(item))), None)
    if isinstance(value, (list, tuple)):
        return next((found for item in value if (found := odd_number(item))), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}, but must be a finite number"
    if isinstance(value, int) and abs(value) >= LARGEST:
        return f"{excerpt(value, 24)}, but whole numbers of at most 64 bits are taken"
    return None


def is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def as_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: as_plain(item) for key, item in value.items()}
    return [as_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def plain_default(value: Any) -> Any:
    """A default as plain data; ``OMITTED`` when it has no such form."""
    if is_plain(value):
        return as_plain(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        items = [plain_default(item) for item in value]
        return OMITTED if OMITTED in items else items
    chosen = any(isinstance(value, protocol) for protocol in PROTOCOL_OF.values())
    if isinstance(value, type) or not (chosen or dataclasses.is_dataclass(value)):
        return OMITTED
    settings = {name: plain_default(getattr(value, name, OMITTED)) for name in parameters(type(value))}
    settings = {name: setting for name, setting in settings.items() if setting is not OMITTED}
    if not chosen:
        return settings
    path = f"{type(value).__module__}.{type(value).__qualname__}"
    return {"class_path": path} | ({"init_args": settings} if settings else {})
