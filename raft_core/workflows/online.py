"""Aligning by preferences in stages: draw candidates, have them labelled, fit the reward to all labels so far, align on.

One stage is offline labelling: all labels are of the reference's samples. With more the same number of labels is spread: those
of a later stage are of samples of the policy as it then is, where the reward of the stage before is asked and knows least.

Source: Ziegler et al. 2019 (1909.08593), sections 2.2 and 2.3. Differs: the reward is fitted anew from its start whenever a
stage begins, and not trained further along a schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raft_core.config.run_config import Checked, Override, check
from raft_core.errors import ConfigError, RewardError, StoreError
from raft_core.machine.files import write_json
from raft_core.preferences.ballots import Ballot, ballots_of, open_ones, read_ballots, read_samples, write_ballots
from raft_core.preferences.fit import FitSettings
from raft_core.preferences.folder import is_learned_reward
from raft_core.preferences.labeller import Labeller
from raft_core.preferences.learner import Learner, Scale
from raft_core.preferences.preference import Preference
from raft_core.preferences.read import read_items, read_preferences
from raft_core.preferences.train import train_reward
from raft_core.prompts import PromptSet
from raft_core.protocols import Policy
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_core.reporter import Reporter
from raft_core.rng import numpy_rng, seed_for
from raft_core.soundness import sound_of
from raft_core.store.manifest import RUN, changes, read_config, read_run
from raft_core.types import Prompt, Sample
from raft_core.workflows.align import align_run, resume_run
from raft_core.workflows.generate import generate, write_outputs
from raft_core.workflows.trained import open_source

LEARNED = "learned"  # the name of the reward in the store
SETTINGS, LABELS, REWARD, GOLD = "online.json", "labels.jsonl", "reward", "gold.json"
PENALISED = "KLPenalised"


@dataclass(frozen=True)
class OnlineSettings:
    """What is asked for, and when.

    Args:
        stages: times that labels are asked for, ≥ 1; the rounds of the run are spread over them.
        labels: choices in all, spread over the stages.
        candidates: of a choice, ≥ 2.
        reference: samples of the reference policy by which the reward is normalised.
        seed: of the candidates.
    """

    stages: int = 4
    labels: int = 512
    candidates: int = 4
    reference: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"stages": 1, "candidates": 2, "reference": 2, "labels": 2 * self.stages}
        wrong = [
            f"{name} is {getattr(self, name)}, but must be at least {value}"
            for name, value in least.items()
            if getattr(self, name) < value
        ]
        if wrong:
            raise ConfigError(wrong)

    def labels_until(self, stage: int) -> int:
        """Labels that are there when a stage (from 1) fits its reward."""
        return self.labels * stage // self.stages

    def rounds_until(self, stage: int, rounds: int) -> int:
        """Rounds that are done when a stage ends."""
        return rounds * stage // self.stages


@dataclass(frozen=True)
class Online:
    """A run by preferences: what it is made of, and where it is kept.

    Attributes:
        checked: the configuration. Its reward labels, unless people do; what is followed is a learned one in its place.
        make: makes the learner of rewards.
        fit: how it is fitted.
        settings: of the stages.
        folder: of everything.
        labeller: the configuration's reward; None = people fill the files in.
        device: of the learned reward.
    """

    checked: Checked
    make: Callable[[], Learner]
    fit: FitSettings
    settings: OnlineSettings
    folder: Path
    labeller: Labeller | None
    device: str = "auto"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def stage(self, number: int) -> Path:
        return self.folder / f"stage_{number}"

    @property
    def prompts(self) -> PromptSet:
        return self.checked.prompts


def carry_out(online: Online, reporter: Reporter) -> Path | None:
    """All stages that are still to do; returns the file of ballots that waits for people, or None when all is done.

    What is there already is not made again, so that a run that was killed, or that has waited, goes on where it was.

    Raises:
        ConfigError: fewer rounds than stages, or not so many different candidates can be drawn.
        StoreError: the folder was begun with other settings.
    """
    settings, rounds = online.settings, online.checked.config.rounds
    if rounds < settings.stages:
        raise ConfigError(f"rounds is {rounds}, but there are {settings.stages} stages, and each needs a round to align in")
    _claim(online)
    for number in range(1, settings.stages + 1):
        reporter.line(f"\nstage {number} of {settings.stages}")
        waiting = _labelled(online, number, reporter)
        if waiting:
            return waiting
        _fitted(online, number, reporter)
        _aligned(online, number, reporter)
    return None


def _claim(online: Online) -> None:
    """Note what the folder is begun with; a change would mix two experiments.

    Raises:
        StoreError: it was begun with something else, or holds something else.
    """
    place = online.folder / SETTINGS
    plain = {name: value for name, value in online.checked.plain.items() if name != "output"}
    labeller = online.labeller
    mine = {
        "settings": asdict(online.settings),
        "labeller": None if labeller is None else {"name": labeller.name, "temperature": labeller.temperature},
        "learner": online.make().settings(),
        "fit": asdict(online.fit),
        "config": plain,
    }
    if not place.exists():
        if online.folder.is_dir() and any(online.folder.iterdir()):
            raise StoreError(f"{online.folder} is not empty and was not begun here: choose an empty or new output folder")
        write_json(place, mine)
        return
    try:
        begun = read_object(place)
    except (OSError, Unreadable) as error:
        raise StoreError(f"{place} cannot be read: {error}") from None
    if changed := changes(begun, mine):
        listed = "".join(f"\n  {line}" for line in changed)
        raise StoreError(f"{online.folder} was begun with other settings:{listed}\nGive these, or another --output")


# ---------------------------------------------------------------------- labels


def _labelled(online: Online, number: int, reporter: Reporter) -> Path | None:
    """See that the ballots of a stage are drawn and filled in; returns their file if people have yet to do so."""
    file = online.stage(number) / LABELS
    if not file.is_file():
        ballots = _drawn(online, number, reporter)
        write_ballots(file, online.labeller.filled(ballots, reporter) if online.labeller else ballots)
    if online.labeller is None and any(open_ones(read_ballots(file))):
        return file
    return None


def _drawn(online: Online, number: int, reporter: Reporter) -> list[Ballot]:
    """Ballots of the policy as it is when a stage begins; before the first also the samples by which rewards are normalised."""
    settings = online.settings
    if number > 1:
        source = open_source(str(online.run), [])
        policy, _ = source.build(rewards=False)
        reporter.line(f"candidates of {source.load(policy, 'last')}")
    else:
        policy = check(online.checked.plain).config.policy  # of its own, so that it is gone when the run loads another
        policy.load()
    wanted = settings.labels_until(number) - settings.labels_until(number - 1)
    per_prompt = -(-wanted // len(online.prompts.train))
    prompts = _some(online, -(-wanted // per_prompt), number)
    k = per_prompt * settings.candidates + 1  # one more, so that two that are equal cost no ballot
    drawn = generate(policy, prompts, k=k, seed=_seed(online, number), reporter=reporter)
    ballots = ballots_of(_written(online.stage(number) / "candidates", drawn), settings.candidates)
    if len(ballots) < 2:
        raise ConfigError(
            f"the policy draws hardly {settings.candidates} different samples for a prompt: there is nothing to choose from"
        )
    if len(ballots) < wanted:
        reporter.warn(f"{len(ballots)} ballots and not {wanted}: of the other prompts too few samples are different")
    if number == 1:
        _note_reference(online, policy, reporter)
    return ballots[:wanted]


def _note_reference(online: Online, policy: Policy, reporter: Reporter) -> None:
    """Draw the samples by which rewards are normalised, and note the labeller's scale on them."""
    n = online.settings.reference
    k = -(-n // len(online.prompts.train))
    samples = generate(policy, _some(online, n, 0), k=k, seed=_seed(online, 0), reporter=reporter)[:n]
    write_outputs(online.folder / "reference", samples)
    if online.labeller:
        scores = online.labeller.scorer(samples).grid(1)[:, 0]
        write_json(online.folder / GOLD, asdict(Scale.of(scores[~np.isnan(scores)])))


def _written(folder: Path, samples: Sequence[Sample]) -> list[tuple[Prompt, str]]:
    """Samples as texts, or as paths of the pictures that they are written to; without those that failed."""
    write_outputs(folder, samples)
    return [(sample.prompt, output) for sample, (_, output) in zip(sound_of(samples), read_samples(folder), strict=True)]


def _some(online: Online, n: int, number: int) -> list[Prompt]:
    """At most n training prompts, others in each stage."""
    prompts = online.prompts.train
    order = numpy_rng(online.settings.seed, "labelled prompts", number).permutation(len(prompts))
    return [prompts[i] for i in sorted(order[:n])]


def _seed(online: Online, number: int) -> int:
    return seed_for(online.settings.seed, "candidates", number)


# ---------------------------------------------------------------------- reward and policy


def _fitted(online: Online, number: int, reporter: Reporter) -> None:
    """Fit a reward to all labels so far, normalised on the reference's samples; the same start each time."""
    folder = online.stage(number) / REWARD
    if is_learned_reward(folder):
        return
    labels = labels_until(online, number)
    train_reward(
        online.make(),
        [preference for stage in labels for preference in stage],
        online.fit,
        folder,
        reporter,
        reference=read_items(online.folder / "reference"),
        device=online.device,
    )


def labels_until(online: Online, number: int) -> list[list[Preference]]:
    """The choices of each stage up to this one.

    Raises:
        RewardError: none was made.
    """
    found = []
    for stage in range(1, number + 1):
        file = online.stage(stage) / LABELS
        if all(not ballot.best for ballot in read_ballots(file)):
            raise RewardError(f"nobody has chosen in {file}: there is nothing to learn from")
        found.append(read_preferences(file).preferences)
    return found


def _aligned(online: Online, number: int, reporter: Reporter) -> None:
    """Align by the stage's reward, on from where the run is, up to the stage's last round."""
    rounds = online.settings.rounds_until(number, online.checked.config.rounds)
    plain = run_config(online, number, rounds)
    if not (online.run / RUN).exists():
        align_run(check(plain), reporter, folder=online.run)
        return
    known = read_config(online.run)["rounds"]
    if known > rounds or (known == rounds and read_run(online.run).get("status") == "finished"):
        return
    place = "reward.reward.folder" if is_penalised(plain["reward"]) else "reward.folder"
    changed = [Override("rounds", str(rounds)), Override(place, str((online.stage(number) / REWARD).resolve()))]
    changed += [Override(f"evaluation.{name}", _text(value)) for name, value in plain["evaluation"].items()]
    resume_run(online.run, reporter, overrides=changed if known < rounds else (), force=known < rounds)


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def run_config(online: Online, number: int, rounds: int) -> dict[str, Any]:
    """The run's configuration in a stage: the learned reward, the labeller watching; scores of two stages are not compared."""
    plain: Mapping[str, Any] = online.checked.plain
    last = number == online.settings.stages
    folder = str((online.stage(number) / REWARD).resolve())
    learned = {"class_path": "LearnedReward", "init_args": {"folder": folder, "name": LEARNED, "device": online.device}}
    _, put = labelling(plain["reward"])
    return {
        **plain,
        "reward": put(learned),
        "judges": [*_labeller_as_judge(online), *plain["judges"]],
        "rounds": rounds,
        "stop_when": [],
        "warn_when": [],
        "export": "last",
        "evaluation": plain["evaluation"] if last else {"k": 1, "prompts": 1},
        "output": str(online.run),
    }


def _labeller_as_judge(online: Online) -> list[Any]:
    """The configuration's own reward, which labels, unless it is among the judges by its name."""
    if online.labeller is None or online.labeller.name in {judge.info.name for judge in online.checked.config.judges}:
        return []
    return [labelling(online.checked.plain["reward"])[0]]


def is_penalised(reward: Mapping[str, Any]) -> bool:
    """Whether a reward of a checked configuration is another one less a price of divergence."""
    return reward["class_path"] == PENALISED


def labelling(reward: Mapping[str, Any]) -> tuple[Any, Callable[[Any], Any]]:
    """(what labels, what puts another reward in its place) of a checked configuration's reward.

    A price of divergence, as RAFT ranks by, is no matter of taste: what it is taken off labels, and it is kept.
    """
    if not is_penalised(reward):
        return reward, lambda learned: learned
    arguments = {name: value for name, value in reward["init_args"].items() if name != "name"}
    return arguments["reward"], lambda learned: {"class_path": PENALISED, "init_args": {**arguments, "reward": learned}}
