"""A reward in a process of its own: whatever happens there, the run goes on."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from raft_core import capabilities
from raft_core.errors import ConfigError, RewardError
from raft_core.rewards.scoring import PartlyScored
from raft_core.rewards.service import messages as wire
from raft_core.rewards.service.frames import read_frame, write_frame
from raft_core.rewards.spec import RewardSpec
from raft_core.types import Sample

TAIL_BYTES = 4096


class Isolated:
    """A reward in a worker process, with a timeout.

    A crash, an endless loop or a leak costs the batch that it happens in, which stays unscored; the worker is started again for
    the next one. A reward that needs no GPU then also scores one batch while the next is sampled. The worker is told a sample's
    prompt, output, index and seed; a policy's tensors stay here.

    Args:
        reward: what runs there. Not a combination: isolate its parts.
        timeout_s: for one batch, > 0. Its size is the reward's own batch size.
        start_timeout_s: for starting and loading, > 0.
        cuda_devices: which GPUs the worker sees, such as ``"1"``, or ``""`` for none; null = the same as this process.
    """

    def __init__(
        self, reward: RewardSpec, timeout_s: float = 60.0, start_timeout_s: float = 600.0, cuda_devices: str | None = None
    ):
        spec = RewardSpec.require(reward)
        spec.require_plain("isolate")
        for name, value in (("timeout_s", timeout_s), ("start_timeout_s", start_timeout_s)):
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}, but must be positive")
        self.timeout_s, self.start_timeout_s = timeout_s, start_timeout_s
        self.cuda_devices = cuda_devices
        self._spec = spec
        info = spec.reward.info
        self.info = replace(info, background=not info.gpu and info.batch_size is not None, differentiable=False)
        self._worker: _Worker | None = None
        self._broken = ""  # why the worker could not be started; not tried again in this round

    def check(self) -> list[str]:
        """Mistakes of the reward."""
        reward: Any = self._spec.reward
        return capabilities.check(reward)

    def load(self) -> None:
        """Start the worker and load the reward there.

        Raises:
            RewardError: it cannot be started, or the reward cannot be loaded.
        """
        if self._worker is None:
            self._worker = self._started()

    def sleep(self) -> None:
        """Have the worker give the accelerator's memory back."""
        self._broken = ""
        if self._worker is not None:
            try:
                self._worker.tell({"sleep": True}, self.timeout_s)
            except RewardError:
                self._drop()

    def close(self) -> None:
        """End the worker."""
        self._drop()

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N].

        Raises:
            RewardError: the batch could not be scored.
            PartlyScored: some of it could not.
            RuntimeError: the worker ran out of accelerator memory.
        """
        if self._broken:
            raise RewardError(self._broken)
        if self._worker is None:
            try:
                self._worker = self._started()
            except RewardError as error:
                self._broken = str(error)
                raise
        body = wire.asked(samples)
        try:
            reply = self._worker.ask(body, self.timeout_s)
        except BaseException:  # an interrupt too: the answer to this must not be taken for the next one's
            self._drop()
            raise
        _raise_memory(reply)
        try:
            values, reason = wire.answered(reply, len(samples))
        except wire.WireError as error:
            self._drop()
            raise RewardError(f"the worker answered nonsense: {error}") from error
        if not reason:
            return values
        if np.isnan(values).all():
            raise RewardError(reason)
        raise PartlyScored(values, reason)

    def _started(self) -> _Worker:
        worker = _Worker(self.cuda_devices)
        try:
            reply = worker.ask({"spec": dict(self._spec.plain), "path": sys.path}, self.start_timeout_s)
            _raise_memory(reply)
            if not isinstance(reply, dict) or not reply.get("ready"):
                said = reply.get("error", reply) if isinstance(reply, dict) else reply
                raise RewardError(f"the reward {self.info.name!r} could not be loaded in its worker: {said}")
        except BaseException:
            worker.end()
            raise
        return worker

    def _drop(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


def _raise_memory(reply: Any) -> None:
    """Memory that ran out over there is the same trouble as here: a smaller batch is the remedy."""
    if isinstance(reply, dict) and "memory" in reply:
        raise RuntimeError(f"out of memory in a reward's worker: {reply['memory']}")


class _Worker:
    """A worker process and the exchange with it."""

    def __init__(self, cuda_devices: str | None):
        environment = dict(os.environ)
        if cuda_devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = cuda_devices
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "raft_core.rewards.service.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
                # A Ctrl-C is the run's: it lets the worker end in its own time.
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            self._errors.close()
            raise RewardError(f"a worker process cannot be started: {error}") from error
        self._end = weakref.finalize(self, _ended, self._process, self._errors)

    def ask(self, body: dict[str, Any], timeout_s: float) -> Any:
        """The answer to a request.

        Raises:
            RewardError: none within the time, or the process has ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        sending, receiving = self._process.stdin, self._process.stdout

        def exchange() -> Any:
            write_frame(sending, body)
            return read_frame(receiving)

        reply = self._within(exchange, timeout_s)
        if reply is None:
            raise RewardError(self._post_mortem())
        return reply

    def tell(self, body: dict[str, Any], timeout_s: float) -> None:
        """Send what is not answered.

        Raises:
            RewardError: as ``ask``.
        """
        assert self._process.stdin is not None
        sending = self._process.stdin
        self._within(lambda: write_frame(sending, body), timeout_s)

    def _within(self, action: Callable[[], Any], timeout_s: float) -> Any:
        """The outcome of what may block: a worker that hangs neither reads nor writes. Ending it unblocks the thread."""
        outcome: Future[Any] = Future()

        def run() -> None:
            try:
                outcome.set_result(action())
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                outcome.set_exception(error)

        threading.Thread(target=run, daemon=True, name="reward-worker").start()
        try:
            return outcome.result(timeout_s)
        except FutureTimeout:
            raise RewardError(f"the worker did not answer within {timeout_s:g} s and was ended") from None
        except (OSError, ValueError, wire.WireError) as error:  # a pipe that is broken, or closed already
            raise RewardError(self._post_mortem(str(error))) from error

    def _post_mortem(self, fallback: str = "") -> str:
        try:
            code: int | None = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        why = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        said = _last_line(self._errors) or fallback
        return f"the worker {why}" + (f": {said}" if said else "") + (" (out of memory?)" if code == -9 else "")

    def end(self) -> None:
        self._end()


def _ended(process: subprocess.Popen[bytes], errors: Any) -> None:
    if os.name == "posix":  # with whatever it has started itself; it leads a group of its own
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, errors):
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.close()


def _last_line(errors: BinaryIO) -> str:
    """The last thing that a process wrote to its standard error."""
    with contextlib.suppress(OSError, ValueError):
        size = errors.seek(0, os.SEEK_END)
        errors.seek(max(0, size - TAIL_BYTES))
        lines = errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else ""
    return ""
