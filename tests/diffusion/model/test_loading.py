"""Where a model may come from, and how what is no model is told apart."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys

import pytest
import torch
from ldm_layout import to_single_file
from safetensors.torch import load_file, save_file

from raft_core.errors import ConfigError, DeviceError, ModelError
from raft_core.sampling import requests
from raft_core.types import Prompt
from raft_diffusion import Memory, Sampling, StableDiffusion
from raft_diffusion.model import bundle, single_file
from raft_diffusion.model.hub import fetch
from raft_diffusion.options import SCHEDULERS
from raft_diffusion.process import resolution


def mistakes(model, **arguments):
    return StableDiffusion(str(model), **arguments).check()


@pytest.fixture
def copied(tiny, tmp_path):
    """A tiny pipeline's folder that a test may spoil."""
    return shutil.copytree(tiny(), tmp_path / "model")


def test_a_whole_folder_has_no_mistakes(tiny):
    assert mistakes(tiny()) == []


def test_a_folder_without_index_is_no_pipeline(tmp_path):
    (found,) = mistakes(tmp_path)
    assert "is no pipeline: model_index.json is missing" in found


def test_another_pipeline_is_refused(copied):
    index = copied / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "FluxPipeline"}))
    (found,) = mistakes(copied)
    assert "holds a FluxPipeline" in found
    with pytest.raises(ModelError, match="FluxPipeline"):
        StableDiffusion(str(copied)).load()


def test_pickled_weights_are_refused_before_anything_is_loaded(copied):
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    (found,) = mistakes(copied)
    assert "pickled weights" in found and "safe_serialization" in found
    with pytest.raises(ModelError, match="pickled"):
        StableDiffusion(str(copied)).load()


