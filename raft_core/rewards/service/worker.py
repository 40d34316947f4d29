"""The process in which an ``Isolated`` reward lives: reads requests, writes answers, both as frames of JSON.

A frame is 8 bytes of length, most significant first, and so many bytes of JSON. The first one names the reward
(``{"spec": …}``) and is answered by ``{"ready": true}`` once it is loaded; each further one holds samples, as in ``wire``, or
``{"sleep": true}``, which is not answered.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from raft_core import capabilities
from raft_core.errors import RaftError
from raft_core.rewards.service import messages as wire
from raft_core.rewards.service.frames import read_frame, write_frame


def main() -> None:
    """Serve until the parent closes its end."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the reward prints is no answer
    reward, reply = _loaded(read_frame(requests))
    write_frame(answers, reply)
    while reward is not None and (body := read_frame(requests)) is not None:
        if body.get("sleep"):
            capabilities.sleep(reward)
        else:
            write_frame(answers, _scored(reward, body))


def _loaded(body: Any) -> tuple[Any, dict[str, Any]]:
    """(the reward or None, what to answer)."""
    from raft_core.config.components import reward_spec
    from raft_core.machine.out_of_memory import is_out_of_memory

    try:
        sys.path[:0] = [place for place in body.get("path", []) if place not in sys.path]
        reward: Any = reward_spec(body["spec"]).reward
        capabilities.load(reward)
    except RaftError as error:
        return None, {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - a user's reward may raise anything; the parent tells of it
        kind = "memory" if is_out_of_memory(error) else "error"
        return None, {kind: f"{type(error).__name__}: {error}"}
    return reward, {"ready": True}


def _scored(reward: Any, body: Any) -> dict[str, Any]:
    from raft_core.machine.out_of_memory import is_out_of_memory
    from raft_core.rewards.scoring import answered

    samples, _ = wire.received(body)
    try:
        values, reason = answered(reward, samples)
    except Exception as error:  # noqa: BLE001 - as above
        kind = "memory" if is_out_of_memory(error) else "error"
        return {"scores": [None] * len(samples), kind: f"{type(error).__name__}: {error}"}
    if not reason and np.isnan(values).any():
        reason = "the reward returned NaN or an infinity"
    return wire.answer(values, reason)


if __name__ == "__main__":
    main()
