"""``raft score``: folders of pictures with captions, files of lines, and everything that is wrong with them."""

import json

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from raft_cli import main

REWARDS = """
def brightness(prompts, outputs):
    return [float(sum(o.resize((1, 1)).getpixel((0, 0))) / 3) for o in outputs]

def size(prompts, outputs):
    return [float(len(o)) if isinstance(o, str) else float(o.width) for o in outputs]

def fit(prompts, outputs):
    return [float(len(p)) for p in prompts]

def broken(prompts, outputs):
    raise KeyError("a key")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(REWARDS)
    return tmp_path


@pytest.fixture
def pictures(here):
    folder = here / "pictures"
    (folder / "deep").mkdir(parents=True)
    for name, level in (("a.png", 10), ("b.jpg", 20), ("deep/c.webp", 30)):
        Image.new("RGB", (8, 8), (level,) * 3).save(folder / name, quality=100)
        (folder / name).with_suffix(".txt").write_text(f"{name}\n")
    return folder


def rows(path):
    table = pyarrow.csv.read_csv(path) if str(path).endswith(".csv") else pyarrow.parquet.read_table(path)
    return table.to_pylist()


def test_a_folder_of_pictures_by_two_rewards(pictures, capsys):
    words = ["score", "pictures", "--reward", "mine.py:brightness", "--reward", "mine.py:fit", "--reward.name", "chars"]
    assert main(words) == 0
    found = rows("pictures.scores.parquet")
    assert [row["prompt"] for row in found] == ["a.png", "b.jpg", "deep/c.webp"]
    np.testing.assert_allclose([row["brightness"] for row in found], [10, 20, 30], atol=2)
    assert [row["chars"] for row in found] == [5, 5, 11] and not any(row["error"] for row in found)
    out = capsys.readouterr().out
    assert all(word in out for word in ("a.png", "c.webp", "brightness", "mean", "deviation", "3 rows are in"))
    assert main(words) == 0 and (pictures.parent / "pictures-2.scores.parquet").exists()  # nothing is overwritten


def test_pictures_of_every_mode_and_what_is_no_picture(pictures, capsys):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(pictures / "alpha.png")
    Image.new("P", (4, 4), 0).save(pictures / "palette.png")
    Image.fromarray(np.full((4, 4), 257 * 100, dtype=np.uint16)).save(pictures / "deep16.png")
    (pictures / "letter.png").write_text("dear aunt")
    (pictures / "empty.png").touch()
    data = (pictures / "a.png").read_bytes()
    (pictures / "half.png").write_bytes(data[: len(data) // 2])
    for name in ("alpha", "palette", "deep16", "letter", "empty", "half"):
        (pictures / f"{name}.txt").write_text(name)
    Image.new("RGB", (4, 4)).save(pictures / "uncaptioned.png")
    assert main(["score", "pictures", "--reward", "mine.py:brightness", "--output", "s.csv"]) == 0
    found = {row["prompt"] or "none": row for row in rows("s.csv")}
    assert [found[name]["brightness"] for name in ("alpha", "palette", "deep16")] == [255, 0, 100]
    for name, why in (
        ("letter", "no picture of a known format"),
        ("empty", "it is empty"),
        ("half", "no readable picture"),
    ):
        assert found[name]["brightness"] is None and why in found[name]["error"]
    out = " ".join(capsys.readouterr().out.split())
    assert "uncaptioned.png: it has no caption: write uncaptioned.txt, or give --prompt" in out
    assert "letter.png" in out


def test_a_prompt_for_those_without(pictures):
    Image.new("RGB", (4, 4)).save(pictures / "z.png")
    assert main(["score", "pictures", "--prompt", "four", "--reward", "mine.py:fit"]) == 0
    assert rows("pictures.scores.parquet")[-1]["fit"] == 4
    assert main(["score", "pictures/z.png", "--prompt", "", "--reward", "mine.py:fit", "--output", "z.csv"]) == 0
    assert rows("z.csv")[0]["fit"] == 0


@pytest.mark.usefixtures("pictures")
def test_lines_of_text_and_of_pictures_and_wrong_ones(here, capsys):
    lines = [
        {"prompt": "p", "text": "four", "category": "x"},
        {"prompt": "p", "image": "pictures/a.png"},
        {"prompt": "p", "image": "pictures/nowhere.png"},
        {"prompt": "p"},
        {"prompt": 3, "text": "t"},
        {"text": "no prompt"},
        {"prompt": "p", "text": 5},
        {"prompt": "p", "text": "t", "image": "a.png"},
        {"prompt": "p", "image": "a\0b"},
        ["p"],
    ]
    text = "\n\n".join(json.dumps(line) for line in lines) + "\n{broken\n"
    (here / "mixed.jsonl").write_text(text)
    assert main(["score", "mixed.jsonl", "--reward", "mine.py:size", "--output", "m.parquet"]) == 0
    found = rows("m.parquet")
    assert [row["size"] for row in found] == [4, 8] + [None] * 9
    errors = [row["error"] or "" for row in found]
    for number, why in (
        (2, "nowhere.png cannot be read: No such file"),
        (3, "must have one of image, text"),
        (4, "no text"),
        (5, "has no prompt"),
        (6, "'text' must be a text"),
        (7, "but has image, text"),
        (8, "is none"),
        (9, "is no object"),
        (10, "is not JSON"),
    ):
        assert why in errors[number], number
    assert "mixed.jsonl:5: " in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--reward", "mine.py:fit"], "there is no file or folder nowhere"),
        (["mine.py", "--reward", "mine.py:fit"], "neither a folder of pictures"),
        (["void", "--reward", "mine.py:fit"], "holds no pictures"),
        (["empty.jsonl", "--reward", "mine.py:fit"], "is empty"),
        (["pictures"], "--reward is missing: raft score IMAGES_OR_JSONL"),
        (["pictures", "--reward", "mine.py:fits"], "did you mean 'fit'"),
        (["pictures", "--reward", "mine.py:fit", "--reward", "mine.py:fit"], "two rewards are named 'fit'"),
        (["pictures", "--reward", "mine.py:fit", "--output", "a.txt"], "must end in .parquet or .csv"),
        (["pictures", "--reward", "mine.py:fit", "--output", "there.csv"], "is there already"),
        (["pictures", "--reward", "mine.py:broken"], "nothing could be scored: KeyError: 'a key'"),
        (["bare", "--reward", "mine.py:fit"], "nothing in bare can be scored"),
    ],
)
@pytest.mark.usefixtures("pictures")
def test_mistakes_in_words(here, capsys, words, message):
    (here / "void").mkdir()
    (here / "bare").mkdir()
    Image.new("RGB", (4, 4)).save(here / "bare/a.png")
    (here / "empty.jsonl").touch()
    (here / "there.csv").touch()
    assert main(["score", *words]) == 2
    assert message in capsys.readouterr().err


def test_names_that_differ_at_their_ends_stay_apart():
    from raft_cli.score import elided

    assert elided("short", 10) == "short"
    assert elided("0123456789abcdef", 9) == "0123…cdef"
    assert elided("0123456789abcdef", 10) == "0123…bcdef"
