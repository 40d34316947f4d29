"""The command ``raft``: one module a command. Nothing imports this package; it knows all the others."""

from raft_cli.command import main

__all__ = ["main"]
