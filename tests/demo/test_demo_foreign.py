"""What a visitor did not make with the page: strange folders in the runs folder, values of any type, names that lead here."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr
import pytest
from conftest import served

from raft_core.bundled import bundled_runs
from raft_core.errors import DataError
from raft_core.machine.hosts import is_own_host
from raft_demo.queue.files import read_entry
from raft_demo.queue.standing import read_phases
from raft_demo.runs import view
from raft_demo.shared.arguments import require_types
from raft_demo.shared.comparable import comparables
from raft_demo.shared.errors import spoken
from raft_demo.shared.hosts import KnownHosts
from raft_demo.shared.offered import learned
from raft_demo.shared.runs import all_runs

# ---------------------------------------------------------------------- folders


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", b"[]"),
        ("run.json", b"null"),
        ("run.json", b'"x"'),
        ("run.json", b"\xff\xfe"),
        ("run.json", b"[" * 100_000),
        ("run.json", b'{"status": ["running"]}'),
        ("config.yaml", b"rounds: many\n"),
        ("config.yaml", b"rounds: [1]\n"),
        ("config.yaml", b"policy: {class_path: x, init_args: [1]}\n"),
        ("config.yaml", b"policy: {class_path: 3}\n"),
        ("config.yaml", b"policy: [1]\nreward: 3\n"),
        ("metrics.jsonl", b"null\n"),
        ("metrics.jsonl", b'{"round": 1, "re'),
        ("metrics.jsonl", b'{"round": "1"}\n'),
    ],
)
def test_one_strange_run_hides_no_other(tmp_path, file, content):
    for name in ("good", "strange"):
        shutil.copytree(bundled_runs()["bundled:examples/resolution"], tmp_path / name)
    (tmp_path / "strange" / file).write_bytes(content)
    found = {run.name: run for run in all_runs(tmp_path)}
    assert set(found) == {"good", "strange"} and found["good"].status == "finished"
    assert "good" in view.list_html(list(found.values()), {}, [])
    assert "good" in {each.key for each in comparables(list(found.values()))}


def test_what_is_no_folder_hides_no_run(tmp_path):
    shutil.copytree(bundled_runs()["bundled:examples/resolution"], tmp_path / "good")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / "run.json")
    (tmp_path / "rewards" / "mine").mkdir(parents=True)
    (tmp_path / "rewards" / "mine" / "config.json").write_text('{"format": "raft-learned-reward-1", "training": [1]}')
    assert [run.name for run in all_runs(tmp_path)] == ["good"] and list(learned(tmp_path)) == []


@pytest.mark.parametrize(
    "content", ["", "[]", '{"name": 3}', '{"name": "a", "state": "odd", "order": 1}', "[[1]]", '[{"name": 1}]']
)
def test_strange_files_of_the_line_are_passed_over(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    assert read_entry(tmp_path / "a.json") is None and read_phases(tmp_path / "a.json") == []


# ---------------------------------------------------------------------- values


def handler(name: str, ticked: Sequence[str], amount: float | str, _marks: dict[str, Any] | None, _any: Any) -> str:
    return f"{name} {len(ticked or [])} {amount}"


GOOD = ("a", ["b"], 3, {"c": 1}, object())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 3),
        (0, ["a"]),
        (0, {"a": 1}),
        (0, True),
        (1, "b"),
        (1, [3]),
        (1, {"b": 1}),
        (2, [1]),
        (2, {}),
        (3, [1]),
        (0, "x" * 10**6),
    ],
)
def test_values_of_other_types_are_refused_in_words(place, value):
    given = [*GOOD[:place], value, *GOOD[place + 1 :]]
    with pytest.raises(DataError):
        require_types(handler, tuple(given), {})
    with pytest.raises(gr.Error) as told:
        spoken(handler)(*given)
    assert told.value.title == "This cannot be done"


def test_values_as_the_page_sends_them_are_taken():
    assert spoken(handler)(*GOOD) == "a 1 3"
    assert spoken(handler)(None, None, "3.5", None, None) == "None 0 3.5"  # an empty box sends nothing
    with pytest.raises(DataError, match="other values than it takes"):
        require_types(handler, GOOD[:2], {})


def test_generators_are_checked_before_they_begin():
    @spoken
    def several(name: str) -> Iterator[str]:
        yield name

    assert list(several("a")) == ["a"]
    with pytest.raises(gr.Error):
        list(several(3))  # type: ignore[arg-type]


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "header",
    [
        "localhost",
        "LOCALHOST:7860",
        "a.localhost",
        "127.0.0.1:7860",
        "[::1]:7860",
        "192.168.1.7",
        socket.gethostname(),
        "localhost.",
    ],
)
def test_names_of_this_machine(header):
    assert is_own_host(header)


@pytest.mark.parametrize(
    "header",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        None,
        "a b",
        "localhost:x",
        "x@localhost",
        "[::1].evil",
    ],
)
def test_names_that_lead_here_from_elsewhere(header):
    assert not is_own_host(header)


def test_names_that_are_allowed():
    assert is_own_host("a.gradio.live", ["*.gradio.live"]) and is_own_host("Proxy.example:443", ["proxy.example"])
    assert not is_own_host("gradio.live.evil.example", ["*.gradio.live"]) and not is_own_host("xgradio.live", ["*.gradio.live"])


def asked(hosts, kind="http"):
    """What comes back for a request with these Host headers."""

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[Any] = []

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": [(b"host", host) for host in hosts]}
    with ThreadPoolExecutor(1) as other:  # in this thread a browser's event loop may be running
        other.submit(asyncio.run, KnownHosts(app)(scope, None, send)).result()  # type: ignore[arg-type] - nothing is received
    return sent[0]


def test_requests_under_a_foreign_name_are_refused():
    assert asked([b"localhost:7860"])["status"] == 200
    for hosts in ([b"evil.example"], [], [b"localhost", b"evil.example"], [b"\xff"]):
        assert asked(hosts)["status"] == 421
    assert asked([b"evil.example"], "websocket")["type"] == "websocket.close"


@pytest.mark.slow
def test_the_served_app_answers_to_its_own_names_alone(tmp_path):
    import urllib.error
    import urllib.request

    with served(tmp_path / "runs", "--allow_host", "proxy.example") as app:
        for host, status in ((app.url.removeprefix("http://"), 200), ("proxy.example", 200), ("evil.example", 421)):
            request = urllib.request.Request(f"{app.url}/config", headers={"Host": host})
            try:
                with urllib.request.urlopen(request, timeout=60) as reply:
                    assert reply.status == status and json.load(reply)["components"]
            except urllib.error.HTTPError as error:
                with error:
                    assert error.code == status