def test_missing_parts_are_named(copied):
    (copied / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(copied / "text_encoder")
    found = mistakes(copied)
    assert len(found) == 2
    assert any("vae has no weights" in line for line in found)
    assert any("text_encoder is incomplete" in line for line in found)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("bytes_left", [4, 900, -16])
def test_weights_that_are_cut_off_are_told_before_anything_is_loaded(copied, part, bytes_left):
    (file,) = (copied / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:bytes_left])
    (found,) = mistakes(copied)
    assert str(file) in found
    with pytest.raises(ModelError, match=f"{part}/.*(is no safetensors file|is damaged)"):
        StableDiffusion(str(copied)).load()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_without_a_tensor_are_not_filled_up_with_random_ones(copied, part):
    """As the libraries would, with a warning."""
    (file,) = (copied / part).glob("*.safetensors")
    tensors = load_file(file)
    lost = sorted(name for name in tensors if name.endswith("weight"))[0]
    save_file({name: value for name, value in tensors.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=f"weights in .*{part} lack 1 tensors that its config.json asks for"):
        StableDiffusion(str(copied)).load()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_of_another_shape_name_their_part(copied, part):
    (file,) = (copied / part).glob("*.safetensors")
    tensors = load_file(file)
    lost = sorted(name for name in tensors if name.endswith("weight"))[0]
    save_file(tensors | {lost: torch.zeros(3, 5)}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=f"{part} could not be loaded"):
        StableDiffusion(str(copied)).load()


CONFIG_FILES = [
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
]


@pytest.mark.parametrize("name", CONFIG_FILES)
@pytest.mark.parametrize("content", [b'{"_class_name": ', b"[1, 2]", b"\xff\xfe", b"3"])
def test_malformed_configurations_are_named(copied, name, content):
    (copied / name).write_bytes(content)
    (found,) = mistakes(copied)
    assert str(copied / name) in found
    with pytest.raises(ModelError, match=name):
        StableDiffusion(str(copied)).load()


def rewritten(file, **changes):
    """A JSON file with other values; None takes one out."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("unet/config.json", {"down_block_types": 3}, "no usable 'down_block_types': 3"),
        ("unet/config.json", {"in_channels": None}, "no usable 'in_channels'"),
        ("vae/config.json", {"block_out_channels": None}, "no usable 'block_out_channels'"),
        ("unet/config.json", {"in_channels": 9}, "takes 9 channels and its VAE makes 4"),
        ("model_index.json", {"vae": "nothing"}, "names no library and class for vae"),
        ("model_index.json", {"tokenizer": None}, "names no library and class for tokenizer"),
        ("scheduler/scheduler_config.json", {"beta_schedule": None}, "no noise schedule of diffusion"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "predicts 'flow'"),
    ],
)
def test_configurations_that_cannot_work_are_refused_before_a_weight_is_loaded(copied, name, changes, says, monkeypatch):
    rewritten(copied / name, **changes)
    (found,) = mistakes(copied)
    assert says in found
    monkeypatch.setattr("raft_diffusion.model.loading.load_part", None)  # an error of another kind
    with pytest.raises((ModelError, ConfigError), match=says):
        StableDiffusion(str(copied)).load()


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("unet", {"block_out_channels": "wide"}),
        ("unet", {"down_block_types": ["Nowhere", "DownBlock2D"]}),
        ("vae", {"norm_num_groups": 5}),
        ("text_encoder", {"hidden_size": "wide"}),
    ],
)
def test_configurations_that_no_network_can_be_made_from_are_named(copied, part, changes):
    rewritten(copied / part / "config.json", **changes)
    with pytest.raises(ModelError, match=f"{part} could not be loaded: its weights or its config.json"):
        StableDiffusion(str(copied)).load()


def test_a_tokenizer_that_is_damaged(copied):
    for file in (copied / "tokenizer").iterdir():
        file.write_text("{")
    with pytest.raises(ModelError, match="could not be loaded"):
        StableDiffusion(str(copied)).load()
    with pytest.raises(ModelError, match=r"tokenizer of .* could not be loaded"):
        StableDiffusion(str(copied)).visible("a red cat")


def test_a_vae_with_the_names_of_old_is_whole(copied):
    """SD 1.5's own folder spells the VAE's attention so; the library knows, and nothing may count as missing."""
    file = copied / "vae" / "diffusion_pytorch_model.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(file)
    renamed = {functools.reduce(lambda name, pair: name.replace(*pair), old.items(), name): v for name, v in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, file, {"format": "pt"})
    policy = StableDiffusion(str(copied))
    policy.load()
    key = "encoder.mid_block.attentions.0.to_q.weight"
    assert torch.equal(policy.engine.pipe.vae.state_dict()[key], tensors[key])


def test_variants(copied):
    for file in copied.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert all("variant fp16 alone; set policy.variant" in found for found in mistakes(copied))
    assert mistakes(copied, variant="fp16") == []
    assert "no weights of the variant 'fp61' (did you mean 'fp16'?)" in mistakes(copied, variant="fp61")[0]
    StableDiffusion(str(copied), variant="fp16").load()


@pytest.mark.parametrize("name", ["model.ckpt", "model.bin", "model.pt"])
def test_single_pickles_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    (found,) = mistakes(tmp_path / name)
    assert "is a pickle" in found


def test_a_path_that_does_not_exist():
    assert "does not exist" in mistakes("./nowhere")[0]
    assert "does not exist" in mistakes("nowhere.safetensors")[0]
    assert mistakes("organisation/name") == []  # may be on the Hub


def test_bundled_models_by_name(tiny, tmp_path, monkeypatch):
    shutil.copytree(tiny(), tmp_path / "shapes")
    monkeypatch.setattr(bundle, "FOLDER", tmp_path)
    assert bundle.names() == ["shapes"]
    assert bundle.resolve("bundled:shapes") == bundle.resolve("shapes") == tmp_path / "shapes"
    assert mistakes("bundled:shapes") == []
    assert "did you mean 'shapes'" in mistakes("bundled:shape")[0]
    with pytest.raises(ModelError, match="no bundled model"):
        bundle.resolve("bundled:../shapes")


def test_sizes_that_cannot_be_divided_name_the_nearest(tiny):
    found = mistakes(tiny(), sampling=Sampling(width=31, height=32))
    assert len(found) == 1
    assert "sampling.width is 31" in found[0] and "30 or 32" in found[0]


def test_a_size_that_nobody_tells(copied):
    rewritten(copied / "unet/config.json", sample_size=None)
    assert mistakes(copied, sampling=Sampling(width=32, height=32)) == []
    (found,) = mistakes(copied, sampling=Sampling(width=32))
    assert "does not say which size it was trained at (sample_size): set sampling.height" in found


def test_a_model_trained_on_wide_pictures_draws_them(copied):
    rewritten(copied / "unet/config.json", sample_size=[8, 16])
    policy = StableDiffusion(str(copied), sampling=Sampling(steps=1))
    policy.load()
    (sample,) = policy.sample(requests([Prompt("a red cat")], 1, 0, 1))
    assert sample.tensors["latents"].shape == (4, 8, 16)


def test_the_step_between_sizes_is_that_of_sd15():
    """SD 1.5: a VAE of 4 levels, so 8 pixels per latent, whatever the U-Net's halvings."""
    vae, unet = {"block_out_channels": [128, 256, 512, 512]}, {"down_block_types": ["a"] * 4}
    assert resolution.mistakes({"width": 512, "height": 264}, vae, unet) == []
    assert resolution.mistakes({"width": 36}, vae, unet)[0].endswith("(8 pixels per latent); use 32 or 40")


@pytest.fixture
def hub(tiny, monkeypatch):
    """A Hub that has the tiny pipeline alone: what was fetched from it, the weights as "all"."""
    fetched = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _, file: fetched.append(file) or tiny() / file)
    monkeypatch.setattr("raft_diffusion.model.hub.fetch", lambda *_: fetched.append("all") or tiny())
    return fetched


