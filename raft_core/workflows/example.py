"""A finished run cut down to what a comparison needs, so that it can ship with a package."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from raft_core.machine.files import write_json, write_text
from raft_core.store.manifest import METRICS, RUN, read_config, read_run, write_config

KEPT = (METRICS, "evaluation/evaluation.json")


def align(recipe: str, folder: Path) -> Path:
    """The run of a recipe, in this folder.

    Raises:
        RaftError: it cannot be aligned.
    """
    from raft_core.config.recipes import checked_config
    from raft_core.terminal import progress
    from raft_core.workflows.align import align_run

    return align_run(checked_config(recipe, ["--output", str(folder)], begins=True), progress.reporter())


def keep(run: Path, target: Path, exported: Sequence[str], readme: str) -> None:
    """Keep of a finished run its configuration and its figures, and make a place for its weights.

    An example that is there already is replaced.

    Args:
        exported: files of weights, relative to the example; the caller writes them.
        readme: of the example, with places for its ``name``, ``seed`` and ``rounds``.

    Raises:
        StoreError: there is no run, or the target cannot be written to.
    """
    facts, config = read_run(run), read_config(run)
    rounds = len((run / METRICS).read_text(encoding="utf-8").splitlines())
    if target.exists():
        shutil.rmtree(target)
    for name in KEPT:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, target / name)
    here = {**config, "output": None}  # and not the place where it lay on this machine
    write_config(target, here)
    write_json(target / RUN, {**facts, "config": here, "exported": list(exported)})
    write_text(target / "README.md", readme.format(name=target.name, seed=facts["seed"], rounds=rounds))
    for name in exported:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
