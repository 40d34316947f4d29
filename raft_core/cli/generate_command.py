"""Generate from a run, a LoRA or a model into a folder.

  raft generate runs/resolution --prompt "a small red star" --k 4
  raft generate my_lora.safetensors --prompts my.txt
  raft generate bundled:shapes --prompts my.txt --policy.sampling.steps 30

Pictures are written as PNG, and all samples into samples.parquet and
samples.jsonl. The same seed and prompt always give the same sample.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from raft_core.errors import ConfigError

USAGE = "raft generate RUN|LORA|MODEL (--prompts FILE | --prompt TEXT) [--k K]"
TAKES_SETTINGS = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", help="file, bundled:NAME or hub:OWNER/NAME[:SPLIT]")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="one prompt; may be given again")
    parser.add_argument("--column", help="column of a table that holds the prompts")
    parser.add_argument("--k", type=int, default=1, help="samples per prompt (1)")
    parser.add_argument("--seed", type=int, default=0, help="fixes the samples (0)")
    parser.add_argument("--checkpoint", help="of a run: best, last or a round; by default what it has exported")
    parser.add_argument("--base", action="store_true", help="sample the model as it was before training")
    parser.add_argument("--output", type=Path, help="an empty or new folder; by default generated/NAME")


def main(args: argparse.Namespace) -> None:
    if args.k < 1:
        raise ConfigError(f"--k is {args.k}, but at least 1 sample per prompt is needed")
    if not args.prompts and not args.prompt:
        raise ConfigError("nothing to generate from: give --prompts FILE or --prompt TEXT")
    from raft_core import progress
    from raft_core.claim import require_empty
    from raft_core.config import parse_overrides
    from raft_core.folders import free_folder
    from raft_core.generation import generate, write_outputs
    from raft_core.prompts import distinct, read_prompts
    from raft_core.run import truncated
    from raft_core.source import open_source
    from raft_core.types import Prompt

    source = open_source(args.target, parse_overrides(args.settings), models=True)
    read = read_prompts(args.prompts, column=args.column) if args.prompts else []
    prompts, _ = distinct([*read, *(Prompt(text) for text in args.prompt)])
    folder = args.output or free_folder(Path("generated") / source.name.replace(":", "-"))
    require_empty(folder)
    policy, _ = source.build(rewards=False)
    reporter = progress.reporter()
    reporter.line(f"{source.load(policy, args.checkpoint)}, {len(prompts)} prompts × {args.k} samples")
    for warning in truncated(policy, prompts):
        reporter.warn(warning)
    samples = generate(policy, prompts, k=args.k, seed=args.seed, reporter=reporter, reference=args.base)
    write_outputs(folder, samples)
    reporter.line(f"{len(samples)} samples in {folder}")
