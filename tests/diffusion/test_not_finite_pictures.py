"""Latents and pixels that are not finite: no picture is made of them, and the VAE runs in the precision that it needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from raft_core.sampling import requests
from raft_core.soundness import examined, render_sound
from raft_core.types import Prompt
from raft_diffusion import Lora, Memory
from raft_diffusion.model.engine import Engine
from raft_diffusion.model.loading import load_pipeline

ASKED = requests([Prompt("a red cat"), Prompt("dog")], 2, 0, 1)


def break_vae(policy, monkeypatch, broken):
    """Has the VAE make a NaN of one pixel of the pictures whose latents are ``broken``."""
    vae = policy.engine.pipe.vae
    decode = vae.decode

    def decoded(latents, return_dict):
        (pixels,) = decode(latents, return_dict=return_dict)
        bad = torch.tensor([broken(row) for row in latents])
        pixels[bad, 0, 0, 0] = math.nan
        return (pixels,)

    monkeypatch.setattr(vae, "decode", decoded)


def test_a_picture_with_a_pixel_that_is_not_finite_is_not_made(fresh, monkeypatch):
    policy = fresh("sd1")
    samples = policy.sample(ASKED)
    expected = [np.asarray(sample.output) for sample in policy.render(samples)]
    bad = float(samples[1].tensors["latents"].sum())
    scale = policy.engine.pipe.vae.config.scaling_factor
    break_vae(policy, monkeypatch, lambda latents: math.isclose(float(latents.sum()) * scale, bad, rel_tol=1e-3))
    rendered = policy.render(samples)
    assert [sample.failed for sample in rendered] == ["", "pixels are not finite, though the latents are", "", ""]
    assert rendered[1].output is None
    for i in (0, 2, 3):
        assert np.array_equal(np.asarray(rendered[i].output), expected[i])


def test_all_pictures_of_a_batch_may_fail(fresh, monkeypatch):
    policy = fresh("sd1")
    samples = policy.sample(ASKED)
    break_vae(policy, monkeypatch, lambda _: True)
    assert all(sample.failed and sample.output is None for sample in policy.render(samples))


def test_weights_that_have_diverged_draw_failed_samples_and_none_is_decoded(load, monkeypatch):
    policy = load("sd1", lora=Lora(rank=2))
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.fill_(math.inf)
    samples = examined(policy.sample(ASKED))
    assert {sample.failed for sample in samples} == {"latents are not finite"}
    monkeypatch.setattr(policy.engine, "decode", lambda _: pytest.fail("decoded what failed"))
    assert render_sound(samples, policy.render) == samples


@pytest.mark.parametrize(
    ("kind", "dtype", "memory", "expected"),
    [
        ("sdxl", torch.float16, Memory(), torch.float32),  # its configuration says force_upcast
        ("sdxl", torch.bfloat16, Memory(), torch.bfloat16),  # which has float32's range
        ("sd1", torch.float16, Memory(), torch.float16),  # as in diffusers
        ("sd1", torch.float16, Memory(vae_float32=True), torch.float32),
        ("sd1", torch.float32, Memory(), torch.float32),
    ],
)
def test_the_vae_runs_in_the_precision_that_it_needs(tiny, kind, dtype, memory, expected):
    engine = Engine(load_pipeline(str(tiny(kind)), dtype), Lora(rank=2), memory, torch.device("cpu"), dtype)
    assert engine.pipe.vae.dtype == expected
    assert engine.networks["unet"].dtype in (dtype, torch.float32)
    assert ("vae_float32" in engine.overflow_words) == (expected != torch.float32)
