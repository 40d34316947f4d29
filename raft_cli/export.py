"""Give what was trained to others: as a whole model, or on the Hub.

  raft export runs/resolution --merge resolution.safetensors
  raft export my_lora.safetensors --policy.model OWNER/BASE_MODEL \\
      --merge whole.safetensors --strength 0.8 --dtype float16
  raft export runs/sums --merge sums_merged
  raft export runs/resolution --push OWNER/NAME

--merge writes the base model with the training in its weights. A picture model
becomes one file in the original layout of Stable Diffusion, which ComfyUI and
A1111 load, and a folder of the same name with its configuration; a language
model becomes a folder of transformers.

--push uploads what a finished run has exported: weights, model card, pictures.
It needs `hf auth login` once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

USAGE = "raft export RUN|LORA (--merge PATH | --push OWNER/NAME) […]"
TAKES_SETTINGS = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--merge", type=Path, metavar="PATH", help="the whole model: FILE.safetensors, for text a folder")
    parser.add_argument("--strength", type=float, help="merge: how strongly the training acts (1)")
    parser.add_argument("--dtype", help="merge: of the weights, float32, float16 or bfloat16 (float32)")
    parser.add_argument("--checkpoint", help="merge: best, last or a round; by default what the run has exported")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the export of a run to this repository on the Hub")
    parser.add_argument("--private", action="store_true", help="push: make the repository private where it is new")


def main(args: argparse.Namespace) -> None:
    from raft_core.config.run_config import parse_overrides
    from raft_core.errors import ConfigError, nearest
    from raft_core.terminal import progress
    from raft_core.workflows.export import PRECISIONS, merge, push

    if args.merge is None and args.push is None:
        raise ConfigError(f"nothing to do: give --merge PATH or --push OWNER/NAME: {USAGE}")
    settings = {name: value for name in ("checkpoint", "strength", "dtype") if (value := getattr(args, name)) is not None}
    if settings.get("dtype", PRECISIONS[0]) not in PRECISIONS:
        hint = nearest(args.dtype, PRECISIONS)
        raise ConfigError(f"--dtype is {args.dtype!r}, but must be one of {', '.join(PRECISIONS)}{hint}")
    reporter = progress.reporter()
    overrides = parse_overrides(args.settings)
    if args.merge is None and (given := [*settings, *(override.path for override in overrides)]):
        raise ConfigError(f"--{given[0]} is for --merge; what is pushed is what the run has exported")
    if args.merge is not None:
        for path in merge(args.target, args.merge, overrides, reporter, **settings):
            reporter.line(str(path))
    if args.push is not None:
        reporter.line(push(Path(args.target).expanduser(), args.push, reporter, private=args.private))
