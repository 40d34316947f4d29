"""A judge of pictures over HTTP: against a real local server that sees them, and that answers well, badly, late and never."""

from __future__ import annotations

import base64
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from reward_samples import samples_of

from raft_core.config.components import Walk
from raft_core.errors import ConfigError, RewardError
from raft_core.rewards.judge.chat import ChatEndpoint
from raft_core.rewards.judge.fake_endpoint import Raw, serving
from raft_core.rewards.scoring import Scorer, score
from raft_diffusion.rewards import Contrast, VlmJudge
from raft_diffusion.rewards.vlm_judge import PictureJudgement

PAIRWISE = PictureJudgement(mode="pairwise")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def judge(url, judgement=PictureJudgement(), **settings):  # noqa: B008 - frozen
    settings = {"backoff_s": 0.0, "timeout_s": 30.0, "attempts": 2} | settings
    return VlmJudge(ChatEndpoint(url, "judge", **settings), judgement)


def grey(level, size=(6, 4), mode="RGB"):
    return Image.new("L", size, level).convert(mode)


def seen(body) -> list[Image.Image]:
    """The pictures that a request carries, decoded."""
    parts = body["messages"][0]["content"]
    addresses = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    return [Image.open(io.BytesIO(base64.b64decode(address.split(",")[1], validate=True))) for address in addresses]


def texts(body) -> str:
    return "\n".join(part["text"] for part in body["messages"][0]["content"] if part["type"] == "text")


def level(body) -> int:
    return seen(body)[0].getpixel((0, 0))[0]  # type: ignore[index]


# --- scores


def test_the_judge_sees_each_picture_with_its_prompt():
    with serving(lambda body: f"A level of {level(body)}.\nScore: {level(body) / 10}") as server:
        scores = judge(server.url)(samples_of(["one", "two", "three"], [grey(90), grey(20), grey(55)]))
    np.testing.assert_array_equal(scores, [9, 2, 5.5])
    asked = {level(body): texts(body) for body in server.bodies}
    assert "<prompt>\ntwo\n</prompt>" in asked[20]
    assert "from 1 to 10" in asked[20]


def test_pictures_are_sent_as_they_are_or_reduced_and_without_transparency():
    with serving(lambda _: "Score: 5") as server:
        judge(server.url, PictureJudgement(side=16))(
            samples_of(["a"] * 3, [grey(10), grey(10, (64, 32)), Image.new("RGBA", (4, 4))])
        )
    pictures = sorted((seen(body)[0] for body in server.bodies), key=lambda picture: picture.size)
    assert [(p.size, p.mode) for p in pictures] == [((4, 4), "RGB"), ((6, 4), "RGB"), ((16, 8), "RGB")]
    assert pictures[0].getpixel((0, 0)) == (255, 255, 255)


def trouble_with(bad, kind):
    """An endpoint that has trouble with the picture of one level alone."""
    times = []

    def answer(body):
        if level(body) != bad:
            return "Score: 5"
        times.append(body)
        return {
            "good": "Score: 6",
            "500, then good": Raw(b"oops", status=500) if len(times) == 1 else "Score: 6",
            "500 for ever": Raw(b"oops", status=500),
            "HTML": Raw(b"<html>login</html>", headers={"Content-Type": "text/html"}),
            "slow": Raw(b"{}", delay_s=6),
            "a trickle": Raw(b"{" * 50, trickle_s=0.1),
            "a lie about its length": Raw(b"{}", headers={"Content-Length": "99"}),
            "garbage": Raw(b"\x00\xff garbage"),
            "prose": "What a lovely picture, 10 of 10",
            "out of range": "Score: 11",
        }[kind]

    return answer


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("good", 6), ("500, then good", 6)]
    + [
        (kind, math.nan)
        for kind in ("500 for ever", "HTML", "slow", "a trickle", "a lie about its length", "garbage", "prose", "out of range")
    ],
)
def test_trouble_with_one_picture_leaves_that_one_unscored(kind, expected):
    patience = {"timeout_s": 3.0, "attempts": 1} if kind in ("slow", "a trickle") else {}
    with serving(trouble_with(200, kind)) as server:
        reward = judge(server.url, parallel=1, **patience)
        columns, failures = score(reward, samples_of(["a"] * 3, [grey(10), grey(20), grey(200)]))
    scores = columns["vlm_judge"]
    np.testing.assert_array_equal(scores, [5, 5, expected])
    if math.isnan(expected):
        said = {"500 for ever": "status 500", "HTML": "a web page", "slow": "did not answer", "garbage": "not UTF-8"}
        assert said.get(kind, "") in failures["vlm_judge"].first_error
        assert "NaN" not in failures["vlm_judge"].first_error


