"""The app as a Space of the Hugging Face Hub.

`raft demo` asks for a password before it serves others than this machine's users. A Space may be public instead, and then has
what is safe for strangers: pages that write nothing and answer within seconds, with tighter limits. With the secret
``RAFT_AUTH`` it is the whole app, for those who know the password.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from raft_core.errors import ConfigError
from raft_demo.app import PAGES, build, check_exposure, launch_settings
from raft_demo.compare import page as compare
from raft_demo.rewards import page as rewards
from raft_demo.runs import page as runs
from raft_demo.shared.limits import Limits
from raft_demo.studio import Studio
from raft_demo.text import page as text

OPEN: Sequence[ModuleType] = (compare, runs, text, rewards)
STRANGERS = Limits(
    steps=30,
    side=256,
    images=4,
    completions=4,
    models=2,
    prompt_characters=500,
    tokens=128,
    votes=16,
    problems=30,
    waiting=24,
    upload_bytes=5 * 2**20,
    upload_files=8,
    upload_pixels=8_000_000,
)
EVERYWHERE = "0.0.0.0"  # within its container; the Hub decides who comes


def credentials() -> tuple[str, str] | None:
    """User and password, if the Space has the secret.

    Raises:
        ConfigError: the secret is not of the form USER:PASSWORD; a Space whose owner wants a password is never open.
    """
    secret = os.environ.get("RAFT_AUTH")
    if secret is None:
        return None
    user, colon, password = secret.partition(":")
    if not (user and colon and password):
        raise ConfigError("the secret RAFT_AUTH is not of the form USER:PASSWORD")
    return user, password


def pages(auth: tuple[str, str] | None) -> Sequence[ModuleType]:
    """What whoever comes may use."""
    return OPEN if auth is None else PAGES


def studio(auth: tuple[str, str] | None) -> Studio:
    """The runs folder, and what a visitor may ask for."""
    return Studio(Path(os.environ.get("RAFT_RUNS", "runs")), Limits() if auth else STRANGERS)


def main() -> None:
    auth = credentials()
    chosen = pages(auth)
    if set(chosen) - set(OPEN):
        check_exposure(EVERYWHERE, share=False, auth=auth)
    state = studio(auth)
    try:
        build(state, chosen).launch(server_name=EVERYWHERE, auth=auth, **launch_settings(state, chosen))
    finally:
        state.close()


if __name__ == "__main__":  # the worker's process imports this module too
    main()
