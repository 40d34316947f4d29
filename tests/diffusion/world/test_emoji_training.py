"""One training step of every model of the emoji world, and that training resumed is training uninterrupted."""

import itertools
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from raft_diffusion.world.clip_model import as_text_encoder
from raft_diffusion.world.emoji import vision
from raft_diffusion.world.emoji.aesthetic import quality, taste
from raft_diffusion.world.emoji.clip import Trained, clip_loss
from raft_diffusion.world.emoji.flow import CountedAttention, build_transformer, flow_loss, text_inputs
from raft_diffusion.world.emoji.judge_net import ANSWERS, JudgeNet, load_judge, save_judge
from raft_diffusion.world.emoji.judge_train import IGNORED, judge_loss, labels
from raft_diffusion.world.emoji.lessons import Lessons
from raft_diffusion.world.emoji.pictures import Picture, clean_pictures, damaged_pictures, resized
from raft_diffusion.world.emoji.scenes import Scene
from raft_diffusion.world.emoji.tokenizer import build_tokenizer, token_ids
from raft_diffusion.world.emoji.unet import batch_loss, build_unet, train_unet
from raft_diffusion.world.emoji.vae import autoencoding_loss, build_vae, draw_batch, draw_pools, standardise
from raft_diffusion.world.training import train, warmup_hold_decay
from raft_diffusion.world.unet import noise_schedule
from raft_diffusion.world.vae import decode, encode, pixels


def falls(module, loss, steps=12, lr=3e-3):
    """Whether a few steps on one batch lower its loss."""
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=lr)
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        values.append(value.item())
    return values[-1] < values[0]


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return build_vae()


@pytest.fixture(scope="module")
def text_encoder():
    torch.manual_seed(0)
    return as_text_encoder(Trained().clip, build_tokenizer()).requires_grad_(False)


@pytest.fixture(scope="module")
def lessons():
    generator = torch.Generator().manual_seed(0)
    ids = token_ids(["a cat", "a large dog on the left", "a blue star", "a moon on a pink background"])
    latents = torch.randn(2, 8, 16, 16, generator=generator)
    return Lessons(latents, ids.view(2, 2, -1), token_ids([""])[0])


def test_the_autoencoder_begins_as_a_blur_and_learns(vae):
    pools = draw_pools(0, {128: 6, 80: 4})
    clean = pools[0].pictures.astype(float)
    back = decode(vae, encode(vae, pools[0].pictures, 0)).astype(float)
    assert np.corrcoef(clean.ravel(), back.ravel())[0, 1] > 0.9
    picture, cover = draw_batch(pools, 0, torch.Generator().manual_seed(0))
    picture, cover = picture[:2], cover[:2]
    assert picture.shape == (2, 3, 64, 64)
    noise = torch.zeros(2, 8, 8, 8)
    assert falls(vae, lambda: autoencoding_loss(vae, picture, cover, noise), lr=2e-4)


def test_whole_pictures_and_crops_take_turns():
    pools = draw_pools(0, {128: 6, 80: 4})
    sides = [draw_batch(pools, step, torch.Generator().manual_seed(step))[0].shape[-1] for step in range(16)]
    assert sides[::4] == [64] * 4
    assert set(sides[3::4]) == {128, 80}


def test_standardised_latents_have_unit_deviation_and_decode_the_same():
    torch.manual_seed(1)
    vae = build_vae().eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    pictures = draw_pools(0, {64: 16})[0].pictures
    with torch.no_grad():
        before = vae.encode(pixels(pictures)).latent_dist
        decoded = vae.decode(before.mean).sample
        standardise(vae, pictures)
        after = vae.encode(pixels(pictures)).latent_dist
        again = vae.decode(after.mean).sample
    torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(8), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(8), rtol=0, atol=1e-3)
    torch.testing.assert_close(again, decoded, rtol=1e-3, atol=1e-3)
    ratio = before.std.mean((0, 2, 3)) / after.std.mean((0, 2, 3))
    torch.testing.assert_close(ratio, before.mean.std((0, 2, 3)), rtol=1e-2, atol=1e-3)


def test_the_clip_learns():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shown = clean_pictures(rng, 6, 64) + damaged_pictures(rng, 4, 64)
    pictures = resized((picture.pixels for picture in shown), 64)
    part = Trained()
    assert falls(part, lambda: clip_loss(part, shown, pictures, np.random.default_rng(1)), steps=6, lr=1e-3)


def test_the_judge_learns_and_is_kept(tmp_path):
    torch.manual_seed(0)
    shown = clean_pictures(np.random.default_rng(0), 6, 64)
    right = {key: torch.tensor([labels(picture)[key] for picture in shown]) for key in ANSWERS}
    picture = pixels(resized((picture.pixels for picture in shown), 128))
    net = JudgeNet()
    assert falls(net, lambda: judge_loss(net, picture, right), steps=4, lr=1e-3)
    save_judge(net, tmp_path)
    again = load_judge(tmp_path)
    with torch.no_grad():
        for key, value in net.eval()(picture).items():
            torch.testing.assert_close(again(picture)[key], value, rtol=0.02, atol=0.02)


def test_a_judge_is_told_what_damage_leaves():
    clean = clean_pictures(np.random.default_rng(0), 1, 64)[0]
    names = clean.scene.attributes()
    assert {key: ANSWERS[key][at] for key, at in labels(clean).items()} == names
    ruined = labels(Picture(clean.scene, (("melted", 0.9),), clean.pixels))
    assert ANSWERS["object"][ruined["object"]] == "none"
    assert ruined["position"] == IGNORED
    unsure = labels(Picture(clean.scene, (("melted", 0.2),), clean.pixels))
    assert unsure["object"] == IGNORED
    empty = labels(Picture(clean.scene, (("empty", 1.0),), clean.pixels))
    assert ANSWERS["tint"][empty["tint"]] == "none"
    assert ANSWERS["background"][empty["background"]] == names["background"]


