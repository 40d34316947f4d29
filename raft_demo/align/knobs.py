"""From the knobs of the page Align to a configuration: a recipe, changed in what the page offers and in nothing else."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.errors import ConfigError, RaftError
from raft_demo.align.recipes import Recipe, recipe
from raft_demo.shared.limits import Limits, within
from raft_demo.shared.offered import REWARDS, offer, offers
from raft_demo.shared.runs import FOLDER as CHOICES

OWN, NONE = "own", ""  # the recipe's own reward; no reward in this place
HEAVIEST = 100.0
LARGEST_SEED = 2**31 - 1
#: How several rewards become one: what a person reads → combinator and its arguments.
MIXES: dict[str, dict[str, Any]] = {
    "Weighted sum, made comparable by their spread": {"class_path": "Weighted", "init_args": {"normalise": "running"}},
    "Weighted sum in their own units": {"class_path": "Weighted", "init_args": {"normalise": "own"}},
    "Mean of their ranks": {"class_path": "RankAggregate", "init_args": {}},
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


@dataclass(frozen=True)
class Knobs:
    """What a visitor asks for; nothing in it is checked yet.

    Attributes:
        recipe: name of one that is listed.
        rewards: (key of an offer or ``OWN``, weight); ``NONE`` is passed over.
        mix: key of ``MIXES``.
        prompts: one a line; "" = the recipe's.
        steps: of training in a round; 0 = the recipe's.
        compared: prompts of the comparison at the end; 0 = the recipe's.
        name: of the run; "" = the recipe's.
    """

    recipe: str
    rewards: Sequence[tuple[str, float]] = ((OWN, 1.0),)
    mix: str = next(iter(MIXES))
    k: float = 8
    rounds: float = 5
    prompts: str = ""
    rank: float = 8
    learning_rate: float = 1e-4
    seed: float = 0
    steps: float = 0
    compared: float = 0
    name: str = ""


@dataclass(frozen=True)
class Order:
    """What to align, as the worker takes it.

    Attributes:
        name: of the run.
        recipe: its file stands where relative paths are looked up.
        raw: the configuration, with components out of lists alone.
        prompts: to be trained on in place of the recipe's; None = the recipe's.
    """

    name: str
    recipe: Recipe
    raw: dict[str, Any]
    prompts: list[str] | None


def order(knobs: Knobs, runs: Path, limits: Limits, taken: Collection[str]) -> Order:
    """The configuration that the knobs stand for.

    Args:
        runs: folder of the runs, where learned rewards are.
        taken: names that are not free.

    Raises:
        ConfigError: with every mistake that there is.
    """
    mistakes: list[str] = []

    def asked(make: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return make(*arguments)
        except ConfigError as error:
            mistakes.extend(error.mistakes)
        except RaftError as error:
            mistakes.append(str(error))
        return None

    chosen = asked(recipe, knobs.recipe)
    numbers = {
        "K": (knobs.k, 1, limits.k),
        "rounds": (knobs.rounds, 1, limits.rounds),
        "rank": (knobs.rank, 1, limits.rank),
        "learning rate": (knobs.learning_rate, 1e-8, 1.0),
        "seed": (knobs.seed, 0, LARGEST_SEED),
        "training steps": (knobs.steps, 0, 10_000),
        "prompts of the comparison": (knobs.compared, 0, 1000),
    }
    for label, (value, low, high) in numbers.items():
        asked(within, label, value, low, high)
    lines = asked(prompt_lines, knobs.prompts, limits)
    name = asked(run_name, knobs.name or (chosen.path.stem if chosen else "run"), taken, not knobs.name)
    if chosen is None:
        raise ConfigError(mistakes)
    reward = asked(reward_of, knobs, chosen, runs)
    if mistakes:
        raise ConfigError(mistakes)
    raw = copy.deepcopy(chosen.raw)
    raw |= {"k": int(knobs.k), "rounds": int(knobs.rounds), "seed": int(knobs.seed), "reward": reward}
    raw.pop("output", None)
    trainer = raw.setdefault("trainer", {})
    trainer.setdefault("optimizer", {})["lr"] = float(knobs.learning_rate)
    if knobs.steps:
        trainer.pop("epochs", None)
        trainer["steps"] = int(knobs.steps)
    if chosen.rank is not None:
        raw["policy"]["init_args"]["lora"]["rank"] = int(knobs.rank)
    if knobs.compared:
        raw["evaluation"] = {**(raw.get("evaluation") or {}), "prompts": int(knobs.compared)}
    _mind_the_judges(raw, chosen)
    return Order(name, chosen, raw, lines or None)


def run_name(name: Any, taken: Collection[str], numbered: bool) -> str:
    """A name for a run folder.

    Args:
        numbered: a name that is taken gets a number, instead of being refused.

    Raises:
        ConfigError: it is no plain name, or taken.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"the name is {str(name)[:80]!r}; use letters, digits, dots, - and _ (60 at most, a letter first)")
    used = {each.lower() for each in taken} | {REWARDS, CHOICES}  # some disks do not tell A from a
    if name.lower() not in used:
        return name
    if not numbered:
        raise ConfigError(f"there is a {name!r} already; choose another name")
    return next(free for n in range(2, len(used) + 3) if (free := f"{name}-{n}").lower() not in used)


