"""The page Rewards: what visitors bring is scored, ranked, or refused in words."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import NARROW, WIDE, served, shot
from PIL import Image

from raft_core.config import listing
from raft_core.errors import DataError
from raft_demo.rewards import uploads
from raft_demo.rewards.view import figure, guide, ranking, table
from raft_demo.rewards.work import score
from raft_demo.shared.limits import Limits
from raft_demo.shared.offered import BUNDLED, Offer, offer, offers

LIMITS = Limits()
SMALL = Limits(upload_bytes=5000, upload_pixels=10_000)
CAPTION = "a red square on a navy background"


def png(folder: Path, name: str = "a.png", size: tuple[int, int] = (32, 32), color: Any = (200, 30, 30)) -> Path:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", size, color).save(folder / name)
    return folder / name


def bomb(path: Path, side: int) -> Path:
    """A PNG of a hundred bytes that says it has side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b""))
    return path


def marked(
    *offered: Offer, files: list[Path] | None = None, texts: list[str] | None = None, prompt: str = ""
) -> dict[str, Any]:
    places = [(str(path), path.name) for path in files or []]
    (marks,) = score(offered, places, texts or [], [prompt] * len(places or texts or []), LIMITS)
    return marks


# ---------------------------------------------------------------------- what is brought


def test_pictures_come_as_rgb(tmp_path: Path):
    clear = tmp_path / "clear.png"
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(clear)
    assert uploads.picture(clear, LIMITS).getpixel((0, 0)) == (255, 255, 255)
    moving = tmp_path / "moving.gif"
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    assert uploads.picture(moving, LIMITS).getpixel((0, 0)) == (255, 0, 0)


def test_pictures_with_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path):
    with pytest.raises(DataError, match="6000×6000 pixels"):
        uploads.picture(bomb(tmp_path / "a.png", 6000), LIMITS)
    with pytest.raises(DataError, match="far more than 32 million"):
        uploads.picture(bomb(tmp_path / "b.png", 50_000), LIMITS)
    with pytest.raises(DataError, match="101×100 pixels"):
        uploads.picture(png(tmp_path, size=(101, 100)), SMALL)
    assert uploads.picture(png(tmp_path, size=(100, 100)), SMALL).size == (100, 100)


def test_large_files_are_refused(tmp_path: Path):
    file = tmp_path / "a.png"
    file.write_bytes(bytes(5001))
    with pytest.raises(DataError, match="MB are taken"):
        uploads.picture(file, SMALL)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b""),
        ("a.png", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n%%EOF\n"),  # Ghostscript's
        ("a.jpg", b"\xff\xd8\xff\xe0 half a picture"),
        ("a.txt", b"plain"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"is no|is empty"):
        uploads.picture(tmp_path / name, LIMITS)


def test_a_damaged_picture_is_refused(tmp_path: Path):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue()[:900])
    with pytest.raises(DataError, match="no readable picture"):
        uploads.picture(tmp_path / "a.png", LIMITS)


def test_lines_and_prompts_are_counted():
    assert uploads.lines(" a \n\n b", "texts", LIMITS) == ["a", "b"]
    with pytest.raises(DataError, match="at most 500"):
        uploads.lines("a\n" * 501, "texts", LIMITS)
    with pytest.raises(DataError, match="2001 characters"):
        uploads.lines("a" * 2001, "texts", LIMITS)
    assert uploads.one_each([], 2, "texts") == ["", ""]
    assert uploads.one_each(["p"], 2, "texts") == ["p", "p"]
    with pytest.raises(DataError, match="2 prompts for 3"):
        uploads.one_each(["p", "q"], 3, "texts")


# ---------------------------------------------------------------------- what is offered


def test_offers_name_rewards_that_there_are(tmp_path: Path):
    known = set(listing.public_names("reward"))
    found = offers(tmp_path)
    assert {each.kind for each in found} <= known
    assert len({each.key for each in found}) == len(found)
    assert all(each.measures for each in found)


@pytest.mark.parametrize(
    "key", ["Sharpness", "raft_core.rewards.function.FunctionReward", "os:system", "../x", "", "learned:../x", None]
)
def test_only_what_is_listed_can_be_asked_for(tmp_path: Path, key: Any):
    with pytest.raises(DataError, match="no reward"):
        offer(tmp_path, key)