@pytest.mark.parametrize(
    ("reply", "timeout_s", "said"),
    [
        (Raw(b"<html>login</html>", headers={"Content-Type": "text/html"}), 30, "a web page"),
        (Raw(b"no key", status=401), 30, "status 401"),
        (Raw(b"", delay_s=0.5), 0.1, "did not answer within 0.1 s"),
    ],
    ids=["HTML", "no permission", "slow"],
)
def test_an_endpoint_that_never_answers_is_told_and_spares_the_other_rewards(reply, timeout_s, said):
    with serving(lambda _: reply) as server:
        scores = Scorer(judge(server.url, timeout_s=timeout_s), [Contrast()])(samples_of(["a", "b"]))
    assert np.isnan(scores.columns["vlm_judge"]).all()
    assert said in scores.failures["vlm_judge"].first_error
    assert not np.isnan(scores.columns["contrast"]).any()


def test_an_endpoint_that_is_not_there_is_told_with_its_address():
    with serving(lambda _: "") as server:
        url = server.url
    with pytest.raises(RewardError, match=f"{url}/chat/completions cannot be reached"):
        judge(url)(samples_of(["a"]))


def test_what_is_no_picture_is_not_sent():
    with serving(lambda _: "Score: 5") as server:
        columns, failures = score(judge(server.url), samples_of(["a"] * 3, [grey(1), Image.new("RGB", (0, 0)), "text"]))
    np.testing.assert_array_equal(columns["vlm_judge"], [5, math.nan, math.nan])
    assert failures["vlm_judge"].count == 2
    assert len(server.bodies) == 1


# --- comparisons


def brighter(body):
    first, second = (picture.getpixel((0, 0))[0] for picture in seen(body))
    return f"Verdict: {'A' if first > second else 'B' if second > first else 'tie'}"


def test_comparisons_become_the_fraction_won_within_a_prompt():
    samples = samples_of(["one"] * 3 + ["two"] * 2, [grey(10), grey(30), grey(20), grey(5), grey(5)])
    with serving(brighter) as server:
        reward = judge(server.url, PAIRWISE)
        columns, failures = score(reward, samples)
    np.testing.assert_array_equal(columns["vlm_judge"], [0, 1, 0.5, 0.5, 0.5])
    assert not failures
    assert len(server.bodies) == 3 * 2 + 2
    assert all(f"<prompt>\n{p}\n</prompt>" in "".join(texts(b) for b in server.bodies) for p in ("one", "two"))


def test_a_judge_that_always_prefers_the_first_prefers_nobody():
    with serving(lambda _: "Verdict: A") as server:
        np.testing.assert_array_equal(judge(server.url, PAIRWISE)(samples_of(["a"] * 3)), [0.5] * 3)


def test_a_bad_picture_takes_no_part_in_comparisons():
    with serving(brighter) as server:
        samples = samples_of(["a"] * 3, [grey(9), Image.new("RGB", (0, 9)), grey(5)])
        columns, failures = score(judge(server.url, PAIRWISE), samples)
    np.testing.assert_array_equal(columns["vlm_judge"], [1, math.nan, 0])
    assert "0×9 pixels" in failures["vlm_judge"].first_error
    assert len(server.bodies) == 2


# --- configuration


def test_a_judge_comes_out_of_a_configuration(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    endpoint = {"url": "http://localhost:8000/v1", "model": "judge"}
    raw = {"class_path": "VlmJudge", "init_args": {"endpoint": endpoint, "judgement": {"mode": "pairwise", "side": 512}}}
    walk = Walk()
    built = walk.component(raw, "reward", "reward").make()
    assert walk.mistakes == []
    assert built.judgement == PictureJudgement(mode="pairwise", side=512)
    assert built.info.batch_size is None  # the whole group
    assert built.info.relative and not built.info.background
    assert VlmJudge(ChatEndpoint("http://localhost/v1", "judge")).info.background
    assert VlmJudge(ChatEndpoint("http://localhost/v1", "judge", parallel=4)).info.batch_size == 32

    walk = Walk()
    endpoint["key_variable"] = "NO_SUCH_KEY"
    walk.component(raw, "reward", "reward").make()
    assert "NO_SUCH_KEY" in walk.mistakes[0]


def test_the_example_of_the_page_is_a_judge():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "rewards.md").read_text(encoding="utf-8")
    example = next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.S) if "VlmJudge" in block)
    walk = Walk()
    built = walk.component(yaml.safe_load(example)["judges"][0], "reward", "reward").make()
    assert walk.mistakes == []
    assert built.judgement.rubric.startswith("Judge how well the picture shows")


def test_mistakes_are_found_before_anything_is_asked():
    with pytest.raises(ConfigError, match="side is 0"):
        PictureJudgement(side=0)
    with pytest.raises(ConfigError) as caught:
        PictureJudgement(mode="vote", rubric=" ", low=5, high=5)  # type: ignore[arg-type]
    assert len(caught.value.mistakes) == 3
    assert "what makes a good picture" in str(caught.value)
    with pytest.raises(ConfigError, match="must begin with http"):
        judge("localhost:8000")
