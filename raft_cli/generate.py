"""Generate from a run, a LoRA or a model into a folder.

  raft generate runs/resolution --prompt "a small red heart" --k 4
  raft generate my_lora.safetensors --prompts my.txt
  raft generate bundled:shapes --prompts my.txt --policy.sampling.steps 30
  raft generate runs/sums --prompts questions.jsonl --vote 16
  raft generate runs/resolution --prompts my.txt --k 8 --rerank ClipScore

Pictures are written as PNG, and all samples into samples.parquet and
samples.jsonl. The same seed and prompt always give the same sample.

--vote takes the answer that most of N samples give, --rerank the sample that a
reward likes best; what was chosen is in chosen.jsonl. Answers are read by the
run's own reward, or by AnswerReward (--voter NAME, --voter.ARGUMENT VALUE).
Where the prompts' table has the right answers, the accuracies of a single
sample, of the vote and of the reranking are shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raft_core import capabilities
from raft_core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from raft_core.config.run_config import Override
    from raft_core.metrics.voting import Voter
    from raft_core.rewards.scoring import Scorer
    from raft_core.workflows.choose import Chosen
    from raft_core.workflows.trained import Source

USAGE = "raft generate RUN|LORA|MODEL (--prompts FILE | --prompt TEXT) […]"
TAKES_SETTINGS = True
VOTER = "AnswerReward"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", help="file, bundled:NAME or hub:OWNER/NAME[:SPLIT]")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="one prompt; may be given again")
    parser.add_argument("--column", help="column of a table that holds the prompts")
    parser.add_argument("--k", type=int, help="samples per prompt (1)")
    parser.add_argument("--vote", type=int, metavar="N", help="draw N samples per prompt and take the majority's answer")
    parser.add_argument("--voter", metavar="NAME", help="who reads answers, with --voter.ARGUMENT VALUE")
    parser.add_argument("--rerank", metavar="REWARD", help="take the best by a reward, with --rerank.ARGUMENT VALUE")
    parser.add_argument("--seed", type=int, default=0, help="fixes the samples (0)")
    parser.add_argument("--checkpoint", help="of a run: best, last or a round; by default what it has exported")
    parser.add_argument("--strength", type=float, default=1.0, help="how strongly the training acts: 0 base, 1 as trained (1)")
    parser.add_argument("--base", action="store_true", help="sample the model as it was before training")
    parser.add_argument("--output", type=Path, help="an empty or new folder; by default generated/NAME")


def main(args: argparse.Namespace) -> None:
    k = samples_per_prompt(args)
    if not args.prompts and not args.prompt:
        raise ConfigError("nothing to generate from: give --prompts FILE or --prompt TEXT")
    from raft_core.config.run_config import parse_overrides
    from raft_core.machine.folders import free_folder
    from raft_core.prompt_files.drawing import described
    from raft_core.prompts import distinct, read_prompts
    from raft_core.store.create import require_empty
    from raft_core.terminal import progress
    from raft_core.types import Prompt
    from raft_core.workflows.align import loaded_warnings
    from raft_core.workflows.choose import choose, write_chosen
    from raft_core.workflows.generate import UNSCORED, generate, write_outputs
    from raft_core.workflows.trained import open_source

    overrides = parse_overrides(args.settings)
    own = [override for override in overrides if override.path.partition(".")[0] in ("rerank", "voter")]
    source = open_source(args.target, [override for override in overrides if override not in own], models=True)
    scorer, voter = chooser(args, own, source)
    read = read_prompts(args.prompts, column=args.column) if args.prompts else []
    prompts, _ = distinct([*read, *(Prompt(text) for text in args.prompt)])
    folder = args.output or free_folder(Path("generated") / source.name.replace(":", "-"))
    require_empty(folder)
    policy, _ = source.build(rewards=False)
    if mistakes := capabilities.check_prompts(policy, [], prompts):
        raise DataError(mistakes[0])
    reporter = progress.reporter()
    for line in described(prompts):
        reporter.line(line)
    reporter.line(f"{source.load(policy, args.checkpoint)}, {len(prompts)} prompts × {k} samples")
    for part in (scorer, voter):
        capabilities.load(part)
    if scorer is not None:
        scorer.attach(policy)
    for warning in loaded_warnings(policy, prompts):
        reporter.warn(warning)
    samples = generate(policy, prompts, k=k, seed=args.seed, reporter=reporter, strength=0.0 if args.base else args.strength)
    if scorer is None and voter is None:
        write_outputs(folder, samples)
    else:
        chosen = choose(samples, k, voter=voter, votes=args.vote is not None, scorer=scorer, reporter=reporter)
        kept = chosen.flags(k, len(prompts))
        write_outputs(folder, samples, chosen.scores or UNSCORED, kept, facts(chosen, kept.tolist()))
        write_chosen(folder, samples, k, chosen)
        for line in shown(chosen, len(prompts)):
            reporter.line(line)
    reporter.line(f"{len(samples)} samples in {folder}")


def samples_per_prompt(args: argparse.Namespace) -> int:
    """``--k``, or as many as vote.

    Raises:
        ConfigError: none, two numbers, or nothing to choose between.
    """
    for name in ("k", "vote"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ConfigError(f"--{name} is {value}, but at least 1 sample per prompt is needed")
    if None not in (args.k, args.vote) and args.k != args.vote:
        raise ConfigError(
            f"--vote is {args.vote} and --k is {args.k}, but as many samples vote as are drawn: give one of the two"
        )
    k = args.vote or args.k or 1
    if args.rerank and k == 1:
        raise ConfigError("--rerank chooses between samples of a prompt, but only 1 is drawn: give --k 8, say")
    return k


def chooser(args: argparse.Namespace, own: Sequence[Override], source: Source) -> tuple[Scorer | None, Voter | None]:
    """(the reward to rerank by, who reads answers), each None when it is not needed; nothing is loaded.

    Raises:
        ConfigError: with every mistake that there is.
    """
    from raft_core.metrics.voting import Voter
    from raft_core.rewards.scoring import Scorer
    from raft_core.workflows.choose import voter_of

    named: dict[str, Any] = {name: getattr(args, name) for name in ("rerank", "voter") if getattr(args, name)}
    if args.vote is not None and "voter" not in named and any(override.path.startswith("voter.") for override in own):
        named["voter"] = VOTER
    built = _built(named, own)
    voter = built.get("voter")
    if voter is None and (args.vote is not None or (args.rerank and "reward" in source.raw)):
        voter = voter_of(source)
    if voter is None and args.vote is not None:
        voter = _built({"voter": VOTER}, [])["voter"]
    if voter is not None and not isinstance(voter, Voter):
        raise ConfigError(
            f"--voter {args.voter} reads no answers: it needs answers(samples), reference(prompt), same(one, other)"
        )
    return Scorer(built["rerank"]) if "rerank" in built else None, voter


def _built(named: dict[str, Any], own: Sequence[Override]) -> dict[str, Any]:
    from raft_core.config.components import build_each
    from raft_core.config.run_config import overridden

    for override in own:
        name = override.path.partition(".")[0]
        if name not in named:
            raise ConfigError(f"--{override.path} belongs to no --{name}: {USAGE}")
    return build_each({name: ("reward", raw) for name, raw in overridden(named, own).items()})


def facts(chosen: Chosen, kept: Sequence[bool]) -> list[dict[str, Any]]:
    """What ``samples.jsonl`` says of each sample besides: its answer, its score, whether it was chosen."""
    from raft_core.workflows.choose import plain_answer

    answers = [answer for row in chosen.answers for answer in row]
    found = []
    for number, is_chosen in enumerate(kept):
        row: dict[str, Any] = {"answer": plain_answer(answers[number])} if answers else {}
        for name, values in (chosen.scores.columns if chosen.scores else {}).items():
            row[name] = plain_answer(float(values[number]))
        found.append(row | {"chosen": bool(is_chosen)})
    return found


def shown(chosen: Chosen, prompts: int) -> list[str]:
    """The accuracies where they are known, else how far the vote got."""
    from raft_core.metrics.voting import table_lines

    if chosen.table:
        return table_lines(chosen.table)
    if not chosen.votes:
        return []
    elected = sum(won is not None for won in chosen.votes)
    return [f"the samples of {elected} of {prompts} prompts state an answer; the right ones are not known, so no accuracy is"]
