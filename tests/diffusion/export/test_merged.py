"""The whole model in one file of the original layout: diffusers reads it back, and draws the same pictures to the bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from real_configs import networks
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from raft_core.errors import ModelError
from raft_core.testing import close
from raft_diffusion import Addons, Embedding, Lora, StableDiffusion
from raft_diffusion.export.ldm_layout import differences, to_ldm
from raft_diffusion.testing import WIDTH

PROMPT = "a red cat"


def moved(policy, size=0.1):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return policy


def plainly(pipe, **how):
    from diffusers import DDIMScheduler

    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    arguments = {"num_inference_steps": 3, "guidance_scale": 3.0, "generator": torch.Generator().manual_seed(5)}
    return np.asarray(pipe(PROMPT, **arguments, **how).images[0], dtype=np.int64)


def read_back(file, kind):
    """By diffusers alone."""
    import diffusers

    cls = diffusers.StableDiffusionXLPipeline if kind == "sdxl" else diffusers.StableDiffusionPipeline
    return cls.from_single_file(str(file), config=str(file.with_suffix("")), local_files_only=True, safety_checker=None)


def fused(policy, folder, tiny):
    """The plain pipeline of the base with the exported LoRA in its weights, by diffusers alone."""
    from diffusers import DiffusionPipeline

    policy.save(folder)
    pipe = DiffusionPipeline.from_pretrained(tiny, safety_checker=None)
    pipe.load_lora_weights(str(folder))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    return pipe


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_the_file_draws_what_the_fused_pipeline_draws(load, tiny, tmp_path, kind):
    policy = moved(load(kind, lora=Lora(rank=2, conv=True, text_encoder=True)))
    file, folder = policy.merge(tmp_path / "out/whole.safetensors")
    assert (file, folder) == (tmp_path / "out/whole.safetensors", tmp_path / "out/whole")
    ours = plainly(read_back(file, kind))
    theirs = plainly(fused(policy, tmp_path / "lora", tiny(kind)))
    assert np.array_equal(ours, theirs) or abs(ours - theirs).max() <= 1  # the product of two matrices, summed otherwise
    base = plainly(type(read_back(file, kind)).from_pretrained(tiny(kind), safety_checker=None))
    assert abs(ours - base).mean() > 3

    again = StableDiffusion(str(file), lora=None)  # and it is a model to go on from
    assert again.check() == []
    again.load()
    again.engine.pipe.set_progress_bar_config(disable=True)
    assert np.array_equal(plainly(again.engine.pipe), ours) or abs(plainly(again.engine.pipe) - ours).max() <= 1


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_every_weight_comes_back_to_the_bit(load, tmp_path, kind):
    policy = moved(load(kind, lora=None), size=0.01)
    file, _ = policy.merge(tmp_path / "whole.safetensors")
    pipe = read_back(file, kind)
    parts = {**policy.engine.networks, "vae": policy.engine.pipe.vae}
    for name, part in parts.items():
        there = getattr(pipe, name).state_dict()
        state = part.state_dict()
        assert there.keys() == state.keys()
        assert all(torch.equal(there[key], state[key]) for key in state), name


def test_names_are_those_of_the_original_code(load, tmp_path):
    keys = {}
    for kind in ("sd1", "sd2", "sdxl"):
        file, _ = load(kind).merge(tmp_path / f"{kind}.safetensors")
        keys[kind] = {name: tuple(value.shape) for name, value in load_file(file).items()}
    for kind in keys:
        assert "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight" in keys[kind]
        assert keys[kind]["first_stage_model.decoder.mid.attn_1.q.weight"] == (8, 8, 1, 1)
        assert "first_stage_model.encoder.down.0.downsample.conv.bias" in keys[kind]
    assert "cond_stage_model.transformer.text_model.encoder.layers.1.self_attn.q_proj.weight" in keys["sd1"]
    assert keys["sd2"]["cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight"] == (3 * WIDTH, WIDTH)
    assert "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight" in keys["sdxl"]
    assert "conditioner.embedders.1.model.text_projection" in keys["sdxl"]
    assert "model.diffusion_model.label_emb.0.2.weight" in keys["sdxl"]


def test_published_models_have_a_place_for_every_layer():
    """Names and shapes alone, of whole models: what diffusers would read is what there was."""
    from types import SimpleNamespace

    from diffusers import AutoencoderKL

    for kind, act in (("sd1", "quick_gelu"), ("sd2", "gelu"), ("sdxl", "quick_gelu")):
        parts = networks(kind)
        parts["text_encoder"].config.hidden_act = act
        with torch.device("meta"):
            blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
            parts["vae"] = AutoencoderKL(**blocks, block_out_channels=(128, 256, 512, 512), layers_per_block=2)
        states = {
            name: {key: named(f"{name}.{key}", value) for key, value in part.state_dict().items()}
            for name, part in parts.items()
        }
        pipe = SimpleNamespace(**parts)
        assert differences(to_ldm(states, pipe), states, pipe) == []


def named(name, value):
    """A tensor of this shape that holds hardly anything, and differs from those of other names."""
    return torch.tensor(float(hash(name) % 9973)).expand(value.shape)


def test_what_is_written_in_half_precision_was_summed_in_full(load, tmp_path):
    """An update too small for half precision beside its weight is not lost twice."""
    policy = moved(load(lora=Lora(rank=2)), size=0.02)
    file, _ = policy.merge(tmp_path / "half.safetensors", dtype="float16")
    half = load_file(file)
    assert {value.dtype for value in half.values()} == {torch.float16}
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = policy.engine.networks["unet"].get_submodule(name)
    update = layer.get_delta_weight("default")
    expected = (layer.base_layer.weight.float() + update.float()).half()
    assert torch.equal(half["model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"], expected)
    assert update.abs().max() > 0


def test_at_half_strength(load, tmp_path):
    policy = moved(load(lora=Lora(rank=2)))
    whole, half, none = (
        load_file(policy.merge(tmp_path / f"{strength}.safetensors", strength=strength)[0]) for strength in (1.0, 0.5, 0.0)
    )
    key = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    close(half[key], (whole[key] + none[key]) / 2, 1e-5)
    assert not torch.allclose(whole[key], none[key], atol=1e-3)
    assert policy.engine.networks["unet"].get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q").scaling == {
        "default": 1.0
    }


def test_nothing_in_it_tells_where_things_lay_and_added_words_stay_outside(load, tiny, tmp_path):
    word = tmp_path / "zorg.safetensors"
    save_file({"emb_params": torch.randn(2, WIDTH)}, word)
    policy = load(lora=Lora(rank=2), addons=Addons(embeddings=[Embedding(str(word), "<zorg>")]))
    file, folder = policy.merge(tmp_path / "whole.safetensors")
    pipe = read_back(file, "sd1")
    assert len(pipe.tokenizer) == pipe.text_encoder.config.vocab_size == pipe.text_encoder.get_input_embeddings().num_embeddings
    pipe.load_textual_inversion(str(word), token="<zorg>")  # as whoever uses it does
    with safe_open(file, "pt") as opened:
        told = json.dumps(opened.metadata())
    told += "".join(path.read_text() for path in folder.rglob("*.json"))
    for place in (str(tmp_path), str(tiny()), str(tiny().parent)):
        assert place not in told


@pytest.mark.parametrize(
    ("name", "says"),
    [("whole", "no name of a single file"), ("there.safetensors", "exists already"), ("kept.safetensors", "kept exists")],
)
def test_where_it_cannot_be_written(tmp_path, name, says):
    (tmp_path / "there.safetensors").touch()
    (tmp_path / "kept").mkdir()
    (mistake,) = StableDiffusion.merge_mistakes(tmp_path / name)
    assert says in mistake


def test_a_model_that_the_layout_cannot_hold_is_refused(load, tmp_path):
    policy = load()
    policy.engine.networks["unet"].stranger = torch.nn.Linear(2, 2)
    try:
        with pytest.raises(ModelError, match="no place for the U-Net's stranger"):
            policy.merge(tmp_path / "whole.safetensors")
    finally:
        del policy.engine.networks["unet"].stranger
    assert not list(tmp_path.iterdir())