def test_a_model_on_the_hub(hub):
    StableDiffusion("owner/name").load()
    assert set(CONFIG_FILES) <= set(hub)
    assert hub[-1] == "all"


@pytest.mark.parametrize(
    ("sampling", "says"),
    [
        (Sampling(width=31), r"sampling\.width is 31"),
        (
            Sampling(options={"algorithm_type": "dpmsolver+++"}),
            r"DPMSolverMultistepScheduler cannot be made",
        ),
        (Sampling(scheduler="lcm", steps=60), r"LCMScheduler cannot do 60 steps"),
        (Sampling(steps=1001), r"sampling\.steps is 1001, but the model has 1000 timesteps"),
    ],
)
def test_of_a_model_on_the_hub_the_configuration_is_enough_to_refuse(hub, sampling, says):
    with pytest.raises((ConfigError, ModelError), match=says):
        StableDiffusion("owner/name", sampling=sampling).load()
    assert "all" not in hub


@pytest.mark.parametrize(
    ("scheduler", "says"),
    [
        ("FlowMatchEulerDiscreteScheduler", "is for another kind of model (flow matching"),
        ("EDMEulerScheduler", "is for another kind of model"),
        ("DDIMInverseScheduler", "is for another kind of model"),
        ("UnCLIPScheduler", "is for another kind of model"),
        ("DPMSolverSDEScheduler", "draws noise of its own"),
        ("EulerDiscretScheduler", "did you mean 'EulerDiscreteScheduler'"),
    ],
)
def test_schedulers_that_cannot_draw_are_refused_when_the_configuration_is_checked(tiny, scheduler, says):
    for model in (tiny(), "owner/on-the-hub"):
        (found,) = mistakes(model, sampling=Sampling(scheduler=scheduler))
        assert scheduler in found
        assert says in found


def test_every_short_name_and_its_kin_can_draw(tiny):
    for scheduler in (*SCHEDULERS, "DEISMultistepScheduler", "TCDScheduler", "LMSDiscreteScheduler"):
        assert mistakes(tiny(), sampling=Sampling(scheduler=scheduler, options={"steps_offset": 1})) == [], scheduler


def test_options_of_the_scheduler_are_checked_with_the_configuration(tiny):
    (found,) = mistakes(tiny(), sampling=Sampling(options={"use_karas_sigmas": True}))
    assert "did you mean 'use_karras_sigmas'" in found
    (found,) = mistakes(tiny(), sampling=Sampling(options={"prediction_type": "v_prediction"}))
    assert "prediction_type belongs to the model" in found


