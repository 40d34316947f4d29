"""What is trained, how it is written, and that other programs' loaders see the same pictures."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

import pytest
import torch
from ldm_layout import to_single_file
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from raft_core.errors import ConfigError, ModelError, StoreError
from raft_core.machine.files import damage
from raft_core.sampling import requests
from raft_core.testing import close
from raft_core.types import Prompt
from raft_core.workflows.trained import open_source
from raft_diffusion import Lora, StableDiffusion
from raft_diffusion.export.files import DIFFUSERS_FILE, KOHYA_FILE, lora_formats
from raft_diffusion.model import lora
from raft_diffusion.model.lora_file import Factors, factors_of

PROMPT = "a red cat"
EVERYWHERE = Lora(rank=2, alpha=1.0, conv=True, text_encoder=True)


def asked():
    return requests([Prompt(PROMPT)], 1, 0, 1)


def drawn(policy):
    return policy.sample(asked())[0].tensors["latents"]


def drawn_at_base(policy):
    return policy.sample(asked(), strength=0)[0].tensors["latents"]


def trained(policy, size=0.2):
    """The policy, its adapters moved away from zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return policy


def test_adapters_go_where_they_are_asked(load):
    attention = set(load().trainable())
    assert all(".to_" in name and name.startswith("unet.") for name in attention)
    everywhere = set(load(lora=EVERYWHERE).trainable())
    assert attention < everywhere
    assert {name.split(".")[0] for name in everywhere} == {"unet", "text_encoder"}
    assert any(".conv1." in name for name in everywhere)
    assert all(name.endswith((".lora_A.default.weight", ".lora_B.default.weight")) for name in everywhere)


