"""The app as its own process, and a real browser in front of it.

Screenshots go to ``tests/demo/screenshots`` (not kept in the repository) for a person to look at.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCREENSHOTS = Path(__file__).parent / "screenshots"
#: How long a state is waited for. On a machine with much else to do a picture may take minutes.
PATIENCE_S = 250
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
#: A Gradio page asks for these where nothing is fetched from the network.
HARMLESS = re.compile(r"manifest\.json|favicon|net::ERR_INTERNET_DISCONNECTED|fonts\.g|signal is aborted without reason")


@dataclass
class App:
    """A served app."""

    url: str
    runs: Path
    process: subprocess.Popen

    def log(self) -> str:
        return (self.runs.parent / "app.log").read_text()


@contextmanager
def served(runs: Path, *options: str, **environment: str) -> Iterator[App]:
    """`raft demo` until the block ends, on the port that it finds itself and tells: one looked up here may be lost by then."""
    runs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "raft_cli", "demo", str(runs), *options]
    told = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **environment}
    with (runs.parent / "app.log").open("a") as log:
        begins = log.tell()
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **told})
    app = App("", runs, process)
    try:
        app.url = _address(app, begins)
        yield app
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(app: App, begins: int) -> str:
    """Where the app listens, once it does; its log may begin with those of apps before."""
    for _ in range(500):
        if found := re.search(r"Running on local URL:\s+(http://\S+)", app.log()[begins:]):
            return found[1]
        if app.process.poll() is not None:
            pytest.fail(f"the app ended at once:\n{app.log()}")
        time.sleep(0.5)
    pytest.fail(f"the app does not answer:\n{app.log()}")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the bundled recipe, shrunken to one round; copy it into a test's runs folder, never write to it."""
    folder = tmp_path_factory.mktemp("aligned") / "small"
    settings = {
        "rounds": 1,
        "k": 4,
        "trainer.steps": 8,
        "evaluation.k": 1,
        "evaluation.prompts": 4,
        "output": folder,
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "raft_cli", "align", "shapes/resolution", *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test in a browser waits for one thing after the other."""
    for item in items:
        if "open_page" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(4 * PATIENCE_S))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, or whichever is installed."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """``open_page(app.url, tab="Compare", size=WIDE, dark=False)``; the test fails if the browser's console shows an error."""
    contexts, errors = [], []

    def opened(url: str, *, tab: str | None = None, size: dict = WIDE, dark: bool = False) -> Any:
        context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        page.on("console", lambda told: errors.append(f"{told.text} {told.location}") if told.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{url}/?__theme={'dark' if dark else 'light'}")
        page.get_by_role("heading", name="RAFT", exact=True).wait_for()
        if tab:
            go_to(page, tab)
        return page

    yield opened
    for context in contexts:
        context.close()
    serious = [text for text in errors if not HARMLESS.search(text)]
    assert not serious, f"the browser's console shows errors: {serious}"


def go_to(page: Any, tab: str) -> None:
    """Open a page of the app; in a narrow window it may be behind "More tabs".

    What fits is measured after the row was drawn, and a tab may go behind the button just before it is clicked: then again.
    """
    shown = page.get_by_role("tab", name=tab, exact=True)
    more = page.get_by_role("button", name="More tabs")
    opened = page.locator(f"#page-{tab.lower()}")
    until(page, lambda: opened.is_visible() or _tried(shown, more, page, tab), lambda: opened.is_visible())


def _tried(shown: Any, more: Any, page: Any, tab: str) -> None:
    from playwright.sync_api import TimeoutError as TooLong

    with suppress(TooLong):
        if shown.is_visible():
            shown.click(timeout=2000)
        elif more.is_visible():
            more.click(timeout=2000)
            page.locator(".overflow-dropdown").get_by_role("button", name=tab, exact=True).click(timeout=2000)


def until(page: Any, act: Callable[[], Any], holds: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Do something again and again until a state holds: a page that is not ready yet lets a click pass."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that in time"
        act()
        page.wait_for_timeout(250)


def shot(page: Any, name: str) -> None:
    """Keep a screenshot of the whole page."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
