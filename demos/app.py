"""The app: the pages in their order, and how it is served."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: nothing is sent anywhere

import gradio as gr

from demos import align, compare, preferences, rewards, runs, text
from demos.backend.studio import Studio
from demos.backend.theme import CSS, theme
from raft_core.errors import ConfigError

#: Each is a module with ``NAME`` and ``build(studio)``, which lays the page out inside its tab.
PAGES: list[ModuleType] = [compare, align, runs, preferences, text, rewards]
MOTTO = "Sample several, score them, keep the best, fine-tune on those, repeat."
LOCAL = ("127.0.0.1", "localhost", "::1")
VISITORS = 40


def build(studio: Studio) -> gr.Blocks:
    """The whole app; nothing is loaded before a visitor asks for it."""
    with gr.Blocks(title="RAFT", analytics_enabled=False) as app:
        gr.HTML(f"<div class='raft-head'><h1>RAFT</h1><p>{MOTTO}</p></div>")
        with gr.Tabs(elem_id="pages"):
            for page in PAGES:
                with gr.Tab(page.NAME, id=page.NAME.lower(), elem_id=f"page-{page.NAME.lower()}"):
                    page.build(studio)
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
) -> None:
    """Serve until interrupted.

    Args:
        folder: of run folders.
        host: address to listen at; anything but this machine's own asks for ``auth``.
        port: a free one from 7860 on when None.
        auth: (user, password).
        share: a public link through Gradio's tunnel; asks for ``auth``.

    Raises:
        ConfigError: a public address without ``auth``, a port in use.
    """
    check_exposure(host, share, auth)
    studio = Studio(folder)
    try:
        app = build(studio)
        app.launch(
            **launch_settings(studio), server_name=host, server_port=port, auth=auth, share=share, inbrowser=open_browser
        )
    except OSError as error:
        raise ConfigError(f"the app cannot listen at {host}:{port or '7860 …'}: {error}; choose another --port") from error
    finally:
        studio.close()


def check_exposure(host: str, share: bool, auth: tuple[str, str] | None) -> None:
    """Who can reach the app can run models and write into the runs folder.

    Raises:
        ConfigError: others than this machine's users could, and nobody is asked for a password.
    """
    if auth is None and (share or host not in LOCAL):
        where = "--share makes the app public" if share else f"--host {host} makes the app reachable from other machines"
        raise ConfigError(f"{where}: add --auth USER:PASSWORD")


def launch_settings(studio: Studio) -> dict[str, Any]:
    """What Gradio is told besides the address. Only the runs folder's pictures may be fetched by path."""
    return {
        "theme": theme(),
        "css": CSS,
        "allowed_paths": [],
        "max_file_size": studio.limits.upload_bytes,
        "show_error": True,
        "ssr_mode": False,
        "quiet": False,
    }
