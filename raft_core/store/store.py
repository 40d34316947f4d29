"""The run folder: everything a run makes is kept here, and a run killed at any instant goes on from here to the same bits.

A round is finished when its checkpoint folder is in place, and that is one rename. All else follows from it: the metrics of all
rounds are in the newest checkpoint, and ``metrics.jsonl`` and the rounds' ``metrics.json`` are written again from there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from raft_core.errors import StoreError
from raft_core.machine.files import remove, strict, write_json, write_text
from raft_core.machine.folders import numbered
from raft_core.machine.lock import Lock
from raft_core.machine.processes import Processes
from raft_core.protocols import Policy
from raft_core.reading.files import Unreadable
from raft_core.reading.shapes import taken_apart
from raft_core.reporter import Reporter, Warner
from raft_core.store.checkpoint import (
    TRAINER,
    Keep,
    checkpoint_folder,
    checkpoints_in,
    kept_by,
    load_checkpoint,
    load_weights,
    newest_whole,
    policy_hash,
    prune,
    read_state,
    read_tensors,
    save_checkpoint,
)
from raft_core.store.create import begin, take_over
from raft_core.store.integrity import damages
from raft_core.store.manifest import METRICS, RUN, changes, moved, now, read_config, read_history, read_run, versions
from raft_core.store.rounds import SAMPLES, TENSORS, RoundFolder, add_scores, read_round, round_folder, rounds_in
from raft_core.store.tables import read_table, write_table

__all__ = [
    "Keep",
    "Store",
    "add_scores",
    "changes",
    "load_checkpoint",
    "read_config",
    "read_history",
    "read_round",
    "read_run",
    "rounds_in",
]


class Store:
    """A run folder, open for writing by this process until ``close`` or its end. Made by ``create`` or ``resume``.

    Attributes:
        folder: of the run.
        config: the run's configuration, plain data.
        seed: from which every random draw of the run follows.
        keep: what stays on the disk.
    """

    def __init__(self, folder: Path, lock: Lock | None, processes: Processes, reporter: Reporter | None):
        self.folder = folder
        self.reporter: Reporter = reporter or Warner()
        self._lock = lock
        self._processes = processes
        run = read_run(folder)
        if "seed" not in run:
            raise StoreError(f"{folder / RUN} names no seed, from which every draw of the run follows")
        self.seed: int = run["seed"]
        self.keep = kept_by(run)
        self.config: dict[str, Any] = read_config(folder)
        self._last, complaints = newest_whole(folder)
        self._history: list[dict[str, Any]] = read_state(folder, self._last)["history"] if self._last else []
        self._hash: str | None = None
        for complaint in complaints:
            self.reporter.warn(f"{complaint}; going back to the one before")
        if processes.is_main:
            self._reconcile()

    @classmethod
    def create(
        cls,
        folder: str | Path,
        config: Mapping[str, Any],
        seed: int,
        *,
        keep: Keep | None = None,
        reporter: Reporter | None = None,
    ) -> Store:
        """Begin a run in a folder that is empty or not there yet.

        Args:
            config: the resolved configuration, plain data.

        Raises:
            StoreError: the folder holds something already, or cannot be written to.
        """
        folder, processes = Path(folder), Processes.current()
        lock = begin(folder, config, seed, keep or Keep()) if processes.is_main else None
        processes.wait()
        return cls(folder, lock, processes, reporter)

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        config: Mapping[str, Any] | None = None,
        *,
        force: bool = False,
        keep: Keep | None = None,
        reporter: Reporter | None = None,
    ) -> Store:
        """Go on with a run.

        Args:
            config: what the run is to go on with; None = the run's ``config.yaml`` as it now is.
            force: go on although the configuration has changed; the unfinished round is begun anew, the finished ones stay.

        Raises:
            StoreError: no run is there, another process has it, or the configuration has changed and ``force`` is not given.
        """
        folder, processes = Path(folder), Processes.current()
        lock = take_over(folder, config, keep, force) if processes.is_main else None
        processes.wait()
        try:
            store = cls(folder, lock, processes, reporter)
        except BaseException:
            if lock:
                lock.release()
            raise
        if processes.is_main:
            store._begin_again()
        if processes.is_main and (changed := moved(read_run(folder))):
            store.reporter.warn(f"the run goes on with other means, so its last bits may differ: {', '.join(changed)}")
        return store

    def _begin_again(self) -> None:
        for complaint in damages(self.folder):
            self.reporter.warn(complaint)
        self.note(status="running", resumed=[*read_run(self.folder).get("resumed", []), now()])

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def last(self) -> int | None:
        """The last finished round, 0 when only the start is stored, None when nothing is."""
        return self._last

    def history(self) -> list[dict[str, Any]]:
        """Metrics of the finished rounds, oldest first, each with its ``round``."""
        return [dict(row) for row in self._history]

    def unfinished(self, rounds: int) -> Iterator[int]:
        """Numbers of the rounds that are still to do, of ``rounds`` in all."""
        yield from range((self._last or 0) + 1, rounds + 1)

    def restore(self, policy: Policy, trainer: Any) -> int:
        """Put the newest checkpoint into a loaded policy and an attached trainer; returns its round, 0 for a run's start.

        Raises:
            StoreError: the checkpoint belongs to a policy of other parameters.
        """
        if self._last is None:
            return 0
        load_weights(self.folder, self._last, policy)
        if self._last > 0:
            place = checkpoint_folder(self.folder, self._last)
            tensors, state = read_tensors(place / TRAINER), read_state(self.folder, self._last)["trainer"]
            try:
                with taken_apart("it"):
                    trainer.load_state_dict(tensors, state)
            except Unreadable as error:
                raise StoreError(f"{place} does not fit this trainer: {error}") from error
        self._hash = policy_hash(policy)
        return self._last

    def open(self, rnd: int, policy: Policy) -> RoundFolder:
        """The folder of a round that starts from this policy.

        Raises:
            StoreError: the policy is not the one that the round before ended with.
        """
        found = policy_hash(policy)
        if self._last is None:
            # The start may be random (LoRA); a resumed run takes it from here and not from another initialisation.
            self._save(0, policy, lambda: ({}, {}), found)
        elif self._hash is None or found != self._hash:
            raise StoreError(
                f"round {rnd} must start from the checkpoint of round {self._last}, but the policy has other weights: "
                "call store.restore(policy, trainer) first"
            )
        self._hash = found
        return RoundFolder(round_folder(self.folder, rnd), rnd, found)

    def finish(self, rnd: int, policy: Policy, trainer: Any, metrics: Mapping[str, float]) -> None:
        """Finish a round: checkpoint, metrics, and removal of what is not to be kept.

        Raises:
            StoreError: a full disk, a folder that cannot be written to.
        """
        self._history = [*self._history, {"round": rnd, **numbers(metrics)}]
        self._save(rnd, policy, trainer.state_dict, policy_hash(policy))
        # Every process goes by the first one's figures, so that all of them end the run, or none.
        self._history = read_state(self.folder, rnd)["history"]
        if self._processes.is_main:
            self._write_metrics()
            prune(self.folder, self._history, self.keep)
            self._thin(rnd)
        self._processes.wait()

    def note(self, **facts: Any) -> None:
        """Add facts to ``run.json``: the policy's description, the status, why it stopped."""
        if self._processes.is_main:
            write_json(self.folder / RUN, {**read_run(self.folder), **facts})

    def ended(self, status: str, reason: str) -> None:
        """Note how the run ended: ``finished``, ``interrupted`` or ``failed``, and why in words."""
        self.note(status=status, reason=reason, ended=now())

    def _save(self, rnd: int, policy: Policy, trainer_state: Callable[[], tuple[Mapping, Mapping]], found: str) -> None:
        if self._processes.is_main:
            facts = {"policy_hash": found, "history": self._history, "versions": versions()}
            save_checkpoint(self.folder, rnd, policy, trainer_state(), facts)
        self._last, self._hash = rnd, found
        self._processes.wait()

    def _reconcile(self) -> None:
        """Bring the folder in line with the newest whole checkpoint."""
        for rnd in checkpoints_in(self.folder):
            if self._last is None or rnd > self._last:
                remove(checkpoint_folder(self.folder, rnd))
        for rnd, place in numbered(self.folder / "rounds").items():
            if rnd > (self._last or 0):
                remove(place / "metrics.json")
        self._write_metrics()

    def _write_metrics(self) -> None:
        for row in self._history:
            path = round_folder(self.folder, row["round"]) / "metrics.json"
            if row is self._history[-1] or not path.exists():
                write_json(path, row)
        lines = "".join(json.dumps(strict(row), ensure_ascii=False) + "\n" for row in self._history)
        path = self.folder / METRICS
        if lines or path.exists():
            write_text(path, lines)

    def _thin(self, rnd: int) -> None:
        place = round_folder(self.folder, rnd)
        if not self.keep.latents:
            remove(place / TENSORS)
        if not self.keep.images and (place / SAMPLES).exists():
            drop_outputs(place / SAMPLES)


def drop_outputs(path: Path) -> None:
    """Empty the column of pictures or texts of a file of samples."""
    table, facts = read_table(path)
    name = "image" if "image" in table.column_names else "text"
    place = table.column_names.index(name)
    write_table(path, table.set_column(place, name, pa.nulls(len(table), table[name].type)), facts)


def numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as plain numbers and strings; NaN stays NaN here and becomes null in files for others."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
