"""A reward behind HTTP, over a real socket: as it should be, and every way in which it is not."""

import base64
import contextlib
import gzip
import json
import math
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from raft_core.errors import ConfigError, RewardError
from raft_core.media.picture import to_png
from raft_core.protocols import RewardInfo
from raft_core.rewards.scoring import Scorer, score
from raft_core.rewards.service import messages as wire
from raft_core.rewards.service.remote import Connection, RemoteReward
from raft_core.rewards.service.serve import Limits, RewardServer, serving_reward
from raft_core.types import Prompt, Request, Sample

QUICK = Connection(timeout_s=30, attempts=2, backoff_s=0)


class Brightness:
    """Mean of a picture, or length of a text; what is called bad is not scored."""

    def __init__(self, higher_is_better=True):
        self.info = RewardInfo("brightness", "levels", higher_is_better)
        self.seen = []

    def __call__(self, samples):
        self.seen += samples
        if samples[0].prompt.text == "raise":
            raise KeyError("no such thing")
        values = [float(len(s.output)) if isinstance(s.output, str) else float(np.asarray(s.output).mean()) for s in samples]
        return [math.nan if s.output == "bad" else value for s, value in zip(samples, values, strict=True)]


def texts(*outputs, prompt="p"):
    return [Sample(Request(Prompt(prompt, {"answer": 1}), j, 10 + j), output=output) for j, output in enumerate(outputs)]


