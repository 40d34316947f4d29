"""The emoji world's finished weights do what they are for."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.world.aesthetic import embed, load_head
from raft_diffusion.world.clip_model import RESOLUTION, as_text_encoder, load_clip
from raft_diffusion.world.emoji.captions import caption
from raft_diffusion.world.emoji.corrupt import canvases, corrupt
from raft_diffusion.world.emoji.gates import judge_gate
from raft_diffusion.world.emoji.make import BUNDLED
from raft_diffusion.world.emoji.pictures import resized
from raft_diffusion.world.emoji.scenes import render
from raft_diffusion.world.emoji.splits import draw_scenes
from raft_diffusion.world.emoji.tokenizer import build_tokenizer, token_ids
from raft_diffusion.world.gold import Gold
from raft_diffusion.world.judge import GoldJudge
from raft_diffusion.world.vae import round_trip


@pytest.fixture(scope="module")
def judge():
    return GoldJudge(BUNDLED / "emoji-judge")


@pytest.fixture(scope="module")
def clip():
    return load_clip(BUNDLED / "emoji-clip").model


@pytest.fixture(scope="module")
def vae():
    ensure_importable()
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(BUNDLED / "emoji-vae").float().eval()


def test_the_judge_is_right_on_renders_of_both_sizes(judge):
    found = judge_gate(judge, 200, sides=(128, 80))
    assert found["128"]["joint"] >= 0.985
    assert found["80"]["joint"] >= 0.985


def test_the_judge_still_sees_the_caption_after_the_autoencoder(judge, vae):
    assert judge_gate(judge, 48, sides=(128,), develop=partial(round_trip, vae))["128"]["joint"] >= 0.9


def test_the_autoencoder_gives_pictures_back_in_unit_latents(vae):
    pictures = render(draw_scenes(np.random.default_rng(3), 24), 128)
    assert np.abs(round_trip(vae, pictures).astype(float) - pictures).mean() < 4  # of 255
    with torch.no_grad():
        latents = vae.encode(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean
    assert latents.shape == (24, 8, 16, 16)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(8), rtol=0.25, atol=0.0)
    assert vae.config["scaling_factor"] == 1.0


def test_gold_takes_the_emoji_judge_by_its_folder():
    scene = draw_scenes(np.random.default_rng(4), 1)[0]
    picture = Image.fromarray(render([scene], 128)[0])
    right = caption(scene.attributes())
    wrong = caption(scene.attributes() | {"background": "white" if scene.background != "white" else "navy"})
    samples = [SimpleNamespace(prompt=SimpleNamespace(text=text), output=picture) for text in (right, wrong)]
    assert Gold("bundled:emoji-judge")(samples).tolist() == [1.0, 0.0]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("head", ["aesthetic", "taste"])
def test_clean_pictures_beat_ruined_ones(clip, head):
    rng = np.random.default_rng(5)
    drawn = canvases(draw_scenes(rng, 12, heldout=True), 80, rng)
    scorer = load_head(BUNDLED / f"emoji-{head}")

    @torch.no_grad()
    def mean(pictures):
        return scorer(embed(clip, resized(pictures, RESOLUTION))).mean().item()

    clean = mean([(canvas.picture * 255).astype(np.uint8) for canvas in drawn])
    for kind in ("blank", "empty", "melted", "muddled"):
        assert clean > mean([corrupt(canvas, kind, 1.0) for canvas in drawn]) + 1, kind


def test_the_text_tower_is_the_text_encoder(clip):
    ids = token_ids(["a large blue cat on the left, on a pink background", "a moon"])
    encoder = as_text_encoder(clip, build_tokenizer())
    with torch.no_grad():
        states = clip.token_embedding(ids) + clip.positional_embedding
        states = clip.ln_final(clip.transformer(states, attn_mask=clip.attn_mask))
        torch.testing.assert_close(encoder(ids).last_hidden_state, states, rtol=1e-4, atol=1e-4)
