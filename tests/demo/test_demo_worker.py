"""The process that does the demo's work: the line before it, its errors, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from raft_demo.shared.worker import UNEXPECTED, Progress, Waiting, Worker, WorkError

PATIENCE_S = 60


@pytest.fixture
def worker():
    """A worker; its process finds the jobs of ``work_jobs`` beside this file, as pytest does."""
    worker = Worker(waiting=2)
    yield worker
    worker.close()


def until(condition):
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < PATIENCE_S, "this takes too long"
        time.sleep(0.02)


def in_background(target):
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_what_a_job_yields_and_tells_arrives_in_order(worker):
    events = list(worker.run("work_jobs:count", up_to=3))
    assert events == [Progress("below", 1, 2), 0, 1, 2]
    assert worker.result("work_jobs:count", up_to=3) == 2


def test_jobs_run_in_the_order_in_which_they_came_and_say_who_is_before_them(worker, tmp_path):
    log, held, ahead = tmp_path / "log", tmp_path / "held", []

    def ask(name, wait=None):
        for event in worker.run("work_jobs:note", log=log, name=name, wait_for=wait):
            if isinstance(event, Waiting):
                ahead.append((name, event.ahead))

    threads = []
    for number, name in enumerate("abc", start=1):
        threads.append(in_background(lambda name=name: ask(name, held if name == "a" else None)))
        until(lambda number=number: worker.length == number)
    until(lambda: len(ahead) >= 2)
    held.touch()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert log.read_text() == "abc"
    assert sorted(ahead)[:2] == [("b", 1), ("c", 2)]


def test_more_than_may_wait_are_refused_in_words(worker, tmp_path):
    held = tmp_path / "held"
    log = tmp_path / "log"
    threads = []
    for number in range(1, 4):  # one is worked at, two wait
        threads.append(in_background(lambda: list(worker.run("work_jobs:note", log=log, name="x", wait_for=held))))
        until(lambda number=number: worker.length == number)
    with pytest.raises(WorkError, match="2 others are waiting already"):
        next(worker.run("work_jobs:count", up_to=1))
    held.touch()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert log.read_text() == "xxx"


def test_an_error_reaches_only_who_caused_it(worker, caplog):
    with pytest.raises(WorkError, match="the prompt is empty"):
        list(worker.run("work_jobs:fail", expected=True))
    with pytest.raises(WorkError) as unforeseen:
        list(worker.run("work_jobs:fail", expected=False))
    assert str(unforeseen.value) == UNEXPECTED  # and not the traceback, which may hold what is nobody's business
    assert "ZeroDivisionError" in caplog.text
    assert worker.result("work_jobs:count", up_to=1) == 0


def test_a_process_that_dies_fails_its_job_in_words_and_the_next_gets_a_new_one(worker):
    first = worker.result("work_jobs:process_id")
    with pytest.raises(WorkError, match="the process that does the work ended"):
        list(worker.run("work_jobs:die"))
    second = worker.result("work_jobs:process_id")
    assert first != second


def test_a_job_that_nobody_waits_for_stops(worker, tmp_path):
    log = tmp_path / "log"
    events = worker.run("work_jobs:endless", log=log)
    assert next(events) == "begun"
    events.close()
    until(lambda: worker.length == 0)
    assert log.read_text() == "stopped"  # its context was left in order
    assert worker.result("work_jobs:count", up_to=1) == 0


def test_a_job_that_is_given_up_in_the_line_never_begins(worker, tmp_path):
    held, log = tmp_path / "held", tmp_path / "log"
    first = in_background(lambda: list(worker.run("work_jobs:note", log=log, name="a", wait_for=held)))
    until(lambda: worker.length == 1)
    waiting = worker.run("work_jobs:note", log=log, name="b", wait_for=None)
    assert next(waiting) == Waiting(1)
    waiting.close()
    until(lambda: worker.length == 1)
    held.touch()
    first.join(PATIENCE_S)
    assert worker.result("work_jobs:count", up_to=1) == 0
    assert log.read_text() == "a"


def test_closing_ends_the_process_and_fails_what_is_left(worker):
    process = worker.result("work_jobs:process_id")
    found = []

    def ask():
        try:
            list(worker.run("work_jobs:endless", log=Path(os.devnull)))
        except WorkError as error:
            found.append(str(error))

    thread = in_background(ask)
    until(lambda: worker.length == 1)
    worker.close()
    thread.join(PATIENCE_S)
    assert found
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    with pytest.raises(WorkError, match="shut down"):
        next(worker.run("work_jobs:count", up_to=1))


def test_the_web_process_imports_no_torch():
    code = "import raft_demo.app, sys; print([name for name in ('torch', 'diffusers', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
