"""A VAE, textual inversions and merged LoRAs in a policy: pictures are those of a plain pipeline that was given the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ldm_layout import to_single_file
from safetensors.torch import save_file

from raft_core.config.components import Walk
from raft_core.config.run_config import overridden, parse_overrides
from raft_core.errors import ConfigError, ModelError
from raft_core.protocols import Policy
from raft_core.sampling import requests
from raft_core.types import Prompt
from raft_diffusion import Addons, Embedding, Lora, MergedLora, StableDiffusion
from raft_diffusion.testing import SECOND_WIDTH, WIDTH, tiny_pipeline

WORD = "<zorg>"


def asked(prompt="a red cat"):
    return requests([Prompt(prompt)], 1, 0, 1)


def drawn(policy, prompt="a red cat"):
    (sample,) = policy.render(policy.sample(asked(prompt)))
    return np.asarray(sample.output, dtype=np.int64)


def plainly(pipe, prompt="a red cat"):
    from diffusers import DDIMScheduler

    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(asked(prompt)[0].seed)
    image = pipe(prompt, num_inference_steps=3, guidance_scale=3.0, generator=generator).images[0]
    return np.asarray(image, dtype=np.int64)


def plain(folder, **parts):
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(folder, safety_checker=None, **parts)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another model's folder, of the same classes."""
    return tiny_pipeline(tmp_path_factory.mktemp("other"), "sd1", seed=7)


@pytest.mark.parametrize("form", ["folder", "original file", "diffusers' file"])
def test_another_vae(load, tiny, other, tmp_path, form):
    from diffusers import AutoencoderKL

    path = other / "vae"
    if form == "original file":
        path = tmp_path / "vae.safetensors"
        prefix = "first_stage_model."
        whole = to_single_file(other)
        save_file({key.removeprefix(prefix): value for key, value in whole.items() if key.startswith(prefix)}, path)
    elif form == "diffusers' file":
        path = other / "vae/diffusion_pytorch_model.safetensors"
    policy = load(addons=Addons(vae=str(path)))
    theirs = plainly(plain(tiny(), vae=AutoencoderKL.from_pretrained(other / "vae")))
    assert abs(drawn(policy) - theirs).max() <= 1
    assert abs(drawn(load()) - theirs).mean() > 5


def test_a_vae_of_other_latents_is_refused_before_anything_is_loaded(tiny, other, tmp_path):
    config = json.loads((other / "vae/config.json").read_text())
    for change, says in (({"latent_channels": 16}, "16 channels"), ({"block_out_channels": [8, 8, 8]}, "4 times")):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        (mistake,) = StableDiffusion(str(tiny()), addons=Addons(vae=str(tmp_path))).check()
        assert mistake.startswith("addons.vae: ")
        assert says in mistake


@pytest.mark.parametrize("vectors", [1, 3])
def test_a_textual_inversion(load, tiny, tmp_path, vectors):
    file = tmp_path / "zorg.safetensors"
    save_file({"emb_params": torch.randn(vectors, WIDTH, generator=torch.Generator().manual_seed(0))}, file)
    policy = load(addons=Addons(embeddings=[Embedding(str(file), WORD)]))
    prompt = f"a {WORD} cat"
    pipe = plain(tiny())
    pipe.load_textual_inversion(str(file), token=WORD)
    theirs = plainly(pipe, prompt)
    assert abs(drawn(policy, prompt) - theirs).max() <= 1
    assert abs(drawn(load(), prompt) - theirs).max() > 1
    assert policy.visible(f"{WORD} cat") == f"{WORD} cat"
    assert policy.visible(f"{WORD} " * 5).split() == [WORD] * {1: 5, 3: 4}[vectors]  # 14 places


