"""Which metrics a run measures, which way each of them is better, and telling so whatever goes by one of them.

A part of a configuration that goes by a metric (a rule, ``keep``) has a method ``settled(directions)``: the same part with the
direction that it was not given filled in, or a ``ConfigError`` about a metric that there is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any

from raft_core.capabilities import Settles
from raft_core.config.components import Walk
from raft_core.config.schema import parameters
from raft_core.errors import ConfigError
from raft_core.rewards.scoring import Scorer, with_parts

# Metric → whether higher is better; of those that do not depend on the rewards.
FIXED = {
    "reward/std_within": True,
    "reward/flat_fraction": False,
    "select/kept": True,
    "select/kept_fraction": True,
    "select/effective_samples": True,
    "diversity": True,
    "vendi": True,
    "kl": False,
    "train/loss": False,
    "train/loss_first": False,
    "train/loss_last": False,
    "train/grad_norm": False,
    "train/skipped_steps": False,
}
RULES = ("stop_when", "warn_when")
LEVELS = ("reward/mean", "reward/best", "reward/kept")  # the same in every round when scores compare within a prompt only


def directions(scorer: Scorer) -> dict[str, bool]:
    """Metric → whether higher is better, of all that a run with these rewards measures; times and memory are no aims."""
    reward = scorer.reward.info.name
    parts = {part.info.name for part in with_parts(scorer.reward)} - {reward}
    found = dict(FIXED)
    for name, (_, higher_is_better) in scorer.infos.items():
        if name == reward:
            metrics = ["reward/mean", "reward/best", "reward/kept"]
        elif name in parts:
            metrics = [f"score/{name}"]
        else:
            metrics = [f"judge/{name}", f"judge_kept/{name}"]
        found |= dict.fromkeys(metrics, higher_is_better)
        found[f"unscored/{name}"] = False
    return found


def settled(built: Mapping[str, Any], walk: Walk) -> tuple[dict[str, Any], list[str]]:
    """The parts of a configuration with all directions filled in, and notes on directions that were given the wrong way round.

    Args:
        built: parts by their names, as far as they could be built.
        walk: takes the mistakes.
    """
    result, notes = dict(built), []
    if "reward" not in built or "judges" not in built:
        return result, notes
    known = directions(Scorer(built["reward"], tuple(built["judges"])))

    def told(part: Any, where: str) -> Any:
        if not isinstance(part, Settles):
            return part
        try:
            own = part.settled(known)
        except ConfigError as error:
            walk.note(where, error.mistakes, owner=type(part))
            return part
        notes.extend(f"{where}.{text}" for text in contrary(part, known))
        if built["reward"].info.relative and (metric := goes_by(part)) in LEVELS:
            others = [name for name in known if name.startswith(("score/", "judge/"))]
            name = built["reward"].info.name
            walk.note(
                where,
                f"{where} goes by {metric}, but {name!r} compares samples within a prompt only, so it is the same in every "
                f"round: go by one of {', '.join(others)}",
            )
        return own

    for key in RULES:
        if key in built:
            result[key] = tuple(told(rule, f"{key}.{number}") for number, rule in enumerate(built[key]))
    if "keep" in built:
        result["keep"] = told(built["keep"], "keep")
    return result, notes


def goes_by(part: Any) -> str | None:
    """The metric of a rule, or the one by which the best round is kept."""
    return getattr(part, "metric", getattr(part, "best", None))


def contrary(part: Any, known: Mapping[str, bool]) -> list[str]:
    """What was given against the metric's own direction, in words; it stays as it was given."""
    given = [name for name in ("best_is_highest", "higher_is_better") if getattr(part, name, None) is not None]
    if not given or not is_dataclass(part):
        return []
    own = replace(part, **dict.fromkeys(given)).settled(known)  # type: ignore[attr-defined] - only such parts come here
    return [
        f"{name} is {str(getattr(part, name)).lower()}, against the metric's own direction: leave it out unless that is meant"
        for name in given
        if getattr(own, name) != getattr(part, name)
    ]


def settled_plain(plain: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as plain data with what ``settled`` has filled in, so that a resumed run goes by the same."""
    result = dict(plain)
    for key in RULES:
        entries = zip(plain[key], before[key], after[key], strict=True)
        result[key] = [with_arguments(entry, filled_in(old, new)) for entry, old, new in entries]
    result["keep"] = {**plain["keep"], **filled_in(before["keep"], after["keep"])}
    return result


def filled_in(old: Any, new: Any) -> dict[str, Any]:
    """Constructor arguments in which two objects of one class differ."""
    if new is old:
        return {}
    return {name: getattr(new, name) for name in parameters(type(new)) if getattr(new, name) != getattr(old, name)}


def with_arguments(entry: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry, "init_args": {**entry.get("init_args", {}), **more}} if more else dict(entry)