def prompt_lines(text: Any, limits: Limits) -> list[str]:
    """The prompts of a box, one a line.

    Raises:
        ConfigError: too many, or too long.
    """
    lines = list(dict.fromkeys(line.strip() for line in str(text or "").splitlines() if line.strip()))
    mistakes = []
    if len(lines) > limits.prompts:
        mistakes.append(f"there are {len(lines)} prompts; give at most {limits.prompts}")
    if long := next((line for line in lines if len(line) > limits.prompt_characters), None):
        mistakes.append(f"the prompt {long[:40]!r}… has {len(long)} characters; give at most {limits.prompt_characters}")
    if len(lines) == 1:
        mistakes.append("there is one prompt; give at least two, for a part of them is held out to compare on")
    if mistakes:
        raise ConfigError(mistakes)
    return lines


def reward_of(knobs: Knobs, chosen: Recipe, runs: Path) -> dict[str, Any] | str:
    """The reward as it stands in a configuration.

    Raises:
        ConfigError: none, the same twice, an unknown mix or weight.
        DataError: one that is not offered here.
    """
    asked = [(key, weight) for key, weight in knobs.rewards if key != NONE]
    if not asked:
        raise ConfigError("no reward is chosen: choose what to follow")
    if len({key for key, _ in asked}) < len(asked):
        raise ConfigError("the same reward is chosen twice: give it once, with the weight of both")
    if knobs.mix not in MIXES:
        raise ConfigError(f"the mix is {str(knobs.mix)[:60]!r}; choose one of the list")
    weights = [float(within("the weight of a reward", weight, -HEAVIEST, HEAVIEST)) for _, weight in asked]
    own = chosen.raw["reward"]
    parts = [own if key == OWN else offer(runs, key, chosen.modality).spec for key, _ in asked]
    if len(parts) == 1 and weights[0] == 1.0:
        return parts[0]
    mix = MIXES[knobs.mix] if len(parts) > 1 else {"class_path": "Weighted", "init_args": {"normalise": "own"}}
    return {"class_path": mix["class_path"], "init_args": {"rewards": parts, "weights": weights, **mix["init_args"]}}


def reward_choices(runs: Path, chosen: Recipe) -> list[tuple[str, str]]:
    """(label, key) of the rewards that work here for the samples of a recipe."""
    usable = [each for each in offers(runs, chosen.modality) if not each.needs]
    return [(f"The recipe's own: {chosen.reward}", OWN), *((each.label, each.key) for each in usable)]


def _mind_the_judges(raw: dict[str, Any], chosen: Recipe) -> None:
    """A judge that is now followed is none any more, nor do rules go by it; a reward that is not followed becomes one."""
    followed = [_identity(part) for part in _parts(raw["reward"])]
    judges = list(raw.get("judges") or [])
    kept = [judge for judge in judges if _identity(judge) not in followed]
    gone = {str(_arguments(judge).get("name") or _snake(_kind(judge))) for judge in judges if judge not in kept}
    own = _parts(chosen.raw["reward"])
    known = [_identity(judge) for judge in kept]
    kept += [part for part in own if _identity(part) not in followed and _identity(part) not in known and _asks_little(part)]
    raw["judges"] = kept
    for key in ("stop_when", "warn_when"):
        if raw.get(key):
            raw[key] = [rule for rule in raw[key] if _arguments(rule).get("judge") not in gone]


def _parts(component: Any) -> list[Any]:
    """The rewards that a reward of a configuration is made of, itself when it is no combinator."""
    arguments = _arguments(component)
    inner = arguments.get("rewards") or ([arguments["reward"]] if arguments.get("reward") else [])
    return [part for each in inner for part in _parts(each)] or [component]


def _asks_little(component: Any) -> bool:
    """Whether it can be measured beside the run: the likes of a language model as a judge are asked for by name alone."""
    return _kind(component) not in ("LlmJudge", "VlmJudge", "RewardModel")


def _identity(component: Any) -> tuple[str, str]:
    arguments = {name: value for name, value in _arguments(component).items() if name != "name"}
    return _kind(component), repr(sorted(arguments.items()))


def _kind(component: Any) -> str:
    path = component.get("class_path", "") if isinstance(component, Mapping) else str(component)
    return path.rpartition(".")[2]


def _arguments(component: Any) -> Mapping[str, Any]:
    return component.get("init_args") or {} if isinstance(component, Mapping) else {}


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