def test_initial_values_depend_on_their_seed_alone(load):
    torch.manual_seed(7)
    first = load().trainable()
    torch.manual_seed(8)
    state = torch.random.get_rng_state()
    second = load().trainable()
    assert torch.equal(state, torch.random.get_rng_state())
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = load(lora=Lora(seed=1)).trainable()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_target_that_does_not_exist_is_named(load):
    with pytest.raises(ModelError, match=r"no layer of the U-Net is called 'to_kv'.*did you mean"):
        load(lora=Lora(targets=["to_q", "to_kv"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"rank": 0}, "set lora to null"), ({"alpha": 0.0}, "must be positive"), ({"targets": []}, "nothing would be trained")],
)
def test_mistakes_in_lora(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Lora(**arguments)


@pytest.mark.parametrize(("kind", "settings"), [("sd1", EVERYWHERE), ("sd2", Lora(rank=2, conv=True)), ("sdxl", EVERYWHERE)])
def test_diffusers_draws_the_policys_pictures_from_both_files(load, tiny, tmp_path, kind, settings, caplog):
    policy = trained(load(kind, lora=settings))
    files = policy.save(tmp_path)
    assert [file.name for file in files] == [DIFFUSERS_FILE, KOHYA_FILE]
    ours = drawn(policy)
    assert not torch.allclose(ours, policy.sample(asked(), strength=0.0)[0].tensors["latents"], atol=0.1)
    for file in files:
        close(ours, _with_diffusers(tiny(kind), file, caplog))


def _with_diffusers(folder, file, caplog):
    """What diffusers draws with this LoRA, complaining of no key."""
    from diffusers import DDIMScheduler, DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    with caplog.at_level(logging.WARNING):
        pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    assert "unexpected keys" not in caplog.text
    generator = torch.Generator().manual_seed(asked()[0].seed)
    return pipe(PROMPT, num_inference_steps=3, guidance_scale=3.0, generator=generator, output_type="latent").images[0]


@pytest.mark.parametrize("name", [DIFFUSERS_FILE, KOHYA_FILE])
def test_files_are_read_back_exactly(load, tmp_path, name):
    policy = trained(load("sdxl", lora=EVERYWHERE))
    policy.save(tmp_path)
    arguments = StableDiffusion.arguments_for(tmp_path / name)
    assert "model" not in arguments  # it lay on this machine, which is nobody's business
    again = load("sdxl", lora=Lora(**arguments["lora"]))
    again.load_weights(tmp_path / name)
    assert all(torch.equal(value, again.trainable()[key]) for key, value in policy.trainable().items())


def test_exporting_twice_gives_the_same_bytes(load, tmp_path):
    policy = trained(load())
    first, second = policy.save(tmp_path / "a"), policy.save(tmp_path / "b")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_kohya_keys_and_metadata(load, tmp_path):
    trained(load("sd1", lora=EVERYWHERE)).save(tmp_path)
    with safe_open(tmp_path / KOHYA_FILE, "pt") as file:
        keys, note = set(file.keys()), file.metadata()
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight" in keys
    assert "lora_unet_mid_block_resnets_0_conv1.lora_up.weight" in keys
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha" in keys
    assert note["ss_base_model_version"] == "sd_v1"
    assert (note["ss_network_dim"], note["ss_network_alpha"]) == ("2", "1.0")
    assert note["modelspec.architecture"] == "stable-diffusion-v1/lora"
    tensors = load_file(tmp_path / KOHYA_FILE)
    assert {float(value) for key, value in tensors.items() if key.endswith(".alpha")} == {1.0}


def test_sdxl_text_encoders_have_names_of_their_own(load, tmp_path):
    load("sdxl", lora=EVERYWHERE).save(tmp_path)
    with safe_open(tmp_path / KOHYA_FILE, "pt") as file:
        prefixes = {key.split("_text_model")[0] for key in file.keys() if key.startswith("lora_te")}  # noqa: SIM118 - no dict
        assert prefixes == {"lora_te1", "lora_te2"}
        assert file.metadata()["ss_base_model_version"] == "sdxl_base_v1-0"


def test_a_file_of_unknown_origin_tells_its_settings(load, tmp_path):
    """The same LoRA without metadata, as another trainer would have written it."""
    policy = trained(load(lora=EVERYWHERE))
    policy.save(tmp_path)
    foreign = tmp_path / "foreign.safetensors"
    save_file(load_file(tmp_path / KOHYA_FILE), foreign)
    arguments = StableDiffusion.arguments_for(foreign)
    assert arguments == {"lora": {"init": str(foreign), "before": "base"}}
    for again in (load(lora=Lora(**arguments["lora"])), load(lora=EVERYWHERE)):
        again.load_weights(foreign)
        assert torch.equal(drawn(policy), drawn(again))
        assert torch.equal(policy.sample(asked(), strength=0)[0].tensors["latents"], drawn_at_base(again))


def test_a_checkpoint_is_read_too(load, tmp_path):
    policy = trained(load())
    file = tmp_path / "weights.safetensors"
    save_file({name: parameter.detach() for name, parameter in policy.trainable().items()}, file)
    for again in (load(), load(lora=Lora(**StableDiffusion.arguments_for(tmp_path)["lora"]))):
        again.load_weights(tmp_path)
        assert torch.equal(drawn(policy), drawn(again))


def test_full_fine_tuning_is_saved_and_read_back(load, tmp_path):
    policy = trained(load(lora=None), size=0.02)
    files = policy.save(tmp_path)
    assert {file.name for file in files} == {"config.json", "diffusion_pytorch_model.safetensors", "raft.json", "SHA256SUMS"}
    assert damage(tmp_path / "unet") is None
    assert json.loads((tmp_path / "unet/config.json").read_text())["_name_or_path"] == "sd1"
    assert StableDiffusion.arguments_for(tmp_path) == {"lora": None}
    again = load(lora=None)
    again.load_weights(tmp_path)
    assert torch.equal(drawn(policy), drawn(again))
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    key = "conv_in.weight"
    assert torch.equal(unet.state_dict()[key], policy.trainable()[f"unet.{key}"])


def test_an_export_of_the_unet_is_whole_or_absent(load, tmp_path, monkeypatch):
    """A disk that fills up leaves the export of before."""
    policy = load(lora=None)
    policy.save(tmp_path)
    before = {file.name: file.read_bytes() for file in (tmp_path / "unet").iterdir()}
    trained(policy)

    def fill(_, folder, **__):
        (Path(folder) / "diffusion_pytorch_model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(type(policy.engine.networks["unet"]), "save_pretrained", fill)
    with pytest.raises(StoreError, match="the disk is full"):
        policy.save(tmp_path)
    assert {file.name: file.read_bytes() for file in (tmp_path / "unet").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["unet"]


def test_an_exported_unet_is_one_file_however_large(load, tmp_path, monkeypatch):
    """diffusers cuts at 10 GB, SDXL's U-Net in float32 has a little more, and one file is what is read back."""
    policy = load(lora=None)
    unet = type(policy.engine.networks["unet"])
    original, limits = unet.save_pretrained, []

    def save(self, folder, *, max_shard_size, **rest):
        limits.append(max_shard_size)
        original(self, folder, max_shard_size=max_shard_size, **rest)

    monkeypatch.setattr(unet, "save_pretrained", save)
    policy.save(tmp_path)
    from huggingface_hub.serialization._base import parse_size_to_int

    assert parse_size_to_int(limits[0]) > 100 * 10**9


def test_weights_that_do_not_fit_are_refused(load, tmp_path):
    load(lora=Lora(rank=8)).save(tmp_path / "rank")
    load(lora=Lora(conv=True)).save(tmp_path / "conv")
    policy = load()
    before = {name: parameter.detach().clone() for name, parameter in policy.trainable().items()}
    with pytest.raises(ModelError, match=r"has rank 8, the policy's 4: set policy\.lora\.rank"):
        policy.load_weights(tmp_path / "rank")
    with pytest.raises(ModelError, match="layers that the policy does not adapt"):
        policy.load_weights(tmp_path / "conv")
    with pytest.raises(ModelError, match="layers that the policy adapts"):
        load(lora=Lora(conv=True)).load_weights(tmp_path / "rank")
    with pytest.raises(ModelError, match="holds no weights"):
        policy.load_weights(tmp_path)
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(ModelError, match="pickle"):
        policy.load_weights(tmp_path / "model.ckpt")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="could not be read"):
        policy.load_weights(tmp_path / "broken.safetensors")
    with pytest.raises(ModelError, match=r"set policy\.lora"):
        load(lora=None).load_weights(tmp_path / "rank")
    assert all(torch.equal(before[name], parameter) for name, parameter in policy.trainable().items())


def test_a_file_without_a_lora_is_refused(tmp_path):
    save_file({"something": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no LoRA in this file"):
        StableDiffusion.arguments_for(tmp_path / "other.safetensors")


def test_a_whole_model_in_one_file_is_its_own_model(tiny, tmp_path):
    file = tmp_path / "whole.safetensors"
    save_file(to_single_file(tiny()), file)
    assert StableDiffusion.arguments_for(file) == {"model": str(file)}


def test_generate_takes_a_model_in_one_file_and_compare_refuses_it(tiny, tmp_path):
    file = tmp_path / "whole.safetensors"
    save_file(to_single_file(tiny()), file)
    source = open_source(str(file), [], models=True)
    assert (source.kind, source.name) == ("model", "whole.safetensors")
    assert source.raw["policy"]["init_args"] == {"model": str(file)}
    for model in (file, tiny()):
        with pytest.raises(ConfigError, match=r"nothing was trained.*give a run folder"):
            open_source(str(model), [])


@pytest.mark.parametrize("name", [DIFFUSERS_FILE, KOHYA_FILE])
@pytest.mark.parametrize("bytes_left", [4, 200, -4])
def test_a_lora_that_is_cut_off_is_named(load, fresh, tmp_path, name, bytes_left):
    fresh("sd1").save(tmp_path)
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:bytes_left])
    for read in (StableDiffusion.arguments_for, load().load_weights):
        with pytest.raises(ModelError, match=name):
            read(file)


def test_notes_that_are_damaged_are_named(load, fresh, tmp_path):
    (file, _) = fresh("sd1").save(tmp_path)
    for note in ("{", "[]", '{"rank": 0}', '{"breadth": 4}'):
        save_file(load_file(file), tmp_path / "noted.safetensors", {"raft.model": "a", "raft.lora": note})
        with pytest.raises(ModelError, match=r"noted\.safetensors notes settings"):
            StableDiffusion.arguments_for(tmp_path / "noted.safetensors")
    load(lora=None).save(tmp_path)
    (tmp_path / "unet/raft.json").write_text("{")
    with pytest.raises(ModelError, match=r"raft\.json is no readable JSON"):
        StableDiffusion.arguments_for(tmp_path / "unet")


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"lora_unet_x.dora_scale": torch.ones(4, 1)}, "this is a DoRA"),
        ({"lora_unet_x.lora_mid.weight": torch.ones(2, 2, 3, 3)}, "a LoCon with a middle matrix"),
        ({"lora_unet_y.lokr_w1": torch.ones(2, 2)}, "a LoKr"),
        ({"lora_unet_x.alpha": torch.ones(3)}, "do not fit each other"),
        ({"lora_unet_y.alpha": torch.ones(())}, "1 tensors besides its down and up matrices, such as lora_unet_y.alpha"),
        ({"lora_unet_x.lora_up.weight": torch.ones(4, 3)}, "do not fit each other"),
        ({"lora_unet_x.lora_down.weight": torch.ones(2)}, "do not fit each other"),
        ({"lora_unet_y.lora_down.weight": torch.ones(2, 3)}, "diffusers cannot read this LoRA"),
        ({"something": torch.ones(2)}, "no LoRA for Stable Diffusion"),
    ],
)
def test_adapters_of_another_kind_are_not_taken_for_a_lora(extra, says):
    plain = {"lora_unet_x.lora_down.weight": torch.ones(2, 3), "lora_unet_x.lora_up.weight": torch.ones(4, 2)}
    assert factors_of(plain)["unet.x"].rank == 2
    with pytest.raises(ModelError, match=says):
        factors_of(plain | extra)


