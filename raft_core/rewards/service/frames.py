"""Messages between a run and the process of an isolated reward, framed by their length."""

from __future__ import annotations

from typing import IO, Any

from raft_core.rewards.service import messages as wire

HEAD_BYTES = 8


def write_frame(stream: IO[bytes], body: dict[str, Any]) -> None:
    content = wire.plain(body)
    stream.write(len(content).to_bytes(HEAD_BYTES, "big") + content)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Any:
    """The next frame; None at the end.

    Raises:
        WireError: it is no JSON.
    """
    head = stream.read(HEAD_BYTES)
    if len(head) < HEAD_BYTES:
        return None
    length = int.from_bytes(head, "big")
    content = stream.read(length)
    return None if len(content) < length else wire.parsed(content)
