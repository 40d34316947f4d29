"""What is printed when a run is done: why it ended, before against after, and where things are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raft_core.evaluation.evaluate import Evaluation


def show_result(folder: Path) -> None:
    """Print the outcome of the run in this folder, once however many processes there are."""
    from raft_core.machine.processes import Processes
    from raft_core.terminal import progress

    if not Processes.current().is_main:
        return
    from raft_core.evaluation.files import read_results
    from raft_core.store.manifest import read_run

    console, run = progress.console(), read_run(folder)
    console.print(f"\n{run.get('reason', '')}; checkpoint of round {run.get('checkpoint')}", markup=False, highlight=False)
    results = read_results(folder)
    evaluations = results.evaluations if results else []
    show_tables(evaluations)
    console.print()
    for label, path in places(folder, run.get("exported", [])):
        console.print(f"{label:<8}{path}", markup=False, highlight=False, soft_wrap=True)


def show_tables(evaluations: Sequence[Evaluation]) -> None:
    """Print the before/after table of each set of prompts."""
    from raft_core.evaluation.table import SPLITS, rows
    from raft_core.terminal import progress

    console = progress.console()
    titles = {}
    for each in evaluations:
        which = SPLITS.get(each.split, f"prompts of {each.split}")
        titles[each.split] = f"{len(each.prompts)} {which} × {each.k} samples, before and after"
    for table in progress.before_after(rows(evaluations), titles):
        console.print()
        console.print(table)
    for line in unscored(evaluations):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def unscored(evaluations: Sequence[Evaluation]) -> list[str]:
    """What the tables leave out: samples that failed, pairs without a score on either side, by set of prompts and reward."""
    from raft_core.evaluation.table import split_name
    from raft_core.soundness import failed_mask

    found = []
    for each in evaluations:
        where, pairs = split_name(each.split), len(each.before)
        found += [f"{where}, {side}: {words}" for side, words in each.failed.items()]
        failed = int((failed_mask(each.before) | failed_mask(each.after)).sum())
        found += [
            f"{where}: {c.unscored - failed} of {pairs} pairs have no score by {c.name} and are left out"
            for c in each.comparisons
            if c.unscored > failed
        ]
    return found


def places(folder: Path, exported: list[str]) -> list[tuple[str, Path]]:
    """(label, path) of what a person opens next."""
    found = [("report", folder / "report" / "index.html")]
    found += [("export", folder / Path(name)) for name in exported if Path(name).suffix in (".safetensors", ".md", ".json")]
    found.append(("samples", folder / "rounds"))
    return [(label, path) for label, path in found if path.exists()]
