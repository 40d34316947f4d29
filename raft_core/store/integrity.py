"""What of a run folder is damaged though the run can go on without it."""

from __future__ import annotations

from pathlib import Path

from raft_core.machine.files import damage
from raft_core.store.checkpoint import checkpoint_folder, checkpoints_in
from raft_core.store.rounds import TENSORS, round_folder, rounds_in
from raft_core.store.tensors import UnusableError, read_checked


def damages(folder: Path) -> list[str]:
    """The checkpoint of the start and the latents of finished rounds, where their checksums do not hold, in words.

    Of the newest checkpoint, from which a run goes on, ``newest_whole`` tells; any other is checked when it is loaded.
    """
    there = checkpoints_in(folder)
    found = []
    if 0 in there and there != [0] and (wrong := damage(checkpoint_folder(folder, 0))):
        found.append(
            f"the checkpoint of the start, round 0, is damaged ({wrong}): restore it from a copy to draw from it again"
        )
    for rnd in rounds_in(folder):
        path = round_folder(folder, rnd) / TENSORS
        if rnd > max(there, default=0) or not path.exists():  # an unfinished round is read, and drawn again if need be
            continue
        try:
            read_checked(path)
        except UnusableError as reason:
            found.append(f"round {rnd} cannot be trained on again: {reason}; restore the file from a copy")
    return found