def test_published_models_are_offered_once_they_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"a download of 3\.9 GB"):
        offer(tmp_path, "pick_score")
    for name in ("yuvalkirstain--PickScore_v1", "laion--CLIP-ViT-H-14-laion2B-s32B-b79K"):
        (tmp_path / f"models--{name}" / "snapshots" / "main").mkdir(parents=True)
    assert offer(tmp_path, "pick_score").kind == "PickScore"


def test_rewards_of_the_other_modality_are_not_offered(tmp_path: Path):
    with pytest.raises(DataError, match="no reward"):
        offer(tmp_path, "sentiment", "image")


# ---------------------------------------------------------------------- what comes of it


def test_texts_are_scored(tmp_path: Path):
    asked = [offer(tmp_path, key, "text") for key in ("sentiment", "length", "repetition")]
    marks = marked(*asked, texts=["a wonderful happy day", "I hate it", "so so so so so so"])
    good, bad, dull = marks["columns"]["sentiment"]
    assert good > dull > bad
    assert marks["columns"]["length"] == [4.0, 3.0, 6.0]
    assert marks["descending"] == ["repetition"]
    assert ranking(marks, "sentiment") == [0, 2, 1]
    assert ranking(marks, "repetition")[-1] == 2  # less is better
    assert not marks["reasons"]


def test_pictures_are_scored_and_the_rest_is_told(tmp_path: Path):
    files = [png(tmp_path), bomb(tmp_path / "bomb.png", 6000), png(tmp_path, "b.png", color=(1, 2, 3))]
    asked = [each for each in BUNDLED if each.key in ("colorfulness", "shapes_clip_score", "taste")]
    marks = marked(*asked, files=files)
    assert marks["names"] == ["a.png", "b.png"]
    assert [(name, "6000×6000" in why) for name, why in marks["refused"]] == [("bomb.png", True)]
    assert marks["columns"]["shapes_clip_score"] == [None, None]
    assert "prompt" in marks["reasons"]["shapes_clip_score"]
    assert None not in marks["columns"]["taste"] + marks["columns"]["colorfulness"]
    shown = table(marks, "taste")
    assert shown.count("not scored") == 2
    assert "bomb.png was refused" in shown
    with_prompt = marked(*asked, files=files[:1], prompt=CAPTION)
    assert isinstance(with_prompt["columns"]["shapes_clip_score"][0], float)


def test_when_nothing_can_be_taken_that_is_said(tmp_path: Path):
    with pytest.raises(DataError, match="has 6000×6000"):
        marked(BUNDLED[0], files=[bomb(tmp_path / "bomb.png", 6000)])


def test_a_caption_of_another_world_is_not_scored(tmp_path: Path):
    gold = next(each for each in BUNDLED if each.key == "gold")
    marks = marked(gold, files=[png(tmp_path)], prompt="a cat with a hat")
    assert marks["columns"]["gold"] == [None]
    assert "caption" in marks["reasons"]["gold"]


def test_a_reward_that_cannot_be_loaded_costs_the_others_nothing(tmp_path: Path):
    gone = Offer("learned:gone", "gone (learned)", "image", "LearnedReward", {"folder": str(tmp_path / "gone")})
    marks = marked(gone, next(each for each in BUNDLED if each.key == "contrast"), files=[png(tmp_path)])
    assert marks["columns"]["learned:gone"] == [None]
    assert "no learned reward" in marks["reasons"]["learned:gone"]
    assert marks["columns"]["contrast"] == [0.0]


def test_nothing_that_a_visitor_writes_becomes_markup():
    hostile = "<img src=x onerror=alert(1)>'\""
    marks = {
        "names": [hostile],
        "pictures": [""],
        "columns": {"k": [1.0]},
        "labels": {"k": hostile},
        "scales": {"k": hostile},
        "descending": [],
        "reasons": {"k": hostile},
        "refused": [(hostile, hostile)],
    }
    shown = table(marks, "k") + guide([Offer("k", hostile, "text", "Length", needs=hostile, summary=hostile)])
    assert "<img" not in shown
    assert "'&#x27;" not in shown.replace("&#x27;&quot;", "")


