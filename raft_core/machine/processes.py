"""How many processes share the run, and where they wait for each other. One process needs neither accelerate nor a wait."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from raft_core.errors import DeviceError, ProcessLostError

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")
#: Parts of what gloo and NCCL say when a peer is gone.
LOST = ("Connection closed by peer", "Connection reset by peer", "Socket closed", "remote process exited", "Broken pipe")


@dataclass(frozen=True)
class Processes:
    """This process among those that share a run and its folder.

    Attributes:
        rank: of this process, in [0, count).
        count: of all processes.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Processes:
        """As the launcher (``accelerate launch``, ``torchrun``) has set it up.

        Raises:
            DeviceError: there are several processes, but no group of them.
        """
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if launched == 1:
            return cls()
        state = joined()
        if state.num_processes != launched:
            raise DeviceError(
                f"the launcher started {launched} processes (WORLD_SIZE), but they do not form a group on this hardware: "
                "each would make the whole run alone; start one process, or launch with `accelerate launch`"
            )
        return cls(state.process_index, state.num_processes)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every ``count``-th item from ``rank`` on: each item falls to exactly one process."""
        return items[self.rank :: self.count]

    def wait(self) -> None:
        """Wait until every process has come here.

        Raises:
            ProcessLostError: one of them has ended.
        """
        if self.count > 1:
            with lost_in_words():
                joined().wait_for_everyone()

    def first_ones(self, value: T) -> T:
        """The first process's value, on every process; plain data."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        joined()
        with lost_in_words():
            return broadcast_object_list([value])[0]


@contextlib.contextmanager
def lost_in_words() -> Iterator[None]:
    """Turn a message to a process that is no longer there into words.

    Raises:
        ProcessLostError: another process of the run has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in LOST):
            raise
        raise ProcessLostError(
            "another process of this run has ended, and none can go on without it; its own message says why. "
            "Begin again with `raft resume RUN`, with as many processes as you like"
        ) from error


def joined() -> PartialState:
    """This process's place in the group, which it joins on the first call.

    Without ``cpu`` accelerate looks for accelerators only, and on a machine that has none each process would take itself to be
    alone.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