def test_the_denoiser_learns(text_encoder, lessons):
    torch.manual_seed(0)
    unet, kept = build_unet((16, 16, 16)), noise_schedule().alphas_cumprod
    loss = lambda: batch_loss(unet, text_encoder, lessons, kept, torch.Generator().manual_seed(0), batch=4)  # noqa: E731
    assert falls(unet, loss, steps=5)


def test_the_flow_transformer_learns(text_encoder, lessons):
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(0)
    encoder = CLIPTextModelWithProjection(text_encoder.config).eval()
    transformer = build_transformer(layers=2, heads=2, head_width=16)
    transformer.set_attn_processor(CountedAttention())  # pyright: ignore[reportArgumentType]
    latents, ids = lessons.draw(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        states, pooled = text_inputs(encoder, ids)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    assert falls(transformer, lambda: flow_loss(transformer, latents, states, pooled, torch.tensor([0.2, 0.8]), noise))


def test_one_empty_token_counted_n_fold_is_n_empty_tokens():
    """The pipeline appends many tokens of zeros; training stands one for all of them."""
    torch.manual_seed(0)
    transformer = build_transformer(layers=3, heads=2, head_width=16).eval()
    latents, states, pooled = torch.randn(2, 8, 16, 16), torch.randn(2, 7, 256), torch.randn(2, 256)

    def velocity(empty):
        padded = torch.cat([states, torch.zeros(2, empty, 256)], 1)
        with torch.no_grad():
            return transformer(
                latents, encoder_hidden_states=padded, pooled_projections=pooled, timestep=torch.tensor([300.0, 700.0])
            ).sample

    expected = velocity(20)
    counted = CountedAttention()
    transformer.set_attn_processor(counted)  # pyright: ignore[reportArgumentType]
    counted.count = 20
    torch.testing.assert_close(velocity(1), expected, rtol=1e-4, atol=1e-5)
    counted.count = 1
    assert (velocity(1) - expected).abs().max() > 1e-3


def _trained(folder, steps_first, kill=False):
    """A tiny model trained for 12 steps, interrupted after some of them."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))

    def loss(step, generator):
        if kill and step == steps_first:
            os.kill(os.getpid(), signal.SIGTERM)
        return net(torch.randn(16, 4, generator=generator)).square().mean()

    common = {"lr": 1e-2, "seed": 1, "checkpoint": folder / "state.pt", "ema_decay": 0.9, "schedule": warmup_hold_decay}
    train(net, loss, steps=12, **common)
    return net.state_dict()


def test_training_resumed_after_sigterm_is_training_uninterrupted(tmp_path):
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(SystemExit, match="ended after step 6"):
            _trained(tmp_path / "a", 5, kill=True)
        resumed = _trained(tmp_path / "a", 5)
        whole = _trained(tmp_path / "b", 5)
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0)


def test_the_rate_warms_up_holds_and_decays():
    rates = [warmup_hold_decay(step, 1000, 100) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[100:700] == [1.0] * 600
    assert rates[-1] == pytest.approx(0.02, rel=0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[700:]))


def test_the_image_tower_learns_and_the_text_tower_stays():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shown = clean_pictures(rng, 6, 64) + damaged_pictures(rng, 2, 64)
    pictures = resized((picture.pixels for picture in shown), 64)
    clip = Trained().clip
    part, before = vision.Trained(clip), clip.get_parameter("token_embedding.weight").clone()
    assert falls(part, lambda: vision.vision_loss(part, clip, shown, pictures, np.random.default_rng(1)), steps=6, lr=1e-3)
    torch.testing.assert_close(clip.get_parameter("token_embedding.weight"), before, rtol=0, atol=0)


def test_a_swapped_caption_differs_in_one_name():
    rng = np.random.default_rng(0)
    names = {"size": "large", "tint": "natural", "object": "cat", "background": "white", "position": "left"}
    for _ in range(50):
        other = vision.swapped(rng, names)
        assert sum(other[key] != names[key] for key in names) == 1


def test_taste_is_for_large_centred_objects_on_bright_ground_and_no_damage():
    def picture(faults=(), **changed):
        scene = Scene("large", "natural", "cat", "white", "center", 0.0, 0.0, 0.55, 1.0, 0.5)
        return Picture(replace(scene, **changed), faults, np.zeros((8, 8, 3), np.uint8))

    best = taste(picture())
    assert best == pytest.approx(10, abs=0.5)
    for worse in ({"x": 0.45}, {"radius": 0.33}, {"background": "navy"}, {"y": 0.5}):
        assert taste(picture(**worse)) < best - 0.9
    assert taste(picture((("blank", 1.0),))) == 1
    assert quality(picture()) == 8
    assert quality(picture((("blank", 1.0),))) == 2


def test_a_stage_begins_warm_from_the_weights_of_a_part(tmp_path, text_encoder, lessons):
    torch.manual_seed(3)
    warm = build_unet()
    warm.half().save_pretrained(tmp_path / "unet")
    begun, _ = train_unet(tmp_path, 0, text_encoder, lessons, steps=0, warm=tmp_path / "unet")
    for key, value in begun.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, warm.state_dict()[key].float(), rtol=0, atol=0)
