"""Compare a trained model with its base: same prompts, seeds and initial noise.

  raft compare runs/resolution --prompts my.txt
  raft compare my_lora.safetensors --prompts my.txt --reward Aesthetic \\
      --judges ClipScore --policy.model OWNER/BASE_MODEL
  raft compare bundled:examples/resolution \\
      --prompts bundled:prompts/resolution_heldout.txt --strength 0.5

Of a run, what it has exported is compared, by its own reward and judges; both
can be overridden, as can every other setting of the policy. A LoRA written by
this toolkit names its base model; of another, give --policy.model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

USAGE = "raft compare RUN|LORA --prompts FILE [--k K] [--SETTING VALUE …]"
TAKES_SETTINGS = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", required=True, help="file, bundled:NAME or hub:OWNER/NAME[:SPLIT]")
    parser.add_argument("--column", help="column of a table that holds the prompts")
    parser.add_argument("--k", type=int, default=4, help="samples per prompt and side (4)")
    parser.add_argument("--seed", type=int, default=0, help="fixes the samples (0)")
    parser.add_argument("--strength", type=float, default=1.0, help="how strongly the training acts: 0 base, 1 as trained (1)")
    parser.add_argument("--checkpoint", help="of a run: best, last or a round; by default what it has exported")
    parser.add_argument("--output", type=Path, help="an empty or new folder; by default RUN/compare/PROMPTS or compare/LORA")


def main(args: argparse.Namespace) -> None:
    from raft_core import capabilities
    from raft_core.config.run_config import parse_overrides
    from raft_core.errors import DataError
    from raft_core.evaluation.evaluate import evaluate
    from raft_core.evaluation.sheet import write_comparison
    from raft_core.machine.folders import free_folder
    from raft_core.prompt_files.drawing import described
    from raft_core.prompts import distinct, read_prompts
    from raft_core.store.create import require_empty
    from raft_core.terminal import progress
    from raft_core.terminal.result import show_tables
    from raft_core.workflows.align import loaded_warnings
    from raft_core.workflows.trained import open_source

    source = open_source(args.target, parse_overrides(args.settings))
    prompts, _ = distinct(read_prompts(args.prompts, column=args.column))
    name = Path(args.prompts.split(":")[-1]).stem
    own = source.kind == "run" and not args.target.startswith("bundled:")  # nothing is written beside what is installed
    default = source.path / "compare" / name if own else Path("compare") / source.name
    folder = args.output or free_folder(default)
    require_empty(folder)
    policy, scorer = source.build(rewards=True)
    assert scorer is not None
    if mistakes := capabilities.check_prompts(policy, [], prompts):
        raise DataError(mistakes[0])
    reporter = progress.reporter()
    for line in described(prompts):
        reporter.line(line)
    which = source.load(policy, args.checkpoint)
    for warning in loaded_warnings(policy, prompts):
        reporter.warn(warning)
    scorer.load()
    scorer.attach(policy)
    reporter.line(f"{which} against its base, {len(prompts)} prompts × {args.k} samples")
    settings = {"k": args.k, "seed": args.seed, "split": name, "strength": args.strength}
    evaluation = evaluate(policy, prompts, scorer, **settings, reporter=reporter)
    evaluation.require_sound()
    files = write_comparison(folder, 0, evaluation)
    show_tables([evaluation])
    reporter.line("")
    for file in files:
        reporter.line(str(file))
