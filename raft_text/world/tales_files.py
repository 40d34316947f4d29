"""The prompt files of the tales: JSONL with an opening, and how one tale that begins so goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from raft_core.machine.files import replacing
from raft_text.world.tales import Split, Tale, tales

SEED = 0
COUNTS: dict[Split, int] = {"train": 1200, "held_out": 300}
NAMES: dict[Split, str] = {"train": "tales_train.jsonl", "held_out": "tales_heldout.jsonl"}


def chosen_tales(split: Split) -> list[Tale]:
    """The tales of a file, all with different openings."""
    found: dict[str, Tale] = {}
    for tale in tales(SEED, "file", split, split=split):
        found.setdefault(tale.opening, tale)
        if len(found) == COUNTS[split]:
            break
    return list(found.values())


def write_tales(folder: Path) -> None:
    """Write both files.

    Raises:
        StoreError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in NAMES.items():
        with replacing(folder / name) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in tale_rows(chosen_tales(split))), encoding="utf-8")


def tale_rows(among: Sequence[Tale]) -> list[dict[str, str]]:
    """One record a tale. ``response`` begins with the space that stands between the two, as the model writes it."""
    return [{"prompt": tale.opening, "response": f" {tale.rest}"} for tale in among]
