"""What a run is made of, read from YAML and the command line, and checked as a whole before a weight is loaded.

The file is a mapping with the fields of ``RunConfig``. A component is named by its class, alone (``selector: BestOfK``) or with
arguments (``class_path`` and ``init_args``); every field can be overridden on the command line by its dotted path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from raft_core import capabilities
from raft_core.config.components import Unbuilt, Walk, plain_arguments
from raft_core.config.listing import going_with, with_short_names
from raft_core.config.metric_directions import settled, settled_plain
from raft_core.config.schema import Typed, from_yaml
from raft_core.errors import ConfigError, MachineLack, RaftError, StoreError, nearest
from raft_core.machine.processes import Processes
from raft_core.monitoring.stopping import DiversityDrop, Plateau
from raft_core.monitoring.trackers import TensorBoard
from raft_core.objectives.sft import Sft
from raft_core.prompts import Gathered, PromptFiles, PromptSet, gather
from raft_core.protocols import Objective, Policy, Reward, Rule, Selector, Source, Tracker
from raft_core.reading.files import Unreadable, excerpt
from raft_core.reading.yaml_data import read_mapping
from raft_core.rewards.scoring import Scorer, with_parts
from raft_core.selectors.best_of_k import BestOfK
from raft_core.sources.from_policy import FromPolicy
from raft_core.store.checkpoint import Keep
from raft_core.store.create import require_empty
from raft_core.training.trainer import Trainer

DEEPEST = 20  # parts of a setting's path
MOST_ROUNDS, MOST_SAMPLES = 1_000_000, 10_000_000  # samples of one round; as many as a machine's memory holds the records of


@dataclass(frozen=True)
class EvaluationSettings:
    """The before/after comparison at the end of a run.

    Args:
        k: samples per prompt and side, ≥ 1.
        prompts: at most so many training prompts, and so many held-out prompts; all of them when null.
    """

    k: int = 4
    prompts: int | None = 32

    def __post_init__(self) -> None:
        mistakes = []
        if self.k > MOST_SAMPLES:
            mistakes.append(f"evaluation.k is {self.k}, but at most {MOST_SAMPLES} are possible")
        if self.k < 1:
            mistakes.append(f"evaluation.k is {self.k}, but at least 1 sample per prompt is needed")
        if self.prompts is not None and self.prompts < 1:
            mistakes.append(f"evaluation.prompts is {self.prompts}, but at least 1 is needed (null takes all)")
        if mistakes:
            raise ConfigError(mistakes)


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run is made of.

    Args:
        policy: the model that is aligned.
        prompts: what it is asked for.
        reward: what selects among its samples.
        judges: rewards that are measured and never trained on.
        samples: where they come from; by default the policy draws them.
        selector: which samples to train on.
        objective: the loss on them.
        trainer: how it is minimised.
        rounds: at most so many times sample, score, select, update.
        k: samples per prompt and round.
        seed: fixes every random number of the run.
        output: run folder; by default ``runs/NAME``, NAME being the configuration's.
        evaluation: the before/after comparison at the end.
        stop_when: rules that end the run early.
        warn_when: rules that are only said.
        keep: what stays on the disk, and by which metric a round is the best.
        export: which policy is evaluated and exported, ``best`` or ``last``.
        trackers: where metrics go besides the run folder.
    """

    policy: Policy
    prompts: PromptFiles
    reward: Reward
    judges: Sequence[Reward] = ()
    samples: Source = field(default_factory=FromPolicy)
    selector: Selector = field(default_factory=BestOfK)
    objective: Objective = field(default_factory=Sft)
    trainer: Trainer = field(default_factory=Trainer)
    rounds: int = 10
    k: int = 8
    seed: int = 0
    output: str | None = None
    evaluation: EvaluationSettings = EvaluationSettings()
    stop_when: Sequence[Rule] = (Plateau(),)
    warn_when: Sequence[Rule] = (DiversityDrop(),)
    keep: Keep = field(default_factory=Keep)
    export: Literal["best", "last"] = "best"
    trackers: Sequence[Tracker] = field(default_factory=lambda: (TensorBoard(),))

    @property
    def scorer(self) -> Scorer:
        return Scorer(self.reward, tuple(self.judges))


@dataclass(frozen=True)
class Checked:
    """A configuration without mistakes.

    Attributes:
        config: its objects; weights not yet loaded.
        plain: the same as plain data, all defaults filled in, from which it can be read again.
        prompts: read and split.
        notes: what a person should know, though it is no mistake.
        name: of the configuration, for the default run folder.
    """

    config: RunConfig
    plain: dict[str, Any]
    prompts: PromptSet
    notes: list[str]
    name: str = "run"


