"""The renderer, the captions, the splits and the damages of the emoji world."""

from dataclasses import replace

import numpy as np
import pytest

from raft_diffusion.world.emoji.captions import FORMS, caption, draw_caption, drop_names, parse_caption
from raft_diffusion.world.emoji.corrupt import CORRUPTIONS, badness, canvases, corrupt
from raft_diffusion.world.emoji.scenes import ATTRIBUTES, BACKGROUNDS, NATURAL, Scene, covers, render
from raft_diffusion.world.emoji.splits import draw_scenes, draw_split_names, heldout_pairs, is_heldout
from raft_diffusion.world.emoji.sprites import OBJECTS, TINTS, sprite, tints_of
from raft_diffusion.world.emoji.tokenizer import CONTEXT, build_tokenizer, token_ids


def scene(**changed) -> Scene:
    return replace(Scene("large", NATURAL, "heart", "white", "center", 0.0, 0.0, 0.5, 1.0, 0.5), **changed)


def test_same_seed_same_pictures():
    first, second = (render(draw_scenes(np.random.default_rng(3), 20), 64) for _ in range(2))
    assert first.shape == (20, 64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)


def test_a_picture_does_not_depend_on_its_neighbours():
    scenes = draw_scenes(np.random.default_rng(4), 12)
    np.testing.assert_array_equal(render(scenes, 80)[5], render(scenes[5:6], 80)[0])


def test_every_size_shows_the_same_scene():
    scenes = draw_scenes(np.random.default_rng(5), 30)
    halved = render(scenes, 128).reshape(30, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(halved - render(scenes, 64)).mean() < 2.0  # of 255: outlines differ by their antialiasing


def test_the_object_is_where_the_numbers_say():
    left = covers([scene(x=-0.4, y=0.1, radius=0.35)], 128)[0].astype(float)
    rows, columns = np.nonzero(left > 128)
    assert columns.mean() == pytest.approx(0.6 * 64, abs=1.5)
    assert np.ptp(columns) + 1 == pytest.approx(0.35 * 128, abs=2.5)
    assert rows.mean() == pytest.approx(1.1 * 64, abs=5)  # a heart is heavier above


def test_an_object_may_be_cut_off_and_knows_it():
    beyond = scene(x=0.6)
    assert beyond.overhang == pytest.approx(0.1)
    assert scene().overhang == 0
    assert covers([beyond], 64)[0][:, -1].any()


def test_without_an_object_only_the_background_is_left():
    shown, empty = render([scene(background="navy")], 64)[0], render([scene(background="navy")], 64, with_object=False)[0]
    assert np.ptp(empty, axis=1).max() == 0
    assert (shown != empty).any(-1).mean() > 0.1
    assert np.abs(empty[0, 0].astype(int) - BACKGROUNDS["navy"]).max() < 6


@pytest.mark.parametrize("kind", OBJECTS)
def test_a_tint_colours_the_sprite_and_keeps_its_outline(kind):
    own = np.asarray(sprite(kind)).astype(float)
    assert (own[..., 3] > 200).sum() > 1500
    for tint in tints_of(kind):
        coloured = np.asarray(sprite(kind, tint)).astype(float)
        np.testing.assert_array_equal(coloured[..., 3], own[..., 3])
        mean = coloured[own[..., 3] > 200][:, :3].mean(0)
        expected = np.array(TINTS[tint], float)
        assert np.corrcoef(mean, expected)[0, 1] > 0.9


def test_captions_come_back_from_the_parser_in_every_form():
    rng = np.random.default_rng(0)
    for _ in range(300):
        names = drop_names(rng, draw_split_names(rng, heldout=False), 0.4)
        for form in FORMS:
            assert parse_caption(form(names)) == names, form(names)


def test_caption_wording():
    names = {"size": "large", "tint": "blue", "object": "cat", "background": "sky blue", "position": "left"}
    assert caption(names) == "a large blue cat on the left, on a sky blue background"
    assert caption({"tint": NATURAL, "object": "umbrella"}) == "an umbrella"
    assert parse_caption("A cat  on a pink background.") == {"tint": NATURAL, "object": "cat", "background": "pink"}


@pytest.mark.parametrize(
    "text",
    ["", "a catfish", "a cat and a dog", "two cats", "red", "a huge cat", "on the left", "a cat on the left on the right"],
)
def test_other_text_is_no_caption(text):
    assert parse_caption(text) == {}


def test_every_word_of_a_caption_is_one_token():
    tokenizer, rng = build_tokenizer(), np.random.default_rng(1)
    for _ in range(50):
        text = draw_caption(rng, draw_split_names(rng, heldout=False))
        words = text.replace(",", " ,").split()
        ids = tokenizer(text).input_ids
        assert len(ids) == len(words) + 2, text
        assert len(ids) <= CONTEXT
        assert str(tokenizer.decode(ids, skip_special_tokens=True)).replace(" ,", ",").strip() == text
    assert token_ids(["a cat", ""]).shape == (2, CONTEXT)


def test_pretraining_never_sees_a_held_out_pair_but_every_object_and_background():
    rng = np.random.default_rng(2)
    seen = [draw_split_names(rng, heldout=False) for _ in range(1500)]
    held = [draw_split_names(rng, heldout=True) for _ in range(300)]
    assert not any(is_heldout(names) for names in seen)
    assert all(is_heldout(names) for names in held)
    assert len(heldout_pairs()) == len(OBJECTS)
    for key, values in ATTRIBUTES.items():
        assert {names[key] for names in seen} == set(values)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_damage_changes_the_picture_the_more_the_worse_it_is(kind):
    rng = np.random.default_rng(7)
    drawn = canvases(draw_scenes(rng, 6), 64, rng)
    clean = np.stack([canvas.picture for canvas in drawn]) * 255
    mild, severe = (np.abs(np.stack([corrupt(c, kind, s) for c in drawn]) - clean).mean() for s in (0.1, 1.0))
    assert severe > 0.5
    assert severe > mild or kind in ("empty", "blank")


def test_badness_adds_up_towards_one():
    assert badness([]) == 0
    assert 0 < badness([("blurry", 0.2)]) < badness([("blurry", 0.2), ("mixed", 0.4)]) < 1
    assert badness([("blank", 1.0)]) == 1
