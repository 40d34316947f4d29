"""Checkpoints: what training has changed and the trainer's state, each round in one folder that appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from raft_core.errors import ConfigError, StoreError
from raft_core.machine.files import damage, publishing, remove
from raft_core.machine.folders import numbered
from raft_core.metrics.history import best_round, require_metric
from raft_core.protocols import Policy
from raft_core.reading.files import Unreadable, excerpt
from raft_core.reading.json_data import read_object
from raft_core.reading.shapes import require_shape
from raft_core.store.manifest import RUN, read_history, read_run
from raft_core.store.tensors import hexdigest

WEIGHTS = "weights.safetensors"
TRAINER = "trainer.safetensors"
STATE = "state.json"
LARGEST_STATE = 2**28  # bytes
AVERAGE = "ema/"  # before the parameter's name, among the tensors of the trainer


@dataclass(frozen=True)
class Keep:
    """What stays on the disk.

    Args:
        checkpoints: how many of the newest to keep, ≥ 1; None = all. Round 0 and the best are kept besides.
        best: the metric that the best checkpoint is chosen by.
        best_is_highest: by default the metric's own direction; where nobody tells it, as outside of a run, higher.
        latents: keep the latents (or tokens) of finished rounds; without them a round cannot be trained on again.
        images: keep the pictures (or texts) of finished rounds; without them the report has none, and nothing can be rescored.
    """

    checkpoints: int | None = 3
    best: str = "reward/mean"
    best_is_highest: bool | None = None
    latents: bool = True
    images: bool = True

    def __post_init__(self) -> None:
        if self.checkpoints is not None and self.checkpoints < 1:
            raise ConfigError(f"keep.checkpoints is {self.checkpoints}, but at least 1 is needed to resume (null keeps all)")

    def settled(self, directions: Mapping[str, bool]) -> Keep:
        """The same with the metric's own direction where none was given.

        Args:
            directions: metric → whether higher is better, of all that the run measures.

        Raises:
            ConfigError: the run does not measure it.
        """
        require_metric("best", self.best, directions)
        return replace(self, best_is_highest=directions[self.best]) if self.best_is_highest is None else self


def kept_by(run: Mapping[str, Any]) -> Keep:
    """What a run was told to keep, from its ``run.json``.

    Raises:
        StoreError: it does not say, or says what nobody knows.
    """
    try:
        return Keep(**run["keep"])
    except (KeyError, TypeError, ConfigError) as error:
        raise StoreError(f"{RUN} does not say what the run is to keep: {excerpt(error)}") from error


def policy_hash(policy: Policy) -> str:
    """16 hex digits of SHA-256 over the names and bytes of what training changes."""
    return hexdigest(policy.trainable().items())[:16]


def checkpoint_folder(folder: Path, rnd: int) -> Path:
    return Path(folder) / "checkpoints" / f"{rnd:04d}"


def checkpoints_in(folder: Path) -> list[int]:
    """Numbers of the rounds that have a checkpoint, in order; 0 is the policy before the first."""
    return list(numbered(Path(folder) / "checkpoints"))


def save_checkpoint(
    folder: Path,
    rnd: int,
    policy: Policy,
    trainer_state: tuple[Mapping[str, torch.Tensor], Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> None:
    """Write the checkpoint of a round in one atomic step.

    Args:
        trainer_state: tensors and plain facts, as ``Trainer.state_dict`` gives them.
        facts: plain data for ``state.json``: the policy's hash, the history.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    tensors, plain = trainer_state
    with publishing(checkpoint_folder(folder, rnd)) as temporary:
        # One entry of metadata: safetensors writes several in random order, and the same weights should be the same bytes.
        save_file(_owned(policy.trainable()), temporary / WEIGHTS, metadata={"format": "pt"})
        save_file(_owned(tensors), temporary / TRAINER)
        (temporary / STATE).write_text(json.dumps({"round": rnd, **facts, "trainer": dict(plain)}, indent=1))


