"""An OpenAI-compatible endpoint on a local port that says what it is told: for tests, and to try a judge without a model."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Raw:
    """An HTTP response as it is.

    Attributes:
        body: sent after the headers.
        status: HTTP status.
        headers: besides Content-Length, which they may replace with a lie.
        delay_s: seconds before anything is sent.
        trickle_s: seconds before each byte of the body; 0 = at once.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    trickle_s: float = 0.0


Answer = Callable[[dict[str, Any]], "str | Raw"]  # from a request's body to the model's text, or to a whole response


@dataclass
class Serving:
    """A running endpoint.

    Attributes:
        url: its base address, ``http://127.0.0.1:PORT/v1``.
        bodies: the requests so far, parsed.
        headers: theirs.
    """

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[Serving]:
    """Inside, an endpoint answers every chat completion with what ``answer`` makes of the request's body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.bodies.append(body)
            state.headers.append(dict(self.headers))
            said = answer(body) if self.path == "/v1/chat/completions" else Raw(b"not found", status=404)
            with contextlib.suppress(ConnectionError):  # a client that has given up
                _send(self, completion(said) if isinstance(said, str) else said)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Serving(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str) -> Raw:
    """A well-formed chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = json.dumps({"object": "chat.completion", "choices": [choice]}).encode()
    return Raw(body, headers={"Content-Type": "application/json"})


def _send(handler: BaseHTTPRequestHandler, raw: Raw) -> None:
    time.sleep(raw.delay_s)
    handler.send_response(raw.status)
    for name, value in ({"Content-Length": str(len(raw.body))} | dict(raw.headers)).items():
        handler.send_header(name, value)
    handler.end_headers()
    if not raw.trickle_s:
        handler.wfile.write(raw.body)
        return
    for byte in raw.body:
        handler.wfile.write(bytes([byte]))
        time.sleep(raw.trickle_s)
