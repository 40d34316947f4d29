"""The chat client against a real local server that answers well, badly, late and never; and the reading of verdicts."""

from __future__ import annotations

import math
import socket

import pytest

from raft_core.errors import ConfigError
from raft_core.rewards.judge.chat import ChatEndpoint, Unanswered
from raft_core.rewards.judge.fake_endpoint import Raw, completion, serving
from raft_core.rewards.judge.verdicts import parse_choice, parse_score


def endpoint(url, **settings):
    return ChatEndpoint(url, "judge", **({"backoff_s": 0.0, "timeout_s": 30.0, "attempts": 3} | settings))


def asking(text):
    return [{"role": "user", "content": text}]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_answers_come_in_the_order_of_the_questions():
    with serving(lambda body: body["messages"][-1]["content"].upper()) as server:
        questions = [f"question {i}" for i in range(40)]
        assert endpoint(server.url).ask_all([asking(q) for q in questions]) == [q.upper() for q in questions]
        assert endpoint(server.url).ask_all([]) == []


def test_the_request_is_what_the_settings_say(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    settings = {"key_variable": "JUDGE_KEY", "max_tokens": 7, "temperature": 0.5, "extra": {"seed": 3}}
    with serving(lambda _: "fine") as server:
        assert endpoint(server.url, **settings).ask(asking("hello")) == "fine"
    assert server.bodies == [{"model": "judge", "messages": asking("hello"), "max_tokens": 7, "temperature": 0.5, "seed": 3}]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in repr(endpoint(server.url, **settings))


def test_a_text_without_utf8_is_sent_all_the_same():
    with serving(lambda body: str(len(body["messages"][0]["content"]))) as server:
        assert endpoint(server.url).ask(asking("half a pair \ud800, ü")) == "16"


def test_the_address_may_be_given_in_full():
    with serving(lambda _: "fine") as server:
        assert endpoint(server.url + "/chat/completions").ask(asking("hello")) == "fine"
        assert endpoint(server.url + "/").ask(asking("hello")) == "fine"


def first_then(*replies):
    """An answer function that goes through the replies and then repeats the last."""
    remaining = list(replies)
    return lambda _: remaining.pop(0) if len(remaining) > 1 else remaining[0]


LIES = completion("fine").body


@pytest.mark.parametrize(
    "trouble",
    [
        Raw(b"busy", status=500),
        Raw(b"slow down", status=429, headers={"Retry-After": "0"}),
        Raw(b"<html>bad gateway</html>", status=502, headers={"Content-Type": "text/html"}),
        Raw(b"{", headers={"Content-Type": "application/json"}),
        Raw(LIES, headers={"Content-Length": str(len(LIES) - 5)}),
        Raw(LIES, headers={"Content-Length": str(len(LIES) + 5)}),
        Raw(b"[" * 100_000),
    ],
    ids=["500", "429", "502", "half a reply", "announced too short", "announced too long", "nested"],
)
def test_a_passing_trouble_is_asked_again(trouble):
    with serving(first_then(trouble, "fine")) as server:
        assert endpoint(server.url).ask(asking("hello")) == "fine"
        assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("reply", "attempts", "said"),
    [
        (Raw(b"broken", status=500), 3, "status 500: broken (after 3 attempts)"),
        (Raw(b"bad request: too long", status=400), 1, "too long"),
        (Raw(b"who are you", status=401), 1, "status 401"),
        (Raw(b"", status=307, headers={"Location": "https://elsewhere"}), 1, "redirects to https://elsewhere"),
        (
            Raw(b"<!doctype html><p>Welcome", headers={"Content-Type": "text/html"}),
            1,
            "a web page (status 200: <!doctype html><p>Welcome)",
        ),
        (Raw(b'{"choices": []}'), 3, "no chat completion"),
        (Raw(b'{"choices": [{"message": {"content": null}}]}'), 1, "without a text"),
        (Raw(b'{"choices": [{"message": {"content": "Score: 7"}, "finish_reason": "length"}]}'), 1, "cut off at max_tokens"),
        (Raw(b'{"choices": ["Score: 7"]}'), 3, "no chat completion"),
        (Raw(b"\xff\xfe garbage"), 3, "it is not UTF-8"),
    ],
    ids=["500", "400", "401", "redirect", "HTML", "no choices", "no text", "cut short", "no object", "garbage"],
)
def test_a_lasting_trouble_is_told_in_words(reply, attempts, said):
    with serving(lambda _: reply) as server:
        answer = endpoint(server.url).ask(asking("hello"))
    assert isinstance(answer, Unanswered)
    assert said in answer.reason
    assert len(server.bodies) == attempts