def _owned(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors that share no memory, which safetensors asks for, in the order of their names."""
    return {name: tensors[name].detach().to("cpu", copy=True).contiguous() for name in sorted(tensors)}


def read_state(folder: Path, rnd: int) -> dict[str, Any]:
    """``state.json`` of a checkpoint.

    Raises:
        StoreError: it is damaged.
    """
    path = checkpoint_folder(folder, rnd) / STATE
    try:
        state = read_object(path, most=LARGEST_STATE)
        return require_shape(state, {"round": int, "history": [{"round": int}], "trainer": dict}, "", ("history", "trainer"))
    except (OSError, Unreadable) as error:
        raise StoreError(f"{path} cannot be read: {error}; is it a checkpoint of this program?") from error


def newest_whole(folder: Path) -> tuple[int | None, list[str]]:
    """(round of the newest checkpoint whose checksums hold, or None; what is wrong with newer ones, in words)."""
    complaints = []
    for rnd in reversed(checkpoints_in(folder)):
        wrong = damage(checkpoint_folder(folder, rnd))
        if wrong is None:
            return rnd, complaints
        complaints.append(f"the checkpoint of round {rnd} is damaged: {wrong}")
    return None, complaints


def load_weights(folder: Path, rnd: int, policy: Policy, *, averaged: bool = False) -> None:
    """Put the weights of a checkpoint into a policy.

    Args:
        averaged: the trainer's moving average of them, where it kept one; training goes on from the weights themselves.

    Raises:
        StoreError: the checkpoint is missing or damaged, or belongs to a policy of other parameters.
    """
    place = checkpoint_folder(folder, rnd)
    if not place.exists():
        there = ", ".join(map(str, checkpoints_in(folder))) or "none"
        raise StoreError(f"{folder} holds no checkpoint of round {rnd} (rounds with one: {there})")
    if wrong := damage(place):
        raise StoreError(f"the checkpoint {place} is damaged: {wrong}")
    stored, own = read_tensors(place / WEIGHTS), policy.trainable()
    if averaged:
        stored = {**stored, **moving_average(folder, rnd)}
    if wrong := _mismatch(stored, own):
        raise StoreError(f"{place / WEIGHTS} does not fit this policy: {wrong}; use the configuration that it was made with")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(stored[name])


def moving_average(folder: Path, rnd: int) -> dict[str, torch.Tensor]:
    """The moving average of the weights that the trainer of a checkpoint kept, by parameter; empty when it kept none."""
    tensors = read_tensors(checkpoint_folder(folder, rnd) / TRAINER)
    return {name.removeprefix(AVERAGE): tensor for name, tensor in tensors.items() if name.startswith(AVERAGE)}


def _mismatch(stored: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> str | None:
    if missing := sorted(own.keys() - stored.keys()):
        return f"it lacks {missing[0]!r} ({len(missing)} such parameters)"
    if unknown := sorted(stored.keys() - own.keys()):
        return f"it has {unknown[0]!r}, which the policy does not have ({len(unknown)} such parameters)"
    for name in sorted(own):
        if stored[name].shape != own[name].shape:
            return f"{name!r} has shape {list(stored[name].shape)} in the file and {list(own[name].shape)} in the policy"
    return None


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint's file.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {excerpt(error)}") from error


def best_checkpoint(history: Sequence[Mapping[str, Any]], keep: Keep) -> int | None:
    """Round whose checkpoint did best by ``keep.best``, or None when no round has that metric.

    A round's metrics are measured on samples of the policy that it *started* from, which is the checkpoint of the round before.
    """
    rnd = best_round(history, keep.best, keep.best_is_highest)
    return None if rnd is None else rnd - 1


def taken_as_best(history: Sequence[Mapping[str, Any]], keep: Keep) -> int | None:
    """The checkpoint that a user means by the best one; None when no round has the metric that it goes by.

    That is ``best_checkpoint``, but when the last round was the best so far, its own: nothing was measured on samples of it,
    yet it has come one update further on the way that was the best.
    """
    best = best_checkpoint(history, keep)
    return history[-1]["round"] if best is not None and best + 1 == history[-1]["round"] else best


def prune(folder: Path, history: Sequence[Mapping[str, Any]], keep: Keep) -> None:
    """Remove the checkpoints that ``keep`` does not ask for."""
    if keep.checkpoints is None:
        return
    there = checkpoints_in(folder)
    stay = {0, best_checkpoint(history, keep), *there[-keep.checkpoints :]}
    for rnd in there:
        if rnd not in stay:
            remove(checkpoint_folder(folder, rnd))


def load_checkpoint(folder: str | Path, rnd: int | str, policy: Policy) -> int:
    """Put the weights of a run's checkpoint into a loaded policy; returns the round.

    With ``trainer.ema_decay`` these are the moving average, which is what a run evaluates and exports.

    Args:
        rnd: a round, ``"last"``, or ``"best"`` by the metric that the run was told to keep the best by.

    Raises:
        StoreError: no such checkpoint, a damaged one, or one of another policy.
    """
    chosen = _chosen(Path(folder), rnd)
    load_weights(Path(folder), chosen, policy, averaged=True)
    return chosen


def _chosen(folder: Path, rnd: int | str) -> int:
    if isinstance(rnd, int):
        return rnd
    if rnd == "last":
        newest, complaints = newest_whole(folder)
        if newest is None:
            raise StoreError("; ".join([f"{folder} holds no whole checkpoint", *complaints]))
        return newest
    if rnd == "best":
        keep = kept_by(read_run(folder))
        best = taken_as_best(read_history(folder), keep)
        if best is None:
            raise StoreError(f"{folder} has no best checkpoint: no finished round has the metric {keep.best!r}")
        return best
    raise StoreError(f"{rnd!r} is no checkpoint: give a round's number, 'last' or 'best'")
