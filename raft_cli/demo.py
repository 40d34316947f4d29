"""Open the app in the browser: compare, align, look at runs, teach a taste.

  raft demo
  raft demo runs --port 7861
  raft demo --host 0.0.0.0 --auth ada:lovelace

It serves this machine alone unless --host or --share says otherwise, and then
asks for a user and a password.
"""

from __future__ import annotations

import argparse
from pathlib import Path

USAGE = "raft demo [RUNS] [--host HOST] [--port PORT] [--auth USER:PASSWORD]"
TARGET_OPTIONAL = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, help="by default the first free one from 7860 on")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="who may come in; needed with --host and --share")
    parser.add_argument("--share", action="store_true", help="a public link, through Gradio's tunnel")
    parser.add_argument(
        "--allow_host", action="append", default=[], metavar="NAME", help="a name under which a proxy asks; may be given again"
    )
    parser.add_argument("--root_path", metavar="PATH", help="where a proxy serves the app, such as /raft")
    parser.add_argument("--open", action="store_true", help="open the browser")


def main(args: argparse.Namespace) -> None:
    from raft_core.errors import ConfigError, MissingDependency

    user, colon, password = (args.auth or "").partition(":")
    if args.auth is not None and not (user and colon and password):
        raise ConfigError("--auth is not of the form USER:PASSWORD")
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise MissingDependency("gradio", "demo", "the demo") from error
    from raft_demo.app import serve

    auth = (user, password) if args.auth else None
    settings = {"host": args.host, "port": args.port, "auth": auth, "share": args.share, "open_browser": args.open}
    serve(Path(args.target or "runs"), **settings, hosts=args.allow_host, root_path=args.root_path)
