"""The app: the pages in their order, and how it is served."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: nothing is sent anywhere

import gradio as gr
from starlette.middleware import Middleware

from raft_core.errors import ConfigError
from raft_demo.align import page as align
from raft_demo.compare import page as compare
from raft_demo.preferences import page as preferences
from raft_demo.rewards import page as rewards
from raft_demo.runs import page as runs
from raft_demo.shared.addresses import PageInAddress
from raft_demo.shared.assets import asset
from raft_demo.shared.hosts import KnownHosts
from raft_demo.shared.theme import CSS, theme
from raft_demo.shared.worker import UNEXPECTED
from raft_demo.story import page as story
from raft_demo.studio import Studio
from raft_demo.text import page as text

#: Each is a module with ``NAME`` and ``build(studio)``, which lays the page out inside its tab; it may have ``CSS`` of its own.
PAGES: list[ModuleType] = [story, compare, align, runs, preferences, text, rewards]
MOTTO = "Sample several, score them, keep the best, fine-tune on those, repeat."
LOCAL = ("127.0.0.1", "localhost", "::1")
TUNNEL = ("*.gradio.live", "*.gradio.app")  # of a public link
VISITORS = 40
FORGET_S = 24 * 3600  # files that were offered for download are kept so long


def build(studio: Studio, pages: Sequence[ModuleType] = PAGES) -> gr.Blocks:
    """The app, with these pages; nothing is loaded before a visitor asks for it."""
    with gr.Blocks(title="RAFT", analytics_enabled=False, delete_cache=(3600, FORGET_S)) as app:
        gr.HTML(f"<div class='raft-head'><h1>RAFT</h1><p>{MOTTO}</p></div>")
        with gr.Tabs(elem_id="pages") as tabs:
            for page in pages:
                with gr.Tab(page.NAME, id=page.NAME.lower(), elem_id=f"page-{page.NAME.lower()}"):
                    page.build(studio)
        names = [page.NAME.lower() for page in pages]

        def addressed(request: gr.Request) -> Any:
            """The page that the address names."""
            asked = request.query_params.get("page", "")
            return gr.Tabs(selected=asked) if asked in names else gr.skip()

        # Through the queue: what goes another way does not bring the address's parameters.
        app.load(addressed, None, tabs, show_progress="hidden", api_visibility="private")
    app.queue(default_concurrency_limit=VISITORS, max_size=4 * VISITORS)
    return app


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: tuple[str, str] | None = None,
    share: bool = False,
    open_browser: bool = False,
    hosts: Sequence[str] = (),
    root_path: str | None = None,
) -> None:
    """Serve until Ctrl-C or a signal to end.

    Args:
        folder: of run folders.
        host: address to listen at; anything but this machine's own asks for ``auth``.
        port: a free one from 7860 on when None.
        auth: (user, password).
        share: a public link through Gradio's tunnel; asks for ``auth``.
        root_path: where a proxy serves it, such as ``/raft``, or the whole address.
        hosts: names besides this machine's own under which it is asked, as behind a proxy; others are refused.

    Raises:
        ConfigError: a public address without ``auth``, a port in use.
    """
    check_exposure(host, share, auth)
    with stopped_by_signal() as stopped:
        studio = Studio(folder)
        try:
            app = build(studio)
            address = {"server_name": host, "server_port": port, "auth": auth, "share": share, "inbrowser": open_browser}
            address["root_path"] = root_path
            known = Middleware(KnownHosts, allowed=(*hosts, *(TUNNEL if share else ())))
            settings = launch_settings(studio)
            settings["app_kwargs"]["middleware"].insert(0, known)
            app.launch(**settings, **address, prevent_thread_lock=True)
            stopped.wait()
            print("closing", flush=True)
            app.close(verbose=False)
        except OSError as error:
            raise ConfigError(f"the app cannot listen at {host}:{port or '7860 …'}: {error}; choose another --port") from error
        finally:
            studio.close()


@contextmanager
def stopped_by_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the app ends by itself and takes its worker with it.

    A second Ctrl-C ends at once.
    """
    stopped = threading.Event()

    def stop(_number: int, _frame: Any) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_exposure(host: str, share: bool, auth: tuple[str, str] | None) -> None:
    """Who can reach the app can run models and write into the runs folder.

    Raises:
        ConfigError: others than this machine's users could, and nobody is asked for a password.
    """
    if auth is None and (share or host not in LOCAL):
        where = "--share makes the app public" if share else f"--host {host} makes the app reachable from other machines"
        raise ConfigError(f"{where}: add --auth USER:PASSWORD")


def launch_settings(studio: Studio, pages: Sequence[ModuleType] = PAGES) -> dict[str, Any]:
    """What Gradio is told besides the address. Only the runs folder's pictures may be fetched by path."""
    return {
        "theme": theme(),
        "app_kwargs": {"middleware": [Middleware(PageInAddress)]},
        "head": f"<script>const UNFORESEEN = {json.dumps(UNEXPECTED)};\n{asset('shared/links.js')}</script>",
        "css": CSS + "".join(getattr(page, "CSS", "") for page in pages),
        "max_threads": 2 * VISITORS,  # a visitor who waits in the line holds one
        "allowed_paths": [],
        "max_file_size": studio.limits.upload_bytes,
        "show_error": True,
        "ssr_mode": False,
        "quiet": False,
    }
