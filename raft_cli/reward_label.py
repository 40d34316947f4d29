"""Choose the best of several samples: a person does it, or a reward instead.

  raft generate bundled:tales --prompts my.txt --k 4 --output generated/tales
  raft reward label generated/tales                      choose here, with keys
  raft reward label generated/tales --blank              a file to fill in
  raft reward label generated/tales --labeller Sentiment --temperature 0.5
  raft reward train generated/tales/labels.jsonl --learner.model bundled:tales

SOURCE is a folder of raft generate, whose samples become ballots of four, or a
file of ballots, which is gone on with: lines with prompt, candidates and best,
an index from 0, several of them for a tie, or null while nobody has chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raft_core.config.run_config import Override
    from raft_core.preferences.ballots import Ballot
    from raft_core.preferences.labeller import Labeller
    from raft_core.reporter import Reporter
    from raft_core.rewards.scoring import Scorer

USAGE = "raft reward label SOURCE [--output FILE] [--blank | --labeller REWARD]"
TAKES_SETTINGS = True
LABELS = "labels.jsonl"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="a new .jsonl; by default labels.jsonl in the folder, or the file itself")
    parser.add_argument("--candidates", type=int, default=4, metavar="N", help="of a ballot (4)")
    parser.add_argument("--blank", action="store_true", help="write the ballots without asking anybody")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="of a labeller's doubts, in deviations of its scores (0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of its doubts (0)")


def main(args: argparse.Namespace) -> None:
    from raft_core.config.run_config import parse_overrides
    from raft_core.errors import ConfigError
    from raft_core.preferences.ballots import open_ones, write_ballots
    from raft_core.terminal import progress

    labeller = built_labeller(parse_overrides(args.settings), args.temperature, args.seed)
    if args.blank and labeller:
        raise ConfigError("--blank asks nobody and --labeller asks a reward: give one of the two")
    output = output_file(Path(args.target).expanduser(), args.output)
    ballots = ballots_from(Path(args.target).expanduser(), args.candidates)
    reporter = progress.reporter()
    left = list(open_ones(ballots))
    reporter.line(f"{len(ballots)} ballots, {len(left)} of them without a choice")
    if labeller:
        labeller.scorer.load()
        for place, ballot in zip(left, labeller.filled([ballots[i] for i in left], reporter), strict=True):
            ballots[place] = ballot
        write_ballots(output, ballots)
    elif args.blank:
        write_ballots(output, ballots)
    elif left:
        ballots = by_person(ballots, output, reporter)
    empty = sum(1 for _ in open_ones(ballots))
    ties = sum(len(ballot.best) > 1 for ballot in ballots)
    reporter.line(f"{len(ballots) - empty} choices, {ties} of them ties, are in {output}; {empty} ballots are empty")


def by_person(ballots: list[Ballot], output: Path, reporter: Reporter) -> list[Ballot]:
    """The ballots with what a person says at this terminal, which is kept after every answer.

    Raises:
        ConfigError: there is no person at it.
    """
    import sys

    from raft_core.errors import ConfigError
    from raft_core.preferences.ballots import write_ballots
    from raft_core.preferences.labeller import asked

    if not sys.stdin.isatty():
        raise ConfigError("there is nobody to ask: run it in a terminal, or give --blank or --labeller REWARD")
    write_ballots(output, ballots)
    for ballots in asked(ballots, input, reporter.line):  # noqa: B020 - each is the whole, one choice further
        write_ballots(output, ballots)
    return ballots


def ballots_from(source: Path, n: int) -> list[Ballot]:
    """The ballots of a file, or ballots of n candidates from the samples in a folder.

    Raises:
        ConfigError: n < 2.
        DataError: there are none, or what is there is wrong.
    """
    from raft_core.errors import ConfigError, DataError
    from raft_core.preferences.ballots import ballots_of, read_ballots, read_samples

    if n < 2:
        raise ConfigError(f"--candidates is {n}, but a choice needs at least 2")
    if not source.is_dir():
        return read_ballots(source)
    samples = read_samples(source)
    ballots = ballots_of(samples, n)
    if not ballots:
        prompts = len({prompt for prompt, _ in samples})
        raise DataError(
            f"{source} holds {len(samples)} samples of {prompts} prompts, of none of them {n} different ones: draw more "
            f"(raft generate --k {n}), or give fewer --candidates"
        )
    return ballots


def output_file(source: Path, given: Path | None) -> Path:
    """Where the ballots go: choices that are there already are never written over.

    Raises:
        ConfigError: the file is there, or does not end in .jsonl.
    """
    from raft_core.errors import ConfigError

    if given is None and not source.is_dir():
        if source.is_file() and source.suffix != ".jsonl":
            raise ConfigError(f"{source} cannot be gone on with, for it is no .jsonl: name another file by --output")
        return source
    output = source / LABELS if given is None else given
    if output.suffix != ".jsonl":
        raise ConfigError(f"--output is {str(output)!r}, but must end in .jsonl")
    if output.exists() and output != source:
        raise ConfigError(f"{output} is there already: go on with it by `raft reward label {output}`, or give another --output")
    return output


def built_labeller(overrides: Sequence[Override], temperature: float, seed: int) -> Labeller | None:
    """The scripted labeller that the settings name, or None.

    Raises:
        ConfigError: with every mistake that there is.
    """
    from raft_core.errors import ConfigError
    from raft_core.preferences.labeller import Labeller

    if unknown := [each.path for each in overrides if each.path.split(".")[0] != "labeller"]:
        raise ConfigError(f"--{unknown[0]} is not known here: {USAGE}")
    if not overrides:
        if temperature:
            raise ConfigError("--temperature is that of a --labeller, and none is given")
        return None
    return Labeller(scorer_of(overrides), temperature, seed)


def scorer_of(overrides: Sequence[Override]) -> Scorer:
    """The reward under ``labeller``, built, not loaded.

    Raises:
        ConfigError: with every mistake that there is.
    """
    from raft_core.config.components import build
    from raft_core.config.run_config import overridden
    from raft_core.errors import ConfigError
    from raft_core.rewards.scoring import Scorer

    scorer = Scorer(build("reward", overridden({}, overrides)["labeller"], "labeller"))
    if mistakes := scorer.check():
        raise ConfigError([f"labeller: {mistake}" for mistake in mistakes])
    return scorer