@pytest.mark.parametrize(("offline", "says"), [(True, "HF_HUB_OFFLINE is set"), (False, "there is no network")])
def test_without_a_network_it_is_told_that_there_is_none(offline, says, monkeypatch, tmp_path, tiny):
    """And not that a file is missing from the repository, as the libraries have it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*_, **__):
        raise LocalEntryNotFoundError("cannot find the requested files in the disk cache")

    def wrapped(*_, **__):
        try:
            fail()
        except LocalEntryNotFoundError:
            raise OSError("owner/name does not appear to have a file named model_index.json")  # noqa: B904 - as libraries do

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    message = f"(?s)not in the cache .* and {says}: download it elsewhere .hf download owner/name"
    with pytest.raises(ModelError, match=message):
        StableDiffusion("owner/name").load()
    monkeypatch.setattr("transformers.CLIPTokenizer.from_pretrained", wrapped)
    with pytest.raises(ModelError, match=message):
        StableDiffusion("owner/name").visible("a red cat")
    monkeypatch.setattr("diffusers.DiffusionPipeline.download", wrapped)
    with pytest.raises(ModelError, match=message):
        fetch("owner/name", None)
    save_file(to_single_file(tiny()), tmp_path / "alone.safetensors")
    monkeypatch.setattr("diffusers.StableDiffusionPipeline.from_single_file", wrapped)
    with pytest.raises(ModelError, match=f"(?s)alone.safetensors could not be loaded: .*{says}: .*stable-diffusion-v1-5"):
        StableDiffusion(str(tmp_path / "alone.safetensors")).load()


def test_a_single_file_is_the_folder_it_was_made_from(tiny, tmp_path):
    """In the original layout, with its configuration in a folder of the same name beside it."""
    folder, file = tiny("sd1"), tmp_path / "tiny.safetensors"
    save_file(to_single_file(folder), file)
    shutil.copytree(folder, tmp_path / "tiny", ignore=shutil.ignore_patterns("*.safetensors"))
    settings = Sampling(scheduler="ddim", steps=2, width=32, height=32)
    samples = []
    for model in (folder, file):
        policy = StableDiffusion(str(model), sampling=settings)
        assert policy.check() == []
        assert policy.visible("a red cat") == "a red cat"
        policy.load()
        samples.append(policy.sample(requests([Prompt("a red cat")], 1, 0, 1))[0].tensors["latents"])
    assert torch.equal(*samples)


def test_a_single_file_that_is_none(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    assert "is no safetensors file" in mistakes(tmp_path / "broken.safetensors")[0]
    with pytest.raises(ModelError, match="is no safetensors file"):
        StableDiffusion(str(tmp_path / "broken.safetensors")).load()
    (tmp_path / "notes.txt").write_text("")
    assert "no .safetensors file" in mistakes(tmp_path / "notes.txt")[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: {"lora_unet_mid.lora_down.weight": torch.zeros(1)}, "holds a LoRA, no model"),
        (lambda _: {"something": torch.zeros(1)}, "holds no Stable Diffusion"),
        (lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("first_stage")}, "holds no VAE"),
        (lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("cond_stage")}, "holds no text encoder"),
        (lambda tensors: tensors | {single_file.UNET_KEY: torch.zeros(8, 9, 3, 3)}, "takes 9 channels instead of 4"),
        (lambda tensors: tensors | {"v_pred": torch.zeros(0)}, "predicts v, which its configuration on the Hub does not say"),
    ],
)
def test_a_single_file_that_is_another(tiny, tmp_path, change, says):
    save_file(change(to_single_file(tiny())), tmp_path / "model.safetensors")
    (found,) = mistakes(tmp_path / "model.safetensors")
    assert says in found
    with pytest.raises(ModelError, match=says):
        StableDiffusion(str(tmp_path / "model.safetensors")).load()


def test_a_single_file_that_is_cut_off(tiny, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(to_single_file(tiny()), file)
    file.write_bytes(file.read_bytes()[:-100])
    assert "model.safetensors is damaged" in mistakes(file)[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_hardware_that_is_not_there(tiny):
    assert "torch sees none on this machine" in mistakes(tiny(), device="cuda")[0]
    assert "xformers, which works on CUDA alone" in mistakes(tiny(), memory=Memory(attention="xformers"))[0]
    assert "which torch does not know" in mistakes(tiny(), device="gpu")[0]
    assert "for GPUs" in mistakes(tiny(), dtype="float16")[0]
    with pytest.raises(DeviceError, match="torch sees none"):
        StableDiffusion(str(tiny()), device="cuda").load()


def test_bf16_is_refused_where_it_is_emulated(tiny, monkeypatch):
    monkeypatch.setattr("raft_core.machine.devices.native_bf16", lambda _: False)
    assert "which this cpu only emulates" in mistakes(tiny(), device="cpu", dtype="bfloat16")[0]
    monkeypatch.setattr("raft_core.machine.devices.native_bf16", lambda _: True)
    assert mistakes(tiny(), device="cpu", dtype="bfloat16") == []


def test_importing_the_package_is_cheap():
    code = "import sys, raft_diffusion; from raft_diffusion import Sampling; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_public_names():
    import raft_diffusion

    ours = ["Addons", "DenoisingLoss", "Embedding", "Lora", "Memory", "MergedLora", "Sampling", "StableDiffusion"]
    others = ["PipelineLoss", "PipelineMemory", "PipelineSampling", "StochasticSteps", "TextToImage", "TransformerLora"]
    assert raft_diffusion.__all__ == sorted(ours + others)
    assert all(getattr(raft_diffusion, name).__name__ == name for name in raft_diffusion.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = raft_diffusion.Nothing
