"""From plain values to objects: a constructor's signature is its schema, and every mistake is found before one is reported.

jsonargparse parses and checks single values by type. The walk around it is our own, because jsonargparse stops at the
first mistake, and because it checks a class against a protocol by annotations, which a user's own reward need not have.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from raft_core.capabilities import Checks
from raft_core.config.conforming import objection
from raft_core.config.importing import anchored, located, resolve
from raft_core.config.listing import public_names
from raft_core.config.schema import (
    OMITTED,
    PROTOCOL_OF,
    SEQUENCES,
    Typed,
    as_plain,
    component_kind,
    component_list,
    from_yaml,
    is_plain,
    is_section,
    known_keys,
    odd_number,
    parameters,
    plain_default,
    protocol_members,
    section_list,
    settles_itself,
    shown,
    takes_text,
    type_name,
    without_none,
)
from raft_core.errors import ConfigError, MachineLack, RaftError, nearest
from raft_core.preferences.folder import learned_folder
from raft_core.protocols import Combinator
from raft_core.reading.files import BeyondLimitsError, Unreadable, excerpt
from raft_core.reading.yaml_data import parse_yaml
from raft_core.rewards.function import FunctionReward
from raft_core.rewards.spec import RewardSpec

MOST_MISTAKES, MOST_UNKNOWN, MOST_PARTS = 100, 20, 1000  # that are listed, and that a list may hold
FUNCTION_REWARD = "raft_core.rewards.function.FunctionReward"
LEARNED_REWARD = "raft_core.preferences.reward.LearnedReward"


class Unbuilt(Exception):  # noqa: N818 - a signal between parts, never shown
    """A part cannot be built, for a mistake that is already noted."""


@dataclass(frozen=True)
class Part:
    """A checked value: as plain data that YAML can hold, and how to build it."""

    plain: Any
    make: Callable[[], Any]


class Walk:
    """One pass over a configuration that collects every mistake.

    Args:
        base: folder of the configuration, where Python files that it names are looked up when they are not found here.

    Attributes:
        mistakes: found so far, each naming where.
    """

    def __init__(self, base: Path | None = None) -> None:
        self.base = base
        self.mistakes: list[str] = []

    def note(self, where: str, messages: str | Sequence[str], owner: Any = None) -> None:
        """Keep mistakes, each once, prefixed with where they are unless they say so themselves."""
        for message in [messages] if isinstance(messages, str) else (m if isinstance(m, str) else str(m) for m in messages):
            if len(self.mistakes) > MOST_MISTAKES:
                return
            if len(self.mistakes) == MOST_MISTAKES:
                self.mistakes.append("and more, which are not listed")
                return
            head = message.partition(" ")[0].split(".")[0].rstrip(":")
            if not where or message.startswith((f"{where}.", f"{where} ", f"{where}:")):
                text = message
            elif owner is not None and head in parameters(owner):
                text = f"{where}.{message}"
            else:
                text = f"{where}: {message}"
            text = MachineLack(text) if isinstance(message, MachineLack) else text
            if not any(known == text or known.endswith(f" {message}") for known in self.mistakes):
                self.mistakes.append(text)

    def wrong(self, where: str, message: str) -> Part:
        """Note a mistake; the part that stands for it cannot be built."""
        self.note(where, message)
        return Part(None, _refuse)

    # ------------------------------------------------------------------ values by type

    def value(self, raw: Any, kind: Any, where: str) -> Part:
        """A value of the annotated type ``kind``: a component, a list of components, a section of settings, or a leaf."""
        kind, optional = without_none(kind)
        if kind is RewardSpec:
            part = self.component(raw, "reward", where)
            return Part(part.plain, lambda: RewardSpec(part.plain, part.make()))
        if optional and (raw is None or (isinstance(raw, Typed) and raw.lower() in ("null", "none"))):
            return Part(None, lambda: None)
        name = component_kind(kind)
        if name:
            return self.component(raw, name, where)
        if element := component_list(kind):
            return self.components(raw, element, where)
        if target := section_list(kind):
            return self.sections(raw, target, where)
        if is_section(kind):
            return self.section(raw, kind, where)
        return self.leaf(raw, kind, where, optional)

    def leaf(self, raw: Any, kind: Any, where: str, optional: bool = False) -> Part:
        """A plain value, parsed and checked by jsonargparse."""
        if isinstance(raw, Typed) and kind in (Any, inspect.Parameter.empty):
            raw = from_yaml(raw)
        if odd := odd_number(raw):
            return self.wrong(where, f"{where} is {odd}")
        if kind in (Any, inspect.Parameter.empty):
            return Part(raw, lambda: raw)
        if isinstance(raw, str) and not takes_text(kind) and (why := unreadable(raw)):
            return self.wrong(where, f"{where} cannot be read: {why}")
        if isinstance(raw, Typed) and kind is not str and typing.get_origin(kind) in SEQUENCES and not raw.startswith("["):
            raw = [item.strip() for item in raw.split(",")]
        parser = ArgumentParser(exit_on_error=False)
        try:
            parser.add_argument("--value", type=kind)
        except ValueError:  # a type that jsonargparse does not know: the constructor will have to judge
            return Part(raw, lambda: raw)
        given = str(raw) if isinstance(raw, Typed) else raw
        try:
            parsed = parser.parse_object({"value": given})["value"] if raw is not None else None
        except (ArgumentError, ValueError, TypeError, OverflowError):  # the others are of numbers that are too long
            parsed = None
        if odd := odd_number(parsed):
            return self.wrong(where, f"{where} is {odd}")
        if parsed is None:
            choices = [str(choice) for choice in typing.get_args(kind)] if typing.get_origin(kind) is typing.Literal else []
            hint = nearest(str(raw), choices) if choices else ""
            also = " or null" if optional else ""
            return self.wrong(where, f"{where} is {shown(raw)}, but must be {type_name(kind)}{also}{hint}")
        return Part(given if not is_plain(parsed) else as_plain(parsed), lambda: parsed)

    def section(self, raw: Any, target: Any, where: str, defaults: Any = None) -> Part:
        """The settings of a class that is not chosen but fixed by its type; ``defaults`` is an instance to start from."""
        raw = from_yaml(raw) if isinstance(raw, Typed) else raw
        raw = {} if raw is None else raw
        if not isinstance(raw, Mapping):
            return self.wrong(where, f"{where} is {shown(raw)}, but must be a mapping with {known_keys(target)}")
        inside = "." in where  # a component, whose files are looked up as its own arguments are
        parts = self.arguments(target, self._anchored(target, raw) if inside else raw, where, defaults)
        return Part(plain_arguments(parts), lambda: self.call(target, parts, where))

    def sections(self, raw: Any, target: Any, where: str) -> Part:
        """A list of settings of one class; a word alone is the first of them."""
        first = next(iter(parameters(target)))

        def settings(item: Any) -> Any:
            if isinstance(item, str):
                return {first: item}
            if isinstance(item, Mapping) and item.keys() == {"class_path", "init_args"}:
                # On the command line a word that further settings were added to is taken for a component.
                return {first: item["class_path"], **item["init_args"]}
            return item

        return self._list(raw, where, lambda item, at: self.section(settings(item), target, at))

    def components(self, raw: Any, kind: str, where: str) -> Part:
        """A list of components."""
        return self._list(raw, where, lambda item, at: self.component(item, kind, at))

    def _list(self, raw: Any, where: str, of: Callable[[Any, str], Part]) -> Part:
        """A list whose items ``of`` makes; a single item stands for a list of one."""
        if isinstance(raw, Typed):
            raw = from_yaml(raw) if raw.startswith(("[", "{")) else [Typed(item) for item in raw.split(",") if item]
        if raw is None:
            raw = []
        if isinstance(raw, (str, Mapping)):
            raw = [raw]
        if not isinstance(raw, Sequence):
            return self.wrong(where, f"{where} is {shown(raw)}, but must be a list")
        if len(raw) > MOST_PARTS:
            return self.wrong(where, f"{where} lists {len(raw)} entries, and at most {MOST_PARTS} are taken")
        parts = [of(item, f"{where}.{number}") for number, item in enumerate(raw)]
        return Part([part.plain for part in parts], lambda: build_all(parts))

    def component(self, raw: Any, kind: str, where: str) -> Part:
        """A class chosen by name, with its arguments: ``Name``, ``file.py:name`` or ``{class_path: …, init_args: …}``."""
        if isinstance(raw, Typed) and raw.startswith("{"):
            raw = from_yaml(raw)
        if isinstance(raw, str):
            raw = {"class_path": str(raw)}
        if not isinstance(raw, Mapping) and (given := self._object(raw, kind, where)):
            return given
        if not isinstance(raw, Mapping) or "class_path" not in raw:
            example = next(iter(public_names(kind)), "Name")
            return self.wrong(
                where, f"{where} is {shown(raw)}, but must name a {kind}: `{where}: {example}`, or class_path and init_args"
            )
        for key in raw:
            if key not in ("class_path", "init_args"):
                self.note(where, f"{where} has {shown(key)} beside class_path; arguments belong under init_args")
        path, arguments = located(str(raw["class_path"]), self.base), raw.get("init_args") or {}
        if not isinstance(arguments, Mapping):
            return self.wrong(where, f"{where}.init_args is {shown(arguments)}, but must be a mapping")
        if kind == "reward" and (folder := learned_folder(path, self.base)):
            path, arguments = LEARNED_REWARD, {"folder": folder, **arguments}
        try:
            target, full_path = resolve(path, kind)
            if kind == "reward" and not inspect.isclass(target):  # a function of prompts and outputs, by whatever path
                arguments = {"path": full_path, **arguments}
                target, full_path = resolve(FUNCTION_REWARD, kind)
        except ConfigError as error:
            return self.wrong(where, str(error))
        if why := objection(target, kind):
            return self.wrong(where, why)
        parts = self.arguments(target, self._anchored(target, arguments), where)
        plain = {"class_path": full_path, "init_args": plain_arguments(parts)}
        return Part(plain if parts else {"class_path": full_path}, lambda: self.built(target, kind, parts, where))

    def _object(self, given: Any, kind: str, where: str) -> Part | None:
        """A component that was made in Python, or a function as a reward; None for anything else."""
        if kind == "reward" and inspect.isroutine(given):
            given = FunctionReward.of(given)
        lacking = [name for name in protocol_members(PROTOCOL_OF[kind]) if not hasattr(given, name)]
        if inspect.isclass(given) or (lacking and not (kind == "reward" and isinstance(given, Combinator))):
            return None
        if isinstance(given, Checks):
            self.note(where, self._objections(given, where), owner=type(given))
        plain = plain_default(given)
        return Part({"class_path": type(given).__qualname__} if plain is OMITTED else plain, _constant(given))

    def _anchored(self, target: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a component or a section with files and folders by their absolute path; a ``name`` is never one."""
        known = parameters(target)
        texts = {
            name
            for name, value in arguments.items()
            if isinstance(value, str) and name != "name" and name in known and takes_text(known[name].annotation)
        }
        return {name: anchored(value, self.base) if name in texts else value for name, value in arguments.items()}

    # ------------------------------------------------------------------ constructors

    def arguments(self, target: Any, raw: Mapping[str, Any], where: str, defaults: Any = None) -> dict[str, Part]:
        """A part for every argument of a constructor; defaults are filled in."""
        known = parameters(target)
        dot = f"{where}." if where else ""
        unknown = [key for key in raw if key not in known]
        for key in unknown[:MOST_UNKNOWN]:
            hint = nearest(str(key), known) if known else f" ({target.__name__} takes no arguments)"
            self.note(where, f"{dot}{excerpt(key, 60)} is not known{hint}")
        if len(unknown) > MOST_UNKNOWN:
            self.note(where, f"{where or 'the configuration'} has {len(unknown) - MOST_UNKNOWN} more keys that are not known")
        parts: dict[str, Part] = {}
        for name, parameter in known.items():
            default = parameter.default if defaults is None else getattr(defaults, name, parameter.default)
            if name in raw:
                parts[name] = self._given(raw[name], parameter.annotation, default, f"{dot}{name}")
            elif default is inspect.Parameter.empty:
                parts[name] = self.wrong(where, f"{dot}{name} is missing; it must be given")
            elif settles_itself(parameter.annotation, default):
                parts[name] = self.section({}, type(default), f"{dot}{name}")
            else:
                parts[name] = Part(plain_default(default), _constant(default))
        return parts

    def _given(self, raw: Any, annotation: Any, default: Any, where: str) -> Part:
        """A section that is given in part keeps the other settings of its default."""
        kind, _ = without_none(annotation)
        if (
            inspect.isclass(kind)
            and dataclasses.is_dataclass(kind)
            and isinstance(default, kind)
            and isinstance(raw, (Mapping, Typed))
        ):
            return self.section(raw, kind, where, defaults=default)
        return self.value(raw, annotation, where)

    def call(self, target: Any, parts: Mapping[str, Part], where: str) -> Any:
        """Call the constructor; whatever it objects to is noted."""
        built, broken = {}, False
        for name, part in parts.items():
            try:
                built[name] = part.make()
            except Unbuilt:
                broken = True
        if broken:
            raise Unbuilt
        try:
            return target(**built)
        except ConfigError as error:
            self.note(where, error.mistakes, owner=target)
        except RaftError as error:
            self.note(where, str(error), owner=target)
        except Exception as error:  # noqa: BLE001 - a user's class may raise anything; the other mistakes are wanted too
            self.note(where, f"{target.__name__}(…) failed: {type(error).__name__}: {excerpt(error, 300)}")
        raise Unbuilt

    def built(self, target: Any, kind: str, parts: Mapping[str, Part], where: str) -> Any:
        """A component that keeps to its protocol and has no objection to this machine."""
        component = self.call(target, parts, where)
        lacking = [name for name in protocol_members(PROTOCOL_OF[kind]) if not hasattr(component, name)]
        combines = kind == "reward" and isinstance(component, Combinator)  # a reward made of rewards is not called itself
        if lacking and not combines:
            self.note(where, f"{target.__name__} is no {kind}: it lacks {', '.join(lacking)}")
            raise Unbuilt
        if isinstance(component, Checks):
            self.note(where, self._objections(component, where), owner=target)
        return component

    def _objections(self, component: Any, where: str) -> list[str]:
        """What ``check()`` finds; when it fails itself, that is noted, and the component is not asked again."""
        try:
            found = component.check()
            return [found] if isinstance(found, str) else list(found)
        except ConfigError as error:
            self.note(where, error.mistakes, owner=type(component))
        except RaftError as error:
            self.note(where, str(error), owner=type(component))
        except Exception as error:  # noqa: BLE001 - a user's class may raise anything; the other mistakes are wanted too
            self.note(where, f"{type(component).__name__}.check() failed: {type(error).__name__}: {excerpt(error, 300)}")
        raise Unbuilt


