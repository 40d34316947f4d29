"""Align a model with a reward: rounds of sample, score, select, train.

At the end the model is compared with its start, on training prompts and on
held-out ones.

Without CONFIG the bundled task is run: a small Stable Diffusion at half the
resolution that it was trained at. Every setting can be overridden by its path:

  raft align shapes/aesthetic --rounds 3 --k 16 --trainer.optimizer.lr 1e-4
  raft align my.yaml --policy.sampling.steps 20 --selector TopFraction \\
      --selector.fraction 0.1 --reward my_file.py:my_function

With several GPUs, one process for each (`accelerate launch` does, too):

  raft align sd15/aesthetic --processes 4
"""

from __future__ import annotations

import argparse

from raft_cli.processes import add_process_options, in_processes, require_processes
from raft_cli.settings import settings_help as epilog
from raft_core.config.recipes import checked_config

USAGE = "raft align [CONFIG] [--SETTING VALUE …] [--processes N] [--print_config]"
TAKES_SETTINGS = True
TARGET_OPTIONAL = True
__all__ = ["TAKES_SETTINGS", "TARGET_OPTIONAL", "USAGE", "add_options", "epilog", "main"]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--print_config", action="store_true", help="print the whole configuration, checked, and stop")
    add_process_options(parser)


def main(args: argparse.Namespace) -> None:
    require_processes(args)
    checked = checked_config(args.target, args.settings, begins=not args.print_config)
    if args.print_config:
        from raft_core.config.run_config import as_yaml

        print(as_yaml(checked.plain), end="")
        return
    from raft_core.terminal import progress
    from raft_core.terminal.result import show_result
    from raft_core.workflows.align import align_run, output_folder

    folder = output_folder(checked)
    if args.processes is not None:
        target = [] if args.target is None else [args.target]
        in_processes(args, ["align", *target, *args.settings, "--output", str(folder)])
        return
    reporter = progress.reporter()
    reporter.line(f"run folder: {folder}")
    show_result(align_run(checked, reporter, folder=folder))
