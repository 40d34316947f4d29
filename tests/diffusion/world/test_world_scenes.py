"""The renderer, the captions and the splits of the bundled world."""

import itertools

import numpy as np
import pytest

from raft_diffusion.world.captions import caption, drop_names, parse_caption
from raft_diffusion.world.corrupt import CORRUPTIONS, badness, canvases, corrupt
from raft_diffusion.world.make import BUNDLED
from raft_diffusion.world.prompts import prompt_files
from raft_diffusion.world.scenes import ATTRIBUTES, draw_scene, render
from raft_diffusion.world.splits import draw_names, draw_scenes, heldout_triples, is_heldout


def test_same_seed_same_pictures():
    first, second = (render(draw_scenes(np.random.default_rng(3), 40), 64) for _ in range(2))
    assert first.shape == (40, 64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)


def test_a_picture_does_not_depend_on_its_neighbours():
    scenes = draw_scenes(np.random.default_rng(4), 12)
    np.testing.assert_array_equal(render(scenes, 32)[5], render(scenes[5:6], 32)[0])


def test_both_resolutions_show_the_same_scene():
    scenes = draw_scenes(np.random.default_rng(5), 50)
    halved = render(scenes, 64).reshape(50, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(halved - render(scenes, 32)).mean() < 2.0  # of 255: outlines differ by their antialiasing


def test_the_object_is_where_and_what_the_names_say():
    rng = np.random.default_rng(6)
    names = {"size": "large", "colour": "red", "shape": "circle", "background": "navy", "position": "left"}
    scene = draw_scene(rng, names)
    picture = render([scene], 64)[0].astype(int)
    rows, columns = np.nonzero(picture[..., 0] - picture[..., 2] > 90)
    assert columns.mean() < 24
    assert abs(rows.mean() - 32) < 6
    assert len(rows) > 300


@pytest.mark.parametrize("left_out", [(), ("size",), ("position",), ("background",), ("size", "position", "background")])
def test_captions_come_back_from_the_parser(left_out):
    for values in itertools.product(*ATTRIBUTES.values()):
        names = {key: value for key, value in zip(ATTRIBUTES, values, strict=True) if key not in left_out}
        assert parse_caption(caption(names)) == names


def test_caption_wording():
    names = {"size": "large", "colour": "red", "shape": "star", "background": "navy", "position": "left"}
    assert caption(names) == "a large red star on the left, on a navy background"
    assert caption({"colour": "orange", "shape": "heart"}) == "an orange heart"
    assert parse_caption("A red star  on a navy background.") == {"colour": "red", "shape": "star", "background": "navy"}


@pytest.mark.parametrize("text", ["", "a photo of a cat", "a red star and a dog", "red", "a huge red star"])
def test_other_text_is_no_caption(text):
    assert parse_caption(text) == {}


def test_captions_always_say_colour_and_shape():
    rng = np.random.default_rng(7)
    dropped = [drop_names(rng, draw_names(rng, heldout=False), 0.9) for _ in range(200)]
    assert all({"colour", "shape"} <= set(names) for names in dropped)


def test_splits_are_disjoint_and_every_pair_is_seen():
    assert len(heldout_triples()) == 58
    rng = np.random.default_rng(8)
    assert not any(is_heldout(draw_names(rng, heldout=False)) for _ in range(500))
    assert all(is_heldout(draw_names(rng, heldout=True)) for _ in range(500))
    colours, shapes, backgrounds = (ATTRIBUTES[key] for key in ("colour", "shape", "background"))
    seen = set(itertools.product(colours, shapes, backgrounds)) - heldout_triples()
    assert {(c, s) for c, s, _ in seen} == set(itertools.product(colours, shapes))
    assert {(c, b) for c, _, b in seen} == set(itertools.product(colours, backgrounds))


def test_prompt_files_are_what_the_script_writes():
    for name, prompts in prompt_files().items():
        assert (BUNDLED / "prompts" / name).read_text().splitlines() == prompts
        assert len(set(prompts)) == len(prompts)
        assert all(is_heldout(parse_caption(text)) == ("heldout" in name) for text in prompts)


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("side", [64, 32])
def test_corruptions_damage_more_with_severity(kind, side):
    def distance(severity):
        rng = np.random.default_rng(9)
        drawn = canvases(draw_scenes(rng, 6), side, rng)
        damaged = np.stack([corrupt(canvas, kind, severity) for canvas in drawn])
        return np.abs(damaged / 255 - np.stack([canvas.picture for canvas in drawn])).mean()

    assert 0 < distance(0.1) <= distance(1.0)


def test_badness_adds_up_towards_one():
    assert badness([]) == 0
    assert 0 < badness([("blurry", 0.2)]) < badness([("blurry", 0.8)]) < badness([("blurry", 0.8), ("cut", 0.5)]) < 1
    assert badness([("blank", 1.0)]) == 1