def test_figures_are_short_and_plain():
    assert [figure(x) for x in (0.0, 1234.56, -12.345, 0.00012345, 3e-8)] == ["0", "1235", "-12.35", "0.000123", "3.0e-08"]


# ---------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with served(tmp_path_factory.mktemp("scoring") / "runs") as app:
        yield app


@pytest.mark.slow
def test_pictures_are_dropped_scored_and_ranked(app: Any, open_page: Any, tmp_path: Path):
    page = open_page(app.url, tab="Rewards", size=WIDE)
    page.get_by_text("No scores yet").first.wait_for()
    colors = [(200, 30, 30), (128, 128, 128), (10, 10, 60)]
    files = [png(tmp_path, f"{i}.png", color=color) for i, color in enumerate(colors)]
    files.append(bomb(tmp_path / "bomb.png", 6000))
    page.locator("#rewards-files input[type=file]").set_input_files([str(file) for file in files])
    page.locator("#rewards-files").get_by_text("bomb").first.wait_for()
    page.locator("#rewards-prompt textarea").fill(CAPTION)
    page.locator("#rewards-go").click()
    page.locator("#rewards-scores").get_by_text("bomb.png was refused").wait_for(timeout=270_000)
    shot(page, "rewards_wide")
    assert page.locator("#rewards-scores tbody tr").count() == 3
    page.locator("#rewards-by input").click()
    page.get_by_role("option", name="Colourfulness").click()
    page.locator("#rewards-scores th", has_text="Colourfulness ▾").wait_for()
    assert page.locator("#rewards-scores tbody tr img").first.get_attribute("alt") == "the uploaded picture 0.png"


@pytest.mark.slow
def test_texts_are_pasted_and_scored_on_a_narrow_dark_page(app: Any, open_page: Any):
    page = open_page(app.url, tab="Rewards", size=NARROW, dark=True)
    page.get_by_label("texts", exact=True).check()
    page.get_by_label("Texts, a line for each").fill("What a wonderful, happy day!\nI hate this.")
    page.locator("#rewards-go").click()
    page.locator("#rewards-scores tbody tr").nth(1).wait_for(timeout=270_000)
    shot(page, "rewards_narrow_dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    assert "wonderful" in page.locator("#rewards-scores tbody tr").first.inner_text()


@pytest.mark.slow
def test_an_oversized_upload_is_refused_by_the_page_and_by_the_server(app: Any, open_page: Any, tmp_path: Path):
    page = open_page(app.url, tab="Rewards")
    large = tmp_path / "large.png"
    large.write_bytes(bytes(LIMITS.upload_bytes + 1))
    page.locator("#rewards-files input[type=file]").set_input_files(str(large))
    page.get_by_text("exceed the maximum allowed size").first.wait_for()
    answer = httpx.post(f"{app.url}/gradio_api/upload", files={"files": ("large.png", large.read_bytes())}, timeout=120)
    assert answer.status_code == 413
    page.locator("#rewards-go").click()
    page.get_by_text("nothing to score").first.wait_for()


@pytest.mark.slow
def test_a_path_that_was_not_uploaded_is_not_read(app: Any):
    """The server's files are no uploads, whatever a request says."""
    config = httpx.get(f"{app.url}/config", timeout=60).json()
    number = next(i for i, each in enumerate(config["dependencies"]) if _named(config, each, "rewards-go"))
    secret = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    body = {"data": ["pictures", [secret], "", "", ["contrast"]], "fn_index": number, "session_hash": "x"}
    joined = httpx.post(f"{app.url}/gradio_api/queue/join", json=body, timeout=60)
    if joined.status_code == 200:
        with httpx.stream("GET", f"{app.url}/gradio_api/queue/data?session_hash=x", timeout=120) as events:
            said = "".join(line for line in events.iter_lines() if "process_completed" in line)
        assert '"success": false' in said or '"success":false' in said
        assert "root:" not in said


def _named(config: dict[str, Any], dependency: dict[str, Any], element: str) -> bool:
    """Whether a handler belongs to the element with this id."""
    of_element = [each["id"] for each in config["components"] if each["props"].get("elem_id") == element]
    return any(target[0] in of_element for target in dependency["targets"])
