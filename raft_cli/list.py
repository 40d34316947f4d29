"""List what there is to choose from, or explain one of it.

raft list                 everything
raft list rewards         one kind: policies, rewards, sources, environments,
                          selectors, objectives, rules, trackers, models,
                          configs; selectors and objectives by what goes with
                          what
raft list TopFraction     one class: what it does and what it takes
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterator

from raft_core import types
from raft_core.bundled import bundled_models
from raft_core.config import listing
from raft_core.errors import ConfigError, nearest

USAGE = "raft list [KIND | NAME]"
TARGET_OPTIONAL = True
WIDTH = 80
OTHER = {"selector": "objective", "objective": "selector"}  # what a part has to fit
PLURALS = {"policies": "policy", **{f"{kind}s": kind for kind in listing.KINDS if kind != "policy"}}


def add_options(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def main(args: argparse.Namespace) -> None:
    for line in answer(args.target):
        print(line)


def answer(target: str | None) -> Iterator[str]:
    """The lines for a kind, a class, or everything.

    Raises:
        ConfigError: neither a kind nor a class is called so.
    """
    if target is None:
        for plural in (*PLURALS, "models", "configs"):
            yield from (f"{plural}:", *section(plural), "")
        yield "`raft list NAME` says what a class takes."
    elif target in (*PLURALS, "models", "configs"):
        yield from section(target)
    elif target in listing.KINDS:
        yield from section(next(plural for plural, kind in PLURALS.items() if kind == target))
    elif found := listing.describe(target):
        yield from explanation(found[0])
    else:
        known = [*PLURALS, "models", "configs", *(name for kind in listing.KINDS for name in listing.public_names(kind))]
        raise ConfigError(f"nothing is called {target!r}{nearest(target, known)}")


def section(plural: str) -> Iterator[str]:
    """One line or two for each thing of a kind."""
    if plural == "models":
        return entries(dict.fromkeys(bundled_models(), "") or {"(none)": ""})
    if plural == "configs":
        return entries(recipes())
    kind = PLURALS[plural]
    if kind in OTHER:
        return itertools.chain.from_iterable(grouped(kind))
    summaries = {found.name: found.summary for found in listing.classes(kind) if found.public}
    return entries(summaries | {name: f"{path} (installed package)" for name, path in listing.plugins(kind).items()})


def grouped(kind: str) -> Iterator[Iterator[str]]:
    """The selectors, or the objectives, by the selection that they make or read, each with what goes with them."""
    found = [each for each in listing.classes(kind) if each.public]
    for selection in sorted({each.selection for each in found}, key=lambda name: (name != "Weighted", name)):
        name = getattr(getattr(types, selection, None), "name", "others")
        partners = ", ".join(listing.going_with(selection, OTHER[kind])) or "nothing here"
        yield iter(textwrap.wrap(f"  {name}, with {partners}:", WIDTH, subsequent_indent="    "))
        yield entries({each.name: each.summary for each in found if each.selection == selection}, indent=4)


def recipes() -> dict[str, str]:
    """Name → first sentence of the comment that every recipe opens with."""
    from raft_core.config.recipes import recipe_folders

    found = {}
    for folder in recipe_folders():
        for path in sorted(folder.rglob("*.yaml")):
            lines = (line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines())
            paragraph = " ".join(itertools.takewhile(bool, lines))
            found[str(path.relative_to(folder).with_suffix(""))] = re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0]
    return found


def entries(summaries: dict[str, str], indent: int = 2) -> Iterator[str]:
    """``name  summary``, wrapped."""
    column = min(24, max(map(len, summaries), default=0) + 2)
    before = " " * indent
    for name, summary in summaries.items():
        head = f"{before}{name:<{column}}"
        further = before + " " * column
        yield from textwrap.wrap(head + summary, WIDTH, subsequent_indent=further) if summary else [before + name]


def explanation(found: listing.Found) -> Iterator[str]:
    """What a class does and takes, and how it is written in a configuration."""
    yield from textwrap.wrap(f"{found.name}  ({found.class_path})", WIDTH, subsequent_indent="  ")
    yield ""
    yield from reflowed(inspect.cleandoc(found.doc).replace("``", ""))
    yield ""
    for kind in OTHER:
        if found.selection and found.name in {each.name for each in listing.classes(kind)}:
            partners = ", ".join(listing.going_with(found.selection, OTHER[kind]))
            yield from textwrap.wrap(f"Goes with the {OTHER[kind]}: {partners or 'none here'}", WIDTH, subsequent_indent="  ")
            yield ""
    arguments = [argument for argument in found.signature if argument]
    if not arguments:
        yield f"It takes no arguments: {found.name}"
        return
    yield f"class_path: {found.name}"
    yield "init_args:"
    for argument in arguments:
        yield from setting(argument)


def setting(argument: str) -> Iterator[str]:
    """``name: type = default`` as a line of a configuration with its type behind it, or above it where that is too wide."""
    declared, equals, default = argument.partition(" = ")
    name, _, kind = declared.partition(": ")
    line = f"  {name}: {as_yaml(default) if equals else '(required)'}"
    if kind and len(line) + len(kind) + 4 > WIDTH:
        yield from textwrap.wrap(kind, WIDTH, initial_indent="  # ", subsequent_indent="  # ")
    elif kind:
        line += f"  # {kind}"
    yield line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"


def as_yaml(default: str) -> str:
    """A default as a configuration would have it; a section of settings with defaults of its own is written {}."""
    if re.fullmatch(r"field\(default_factory=\w+\)|[A-Z]\w*\(\)", default):
        return "{}"
    return {"None": "null", "True": "true", "False": "false", "()": "[]"}.get(default, default)


def reflowed(text: str) -> Iterator[str]:
    """A docstring for 80 columns: plain paragraphs are filled, indented ones and lists keep their lines."""
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ""
        if any(line.startswith(" ") for line in paragraph.splitlines()):
            for line in paragraph.splitlines():
                indent = " " * (len(line) - len(line.lstrip()))
                yield from textwrap.wrap(line, WIDTH, subsequent_indent=indent + "  ")
        else:
            yield from textwrap.wrap(paragraph, WIDTH)