def test_both_spellings_have_the_same_product():
    """alpha 1 of rank 2 halves the update: 0.5 · up · down, once as an alpha, once multiplied in."""
    down, up = torch.ones(2, 3), torch.full((4, 2), 3.0)
    update = {"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q": Factors(down, up, alpha=1.0)}
    kohya = lora_formats.to_kohya(update, {})
    assert next(iter(kohya)) == "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight"
    for tensors in (lora_formats.to_diffusers(update), kohya):
        found = factors_of(tensors)
        assert found.keys() == update.keys()
        (part,) = found.values()
        assert torch.equal(part.scale * part.up @ part.down, 0.5 * up @ down)
        assert torch.equal(part.update(), 0.5 * up @ down)


def test_folding_adapters_into_the_weights_leaves_no_trace(load):
    """Pictures agree up to rounding, and every weight is the same to the bit afterwards, also after an error."""
    policy = trained(load(lora=Lora(rank=2, conv=True)))
    unet = policy.engine.networks["unet"]
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    with lora.folded(unet):
        inside = _evaluated(unet)
        assert not any(parameter.requires_grad for parameter in unet.parameters())
    with pytest.raises(RuntimeError, match="stopped"), lora.folded(unet):
        raise RuntimeError("stopped")
    close(inside, _evaluated(unet))
    assert all(torch.equal(before[name], value) for name, value in unet.state_dict().items())
    assert all(parameter.requires_grad for parameter in policy.trainable().values())


@torch.no_grad()
def _evaluated(unet):
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 4, 32, generator=generator)
    return unet(x, torch.tensor([500]), text, return_dict=False)[0]
