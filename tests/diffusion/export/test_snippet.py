"""The lines that a card shows draw the picture that the policy has drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from raft_core.sampling import requests
from raft_core.types import Prompt
from raft_diffusion import Addons, Embedding, Lora, MergedLora
from raft_diffusion.export.snippet import Trained, call_arguments, snippet
from raft_diffusion.model.lora_file import DIFFUSERS_FILE
from raft_diffusion.testing import SECOND_WIDTH, WIDTH, tiny_pipeline

PROMPT = "'a' \"b\" <zorg>"
SETTINGS = [
    ("sd1", {"scheduler": "dpm++", "options": {"use_karras_sigmas": True}, "steps": 4, "guidance_scale": 3.0}),
    ("sd1", {"scheduler": None, "options": {"timestep_spacing": "trailing"}, "steps": 3, "guidance_scale": 1.0}),
    ("sd2", {"scheduler": "euler_a", "steps": 3, "guidance_scale": 4.0, "guidance_rescale": 0.7, "height": 64}),
    ("sdxl", {"scheduler": "ddim", "eta": 0.8, "steps": 3, "guidance_scale": 2.5, "negative_prompt": "blue", "width": 64}),
]


def moved(policy):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


def drawn(policy):
    """(picture, its seed), drawn in a batch with another."""
    asked = requests([Prompt(PROMPT), Prompt("a dog")], 1, 0, 1)
    sample = policy.render(policy.sample(asked))[0]
    return pixels(sample.output), sample.seed


def pixels(image):
    return np.asarray(image, dtype=np.int64)


def executed(lines, *places):
    """The picture that the lines draw, once their reader has filled in where things lie."""
    for shown, there in places:
        assert f"{shown}" in lines
        lines = lines.replace(shown, str(there))
    from diffusers import DiffusionPipeline

    names = {}
    exec(compile(lines, "card", "exec"), names)
    assert isinstance(names["pipe"], DiffusionPipeline)
    return pixels(names["image"])


@pytest.mark.parametrize(("kind", "sampling"), SETTINGS)
def test_lines_of_a_card_draw_what_the_run_drew(load, tiny, tmp_path, kind, sampling):
    policy = moved(load(kind, lora=Lora(rank=2, text_encoder=True), sampling=sampling))
    policy.save(tmp_path)
    expected, seed = drawn(policy)
    lines = snippet(policy.describe(), Trained("path/to/this/folder", DIFFUSERS_FILE), PROMPT, seed)
    places = [("path/to/this/folder", tmp_path), (f"path/to/{kind}", tiny(kind))]
    assert abs(executed(lines, *places) - expected).max() <= 1
    if sampling["scheduler"] == "ddim":  # the tiny models' own
        return
    without = "\n".join(line for line in lines.splitlines() if not line.startswith("pipe.scheduler"))
    assert abs(executed(without, *places) - expected).mean() > 3  # what leaving the scheduler out would do


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_lines_with_addons(load, tiny, tmp_path, kind):
    other = tiny_pipeline(tmp_path / "vaes", kind, seed=9)
    generator = torch.Generator().manual_seed(0)
    widths = {"clip_l": WIDTH, "clip_g": SECOND_WIDTH} if kind == "sdxl" else {"emb_params": WIDTH}
    vectors = {name: torch.randn(2, width, generator=generator) for name, width in widths.items()}
    save_file(vectors, tmp_path / "zorg.safetensors")
    moved(load(kind, lora=Lora(rank=2))).save(tmp_path / "style")
    (tmp_path / "style.safetensors").write_bytes((tmp_path / "style/lora_kohya.safetensors").read_bytes())
    addons = Addons(
        vae=str(other / "vae"),
        loras=[MergedLora(str(tmp_path / "style.safetensors"), 0.5)],
        embeddings=[Embedding(str(tmp_path / "zorg.safetensors"), "<zorg>")],
    )
    policy = moved(load(kind, lora=Lora(rank=3), addons=addons))
    policy.save(tmp_path / "export")
    expected, seed = drawn(policy)
    lines = snippet(policy.describe(), Trained("path/to/this/folder", DIFFUSERS_FILE), PROMPT, seed)
    assert str(tmp_path) not in lines
    places = [("path/to/this/folder", tmp_path / "export"), (f"path/to/{kind}", tiny(kind)), ("path/to/vae", other / "vae")]
    places += [("'path/to/zorg", f"'{tmp_path}/zorg")] if kind == "sdxl" else []
    assert abs(executed(lines, *places, ("'path/to'", repr(str(tmp_path)))) - expected).max() <= 2


def test_lines_of_full_fine_tuning(load, tiny, tmp_path):
    policy = load(lora=None)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.mul_(1.01)
    policy.save(tmp_path)
    expected, seed = drawn(policy)
    lines = snippet(policy.describe(), Trained("path/to/this/folder", None), PROMPT, seed)
    assert abs(executed(lines, ("path/to/this/folder", tmp_path), ("path/to/sd1", tiny())) - expected).max() <= 1


def test_a_card_for_a_gpu_says_so():
    policy = {
        "model": "owner/name",
        "pipeline": "StableDiffusionXLPipeline",
        "device": "cuda:0",
        "dtype": "float16",
        "variant": "a",
        "sampling": {"scheduler": "dpm++", "steps": 25, "guidance_scale": 7.5},
    }
    assert snippet(policy, Trained("me/mine", "a.safetensors"), "a cat", None).splitlines() == [
        "import torch",
        "from diffusers import DPMSolverMultistepScheduler, DiffusionPipeline",
        "",
        "pipe = DiffusionPipeline.from_pretrained('owner/name', torch_dtype=torch.float16, variant='a', add_watermarker=False)",
        "pipe.load_lora_weights('me/mine', weight_name='a.safetensors')",
        "pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)",
        'pipe.to("cuda")',
        "image = pipe(",
        "    'a cat',",
        "    num_inference_steps=25,",
        "    guidance_scale=7.5,",
        ").images[0]",
    ]


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("owner/name", "DiffusionPipeline.from_pretrained('owner/name')"),
        ("/home/me/model.safetensors", "StableDiffusionPipeline.from_single_file('path/to/model.safetensors')"),
        ("/home/me/models/mine", "DiffusionPipeline.from_pretrained('path/to/mine')"),
        ("bundled:shapes", "pipe = pipeline('bundled:shapes')"),
    ],
)
def test_how_the_base_model_is_loaded(model, line):
    lines = snippet({"model": model, "pipeline": "StableDiffusionPipeline"}, Trained("x", "y"), "a cat", 1)
    assert line in lines
    assert "/home" not in lines


def test_what_a_pipeline_does_by_itself_is_not_said():
    sampling = {"width": 32, "height": None, "steps": 12, "guidance_scale": 0.0, "guidance_rescale": 0.0, "negative_prompt": ""}
    expected = {"num_inference_steps": 12, "guidance_scale": 0.0}
    assert call_arguments(sampling, {"width": 32, "height": 64}) == {"width": 32, "height": 64} | expected
    assert call_arguments(sampling | {"width": None}, {"width": 64, "height": 64}) == expected
