"""LoRAs as other trainers write them: the policy goes on from what diffusers draws with them."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from ldm_layout import unet_name
from safetensors.torch import load_file, save_file

from raft_core.errors import ConfigError, ModelError
from raft_core.sampling import requests
from raft_core.testing import close
from raft_core.types import Prompt
from raft_diffusion import Addons, Lora, MergedLora, StableDiffusion
from raft_diffusion.export.files import DIFFUSERS_FILE, KOHYA_FILE
from raft_diffusion.model.lora_file import SETTINGS_NOTE
from raft_diffusion.model.lora_file import factors_of as factors_in

PROMPT = "a red cat"
LINEAR, CONV = 3, 2  # ranks
ALPHA, CONV_ALPHA = 1.5, 1.0


def asked():
    return requests([Prompt(PROMPT)], 1, 0, 1)


def drawn(policy, **how):
    return policy.sample(asked(), **how)[0].tensors["latents"]


def factors_of(modules):
    """A random LoRA on all that sd-scripts adapts: (network, layer) → (down, up, alpha); convolutions have their own rank."""
    generator = torch.Generator().manual_seed(0)
    kinds = ("Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D", "CLIPAttention", "CLIPMLP")
    found = {}
    for network, module in modules.items():
        places = [name for name, part in module.named_modules() if type(part).__name__ in kinds]
        for name, layer in module.named_modules():
            weight = getattr(layer, "weight", None)
            if not isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) or not any(name.startswith(f"{p}.") for p in places):
                continue
            wide = weight.ndim == 4 and weight.shape[-1] > 1
            rank, alpha = (CONV, CONV_ALPHA) if wide else (LINEAR, ALPHA)
            down = 0.3 * torch.randn(rank, *weight.shape[1:], generator=generator)
            up = 0.3 * torch.randn(weight.shape[0], rank, *(1,) * (weight.ndim - 2), generator=generator)
            found[network, name] = (down, up, alpha)
    return found


def kohya(modules, xl):
    """The spelling of sd-scripts."""
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te1" if xl else "lora_te", "text_encoder_2": "lora_te2"}
    tensors = {}
    for (network, name), (down, up, alpha) in factors_of(modules).items():
        inside = name if network == "unet" or name.startswith("text_model.") else f"text_model.{name}"
        inside = unet_name(name, attends=(0,)) if xl and network == "unet" else inside
        stem = f"{prefixes[network]}_{inside.replace('.', '_')}"
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(alpha)}
    return tensors


def plain(folder):
    """What a user of diffusers has."""
    from diffusers import DDIMScheduler, DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    return pipe


def drawn_plainly(pipe):
    generator = torch.Generator().manual_seed(asked()[0].seed)
    return pipe(PROMPT, num_inference_steps=3, guidance_scale=3.0, generator=generator, output_type="latent").images[0]


def networks(pipe):
    return {
        name: part for name in ("unet", "text_encoder", "text_encoder_2") if (part := getattr(pipe, name, None)) is not None
    }


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def foreign(request, tiny, tmp_path_factory):
    """(kind, a LoCon with text encoders as sd-scripts writes it)."""
    kind = request.param
    file = tmp_path_factory.mktemp("foreign") / f"{kind}.safetensors"
    save_file(kohya(networks(plain(tiny(kind))), kind == "sdxl"), file)
    return kind, file


def test_a_locon_of_sd_scripts_is_gone_on_from(foreign, load, tiny, tmp_path, caplog):
    kind, file = foreign
    policy = load(kind, lora=Lora(init=str(file)))
    pipe = plain(tiny(kind))
    with caplog.at_level(logging.WARNING):
        pipe.load_lora_weights(str(file))
    assert "unexpected" not in caplog.text
    start = drawn_plainly(pipe)
    close(drawn(policy), start)
    close(drawn(policy, strength=0), start)
    base = drawn(load(kind))
    assert not torch.allclose(start, base, atol=0.1)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.mul_(1.2)
    assert not torch.allclose(drawn(policy), start, atol=0.01)
    close(drawn(policy, strength=0), start)

    for exported in policy.save(tmp_path):  # goes on being read, with all of its ranks
        pipe = plain(tiny(kind))
        pipe.load_lora_weights(str(exported.parent), weight_name=exported.name)
        close(drawn(policy), drawn_plainly(pipe))
        arguments = StableDiffusion.arguments_for(exported)
        assert arguments["lora"] == {"init": str(exported), "before": "base"}
        again = load(kind, lora=Lora(**arguments["lora"]))
        again.load_weights(exported)
        close(drawn(policy), drawn(again))
        close(drawn(again, strength=0), base)


def test_names_and_settings_of_the_export_are_the_files(foreign, load, tmp_path):
    from safetensors import safe_open

    kind, file = foreign
    load(kind, lora=Lora(init=str(file))).save(tmp_path)
    theirs, ours = load_file(file), load_file(tmp_path / KOHYA_FILE)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    with safe_open(tmp_path / KOHYA_FILE, "pt") as opened:
        note = opened.metadata()
    assert (note["ss_network_dim"], note["ss_network_alpha"]) == ("3", "1.5")
    assert json.loads(note["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "1.0"}
    assert str(tmp_path) not in json.dumps(note)
    assert str(file) not in json.dumps(note)


def test_training_on_top_of_a_lora_that_is_merged(foreign, load, tiny):
    """Adapters are new, the start is the model with the LoRA at its weight."""
    kind, file = foreign
    policy = load(kind, lora=Lora(rank=2), addons=Addons(loras=[MergedLora(str(file), 0.7)]))
    pipe = plain(tiny(kind))
    pipe.load_lora_weights(str(file))
    pipe.fuse_lora(lora_scale=0.7)
    pipe.unload_lora_weights()
    close(drawn(policy), drawn_plainly(pipe))
    close(drawn(policy, strength=0), drawn(policy))
    assert not torch.allclose(drawn(policy), drawn(load(kind)), atol=0.1)


@pytest.mark.parametrize("spelling", ["diffusers", "old diffusers", "peft"])
def test_other_spellings(spelling, load, tiny, tmp_path):
    """Alpha differs from the rank, and each says so in its own way."""
    from peft import LoraConfig, get_peft_model

    pipe = plain(tiny())
    config = LoraConfig(
        r=4, lora_alpha=2, target_modules=["to_q", "to_out.0"], rank_pattern={"attn2.to_q": 2}, alpha_pattern={"attn1.to_q": 3}
    )
    if spelling == "peft":
        model = get_peft_model(pipe.unet, config)
        shift(model)
        model.save_pretrained(tmp_path / "unet")
        expected = drawn_plainly(pipe)
        path = tmp_path
    else:
        pipe.unet.add_adapter(config)
        shift(pipe.unet)
        expected = drawn_plainly(pipe)
        from diffusers.training_utils import _collate_lora_metadata
        from peft.utils import get_peft_model_state_dict

        state = get_peft_model_state_dict(pipe.unet)
        if spelling == "diffusers":
            pipe.save_lora_weights(tmp_path, unet_lora_layers=state, **_collate_lora_metadata({"unet": pipe.unet}))
            path = tmp_path / DIFFUSERS_FILE
        else:  # without alphas, so that these are in the up matrices
            path = tmp_path / "old.safetensors"
            save_file(old_diffusers(state, pipe.unet), path)
    policy = load(lora=Lora(init=str(path)))
    close(drawn(policy), expected)
    assert not torch.allclose(expected, drawn(load()), atol=0.05)


def shift(module):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def old_diffusers(state, unet):
    """As diffusers wrote attention processors in 2023."""
    tensors = {}
    for key, value in state.items():
        layer, side = key.removesuffix(".weight").rsplit(".", 1)
        block, _, leaf = layer.removesuffix(".0").rpartition(".")
        scale = unet.get_submodule(layer).scaling["default"]
        name = {"lora_A": "down", "lora_B": "up"}[side]
        tensors[f"unet.{block}.processor.{leaf}_lora.{name}.weight"] = value * (scale if name == "up" else 1)
    return tensors


def test_a_lora_for_another_model_is_refused_before_weights_are_loaded(foreign, tiny):
    kind, file = foreign
    other = {"sd1": "sdxl", "sdxl": "sd1"}[kind]
    policy = StableDiffusion(str(tiny(other)), lora=Lora(init=str(file)))
    (mistake,) = policy.check()
    assert "lora.init" in mistake
    assert "made for" in mistake or "diffusers cannot read" in mistake
    with pytest.raises(ModelError, match=r"lora\.init"):
        policy.load()


def test_families_are_told_apart_by_the_text_that_they_read():
    from real_configs import UNETS

    from raft_diffusion.model.lora_file import Factors
    from raft_diffusion.model.lora_fit import fitted, unet_shapes

    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    xl = {layer: Factors(torch.zeros(2, 2048), torch.zeros(1280, 2))}
    with pytest.raises(ModelError, match=r"the LoRA was made for SDXL, but the model is SD 1\.x"):
        fitted(xl, unet_shapes(UNETS["sd1"]))


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("missing.safetensors", "there is no LoRA"),
        ("lora.ckpt", "pickle"),
        ("model.safetensors", "holds no LoRA"),
        (".", "holds no LoRA"),
    ],
)
def test_what_is_no_lora(tiny, tmp_path, monkeypatch, file, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lora.ckpt").write_bytes(b"")
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    for policy, where in (
        (StableDiffusion(str(tiny()), lora=Lora(init=file)), "lora.init"),
        (StableDiffusion(str(tiny()), addons=Addons(loras=[MergedLora(file)])), "addons.loras.0.file"),
    ):
        (mistake,) = policy.check()
        assert mistake.startswith(where)
        assert says in mistake


def test_damaged_loras_are_told_in_words(foreign, tiny, tmp_path):
    """Whatever is changed in a file, it is read, or refused with a reason."""
    kind, file = foreign
    random = np.random.default_rng(0)
    whole = load_file(file)
    told = 0
    for number in range(40):
        tensors = dict(whole)
        for name in random.choice(sorted(tensors), 2, replace=False):
            value = tensors.pop(name)
            changed = DAMAGES[number % len(DAMAGES)](name, value)
            tensors |= changed
        damaged = tmp_path / "damaged.safetensors"
        save_file(
            {name: value.contiguous() for name, value in tensors.items()}, damaged, {SETTINGS_NOTE: NOTES[number % len(NOTES)]}
        )
        mistakes = StableDiffusion(str(tiny(kind)), lora=Lora(init=str(damaged))).check()
        told += bool(mistakes)
        assert all(str(damaged) in mistake for mistake in mistakes)
    assert told > 30


DAMAGES = [
    lambda *_: {},
    lambda name, value: {f"{name}x": value},
    lambda name, value: {name.replace("_", ".", 1): value},
    lambda name, value: {name: value[..., :1] if value.ndim else value},
    lambda name, _: {name: torch.zeros(0)},
    lambda name, value: {name: torch.full_like(value, torch.nan) if value.ndim == 0 else value.to(torch.int64)},
    lambda name, value: {name: value.reshape(-1)},
    lambda name, value: {name.replace("blocks_0", "blocks_99999999999999999999"): value[:0] if value.ndim else value},
]
NOTES = ["{}", "[", "[]", "[" * 5000, '{"unet.lora_alpha": "x", "unet.alpha_pattern": {"(a+)+$": 1}}', "1" * 5000]


@pytest.mark.parametrize(
    ("pattern", "says"), [({"(a+)+$": 1}, "regular expression"), ([1], "alpha_pattern"), ({"to_q": "x"}, "lora_alpha")]
)
def test_notes_of_alphas_that_cannot_be_read(pattern, says):
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.ones(2, 3), f"{layer}.lora_B.weight": torch.ones(3, 2)}
    assert factors_in(tensors, {"unet.lora_alpha": 4})[layer].scale == 2
    assert factors_in(tensors, {"unet.lora_alpha": 4, "unet.alpha_pattern": {r"^x": 8, r"attn1\.to_q": 6}})[layer].scale == 3
    assert factors_in(tensors, {"unet.lora_alpha": 4, "unet.use_rslora": True})[layer].scale == pytest.approx(4 / 2**0.5)
    with pytest.raises(ModelError, match=says):
        factors_in(tensors, {"unet.lora_alpha": 4, "unet.alpha_pattern": pattern})


def test_settings_that_the_file_brings_are_not_set_beside_it():
    with pytest.raises(ConfigError, match=r"lora\.rank is 8, but lora\.init brings its own"):
        Lora(init="a.safetensors", rank=8)
    with pytest.raises(ConfigError, match=r"lora\.before is 'base'"):
        Lora(before="base")