def unreadable(text: str) -> str | None:
    """Why a text cannot be taken for a value: it would grow beyond all limits when it is read as YAML; None when it can."""
    try:
        parse_yaml(text)
    except BeyondLimitsError as error:
        return str(error)
    except Unreadable:
        return None
    return None


def _refuse() -> Any:
    raise Unbuilt


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def build_all(parts: Sequence[Part]) -> list[Any]:
    """Build every part, so that each notes its mistakes, before giving up on the list."""
    built, broken = [], False
    for part in parts:
        try:
            built.append(part.make())
        except Unbuilt:
            broken = True
    if broken:
        raise Unbuilt
    return built


def plain_arguments(parts: Mapping[str, Part]) -> dict[str, Any]:
    return {name: part.plain for name, part in parts.items() if part.plain is not OMITTED}


def build(kind: Any, raw: Any, where: str | None = None, base: Path | None = None) -> Any:
    """One part, as a configuration would name it or as the object itself; nothing loaded.

    Args:
        kind: a role (``policy``, ``reward``, ``selector`` …), or an annotated type.
        raw: of a component its name, a mapping with class_path and init_args, or an object.
        where: what mistakes call it; by default its role.
        base: folder in which files that it names are looked up.

    Raises:
        ConfigError: with every mistake that there is.
    """
    name = where or str(kind)
    return build_each({name: (kind, raw)}, base)[name]


def build_each(named: Mapping[str, tuple[Any, Any]], base: Path | None = None, mistakes: Sequence[str] = ()) -> dict[str, Any]:
    """Several parts, name → (kind, raw) as of ``build``; the mistakes of all are told together.

    Args:
        mistakes: that are known already.

    Raises:
        ConfigError: with every mistake that there is.
    """
    walk, built = Walk(base), {}
    walk.note("", mistakes)
    parts = {name: walk.value(raw, PROTOCOL_OF.get(kind, kind), name) for name, (kind, raw) in named.items()}
    for name, part in parts.items():
        with contextlib.suppress(Unbuilt):
            built[name] = part.make()
    if walk.mistakes:
        raise ConfigError(walk.mistakes)
    return built


def reward_spec(raw: Mapping[str, Any] | str) -> RewardSpec:
    """The reward that a configuration would name so, with its description.

    Raises:
        ConfigError: with every mistake that there is.
    """
    return build(RewardSpec, raw, "reward")