# ---------------------------------------------------------------------- reading


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file is missing, is no YAML, or holds something else than a mapping.
    """
    try:
        return read_mapping(path)
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings) if siblings else ""
        raise ConfigError(f"the configuration {path} does not exist{hint}") from None
    except (OSError, Unreadable) as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error}") from None


@dataclass(frozen=True)
class Override:
    """A setting from the command line: the dotted path, and the text that was typed."""

    path: str
    text: str


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """``--a.b value`` and ``--a.b=value`` as overrides.

    Raises:
        ConfigError: a word that belongs to no option, an option without a value.
    """
    found: list[Override] = []
    mistakes: list[str] = []
    waiting: str | None = None
    for word in words:
        if word.startswith("--"):
            if waiting is not None:
                mistakes.append(f"--{waiting} needs a value: --{waiting} VALUE")
            name, equals, text = word[2:].partition("=")
            waiting = None if equals else name
            if equals:
                found.append(Override(name, text))
        elif waiting is not None:
            found.append(Override(waiting, word))
            waiting = None
        else:
            mistakes.append(f"{word!r} belongs to no option; settings are given as --name value")
    if waiting is not None:
        mistakes.append(f"--{waiting} needs a value: --{waiting} VALUE")
    if mistakes:
        raise ConfigError(mistakes)
    return found


def overridden(raw: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """``raw`` with the overrides put in; ``init_args`` may be left out of a path, a number points into a list."""
    result = _copied(raw)
    for override in overrides:
        if override.path.count(".") > DEEPEST:
            raise ConfigError(f"--{excerpt(override.path, 60)} leads deeper than any setting lies")
        _put(result, override.path.split("."), override)
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def is_place(key: str) -> bool:
    """Whether a part of a path is a place in a list."""
    return key.isascii() and key.isdigit() and len(key) < 6


def _put(node: Any, keys: list[str], override: Override) -> None:
    if isinstance(node, dict) and "class_path" in node and keys[0] not in ("class_path", "init_args"):
        keys = ["init_args", *keys]
    key: Any = keys[0]
    if isinstance(node, list):
        if not is_place(key) or int(key) >= len(node):
            raise ConfigError(f"--{override.path}: {key!r} is not one of the {len(node)} places of that list (0 is the first)")
        key = int(key)
    if len(keys) == 1:
        node[key] = Typed(override.text)
        return
    inner = node[key] if isinstance(node, list) else node.get(key)
    if isinstance(inner, Typed) and inner.startswith(("{", "[")):
        inner = from_yaml(inner)
    if isinstance(inner, str) and is_place(keys[1]):
        inner = [Typed(item.strip()) for item in inner.split(",")]
    if isinstance(inner, str):
        inner = {"class_path": inner}
    if not isinstance(inner, (dict, list)):
        inner = {}
    node[key] = inner
    _put(inner, keys[1:], override)


# ---------------------------------------------------------------------- checking


def check(
    raw: Mapping[str, Any], *, base: Path | None = None, name: str = "run", begins: bool = False, elsewhere: bool = False
) -> Checked:
    """Build everything that a configuration names, without loading a weight.

    Args:
        raw: as ``read_yaml`` and ``overridden`` give it.
        base: folder in which relative files are looked up when they are not found here.
        name: of the configuration.
        begins: a run is about to begin, so its output folder must be free.
        elsewhere: it would be on another machine, so what this one lacks is only noted.

    Raises:
        ConfigError: with every mistake that there is.
    """
    walk = Walk(base)
    parts = walk.arguments(RunConfig, with_default_classes(raw), "")
    built: dict[str, Any] = {}
    for key, part in parts.items():
        try:
            built[key] = part.make()
        except Unbuilt:
            continue
    if "trainer" in built:
        walk.note("trainer", built["trainer"].check(), owner=Trainer)
    for mistake in disagreements(built):
        walk.note("", mistake)
    given, (built, notes) = built, settled(built, walk)
    if begins and built.get("output") and Processes.current().is_main:
        try:
            require_empty(Path(built["output"]).expanduser())
        except StoreError as error:
            walk.note("output", str(error))
    gathered, prompts = None, None
    if isinstance(built.get("prompts"), PromptFiles):
        try:
            gathered = gather(built["prompts"], built.get("seed", 0), base)
            prompts = prompt_set(gathered, built["prompts"], built.get("seed", 0))
        except ConfigError as error:
            walk.note("prompts", error.mistakes)
        except RaftError as error:
            walk.note("prompts", str(error))
    if gathered is not None:
        for where, message in unfit_prompts(built, gathered):
            walk.note(where, message)
    lacks = [mistake for mistake in walk.mistakes if elsewhere and isinstance(mistake, MachineLack)]
    mistakes = [mistake for mistake in walk.mistakes if mistake not in lacks]
    if mistakes or gathered is None or prompts is None:
        raise ConfigError(mistakes)
    notes += [f"on this machine it could not run: {lack}" for lack in lacks]
    plain = settled_plain(plain_arguments(parts), given, built)
    plain["prompts"] = absolute_sources(plain["prompts"], base)
    notes += [note for part in built.values() for note in capabilities.notes(part)]
    return Checked(RunConfig(**built), with_short_names(plain), prompts, [*gathered.notes, *notes], name)


def with_default_classes(raw: Mapping[str, Any]) -> dict[str, Any]:
    """``raw`` with the class of a component that is given arguments only, where there is a default class to give them to."""
    result = dict(raw)
    for key, default in (("selector", BestOfK), ("objective", Sft)):
        given = result.get(key)
        if isinstance(given, Mapping) and "class_path" not in given:
            arguments = given.get("init_args", given)
            result[key] = {"class_path": default.__name__, "init_args": dict(arguments)}
    return result


def disagreements(built: Mapping[str, Any]) -> list[str]:
    """Mistakes that no component can see alone; what could not be built is passed over."""
    found = []
    for key, why in (("rounds", "at least 1 round"), ("k", "at least 1 sample per prompt")):
        if isinstance(built.get(key), int) and built[key] < 1:
            found.append(f"{key} is {built[key]}, but {why} is needed")
    for key, most in (("rounds", MOST_ROUNDS), ("k", MOST_SAMPLES)):
        if isinstance(built.get(key), int) and built[key] > most:
            found.append(f"{key} is {built[key]}, but at most {most} are possible")
    if isinstance(built.get("seed"), int) and built["seed"] < 0:
        found.append(f"seed is {built['seed']}, but must not be negative")
    if "selector" in built and "objective" in built:
        produces, consumes = built["selector"].produces, built["objective"].consumes
        if not issubclass(produces, consumes):
            names = type(built["selector"]).__name__, type(built["objective"]).__name__
            found.append(
                f"the selector {names[0]} produces {produces.name}, but the objective {names[1]} is made for {consumes.name}: "
                f"{fitting(produces.__name__, consumes.__name__)}"
            )
    needed = capabilities.least_k(built.get("selector"))
    if isinstance(built.get("samples"), FromPolicy) and isinstance(built.get("k"), int) and 1 <= built["k"] < needed:
        name = type(built["selector"]).__name__
        found.append(f"k is {built['k']}, but the selector {name} compares the samples of a prompt: use at least {needed}")
    least = capabilities.least_batch(built.get("objective"))
    if "trainer" in built and built["trainer"].batch_size < least:
        name = type(built["objective"]).__name__
        given = f"trainer.batch_size is {built['trainer'].batch_size}"
        found.append(f"{given}, but the objective {name} compares the items of a batch: use at least {least}")
    if "policy" in built:
        found.extend(capabilities.check_policy(built.get("objective"), built["policy"]))
        if getattr(built.get("objective"), "needs_trace", False):
            found.extend(capabilities.check_trace(built["policy"]))
    if "reward" in built and "judges" in built:
        found.extend(Scorer(built["reward"], tuple(built["judges"])).check())
    return found


def fitting(produces: str, consumes: str) -> str:
    """What would fit a selector that makes one kind of selection, or an objective that is made for another, in words."""
    selectors, objectives = going_with(consumes, "selector"), going_with(produces, "objective")
    ways = [f"the selector {', '.join(selectors)}"] if selectors else []
    ways += [f"the objective {', '.join(objectives)}"] if objectives else []
    return f"use {'; or '.join(ways)}" if ways else "choose one to fit the other"


def unfit_prompts(built: Mapping[str, Any], gathered: Gathered) -> list[tuple[str, str]]:
    """Where and why the prompts lack what a part needs of them; what could not be built is passed over."""
    judges = [(f"judges.{number}", judge) for number, judge in enumerate(built.get("judges", ()))]
    parts = [(key, built[key]) for key in ("policy", "reward", "objective") if key in built]
    found = []
    for where, part in [*parts, *judges]:
        for each in with_parts(part):
            lacking = capabilities.check_prompts(each, gathered.train, gathered.held_out)
            found += [(where, message) for message in lacking]
    if {"samples", "policy", "reward", "k"} <= set(built):
        trace = getattr(built.get("objective"), "needs_trace", False)
        plans = capabilities.RunPlans(built["policy"], built["reward"], gathered.train, built["k"], trace)
        found += [("samples", message) for message in capabilities.check_run(built["samples"], plans)]
    return found


def prompt_set(gathered: Gathered, files: PromptFiles, seed: int) -> PromptSet:
    """The prompts of a run, as drawn in its rounds."""
    per_round = len(gathered.train) if files.per_round is None else files.per_round
    return PromptSet(gathered.train, gathered.held_out, per_round, seed)


def absolute_sources(plain: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """Prompt settings whose files are found from any folder."""
    from raft_core.prompt_files.presets import PREFIX, preset_place
    from raft_core.prompts import locate

    result = dict(plain)
    for key in ("train", "held_out"):
        source = result.get(key)
        if not isinstance(source, str):
            continue
        if source.startswith(PREFIX):
            _, place = preset_place(source, base)
            result[key] = ":".join([*source.split(":")[:2], str(place.resolve())])
        elif not source.startswith(("hub:", "bundled:")):
            result[key] = str(locate(source, base).resolve())
    return result


# ---------------------------------------------------------------------- writing


def as_yaml(plain: Mapping[str, Any]) -> str:
    """Plain data as YAML, in the order of the fields."""
    return yaml.safe_dump(dict(plain), sort_keys=False, allow_unicode=True, width=100)