def test_a_textual_inversion_for_both_encoders_of_sdxl(load, tiny, tmp_path):
    file, single = tmp_path / "zorg.safetensors", tmp_path / "sd1.safetensors"
    generator = torch.Generator().manual_seed(0)
    widths = {"clip_l": WIDTH, "clip_g": SECOND_WIDTH}
    both = {name: torch.randn(2, width, generator=generator) for name, width in widths.items()}
    save_file(both, file)
    save_file({"emb_params": both["clip_l"]}, single)
    policy = load("sdxl", addons=Addons(embeddings=[Embedding(str(file), WORD)]))
    pipe = plain(tiny("sdxl"))
    for name, end in (("clip_l", ""), ("clip_g", "_2")):
        parts = {part: getattr(pipe, part + end) for part in ("text_encoder", "tokenizer")}
        pipe.load_textual_inversion(both[name], token=WORD, **parts)
    assert abs(drawn(policy, f"a {WORD}") - plainly(pipe, f"a {WORD}")).max() <= 1
    for kind, wrong, theirs in (("sdxl", single, "SD 1.x or 2.x"), ("sd1", file, "SDXL")):
        (mistake,) = StableDiffusion(str(tiny(kind)), addons=Addons(embeddings=[Embedding(str(wrong), WORD)])).check()
        assert f"was made for {theirs}" in mistake


def test_embeddings_that_do_not_fit(load, tiny, tmp_path):
    wide, file = tmp_path / "wide.safetensors", tmp_path / "zorg.safetensors"
    save_file({"emb_params": torch.zeros(1, 2 * WIDTH)}, wide)
    save_file({"emb_params": torch.zeros(1, WIDTH)}, file)
    with pytest.raises(ModelError, match="its vectors have 64 numbers, the words of the model 32"):
        load(addons=Addons(embeddings=[Embedding(str(wide), WORD)]))
    with pytest.raises(ModelError, match="already in tokenizer vocabulary"):
        load(addons=Addons(embeddings=[Embedding(str(file), "a")]))
    (mistake,) = StableDiffusion(str(tiny()), addons=Addons(embeddings=[Embedding("zorg.pt", WORD)])).check()
    assert "pickles" in mistake
    with pytest.raises(ConfigError, match=f"addons.embeddings names {WORD} twice"):
        Addons(embeddings=[Embedding("a.safetensors", WORD), Embedding("b.safetensors", WORD)])
    with pytest.raises(ConfigError, match="must be one word"):
        Embedding("a.safetensors", "two words")


def test_a_stack_in_a_configuration(tiny, other, tmp_path):
    """Files beside the configuration are found; a word alone is a file; numbers point into lists."""
    save_file({"emb_params": torch.zeros(1, WIDTH)}, tmp_path / "zorg.safetensors")
    saved_lora(tiny, tmp_path / "style")
    raw = {
        "class_path": "StableDiffusion",
        "init_args": {
            "model": str(tiny()),
            "addons": {
                "vae": str(other / "vae"),
                "loras": ["style/pytorch_lora_weights.safetensors", {"file": "style/lora_kohya.safetensors", "weight": 0.5}],
                "embeddings": [{"file": "zorg.safetensors", "token": WORD}],
            },
        },
    }
    walk = Walk(base=tmp_path)
    part = walk.value(raw, Policy, "policy")
    policy = part.make()
    assert walk.mistakes == []
    assert policy.addons.loras == (
        MergedLora(str(tmp_path / "style/pytorch_lora_weights.safetensors")),
        MergedLora(str(tmp_path / "style/lora_kohya.safetensors"), 0.5),
    )
    assert part.plain["init_args"]["addons"]["loras"][1]["weight"] == 0.5
    assert part.plain["init_args"]["addons"]["embeddings"][0]["file"] == str(tmp_path / "zorg.safetensors")

    overrides = parse_overrides(["--policy.addons.loras", "a.safetensors", "--policy.addons.loras.0.weight", "0.5"])
    given = overridden({"policy": {"class_path": "StableDiffusion", "init_args": {"model": str(tiny())}}}, overrides)
    walk = Walk()
    part = walk.value(given["policy"], Policy, "policy")
    assert part.plain["init_args"]["addons"]["loras"] == [{"file": "a.safetensors", "weight": 0.5}]

    raw["init_args"]["addons"] = {"loras": [{"file": "a", "wait": 2}, {"weight": "much"}], "embeddings": "x"}
    walk = Walk()
    walk.value(raw, Policy, "policy")
    told = "\n".join(walk.mistakes)
    assert "policy.addons.loras.0.wait is not known" in told
    assert "policy.addons.loras.1.file is missing" in told
    assert "policy.addons.loras.1.weight is 'much', but must be a number" in told
    assert "policy.addons.embeddings.0.token is missing" in told


def saved_lora(tiny, folder):
    policy = StableDiffusion(str(tiny()), lora=Lora(rank=2))
    policy.load()
    policy.save(folder)