@contextlib.contextmanager
def answering(make):
    """A server whose POST answers with what ``make(body)`` gives: (status, headers, bytes), or None to hang up."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply((404, {}, b"{}"))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            calls.append(body)
            self.reply(make(body))

        def reply(self, answer):
            if answer is None:
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content)

        def log_message(self, *args):
            pass

    calls = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", calls
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def said(scores, status=200, **headers):
    return lambda _: (status, headers, scores if isinstance(scores, bytes) else json.dumps(scores).encode())


# --- as it should be


def test_scores_are_those_of_the_reward_itself_for_pictures_and_text():
    reward = Brightness()
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)) for _ in range(5)]
    samples = [Sample(Request(Prompt("ein Bär", {"n": 2}), j, 2**62 + j), output=p) for j, p in enumerate(pictures)]
    with serving_reward(reward) as url:
        remote = RemoteReward(url, batch_size=2, parallel=2, connection=QUICK)
        remote.load()
        for each in (samples, texts("a", "", "naïve")):
            columns, failures = score(remote, each)
            assert failures == {}
            np.testing.assert_array_equal(columns["remote"], Brightness()(each))
    back = {sample.seed: sample for sample in reward.seen}
    for sample in samples:  # pixels, prompt, facts and seeds arrive as they were
        there = back[sample.seed]
        assert there.output.tobytes() == sample.output.tobytes() and there.prompt == sample.prompt
        assert there.request.index == sample.request.index


def test_what_the_other_side_could_not_score_is_not_scored_and_says_why():
    with serving_reward(Brightness()) as url:
        remote = RemoteReward(url, connection=QUICK)
        columns, failures = score(remote, texts("a", "bad", "ccc"))
        np.testing.assert_array_equal(columns["remote"], [1, math.nan, 3])
        assert failures["remote"].count == 1 and "NaN" in failures["remote"].first_error
        columns, failures = score(remote, texts("a", "b", prompt="raise"))
        assert np.isnan(columns["remote"]).all() and "KeyError: 'no such thing'" in failures["remote"].first_error
        assert score(remote, texts("a"))[0]["remote"].tolist() == [1]  # the server lives on


# --- and as it is not


@pytest.mark.parametrize(
    ("make", "message", "calls"),
    [
        (said(b"<html>Sign in</html>", **{"Content-Type": "text/html"}), "answered with a web page", 1),
        (said({"scores": [1.0]}), "has 1 entries for 2 samples", 1),
        (said({"scores": 1.0}), "is a single number for 2 samples", 1),
        (said([1.0, 2.0]), 'an object with a list under "scores"', 1),
        (said({"scores": [1.0, "good"]}), "scores[1] is 'good', but must be a number", 1),
        (said({"scores": [1.0, True]}), "must be a number or null", 1),
        (said({"scores": [10**400, 1]}), "a whole number of 401 digits", 1),
        (said(b'{"scores": [1, 2], "scores": [9, 9]}'), "names 'scores' twice", 1),
        (said(b'{"scores": [1.0,'), "it is not JSON", 2),
        (said(b"[" * 100_000), "it is not JSON", 2),
        (said(b'{"scores": [1, 2]}', **{"Content-Length": "5000"}), "broke off", 2),
        (lambda _: None, "broke off", 2),
        (said({"error": "overloaded"}, status=503), "status 503: overloaded", 2),
        (said({"error": "no"}, status=400), "status 400: no", 1),
        (said(b"", status=302, Location="http://elsewhere/"), "redirects to http://elsewhere/", 1),
    ],
)
def test_an_answer_that_is_none_leaves_the_samples_unscored(make, message, calls):
    with answering(make) as (url, asked):
        columns, failures = score(RemoteReward(url, connection=QUICK), texts("a", "b"))
    assert np.isnan(columns["remote"]).all()
    assert failures["remote"].count == 2 and message in failures["remote"].first_error
    assert len(asked) == calls


def test_numbers_that_are_none_are_not_scored_and_the_others_are():
    with answering(said(b'{"scores": [NaN, 2.5, -Infinity, null]}')) as (url, _):
        columns, failures = score(RemoteReward(url, connection=QUICK), texts(*"abcd"))
    np.testing.assert_array_equal(columns["remote"], [math.nan, 2.5, math.nan, math.nan])
    assert failures["remote"].count == 3


def test_a_slow_answer_is_given_up_and_the_other_batches_are_scored():
    release = threading.Event()

    def slow_for_the_first(body):
        if body["samples"][0]["text"] == "a":
            release.wait(60)
        return 200, {}, json.dumps({"scores": [7.0] * len(body["samples"])}).encode()

    with answering(slow_for_the_first) as (url, _):
        remote = RemoteReward(url, batch_size=1, parallel=2, connection=Connection(timeout_s=5, attempts=1))
        columns, failures = score(remote, texts("a", "b", "c"))
        release.set()
    np.testing.assert_array_equal(columns["remote"], [math.nan, 7, 7])
    assert failures["remote"].count == 1 and "did not answer within 5 s" in failures["remote"].first_error


def test_a_failure_that_passes_is_tried_again():
    answers = iter([(503, {"Retry-After": "0"}, b"{}"), (200, {}, b"not yet"), (200, {}, b'{"scores": [4]}')])
    with answering(lambda _: next(answers)) as (url, asked):
        columns, failures = score(RemoteReward(url, connection=Connection(30, 3, 0)), texts("a"))
    assert columns["remote"].tolist() == [4] and failures == {} and len(asked) == 3


@pytest.fixture
def nobody():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_an_endpoint_that_is_down_is_told_before_work_starts_and_later_costs_its_samples(nobody):
    remote = RemoteReward(nobody, connection=QUICK)
    with pytest.raises(RewardError, match="cannot be reached"):
        remote.load()
    scores = Scorer(Brightness(), [remote])(texts("a", "bb"))
    assert scores.columns["brightness"].tolist() == [1, 2]
    assert "is the server running?" in scores.failures["remote"].first_error


def test_a_direction_that_is_not_the_endpoints_is_told_before_work_starts():
    with serving_reward(Brightness(higher_is_better=False)) as url:
        RemoteReward(url, higher_is_better=False, connection=QUICK).load()
        with pytest.raises(ConfigError, match="says false: give that"):
            RemoteReward(url, connection=QUICK).load()
    with answering(said({"scores": [1]})) as (url, _):  # an endpoint of one's own need not say what it is
        RemoteReward(url, connection=QUICK).load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8600"}, "must begin with http://"),
        ({"url": "http://x", "batch_size": 0}, "batch_size is 0"),
        ({"url": "http://x", "parallel": 0}, "parallel is 0"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=message):
        RemoteReward(**settings)
    with pytest.raises(ConfigError, match="timeout_s is 0"):
        Connection(timeout_s=0)


def test_a_token_that_is_missing_here_or_wrong_there(monkeypatch):
    monkeypatch.delenv("THE_KEY", raising=False)
    connection = Connection(5, 1, 0, key_variable="THE_KEY")
    with serving_reward(Brightness(), key="secret") as url:
        remote = RemoteReward(url, connection=connection)
        assert "not set" in remote.check()[0]
        monkeypatch.setenv("THE_KEY", "wrong")
        with pytest.raises(RewardError, match="status 401"):
            remote.load()
        monkeypatch.setenv("THE_KEY", "secret")
        remote.load()
        assert score(remote, texts("abc"))[0]["remote"].tolist() == [3]


# --- what the server refuses


def posted(url, content, **headers):
    request = urllib.request.Request(f"{url}/score", content, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_requests_that_are_none_are_told_so_in_json():
    good = wire.plain(wire.asked(texts("a")))
    with serving_reward(Brightness(), Limits(body_bytes=10_000, samples=3)) as url:
        for content, status, message in (
            (b"{", 400, "not JSON"),
            (b"[]", 400, '"samples"'),
            (b'{"samples": [3]}', 400, "samples[0] must be an object"),
            (b'{"samples": [{"prompt": "p"}]}', 400, 'either "text" or "image"'),
            (b'{"samples": [{"text": 3}]}', 400, '"text" must be a string'),
            (b'{"samples": [{"text": "a", "seed": "x"}]}', 400, "whole numbers"),
            (wire.plain(wire.asked(texts(*"abcd"))), 400, "send at most 3"),
            (b" " * 10_001, 413, "send at most 10000"),
        ):
            found, reply = posted(url, content)
            assert found == status and message in reply["error"]
        assert posted(url, good, **{"Content-Type": "text/plain"})[0] == 415
        assert posted(f"{url}/else", good)[0] == 404
        assert posted(url, good) == (200, {"scores": [1.0]})


def test_a_bad_picture_costs_its_own_sample():
    good = wire.asked([Sample(Request(Prompt("p"), 0, 0), output=Image.new("RGB", (2, 2), (9, 9, 9)))])["samples"][0]
    body = {"samples": [good, {**good, "image": "bm8gcGljdHVyZQ=="}, {**good, "image": "§"}, {**good, "image": ""}]}
    with serving_reward(Brightness()) as url:
        status, reply = posted(url, json.dumps(body).encode())
    assert status == 200 and reply["scores"] == [9.0, None, None, None]
    assert "samples[1] is no readable picture" in reply["error"]


def test_memory_that_runs_out_is_worth_another_attempt():
    class Hungry(Brightness):
        def __call__(self, samples):
            raise MemoryError

    with serving_reward(Hungry()) as url:
        status, reply = posted(url, wire.plain(wire.asked(texts("a"))))
    assert status == 503 and "fewer samples" in reply["error"]


def test_what_needs_the_policy_is_not_served():
    class Needy(Brightness):
        def attach(self, policy):
            pass

    with pytest.raises(ConfigError, match="needs the policy itself"):
        RewardServer(Needy())


def large_png(side):
    """A picture of ``side``² black pixels in few bytes, as small files that become large in memory are made."""
    return base64.b64encode(to_png(Image.new("1", (side, side)))).decode()


def test_the_pixels_of_a_request_are_counted_before_any_is_decoded():
    reward = Brightness()
    item = {"prompt": "p", "image": large_png(1000)}
    with serving_reward(reward, Limits(pixels=3_000_000)) as url:
        assert posted(url, json.dumps({"samples": [item] * 3}).encode())[0] == 200
        status, reply = posted(url, json.dumps({"samples": [item] * 4}).encode())
        assert status == 400 and "4.0 million pixels at once are too many: send at most 3 million" in reply["error"]
    assert len(reward.seen) == 3


def test_pictures_are_decoded_in_turn(monkeypatch):
    decode, at_once, most = wire.open_picture, [], []

    def counted(*arguments):
        at_once.append(1)
        most.append(len(at_once))
        time.sleep(0.05)
        at_once.pop()
        return decode(*arguments)

    monkeypatch.setattr(wire, "open_picture", counted)
    body = json.dumps({"samples": [{"prompt": "p", "image": large_png(10)}] * 2}).encode()
    with serving_reward(Brightness()) as url, ThreadPoolExecutor(4) as pool:
        assert [status for status, _ in pool.map(lambda _: posted(url, body), range(4))] == [200] * 4
    assert len(most) == 8 and max(most) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n%%EOF\n",  # rendered by Ghostscript, if it were opened
        b"P6 2 2 255 " + bytes(12),
        b"GIF89a" + b"\xff" * 20,
    ],
    ids=["EPS", "PPM", "damaged"],
)
def test_other_formats_are_not_opened(data):
    body = {"samples": [{"prompt": "p", "image": base64.b64encode(data).decode()}]}
    with serving_reward(Brightness()) as url:
        status, reply = posted(url, json.dumps(body).encode())
    assert status == 200 and reply["scores"] == [None] and "samples[0] is no readable picture" in reply["error"]


def test_a_request_that_comes_byte_by_byte_is_given_up():
    with serving_reward(Brightness(), Limits(request_s=0.3)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as client, contextlib.suppress(ConnectionError):
            client.sendall(b"POST /score HTTP/1.1\r\n")
            for number in range(100_000):
                client.sendall(b"X-%d: a\r\n" % number)
                time.sleep(0.05)
                client.setblocking(False)
                try:
                    if client.recv(1) == b"":
                        break
                except BlockingIOError:
                    pass
                finally:
                    client.settimeout(30)
        assert number < 1000
        assert posted(url, wire.plain(wire.asked(texts("a"))))[0] == 200


@contextlib.contextmanager
def sending(pieces, every_s):
    """A server that answers any request with these pieces of bytes, so many seconds apart."""

    def serve():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                with client, contextlib.suppress(OSError):
                    client.recv(65536)
                    for piece in pieces:
                        client.sendall(piece)
                        if over.wait(every_s):
                            return

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)
    thread.join()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD, *(b"X-%d: a\r\n" % i for i in range(600))],
        [HEAD + b"Content-Length: 600\r\n\r\n", *(b" " for _ in range(600))],
        [b"HTTP/1.1 100 Continue\r\n\r\n"] * 600,
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *(b"1\r\na\r\n" for _ in range(600))],
    ],
    ids=["headers", "body", "continue", "chunks"],
)
def test_the_time_covers_the_headers_as_well_as_the_body(pieces):
    with sending(pieces, 0.1) as url:  # a minute in all
        remote = RemoteReward(url, connection=Connection(timeout_s=0.5, attempts=1))
        columns, failures = score(remote, texts("a"))
        remote.sleep()
    assert np.isnan(columns["remote"]).all() and "did not answer within 0.5 s" in failures["remote"].first_error


@pytest.mark.parametrize(
    "make",
    [
        said({"scores": [None], "error": "\x1b[31mno\x1b]0;title\x07\n" + "x" * 3_000_000}),
        said(b"\x1b[2Jno " * 1000, status=500),
        said({"error": {"message": "\x1b[31mno " * 1000}}, status=400),
        said({"scores": ["\x1b[31mno " * 1000]}),
    ],
)
def test_what_a_server_says_is_cut_and_cannot_speak_to_the_terminal(make):
    with answering(make) as (url, _):
        _, failures = score(RemoteReward(url, connection=QUICK), texts("a"))
    told = failures["remote"].first_error
    assert "no" in told and len(told) < 500 and told.isprintable()


def test_answers_of_a_reply_that_grows_without_end_are_given_up():
    bomb = gzip.compress(b" " * 50_000_000)
    with answering(said(bomb, **{"Content-Encoding": "gzip"})) as (url, _):
        _, failures = score(RemoteReward(url, connection=QUICK), texts("a"))
    assert "larger than any answer" in failures["remote"].first_error


def test_a_token_that_is_none_is_told_before_work_starts(monkeypatch):
    monkeypatch.setenv("THE_KEY", "zwei\nZeilen")
    assert "no HTTP header" in RemoteReward("http://x", connection=Connection(key_variable="THE_KEY")).check()[0]
