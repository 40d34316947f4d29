"""What another K or selector would have chosen, from the stored scores of a run.

  raft whatif runs/resolution --k 2 4 8
  raft whatif runs/resolution --selector TopFraction --selector.fraction 0.1
  raft whatif runs/resolution --by clip_score

The expected best of k is unbiased: the mean over all subsets of k of the stored
samples. Nothing is generated and nothing is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raft_core.protocols import Selector
    from raft_core.workflows.whatif import Stored

USAGE = "raft whatif RUN [--k K …] [--selector NAME] [--by SCORE]"
TAKES_SETTINGS = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--k", type=int, nargs="+", help="samples per prompt; by default 1, 2, 4 … up to what is stored")
    parser.add_argument("--by", metavar="SCORE", help="the score to choose by; by default the run's reward")
    parser.add_argument("--rounds", type=int, nargs="+", help="which rounds; by default all that are stored")


def main(args: argparse.Namespace) -> None:
    from raft_core.config.run_config import parse_overrides
    from raft_core.terminal import progress
    from raft_core.workflows.whatif import doublings, known_column, stored_rounds

    stored = stored_rounds(Path(args.target), args.rounds)
    column = known_column(stored[0], args.by)
    selector = chosen_selector(parse_overrides(args.settings))
    console = progress.console()
    if args.k or selector is None:
        table = best_table(stored, column, args.k or doublings(stored[0].k))
        console.print(f"expected {column} of the best of k samples per prompt", markup=False, highlight=False)
        console.print(table)
    if selector is not None:
        table, left_out = choice_table(stored, column, selector, console.width)
        label = f"kept by {type(selector).__name__}, chosen by {column}; in brackets what the run has kept"
        console.print(label, markup=False, highlight=False)
        console.print(table)
        if left_out:
            console.print(f"not shown for want of width: {', '.join(left_out)}", markup=False, highlight=False)


def chosen_selector(overrides) -> Selector | None:
    """The selector that the settings name, or None when they name none.

    Raises:
        ConfigError: it is none, or another setting is given.
    """
    from raft_core.config.components import build
    from raft_core.config.run_config import overridden
    from raft_core.errors import ConfigError

    raw = overridden({}, overrides)
    if unknown := [key for key in raw if key != "selector"]:
        raise ConfigError(f"--{unknown[0]} is not known here: {USAGE}")
    if not raw:
        return None
    return build("selector", raw["selector"])


def best_table(stored: list[Stored], column: str, ks: list[int]):
    from rich.table import Table

    from raft_core.format import figure
    from raft_core.workflows.whatif import best_of

    table = Table(box=None, pad_edge=False)
    table.add_column("round", justify="right")
    for k in ks:
        table.add_column(f"k = {k}", justify="right")
    for each in stored:
        table.add_row(str(each.rnd), *[figure(best_of(each, column, k)) for k in ks])
    return table


def choice_table(stored: list[Stored], column: str, selector: Selector, width: int):
    """(table, the scores that have no room in it): as many scores as fit a width in characters, the one chosen by first."""
    from rich.table import Table

    from raft_core.format import figure, shortened
    from raft_core.workflows.whatif import rechosen

    names = [column, *(name for name in stored[0].columns if name != column)]
    choices = [rechosen(each, selector, column) for each in stored]
    columns = {
        "round": [str(each.rnd) for each in stored],
        "kept": [f"{choice.kept} ({int(each.kept.sum())})" for each, choice in zip(stored, choices, strict=True)],
        "shared": [str(choice.shared) for choice in choices],
    }
    columns |= {n: [f"{figure(choice.means[n])} ({figure(choice.means_before[n])})" for choice in choices] for n in names}
    table, used = Table(box=None, pad_edge=False), 0
    for name, cells in columns.items():
        heading = name if name not in names else shortened(name, 16)
        used += max(map(len, (heading, *cells))) + 2  # between columns
        if used > width and name in names[1:]:
            break
        table.add_column(heading, justify="right", no_wrap=True)
    for row in list(zip(*columns.values(), strict=True)):
        table.add_row(*row[: len(table.columns)])
    return table, list(columns)[len(table.columns) :]
