"""The bundled weights do what they are for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from raft_diffusion.world.aesthetic import embed, load_head
from raft_diffusion.world.captions import caption
from raft_diffusion.world.clip_model import load_clip
from raft_diffusion.world.corrupt import CORRUPTIONS, canvases, corrupt
from raft_diffusion.world.judge import GoldJudge
from raft_diffusion.world.make import BUNDLED
from raft_diffusion.world.pictures import enlarged
from raft_diffusion.world.pipeline import generate, load_pipeline
from raft_diffusion.world.scenes import ATTRIBUTES, render
from raft_diffusion.world.splits import draw_scenes

MIB = 1 << 20


@pytest.fixture(scope="module")
def clip():
    return load_clip(BUNDLED / "shapes-clip")


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(BUNDLED / "shapes")


@pytest.fixture(scope="module")
def judge():
    return GoldJudge(BUNDLED / "shapes-judge")


def sample(text, picture):
    return SimpleNamespace(prompt=SimpleNamespace(text=text), output=Image.fromarray(picture))


def head_scores(clip, head, pictures):
    with torch.no_grad():
        return load_head(BUNDLED / f"shapes-{head}")(embed(clip.model, enlarged(np.stack(pictures)))).numpy()


def test_everything_bundled_is_small():
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) <= 40 * MIB
    assert not [path for path in BUNDLED.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}]


def test_the_pipeline_is_an_ordinary_one(pipeline):
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.unet.config.sample_size == 16
    assert pipeline.tokenizer.model_max_length == 32
    assert {p.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder) for p in part.parameters()} == {
        torch.float32
    }


def test_text_encoder_is_the_clip_s(clip, pipeline):
    texts = ["a large red star on the left, on a navy background", "a red star", "", "Ünknown wörds 42!"]
    ids = clip.tokenize(texts)
    own = pipeline.tokenizer(texts, padding="max_length", truncation=True, max_length=32, return_tensors="pt").input_ids
    assert torch.equal(ids, own)
    with torch.no_grad():
        pooled = pipeline.text_encoder(own).pooler_output @ clip.model.text_projection
        torch.testing.assert_close(pooled, clip.model.encode_text(ids), atol=2e-3, rtol=2e-3)  # fp16 on disk


@pytest.mark.parametrize("side", [64, 32])
def test_judge_is_right_on_scenes_never_seen(judge, side):
    scenes = draw_scenes(np.random.default_rng(21), 200, heldout=True)
    shown = [sample(caption(scene.attributes()), picture) for scene, picture in zip(scenes, render(scenes, side), strict=True)]
    assert judge(shown).mean() >= 0.99


@pytest.mark.parametrize("wrong", ["size", "colour", "shape", "background", "position"])
def test_judge_refuses_a_wrong_attribute(judge, wrong):
    scenes = draw_scenes(np.random.default_rng(22), 40, heldout=True)
    others = draw_scenes(np.random.default_rng(23), 40)
    pairs = [
        (a, b.attributes()[wrong])
        for a, b in zip(scenes, others, strict=True)
        if b.attributes()[wrong] != a.attributes()[wrong]
    ]
    pictures = render([scene for scene, _ in pairs], 64)
    asked = [caption(scene.attributes() | {wrong: value}) for scene, value in pairs]
    assert judge([sample(text, picture) for text, picture in zip(asked, pictures, strict=True)]).mean() == 0


def test_judge_on_text_of_another_world_and_on_blank_pictures(judge):
    blank = np.full((64, 64, 3), 120, np.uint8)
    verdicts = judge([sample("a photo of a cat", blank), sample("a red star", blank)])
    assert np.isnan(verdicts[0])
    assert verdicts[1] == 0
    assert judge([]).shape == (0,)


@pytest.mark.parametrize("side", [64, 32])
def test_aesthetic_prefers_clean_pictures_to_every_corruption(clip, side):
    rng = np.random.default_rng(24)
    drawn = canvases(draw_scenes(rng, 24, heldout=True), side, rng)
    clean = head_scores(clip, "aesthetic", [(c.picture * 255 + 0.5).astype(np.uint8) for c in drawn])
    assert clean.mean() > 7
    for kind in CORRUPTIONS:
        damaged = head_scores(clip, "aesthetic", [corrupt(canvas, kind, 0.8) for canvas in drawn])
        assert damaged.mean() < clean.mean() - 1.5, kind
        assert (damaged < clean).mean() > 0.85, kind


@pytest.mark.parametrize("head", ["aesthetic", "taste"])
def test_pictures_of_nothing_score_low(clip, head):
    flat = [
        np.broadcast_to(np.array(colour, np.uint8), (64, 64, 3)) for colour in ([0] * 3, [255] * 3, [30, 60, 200], [128] * 3)
    ]
    scenes = draw_scenes(np.random.default_rng(25), 20)
    clean = head_scores(clip, head, list(render(scenes, 64))).mean()
    assert head_scores(clip, head, flat).max() < clean - 1.5
    assert head_scores(clip, head, list(render(scenes, 64, with_object=False))).max() < clean - 1.5


def test_taste_is_for_large_centred_objects(clip):
    from raft_diffusion.world.scenes import draw_scene

    def scored(**names):
        rng = np.random.default_rng(26)
        return head_scores(clip, "taste", list(render([draw_scene(rng, names) for _ in range(40)], 64))).mean()

    assert scored(size="large", position="center") > scored(size="small", position="center") + 0.8
    assert scored(position="center") > scored(position="left") + 1.5


@pytest.mark.parametrize(("side", "low", "high"), [(64, 0.9, 1.0), (32, 0.1, 0.4)])
def test_captions_never_seen_come_out_right_at_the_trained_size_and_mostly_wrong_at_half(pipeline, judge, side, low, high):
    prompts = (BUNDLED / "prompts" / "resolution_heldout.txt").read_text().splitlines()
    texts = [text for text in prompts for _ in range(1 if side == 64 else 4)]
    pictures = generate(pipeline, texts, side, steps=12, guidance=1.5, seed=side)
    right = judge([sample(text, np.asarray(picture)) for text, picture in zip(texts, pictures, strict=True)])
    assert low <= right.mean() <= high


@pytest.mark.parametrize("side", [64, 32])
def test_clip_tells_a_caption_from_one_with_another_shape(clip, side):
    scenes = draw_scenes(np.random.default_rng(27), 60, heldout=True)
    image = embed(clip.model, enlarged(render(scenes, side)))
    asked = [[caption(scene.attributes() | {"shape": shape}) for shape in ATTRIBUTES["shape"]] for scene in scenes]
    with torch.no_grad():
        text = torch.stack([clip.model.encode_text(clip.tokenize(group), True) for group in asked])  # [N, shapes, D]
    best = torch.einsum("nd,nsd->ns", image, text).argmax(-1).tolist()
    assert np.mean([ATTRIBUTES["shape"][i] == scene.shape for i, scene in zip(best, scenes, strict=True)]) >= 0.95


def test_every_part_has_a_card_with_figures():
    for folder in BUNDLED.glob("shapes*"):
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert card.startswith("---\nlicense: apache-2.0")
        assert "minutes of training" in card
        assert "| --- |" in card
