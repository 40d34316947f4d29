"""YAML within limits: size with aliases followed, depth, digits, and each key once. No tag makes anything but plain data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from raft_core.reading.files import BeyondLimitsError, Unreadable, excerpt, read_text
from raft_core.reading.json_data import DEEPEST, MOST_DIGITS, holds_half_characters

LARGEST = 2**22  # bytes
MOST_VALUES = 20_000  # keys, items and values of one text, aliases followed

Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where PyYAML was built with it


class Loader(Base):
    """YAML 1.1 as PyYAML reads it, but 1e-4 is a number as in YAML 1.2, and dates stay text."""


_OWN = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _OWN]
    for first, resolvers in Base.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
            |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
            |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
            |[-+]?\.(?:inf|Inf|INF)
            |\.(?:nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """The value that a YAML text holds.

    Raises:
        Unreadable: it is no YAML, more than one document, beyond the limits, or repeats a key; names the line.
    """
    try:
        _require_bounded(text)
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _require_sound(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except Unreadable:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise Unreadable(f"it is not YAML: {excerpt(error.problem or error.context, 160)}{where}") from None
    except yaml.YAMLError as error:
        raise Unreadable(f"it is not YAML: {excerpt(error, 160)}") from None
    except Exception as error:  # noqa: BLE001 - tags of YAML's own make their constructors raise whatever they trip over
        raise Unreadable(f"it is not YAML that can be read: {excerpt(f'{type(error).__name__}: {error}', 200)}") from None


def read_yaml(path: Path) -> Any:
    """The value in a YAML file.

    Raises:
        OSError: there is no such file, or it may not be read.
        Unreadable: it is no regular file, too large, or as of ``parse_yaml``.
    """
    return parse_yaml(read_text(path, LARGEST))


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises as ``read_yaml``, and ``Unreadable`` for anything but a mapping with names as keys."""
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise Unreadable(f"it must hold a mapping such as `policy: …`, not {type(value).__name__}")
    if strange := [key for key in value if not isinstance(key, str)]:
        raise Unreadable(f"it has the key {excerpt(strange[0], 40)}, but names are needed")
    return value


def _require_bounded(text: str) -> None:
    """Count what a text would expand to, from its events alone: nothing is built that may be too large or too deep."""
    total, opened, sizes = 0, [], {}  # opened: (anchor, count before it) of the lists and mappings that are not closed yet
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:  # unknown (which composing refuses) or not closed yet
                if any(anchor == event.anchor for anchor, _ in opened):
                    raise BeyondLimitsError(f"line {event.start_mark.line + 1} refers to what it is part of (*{event.anchor})")
                continue
            total += sizes[event.anchor]
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            opened.append((event.anchor, total))
            total += 1
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if total > MOST_VALUES:
            raise BeyondLimitsError(
                f"it holds more than {MOST_VALUES} values, aliases followed; no configuration needs so many"
            )
        if len(opened) > DEEPEST:
            raise BeyondLimitsError(f"lists and mappings lie more than {DEEPEST} deep (line {event.start_mark.line + 1})")


def _require_sound(root: yaml.Node) -> None:
    """Each key once, and no number that is longer than any number."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        line = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode) and (holds_half_characters(node.value) or "\0" in node.value):
            raise Unreadable(f"line {line} holds a null or half of a surrogate pair, which is no text")
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:int" and len(node.value) > MOST_DIGITS:
            shown = f"{len(node.value)} digits ({node.value[:12]}…)"
            raise BeyondLimitsError(f"line {line} holds a whole number of {shown}, and at most {MOST_DIGITS} are read")
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                waiting += (key, value)
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                place = key.start_mark.line + 1
                if (key.tag, key.value) in keys:
                    first = keys[key.tag, key.value]
                    raise BeyondLimitsError(
                        f"it names {excerpt(key.value, 40)!r} twice in one mapping (lines {first} and {place})"
                    )
                keys[key.tag, key.value] = place
