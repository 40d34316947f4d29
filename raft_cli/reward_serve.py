"""Put a reward behind HTTP, for runs in other environments or on other machines.

  raft reward serve --reward PickScore --port 8600
  raft align my.yaml --reward RemoteReward --reward.url http://localhost:8600

It listens on this machine alone unless --host says otherwise, scores one
request at a time, and needs no GPU where the policy is. GET /info tells what
it is, POST /score takes and gives JSON (docs/reference/combining_rewards.md). Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import os

USAGE = "raft reward serve --reward NAME [--reward.ARGUMENT VALUE …] [--port PORT]"
TAKES_SETTINGS = True
TARGET_OPTIONAL = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=8600, help="0 = any that is free (8600)")
    parser.add_argument("--key_variable", help="environment variable with a bearer token that clients must send")
    parser.add_argument("--max_megapixels", type=int, default=128, help="largest request, millions of pixels in all (128)")
    parser.add_argument("--max_mb", type=int, default=256, help="largest request, megabytes (256)")


def main(args: argparse.Namespace) -> None:
    from raft_core.errors import ConfigError
    from raft_core.rewards.service.serve import Limits, RewardServer
    from raft_core.terminal import progress
    from raft_core.workflows.rescore import built_reward

    if args.target:
        raise ConfigError(f"{args.target!r} belongs to no option: {USAGE}")
    mistakes = [] if 0 <= args.port <= 65535 else [f"--port is {args.port}, but must be from 0 to 65535"]
    for name in ("max_mb", "max_megapixels"):
        mistakes += [] if getattr(args, name) > 0 else [f"--{name} is {getattr(args, name)}, but must be positive"]
    key = os.environ.get(args.key_variable, "") if args.key_variable else ""
    if args.key_variable and not key:
        mistakes.append(f"--key_variable is {args.key_variable!r}, but that environment variable is not set")
    if args.host not in ("127.0.0.1", "::1", "localhost") and not key:
        mistakes.append(f"--host {args.host} lets others in: protect it by a token (--key_variable)")
    if mistakes:
        raise ConfigError(mistakes)
    scorer = built_reward(args.settings, USAGE)
    limits = Limits(body_bytes=args.max_mb * 1_000_000, pixels=args.max_megapixels * 1_000_000)
    server = RewardServer(scorer.reward, args.host, args.port, limits, key)
    reporter = progress.reporter()
    try:
        reporter.line(f"loading {scorer.reward.info.name} …")
        scorer.load()
        reporter.line(f"{scorer.reward.info.name} answers on {server.url}; Ctrl-C ends it")
        server.serve_forever()
    finally:
        server.server_close()
