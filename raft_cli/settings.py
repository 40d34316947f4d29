"""Configurations on the command line: which file, which settings, and what ``--help`` says of them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

WIDTH = 80


def settings_help() -> str:
    """Every field of a configuration, with its default and its meaning."""
    from raft_core.config.listing import settings

    lines = ["settings (in the file, or as --name VALUE; --name.part VALUE for a part of one):"]
    for name, _, meaning in settings("raft_core.config.run_config.RunConfig"):
        lines += textwrap.wrap(f"{name:<14}{meaning}", WIDTH - 2, initial_indent="  ", subsequent_indent=" " * 16)
    lines += ["", "What to choose from: raft list. All defaults of a configuration: --print_config."]
    return "\n".join(lines)