@pytest.mark.parametrize("late", [{"delay_s": 60.0}, {"trickle_s": 0.05}], ids=["nothing", "a trickle"])
def test_a_server_that_is_too_slow_is_given_up(late):
    with serving(lambda _: Raw(LIES, **late)) as server:
        answer = endpoint(server.url, timeout_s=0.15, attempts=2).ask(asking("hello"))
    assert isinstance(answer, Unanswered)
    assert "did not answer within 0.15 s (after 2 attempts)" in answer.reason


def test_one_failure_does_not_stop_the_others():
    with serving(lambda body: Raw(b"no", status=400) if "3" in body["messages"][0]["content"] else "fine") as server:
        answers = endpoint(server.url).ask_all([asking(str(i)) for i in range(5)])
    assert [isinstance(answer, Unanswered) for answer in answers] == [False, False, False, True, False]


def test_an_endpoint_that_is_not_there_is_not_asked_again_and_again():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = endpoint(f"http://127.0.0.1:{port}/v1", parallel=1).ask_all([asking("hello")] * 500)
    assert {answer.reason for answer in answers if isinstance(answer, Unanswered)} == {answers[0].reason}  # type: ignore[union-attr]
    assert len(answers) == 500
    assert "is the server running?" in answers[0].reason  # type: ignore[union-attr]

    with serving(lambda _: Raw(b"", status=403)) as server:
        assert all(isinstance(answer, Unanswered) for answer in endpoint(server.url, parallel=1).ask_all([asking("a")] * 50))
    assert len(server.bodies) == 1


def test_mistakes_are_told_before_anything_is_asked(monkeypatch):
    with pytest.raises(ConfigError) as caught:
        ChatEndpoint("localhost:8000", "", timeout_s=0, attempts=0)
    assert len(caught.value.mistakes) == 4
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert "NO_SUCH_KEY" in endpoint("http://localhost/v1", key_variable="NO_SUCH_KEY").check()[0]
    assert endpoint("http://localhost/v1").check() == []


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score: 7", 7),
        ("7", 7),
        ("7/10", 7),
        ("Clear, but dull.\n\n**Score:** 8.5/10", 8.5),
        ("<think>Score: 2? No.</think>\nScore: 9", 9),
        ("Final score: 4.", 4),
        ("", None),
        ("I would give it a 7", None),
        ("7 out of 10, well done", None),
        ("Score: 3/5", None),
        ("Score: 11", None),
        ("Score: 0", None),
        ("Score: nan", None),
        ("Score: 3\nNo, rather\nScore: 8", None),
        ("Score: 8\nThank you!", None),
        ("<think>Score: 8", None),
    ],
)
def test_a_score_is_read_or_is_nan(reply, score):
    read = parse_score(reply, 1, 10)
    assert math.isnan(read) if score is None else read == score


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("A", "A"),
        ("[[B]]", "B"),
        ("B is shorter.\nVerdict: **tie**", "tie"),
        ("Verdict: a", "A"),
        ("A is better", None),
        ("Both are good.\nA", None),
        ("Verdict: C", None),
        ("Verdict: A\nVerdict: B", None),
        ("", None),
    ],
)
def test_a_choice_is_read_or_is_none(reply, choice):
    assert parse_choice(reply, ("A", "B", "tie")) == choice
