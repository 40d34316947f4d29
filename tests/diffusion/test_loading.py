"""Where a model may come from, and how what is no model is told apart."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from ldm_layout import to_single_file
from safetensors.torch import save_file

from raft_core.errors import DeviceError, ModelError
from raft_core.sampling import requests
from raft_core.types import Prompt
from raft_diffusion import Memory, Sampling, StableDiffusion, bundle, resolution
from raft_diffusion import device as hardware


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


def test_damaged_weights_are_an_error_in_words(copied):
    (copied / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="could not be loaded"):
        StableDiffusion(str(copied)).load()


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
    found = mistakes(tiny(), sampling=Sampling(width=30, height=32))
    assert len(found) == 1
    assert "sampling.width is 30" in found[0] and "28 or 32" in found[0]


def test_the_step_between_sizes_is_that_of_sd15():
    """SD 1.5: a VAE of 4 levels (8 pixels per latent) and a U-Net of 4 (three halvings): multiples of 64."""
    vae, unet = {"block_out_channels": [128, 256, 512, 512]}, {"down_block_types": ["a"] * 4}
    assert resolution.granularity(vae, unet) == 64
    assert resolution.mistakes({"width": 512, "height": 256}, vae, unet) == []
    assert resolution.mistakes({"width": 32}, vae, unet)[0].endswith("use 64")


def test_a_size_is_checked_on_loading_too(tiny, monkeypatch):
    """For a model on the Hub, whose configuration is not at hand before."""
    monkeypatch.setattr("raft_diffusion.loading.locate", lambda model: ("hub", model))
    with pytest.raises(Exception, match=r"sampling\.width is 30"):
        StableDiffusion(str(tiny()), sampling=Sampling(width=30)).load()


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
    with pytest.raises(ModelError, match="is no safetensors file"):
        StableDiffusion(str(tmp_path / "broken.safetensors")).load()
    (tmp_path / "notes.txt").write_text("")
    assert "no .safetensors file" in mistakes(tmp_path / "notes.txt")[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_hardware_that_is_not_there(tiny):
    assert "torch sees none on this machine" in mistakes(tiny(), device="cuda")[0]
    assert "xformers, which works on CUDA alone" in mistakes(tiny(), memory=Memory(attention="xformers"))[0]
    assert "which torch does not know" in mistakes(tiny(), device="gpu")[0]
    assert "for GPUs" in mistakes(tiny(), dtype="float16")[0]
    with pytest.raises(DeviceError, match="torch sees none"):
        StableDiffusion(str(tiny()), device="cuda").load()


def test_bf16_is_refused_where_it_is_emulated(tiny, monkeypatch):
    monkeypatch.setattr(hardware, "native_bf16", lambda _: False)
    assert "which this cpu only emulates" in mistakes(tiny(), device="cpu", dtype="bfloat16")[0]
    monkeypatch.setattr(hardware, "native_bf16", lambda _: True)
    assert mistakes(tiny(), device="cpu", dtype="bfloat16") == []


def test_importing_the_package_is_cheap():
    code = "import sys, raft_diffusion; from raft_diffusion import Sampling; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_public_names():
    import raft_diffusion

    assert raft_diffusion.__all__ == ["DenoisingLoss", "Lora", "Memory", "Sampling", "StableDiffusion"]
    assert all(getattr(raft_diffusion, name).__name__ == name for name in raft_diffusion.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = raft_diffusion.Nothing
