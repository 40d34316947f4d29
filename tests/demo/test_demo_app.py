"""The app as a whole: who may come in, what is served, how it ends."""

from __future__ import annotations

import http.cookiejar
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import gradio as gr
import pytest
from conftest import NARROW, WIDE, go_to, served, shot

from raft_core.bundled import bundled_runs
from raft_core.errors import ConfigError, DataError
from raft_demo.app import PAGES, check_exposure
from raft_demo.shared.errors import spoken
from raft_demo.shared.limits import Limits, within
from raft_demo.shared.runs import inside
from raft_demo.shared.worker import UNEXPECTED

CONTRASTS = (Path(__file__).parents[1] / "contrast.js").read_text()


def fetched(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """(status, body), of errors too."""
    request = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with served(tmp_path_factory.mktemp("app") / "runs") as app:
        yield app


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_alone_needs_no_password(host):
    check_exposure(host, share=False, auth=None)


@pytest.mark.parametrize(("host", "share"), [("0.0.0.0", False), ("192.168.0.4", False), ("127.0.0.1", True)])
def test_others_must_be_asked_for_a_password(host, share):
    with pytest.raises(ConfigError, match="add --auth USER:PASSWORD"):
        check_exposure(host, share, None)
    check_exposure(host, share, ("ada", "lovelace"))


def test_errors_are_told_in_words_and_quote_nobody_as_html(caplog):
    def failing(error):
        raise error

    with pytest.raises(gr.Error) as told:
        spoken(failing)(ConfigError(["<script> is no size", "K is 0"]))
    assert "&lt;script&gt; is no size<br>" in told.value.message and "<script>" not in told.value.message
    with pytest.raises(gr.Error) as told:
        next(spoken(yielding)())
    assert told.value.message == UNEXPECTED
    assert "ZeroDivisionError" in caplog.text  # for who runs the app


def yielding():
    yield 1 / 0


def test_no_name_leads_out_of_the_runs_folder(tmp_path):
    runs = tmp_path / "runs"
    (runs / "mine" / "deeper").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (runs / "link").symlink_to(tmp_path / "secret")
    assert inside(runs, "mine") == runs / "mine"
    for name in ("../secret", "/etc", "..", ".", "", "mine/deeper", "mine/../../secret", "link", "none", "a\0b"):
        with pytest.raises(DataError, match="among the runs"):
            inside(runs, name)


@pytest.mark.parametrize("value", [0, 65, "many", None, float("nan"), float("inf")])
def test_sizes_are_checked_again_behind_the_page(value):
    with pytest.raises(ConfigError, match=r"give (a value|one) from 1 to 64"):
        within("k", value, 1, Limits().k)


def test_the_command_refuses_a_public_host_and_a_half_password_at_once():
    for options, words in ((["--host", "0.0.0.0"], "add --auth"), (["--auth", "ada"], "USER:PASSWORD")):
        command = [sys.executable, "-m", "raft_cli", "demo", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 2 and words in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_port_in_use_is_told_in_words(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "raft_cli", "demo", str(tmp_path), "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == 2 and "choose another --port" in told and "Traceback" not in told


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_app_and_its_worker_in_order(tmp_path, number):
    shutil.copytree(bundled_runs()["bundled:examples/resolution"], tmp_path / "runs" / "of last week")
    with served(tmp_path / "runs") as app:
        assert b"of last week" in fetched(f"{app.url}/config")[1]  # what an app knows, it reads from the runs folder
        workers = children(app.process.pid)
        app.process.send_signal(number)
        assert app.process.wait(60) == 0
        assert "Traceback" not in app.log()
    assert not [pid for pid in workers if is_alive(pid)]


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (OSError, ValueError):
            continue
    return found


def is_alive(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../../../etc/passwd",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "{runs}/mine/config.yaml",
        "{runs}/../app.log",
        "pyproject.toml",
        "{here}/raft_demo/app.py",
    ],
)
def test_no_file_of_the_server_is_given_out(app, path):
    (app.runs / "mine").mkdir(exist_ok=True)
    (app.runs / "mine" / "config.yaml").write_text("secret: 1")
    asked = path.format(runs=app.runs, here=Path(__file__).parents[2])
    for route in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/assets/", "/gradio_api/"):
        status, body = fetched(app.url + route + asked)
        assert status >= 400, (route, asked)
        assert b"root:" not in body and b"secret" not in body


@pytest.mark.slow
def test_too_large_an_upload_is_refused(app):
    def posted(size: int) -> int:
        head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        data = head + b"0" * size + b"\r\n--x--\r\n"
        return fetched(f"{app.url}/gradio_api/upload", data, {"Content-Type": "multipart/form-data; boundary=x"})[0]

    assert posted(1000) == 200
    assert posted(Limits().upload_bytes + 10) == 413


@pytest.mark.slow
def test_only_what_is_meant_for_programs_can_be_called_by_name(app):
    _, body = fetched(f"{app.url}/gradio_api/info")
    named = json.loads(body)["named_endpoints"]
    assert "/compare" in named
    assert not [name for name in named if "lambda" in name]


@pytest.mark.slow
def test_who_has_no_password_sees_nothing(tmp_path):
    with served(tmp_path / "runs", "--auth", "ada:lovelace") as app:
        for route in ("/config", "/gradio_api/info", "/gradio_api/queue/status"):
            assert fetched(app.url + route)[0] == 401
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

        def login(password: str) -> int:
            data = urllib.parse.urlencode({"username": "ada", "password": password}).encode()
            try:
                return opener.open(f"{app.url}/login", data, timeout=60).status
            except urllib.error.HTTPError as error:
                return error.code

        assert login("byron") == 400
        assert login("lovelace") == 200
        assert opener.open(f"{app.url}/config", timeout=60).status == 200
        assert "lovelace" not in app.log()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "dark"), [(WIDE, False), (NARROW, True)], ids=["wide", "narrow-dark"])
def test_every_page_opens_and_fits(app, open_page, size, dark):
    page = open_page(app.url, size=size, dark=dark)
    assert page.title() == "RAFT"
    for module in PAGES:
        go_to(page, module.NAME)
        page.locator(f"#page-{module.NAME.lower()}").wait_for()
        page.wait_for_function(f"document.documentElement.scrollWidth <= {size['width']}")  # once all is laid out
        assert page.evaluate(CONTRASTS) == [], module.NAME
        shot(page, f"page-{module.NAME.lower()}-{'narrow-dark' if dark else 'wide'}")
