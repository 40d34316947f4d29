"""GenEval's questions: what was found against what is asked for; a detector of transformers; the reward on both."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from reward_samples import picture

from raft_core.errors import ConfigError, ModelError
from raft_core.machine.torchvision import ensure_importable
from raft_core.prompts import read_prompts
from raft_core.rewards.scoring import score
from raft_core.types import Prompt, Request, Sample
from raft_diffusion.rewards.composition import Clause, Composition, Thing, composition_of, met, relations
from raft_diffusion.rewards.detector import Detector
from raft_diffusion.rewards.gen_eval import GenEval

ensure_importable()


def thing(x, y=0, size=10, sure=0.95):
    return Thing((x, y, x + size, y + size), sure)


def row(*include, exclude=(), tag="position"):
    return {"tag": tag, "include": list(include), "exclude": list(exclude)}


@pytest.mark.parametrize(
    ("box", "other", "expected"),
    [
        ((0, 0, 10, 10), (30, 0, 40, 10), {"left of"}),
        ((30, 0, 40, 10), (0, 0, 10, 10), {"right of"}),
        ((0, 0, 10, 10), (0, 30, 10, 40), {"above"}),
        ((0, 30, 10, 40), (0, 0, 10, 10), {"below"}),
        ((0, 0, 10, 10), (30, 30, 40, 40), {"left of", "above"}),
        ((0, 0, 10, 10), (1.9, 0, 11.9, 10), set()),  # centres 1.9 apart, and a tenth of both sizes is 2
        ((0, 0, 10, 10), (0, 0, 10, 10), set()),
        ((0, 0, 10, 10), (3, 0, 13, 10), set()),  # 1 of 3 beyond, which is less than half
    ],
)
def test_where_a_box_is_to_another(box, other, expected):
    assert relations(box, other) == expected


def always(colour):
    return lambda _kind, things: [colour] * len(things)


@pytest.mark.parametrize(
    ("meta", "found", "expected"),
    [
        (row({"class": "cat", "count": 2}, exclude=[{"class": "cat", "count": 3}]), {"cat": [thing(0)] * 2}, [True, True]),
        (row({"class": "cat", "count": 2}, exclude=[{"class": "cat", "count": 3}]), {"cat": [thing(0)] * 3}, [True, False]),
        (row({"class": "cat", "count": 2}), {"cat": [thing(0)]}, [False]),
        (row({"class": "cat", "count": 1, "color": "red"}), {"cat": [thing(0)]}, [True]),
        (row({"class": "cat", "count": 1, "color": "blue"}), {"cat": [thing(0)]}, [False]),
        (
            row({"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}),
            {"dog": [thing(50)], "cat": [thing(0)]},
            [True, True],
        ),
        (
            row({"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["right of", 0]}),
            {"dog": [thing(50)], "cat": [thing(0)]},
            [True, False],
        ),
        (
            row({"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}),
            {"cat": [thing(0)]},
            [False] * 2,
        ),
    ],
)
def test_what_was_found_is_held_against_what_is_asked_for(meta, found, expected):
    asked, mistakes = composition_of(meta)
    assert mistakes == [] and asked is not None
    assert met(asked, found, always("red")) == expected


def test_rows_of_the_benchmark_are_read_as_they_are(tmp_path):
    line = {"tag": "counting", "include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}]}
    (tmp_path / "evaluation_metadata.jsonl").write_text(json.dumps(line | {"prompt": "a photo of two clocks"}) + "\n")
    (prompt,) = read_prompts(f"preset:geneval:{tmp_path}")
    assert composition_of(prompt.meta) == (Composition([Clause("clock", 2)], {"clock": 3}, counts=True), [])


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        ({"include": "a cat"}, "must be lists of objects"),
        (row({"count": 1}), "class is None"),
        (row({"class": "cat", "count": 0}), "count is 0"),
        (row({"class": "cat", "count": 1, "color": "mauve"}), "color is 'mauve'"),
        (row({"class": "cat", "count": 1, "position": ["left of", 0]}), "number of an earlier one"),
        (row({"class": "cat", "count": 1}, exclude=[{"class": "cat"}]), "must have a class and a count"),
    ],
)
def test_rows_that_cannot_be_understood_are_told_before_anything_loads(meta, told):
    assert composition_of(meta)[0] is None
    (mistake,) = GenEval().check_prompts([Prompt("p", meta)], [])
    assert mistake.startswith("the prompt 'p': ") and told in mistake
    assert "not one can be scored" in GenEval().check_prompts([Prompt("p")], [])[0]


def yolos(folder):
    """A detector of random weights that knows three things."""
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    names = {0: "cat", 1: "dog", 2: "remote"}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = YolosConfig(
        image_size=[32, 32], patch_size=16, num_detection_tokens=5, id2label=names, initializer_range=0.8, **sizes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        YolosForObjectDetection(config).save_pretrained(folder)
    YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return yolos(tmp_path_factory.mktemp("yolos"))


def test_a_detector_tells_what_transformers_tells(detector):
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    found = Detector(str(detector), 2, "cpu")
    images = [picture(seed) for seed in range(3)]
    told = found(images, 0.1)
    processor, model = AutoImageProcessor.from_pretrained(detector), AutoModelForObjectDetection.from_pretrained(detector)
    assert found.kinds == ["cat", "dog", "tv remote"] and any(told)
    for image, things in zip(images, told, strict=True):
        with torch.no_grad():
            outputs = model(**processor(images=[image], return_tensors="pt"))
        (plain,) = processor.post_process_object_detection(outputs, 0.1, torch.tensor([(image.height, image.width)]))
        assert sum(map(len, things.values())) == len(plain["scores"])
        for kind, group in things.items():
            assert [each.score for each in group] == sorted((each.score for each in group), reverse=True)
            labels = [["cat", "dog", "tv remote"][number] for number in plain["labels"].tolist()]
            boxes = [box for box, label in zip(plain["boxes"].tolist(), labels, strict=True) if label == kind]
            assert np.allclose(sorted(map(list, (each.box for each in group))), sorted(boxes), atol=1e-3)


def sample(text, image, meta):
    return Sample(Request(Prompt(text, meta), 0, 0), output=image)


class Palette:
    """A CLIP that knows colours alone: a picture is its mean, a text the colour that it names."""

    RGB = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}  # noqa: RUF012 - a test's

    def images(self, images, device, batch_size):
        means = np.array([np.asarray(image, float).mean((0, 1)) for image in images])
        return torch.nn.functional.normalize(torch.as_tensor(means), dim=1)

    def texts(self, texts, device, batch_size):
        named = [next((rgb for name, rgb in self.RGB.items() if f" {name}" in text), (-1, -1, -1)) for text in texts]
        return torch.nn.functional.normalize(torch.tensor(named, dtype=torch.float64), dim=1)

    def sleep(self):
        pass


def test_the_reward_holds_a_detector_and_a_clip_against_the_prompts(detector, monkeypatch):
    """What the detector finds, and the CLIP, are given here; a thing's colour is that of its box and not of the picture."""
    reward = GenEval(detector=str(detector), device="cpu")
    reward._clip = Palette()  # type: ignore[assignment] - what is asked of one
    image = Image.new("RGB", (64, 64), (30, 30, 220))
    image.paste((220, 30, 30), (0, 0, 40, 40))
    found = [
        {"cat": [thing(0, size=40)]},
        {"cat": [thing(45, size=15)]},
        {"cat": [thing(0, sure=0.95), thing(20, sure=0.5)]},
        {"cat": [thing(0, sure=0.95), thing(20, sure=0.5)]},
        {},
        {},
        {},
    ]
    monkeypatch.setattr(Detector, "__call__", lambda _self, images, _least: found[: len(images)])
    red, two = {"class": "cat", "count": 1, "color": "red"}, {"class": "cat", "count": 2}
    metas = [row(red), row(red), row(two, tag="x"), row(two, tag="counting"), row(two), {}, row({"class": "zebra", "count": 1})]
    values, failures = score(reward, [sample(str(i), image, meta) for i, meta in enumerate(metas)])
    assert np.array_equal(values["gen_eval"], [1, 0, 1, 0, 0, np.nan, np.nan], equal_nan=True)
    assert "the prompt has no column include that can be understood" in failures["gen_eval"].first_error
    _, failures = score(reward, [sample("z", image, metas[-1]), sample("y", image, metas[4])])
    assert "the detector knows no 'zebra'" in failures["gen_eval"].first_error
    share = GenEval(detector=str(detector), device="cpu", counting="share")
    share._clip = Palette()  # type: ignore[assignment]
    half = row({"class": "cat", "count": 1}, {"class": "dog", "count": 1})
    assert score(share, [sample("h", image, half)])[0]["gen_eval"].tolist() == [0.5]
    reward.sleep()


def test_settings_and_a_detector_that_is_none_are_told(tmp_path):
    with pytest.raises(ConfigError) as told:
        GenEval(counting="some", confidence=1.5)  # type: ignore[arg-type] - as typed
    assert len(told.value.mistakes) == 2
    assert "config.json is missing" in Detector(str(tmp_path), 1, "cpu").check()[0]
    with pytest.raises(ModelError, match="could not be loaded"):
        Detector(str(tmp_path), 1, "cpu").load()
