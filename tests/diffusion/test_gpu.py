"""What only a CUDA device can show: offloading, half precision, memory by phase."""

from __future__ import annotations

import pytest
import torch

from raft_core.sampling import requests
from raft_core.types import Prompt
from raft_diffusion import DenoisingLoss, Lora, Memory

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def asked():
    return requests([Prompt("a red cat"), Prompt("dog")], 2, 0, 1)


def places(module, trained=()):
    ours = {id(parameter) for parameter in trained}
    return {parameter.device.type for parameter in module.parameters() if id(parameter) not in ours}


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("dtype", ["auto", "float16", "float32"])
def test_a_round_on_the_gpu(load, kind, dtype):
    policy = load(kind, device="cuda", dtype=dtype, lora=Lora(rank=4, conv=True), loss=DenoisingLoss(guided_scale=3.0))
    trained = policy.trainable().values()
    with policy.resident("sample"):
        samples = policy.sample(asked())
        assert places(policy.engine.networks["unet"]) == {"cuda"}
        assert places(policy.engine.networks["text_encoder"]) == {"cpu"}  # its embeddings are cached
    assert places(policy.engine.networks["unet"], trained) == {"cpu"}
    with policy.resident("render"):
        samples = policy.render(samples)
    assert samples[0].output.size == (32, 32)
    with policy.resident("train"):
        optimiser = torch.optim.AdamW(trained, lr=1e-2)
        draw = policy.draw(samples, range(4))
        start = policy.nll(samples, draw)
        for _ in range(5):
            optimiser.zero_grad()
            policy.nll(samples, draw).mean().backward()
            optimiser.step()
        assert policy.nll(samples, draw).mean() < start.mean()
    assert {parameter.device.type for parameter in trained} == {"cuda"}


def test_a_seed_means_the_same_noise_on_every_device(load):
    pictures = [load(device=device, dtype="float32").sample(asked())[0].tensors["latents"] for device in ("cpu", "cuda")]
    assert torch.allclose(*pictures, atol=1e-2)


def test_xformers_draws_the_same(load):
    pytest.importorskip("xformers")
    plain = load(device="cuda", dtype="float16")
    other = load(device="cuda", dtype="float16", memory=Memory(attention="xformers"))
    a, b = (policy.sample(asked())[0].tensors["latents"] for policy in (plain, other))
    assert (a - b).abs().mean() < 0.1
