"""The app answers to names of this machine alone: a page elsewhere that has its name lead here cannot use it."""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from raft_core.machine.hosts import is_own_host

REFUSED = b"This app does not answer to that name. Start it with --allow_host NAME if it should.\n"


class KnownHosts:
    """Refuses requests whose ``Host`` is no name of this machine.

    Args:
        app: what answers the others.
        allowed: further names.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str] = ()):
        self.app, self.allowed = app, tuple(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not is_own_host(hosts[0], self.allowed):
                await _refuse(scope, send)
                return
        await self.app(scope, receive, send)


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(REFUSED)).encode())]
    await send({"type": "http.response.start", "status": 421, "headers": headers})
    await send({"type": "http.response.body", "body": REFUSED})
