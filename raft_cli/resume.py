"""Go on with a run that was stopped, in the stage that it was in.

On a CPU the result has the same bits as that of a run that was never stopped.
Changed settings are refused and listed, unless --force is given:

  raft resume runs/resolution
  raft resume runs/resolution --rounds 20 --force
"""

from __future__ import annotations

import argparse
from pathlib import Path

from raft_cli.processes import add_process_options, in_processes, require_processes

USAGE = "raft resume RUN [--SETTING VALUE …] [--force] [--processes N [--shard]]"
TAKES_SETTINGS = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="go on although the configuration or the prompts have changed")
    add_process_options(parser)


def main(args: argparse.Namespace) -> None:
    require_processes(args)
    from raft_core.config.run_config import parse_overrides
    from raft_core.store.manifest import read_run
    from raft_core.terminal import progress
    from raft_core.terminal.result import show_result
    from raft_core.workflows.align import resume_run

    folder = Path(args.target)
    run = read_run(folder)
    reporter = progress.reporter()
    if run.get("status") == "finished" and not args.force and not args.settings:
        reporter.line(f"{folder} is finished already: {run.get('reason', '')}")
        show_result(folder)
        return
    if args.processes is not None:
        in_processes(args, ["resume", args.target, *args.settings, *(["--force"] if args.force else [])])
        return
    show_result(resume_run(folder, reporter, overrides=parse_overrides(args.settings), force=args.force))
