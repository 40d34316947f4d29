"""The options ``--processes`` and ``--shard`` of the commands that train: not a command itself."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from raft_core.errors import ConfigError


def add_process_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=int, metavar="N", help="share the run among N processes, a GPU for each")
    parser.add_argument("--shard", action="store_true", help="spread the weights over them (FSDP), if all are trained")


def in_processes(args: argparse.Namespace, words: Sequence[str]) -> None:
    """Run these words of the command in the processes that are asked for.

    Raises:
        ConfigError: a number that makes no sense.
        DeviceError: fewer GPUs than that, or a process that failed.
    """
    from raft_core.machine.launch import launch

    launch("raft_cli", words, args.processes, shard=args.shard)


def require_processes(args: argparse.Namespace) -> None:
    """Weights are spread over several processes or not at all.

    Raises:
        ConfigError: ``--shard`` without ``--processes``.
    """
    if args.shard and args.processes is None:
        raise ConfigError("--shard spreads the weights over processes: say over how many with --processes N")
