"""List the rewards, or explain one of them.

  raft reward list              every reward, by what it scores
  raft reward list ClipScore    what it measures and what it takes

`--reward` takes any of these names, an importable class, a file of your own
(`my_file.py:my_function`), or a folder that `raft reward train` has written.
"""

from __future__ import annotations

import argparse

USAGE = "raft reward list [NAME]"
TARGET_OPTIONAL = True


def add_options(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def main(args: argparse.Namespace) -> None:
    for line in answer(args.target):
        print(line)


def answer(target: str | None) -> list[str]:
    """The lines for all rewards, by what they score, or for one.

    Raises:
        ConfigError: no reward is called so.
    """
    from raft_cli.list import entries, explanation
    from raft_core.config import listing
    from raft_core.errors import ConfigError, nearest

    found = [each for each in listing.classes("reward") if each.public]
    if target is not None:
        for each in found:
            if target in (each.name, each.class_path):
                return list(explanation(each))
        raise ConfigError(f"no reward is called {target!r}{nearest(target, listing.public_names('reward'))}")
    lines: list[str] = []
    for title, belongs in GROUPS.items():
        summaries = {each.name: each.summary for each in found if belongs(each)}
        lines += [f"{title}:", *entries(summaries), ""]
    if plugins := listing.plugins("reward"):
        lines += ["of installed packages:", *entries(plugins), ""]
    return [*lines, "`raft reward list NAME` says what one takes."]


def _of(package: str):
    return lambda found: found.class_path.startswith(f"{package}.") and "combine" not in found.members


GROUPS = {
    "of pictures": _of("raft_diffusion"),
    "of text": _of("raft_text"),
    "of both": _of("raft_core"),
    "made of rewards": lambda found: "combine" in found.members,
}
