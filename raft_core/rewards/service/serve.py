"""Any reward behind HTTP.

On the standard library's server: two addresses, JSON in and out, and one reward that scores one request at a time anyway. A web
framework would add dependencies and nothing else.
"""

from __future__ import annotations

import contextlib
import hmac
import io
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from raft_core.capabilities import AttachesPolicy
from raft_core.errors import ConfigError, DeviceError, RaftError
from raft_core.machine.hosts import is_own_host
from raft_core.machine.out_of_memory import is_out_of_memory
from raft_core.protocols import Combinator, Reward
from raft_core.rewards.scoring import score, with_parts
from raft_core.rewards.service import messages as wire


@dataclass(frozen=True)
class Limits:
    """What one request may take.

    Args:
        body_bytes: of a request's body.
        samples: in it.
        pixels: of all its pictures together; as RGB, three bytes each.
        idle_s: seconds that a client may be silent in the middle of a request.
        request_s: seconds that it may take to send one.
        bodies: requests that are read at once; others wait.
    """

    body_bytes: int = 256_000_000
    samples: int = 1024
    pixels: int = 128_000_000
    idle_s: float = 60.0
    request_s: float = 300.0
    bodies: int = 4


class RewardServer(ThreadingHTTPServer):
    """Answers ``GET /info`` and ``POST /score`` for one reward.

    Args:
        reward: loaded.
        host: address to listen on; ``127.0.0.1`` = this machine only.
        port: 0 = any that is free.
        limits: of one request.
        key: bearer token that clients must send; "" = none.

    Raises:
        ConfigError: the reward needs the policy, which is elsewhere.
        DeviceError: the address cannot be listened on.
    """

    daemon_threads = True

    def __init__(
        self,
        reward: Reward | Combinator,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits = Limits(),
        key: str = "",
    ):
        if needy := [part.info.name for part in with_parts(reward) if isinstance(part, AttachesPolicy)]:
            raise ConfigError(f"the reward {needy[0]!r} needs the policy itself, which is not here: it cannot be served")
        self.reward, self.limits, self.key = reward, limits, key
        self.busy = threading.Lock()  # models are not made for several threads, nor is memory for several requests' pictures
        self.reading = threading.BoundedSemaphore(limits.bodies)
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise DeviceError(f"cannot listen on {host}:{port}: {error}; choose another --port") from error

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host if isinstance(host, str) else host.decode()}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def facts(self) -> dict[str, Any]:
        info = self.reward.info
        return {"name": info.name, "scale": info.scale, "higher_is_better": info.higher_is_better}

    def scores(self, body: Any) -> dict[str, Any]:
        """The reply to a parsed request.

        Raises:
            WireError: no such request.
        """
        with self.busy:
            samples, errors = wire.received(body, self.limits.samples, self.limits.pixels)
            good = [number for number, error in enumerate(errors) if error is None]
            values = np.full(len(samples), np.nan)
            reason = next((error for error in errors if error), "")
            if good:
                columns, failures = score(self.reward, [samples[number] for number in good])
                values[good] = columns[self.reward.info.name]
                if failure := failures.get(self.reward.info.name):
                    reason = reason or failure.first_error
        return wire.answer(values, reason)


@contextlib.contextmanager
def serving_reward(reward: Reward | Combinator, limits: Limits = Limits(), key: str = "") -> Iterator[str]:
    """Inside, a reward answers on a free port of this machine; yields its address."""
    server = RewardServer(reward, limits=limits, key=key)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refusal(Exception):  # noqa: N818 - an answer, not an error
    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class _Patient(io.RawIOBase):
    """A client's bytes, waited for so long and no longer. A socket's own limit is for the gap between two of them alone."""

    def __init__(self, connection: socket.socket, limits: Limits):
        self._connection, self._limits = connection, limits
        self.begin()

    def begin(self) -> None:
        """From here on the time of a request counts."""
        self._deadline = time.monotonic() + self._limits.request_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long to send")
        self._connection.settimeout(min(left, self._limits.idle_s))
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    server: RewardServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.request.settimeout(self.server.limits.idle_s)
        super().setup()
        self._patient = _Patient(self.request, self.server.limits)
        self.rfile.close()
        self.rfile = io.BufferedReader(self._patient)

    def handle_one_request(self) -> None:
        self._patient.begin()
        super().handle_one_request()

    def do_GET(self) -> None:
        self._answer("/info", self.server.facts)

    def do_POST(self) -> None:
        self._answer("/score", self._scores)

    def _scores(self) -> dict[str, Any]:
        with self._turn():
            body = self._body()
            return self.server.scores(body)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One of the requests whose bodies are in memory."""
        if not self.server.reading.acquire(timeout=self.server.limits.idle_s):
            raise _Refusal(503, "too many requests at once: try again")
        try:
            yield
        finally:
            self.server.reading.release()

    def _answer(self, path: str, make: Any) -> None:
        try:
            self._admit(path)
            status, reply = 200, make()
        except _Refusal as refusal:
            status, reply = refusal.status, {"error": str(refusal)}
        except wire.WireError as error:
            status, reply = 400, {"error": str(error)}
        except (TimeoutError, ConnectionError):
            self.close_connection = True
            return
        except RaftError as error:
            status, reply = 500, {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - a server outlives any request
            oom = is_out_of_memory(error)
            text = "out of memory: send fewer samples at once" if oom else f"{type(error).__name__}: {error}"
            status, reply = 503 if oom else 500, {"error": text}
        if status != 200:
            self.close_connection = True  # the body may not have been read
        self._send(status, wire.plain(reply))

    def _admit(self, path: str) -> None:
        # A web page elsewhere could have its own name lead here; who has the token is none.
        if not self.server.key and not is_own_host(self.headers.get("Host", "localhost")):
            raise _Refusal(421, "this server does not answer to that name")
        if self.server.key:
            given = self.headers.get("Authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, f"Bearer {self.server.key}".encode()):
                raise _Refusal(401, "the bearer token is missing or wrong")
        if self.path.partition("?")[0].rstrip("/") != path:
            raise _Refusal(404, f"there is only GET /info and POST /score here, not {self.command} {self.path[:80]}")

    def _body(self) -> Any:
        # A web page elsewhere cannot send this type to a server on the visitor's machine without being asked first.
        if self.headers.get_content_type() != "application/json":
            raise _Refusal(415, "the Content-Type must be application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise _Refusal(411, "the Content-Length is missing")
        if int(length) > self.server.limits.body_bytes:
            raise _Refusal(413, f"{int(length)} bytes are too many: send at most {self.server.limits.body_bytes}")
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise ConnectionError("the client went away")
        return wire.parsed(content)

    def _send(self, status: int, content: bytes) -> None:
        self.request.settimeout(self.server.limits.idle_s)
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""
