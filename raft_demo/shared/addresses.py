"""Addresses that name a page, such as ``/?page=runs&run=NAME``."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send


class PageInAddress:
    """Keeps ``page`` from Gradio's own answer to ``/``, which takes it for a page of another kind and fails.

    The browser still has it in its address, and brings it with every event.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and b"page=" in scope["query_string"]:
            inner = scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
            if not inner:
                scope = {**scope, "query_string": without_page(scope["query_string"])}
        await self.app(scope, receive, send)


def without_page(query: bytes) -> bytes:
    """The query without ``page``."""
    return urlencode([(k, v) for k, v in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if k != "page"]).encode()
