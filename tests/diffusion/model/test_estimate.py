"""What the weights of a pipeline take, told from its architecture alone."""

from __future__ import annotations

import pytest

from raft_diffusion import PipelineMemory, TextToImage, TransformerLora
from raft_diffusion.model import estimate
from raft_diffusion.model.estimate import Weights, phases

#: Billions of parameters as the models' makers give them: denoiser, text encoders.
PUBLISHED = {
    "stabilityai/stable-diffusion-3.5-medium": (2.5, 5.6),
    "black-forest-labs/FLUX.1-dev": (12, 4.9),
    "black-forest-labs/FLUX.2-klein-base-4B": (4, 4.0),
    "Qwen/Qwen-Image": (20, 8.3),
    "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers": (1.6, 2.6),
    "Tongyi-MAI/Z-Image": (6, 4.0),
}


@pytest.mark.parametrize("model", sorted(PUBLISHED))
def test_the_architectures_have_the_published_numbers_of_parameters(model):
    """Nothing is stored: twenty billion numbers are counted in a moment."""
    found = estimate.count(estimate.ARCHITECTURES[model], TransformerLora(rank=4))
    denoiser, texts = PUBLISHED[model]
    assert found.denoiser / 1e9 == pytest.approx(denoiser, rel=0.12)
    assert found.text_encoders / 1e9 == pytest.approx(texts, rel=0.12)
    assert 0 < found.trained < 0.01 * found.denoiser


def test_phases_by_hand():
    """10 in the denoiser, 4 in the texts, 1 in the VAE, 2 trained, bf16: 20, 8 and 2 bytes; 16 a trained one in training."""
    weights = Weights(denoiser=10, text_encoders=4, vae=1, trained=2)
    moved = phases(weights, PipelineMemory(), "bfloat16", lora=True)
    assert moved == {"encoding prompts": 8 + 8, "sampling": 20 + 8, "decoding": 2 + 8, "training": 20 + 32}
    held = phases(weights, PipelineMemory(offload=False), "bfloat16", lora=True)
    assert held == {"encoding prompts": 38, "sampling": 38, "decoding": 38, "training": 30 + 32}
    small = phases(weights, PipelineMemory(preset="12gb"), "bfloat16", lora=True)
    assert small["training"] == 10 * 0.5625 + 32
    assert small["encoding prompts"] == 14 * 0.5625 + 8
    whole = Weights(denoiser=10, text_encoders=4, vae=1, trained=10)
    assert phases(whole, PipelineMemory(), "bfloat16", lora=False)["training"] == 10 * 16


@pytest.mark.parametrize("name", ["sd35_medium", "flux1_dev", "flux2_klein", "qwen_image", "sana", "z_image"])
def test_every_recipe_is_planned_without_its_weights(name):
    """Its settings are right, and its memory is told though nothing is here; the card that it names holds the weights."""
    from pathlib import Path

    from raft_core.config.recipes import checked_config

    file = Path(__file__).parents[3] / "configs" / "pipelines" / f"{name}.yaml"
    checked = checked_config(str(file), [], elsewhere=True)
    policy = checked.config.policy
    assert isinstance(policy, TextToImage)
    assert policy.model in estimate.ARCHITECTURES
    told = policy.estimate()
    assert "billion parameters in the denoiser" in told
    card = int(file.read_text().split("a GPU with ")[1].split(" GB")[0])
    weights = estimate.count(estimate.ARCHITECTURES[policy.model], policy.lora)
    largest = max(phases(weights, policy.memory, policy.dtype, lora=True).values())
    assert largest < card * 1e9
