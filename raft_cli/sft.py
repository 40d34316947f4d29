"""Fine-tune a language model on responses that are written down.

CONFIG is one as of raft align; what it leaves out is set for supervised
fine-tuning: one round, the responses in the prompts' table in place of samples
(columns prompt and response), all of them kept, several of a prompt too. The
run is stored, resumed, compared and reported as any other; the loss on held-out
responses is a judge.

  raft sft my.yaml --prompts.train pairs.jsonl --trainer.epochs 2
  raft sft student.yaml --winners runs/teacher      learn a run's best samples
  raft sft base.yaml --winners runs/teacher --per_prompt 10     … several of each
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raft_core.config.run_config import Checked

USAGE = "raft sft CONFIG [--winners RUN [--per_prompt N]] [--SETTING VALUE …]"
TAKES_SETTINGS = True
LOSS, WINNERS = "ResponseLoss", "raft_text.demonstrations"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--winners", type=Path, metavar="RUN", help="learn the best samples that this run has kept")
    parser.add_argument("--per_prompt", type=int, default=1, metavar="N", help="so many different ones of a prompt (default 1)")
    parser.add_argument("--print_config", action="store_true", help="print the whole configuration, checked, and stop")


def main(args: argparse.Namespace) -> None:
    checked = checked_sft(args)
    if args.print_config:
        from raft_core.config.run_config import as_yaml

        print(as_yaml(checked.plain), end="")
        return
    from raft_core.terminal import progress
    from raft_core.terminal.result import show_result
    from raft_core.workflows.align import align_run, output_folder

    folder = output_folder(checked)
    reporter = progress.reporter()
    reporter.line(f"run folder: {folder}")
    show_result(align_run(checked, reporter, folder=folder))


def checked_sft(args: argparse.Namespace) -> Checked:
    """The configuration of a command line, completed for supervised fine-tuning and checked.

    Raises:
        ConfigError: with every mistake that there is.
        StoreError: the run whose samples are to be learned is none, or has none.
    """
    from raft_core.config.recipes import find_config
    from raft_core.config.run_config import check, overridden, parse_overrides, read_yaml
    from raft_core.errors import ConfigError
    from raft_core.store.manifest import read_run

    path = find_config(args.target)
    raw = completed(read_yaml(path))
    if args.per_prompt < 1:
        raise ConfigError(f"--per_prompt is {args.per_prompt}, but at least 1 sample of each prompt is needed")
    if args.winners is not None:
        read_run(args.winners)  # which says so where there is none
        winners = import_module(WINNERS).write_winners(args.winners.resolve(), args.per_prompt)
        found = {"train": str(winners), "column": None, "held_out": None, "every_row": True}
        raw["prompts"] = {**(raw.get("prompts") or {}), **found}
    elif args.per_prompt > 1:
        raise ConfigError("--per_prompt tells how many of a run's samples are learned: name the run with --winners RUN")
    raw = overridden(raw, parse_overrides(args.settings))
    return check(raw, base=path.parent, name=path.stem, begins=not args.print_config)


def completed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with what supervised fine-tuning needs and the file does not say."""
    usual = {
        "samples": "FromTable",
        "reward": "Given",
        "k": 1,
        "rounds": 1,
        "stop_when": [],
        "warn_when": [],
        "export": "last",
    }
    result = {**usual, **raw}
    policy = result.get("policy")
    if isinstance(policy, Mapping) and str(policy.get("class_path", "")).rpartition(".")[2] == "CausalLM":
        result.setdefault("judges", [LOSS])
    if isinstance(prompts := raw.get("prompts") or {}, Mapping):
        result["prompts"] = {"every_row": True, **prompts}
    return result
