"""A whole run on a tiny pipeline: sampled, scored, trained, exported, described, and taken up again from its files."""

from __future__ import annotations

import pytest
import yaml

from raft_core.config.run_config import check
from raft_core.workflows.align import align_run
from raft_diffusion import StableDiffusion
from raft_diffusion.export.card import adapter_words, call_arguments, call_example, front_matter, load_base, write_card
from raft_diffusion.model import bundle

FACTS = {
    "base_model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "pipeline": "StableDiffusionPipeline",
    "reward": "Aesthetic",
    "n_prompts": 10,
    "method": {
        "adapter": "LoRA of rank 4 on attention",
        "sampling": "dpm++, 25 steps, guidance 7.5",
        "selector": "BestOfK",
        "objective": "Sft",
        "rounds": 3,
        "k": 16,
    },
    "seed": 0,
}


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    (root / "train.txt").write_text("a red cat\n")
    (root / "held_out.txt").write_text("a dog\n")
    sampling = {"scheduler": "ddim", "steps": 2, "guidance_scale": 2.0, "batch_size": 2}
    arguments = {"model": str(tiny()), "lora": {"rank": 2}, "sampling": sampling, "loss": {"guided_scale": 2.0}}
    raw = {
        "policy": {"class_path": "StableDiffusion", "init_args": arguments},
        "prompts": {"train": str(root / "train.txt"), "held_out": str(root / "held_out.txt")},
        "reward": "JpegCompressibility",
        "selector": "BestOfK",
        "trainer": {"steps": 2, "batch_size": 1},
        "trackers": [],
        "rounds": 1,
        "k": 2,
        "evaluation": {"k": 1, "prompts": 1},
    }
    return align_run(check(raw, name="tiny"), folder=root / "run")


def test_a_run_exports_what_compare_takes_up(run):
    names = {path.name for path in (run / "export").iterdir()}
    assert names >= {"pytorch_lora_weights.safetensors", "lora_kohya.safetensors", "README.md", "before_after.png"}
    policy = StableDiffusion(**_built(StableDiffusion.arguments_for(run / "export")))
    policy.load()
    policy.load_weights(run / "export")
    trained = {name: value.detach().clone() for name, value in policy.trainable().items()}
    policy.load_weights(run / "checkpoints" / "0001")
    assert all(trained[name].equal(value) for name, value in policy.trainable().items())
    assert any(value.abs().sum() > 0 for name, value in trained.items() if "lora_B" in name)


def _built(arguments):
    from raft_diffusion import Lora

    return arguments | {"lora": Lora(**arguments["lora"])}


def test_the_card_of_a_run(run):
    text = (run / "export" / "README.md").read_text()
    matter = yaml.safe_load(text.split("---")[1])
    assert matter["tags"][0] == "stable-diffusion"
    assert "license" not in matter
    assert "| heldout | jpeg_compressibility | reward |" in text
    assert "LoRA of rank 2 on attention" in text
    assert "![Before (left half)" in text
    assert 'pipe.load_lora_weights("path/to/this/folder", weight_name="pytorch_lora_weights.safetensors")' in text
    assert "\n\n\n\n" not in text
    call = text.split("image = pipe(")[1].split("```")[0]  # drawn as the run has drawn, or the adapters are not at home
    assert "num_inference_steps=2, guidance_scale=2.0" in call


def test_a_card_from_facts_alone(tmp_path):
    path = write_card(tmp_path, FACTS)
    assert path.name == "README.md"
    assert "16 pictures per prompt" in path.read_text()
    assert yaml.safe_load(front_matter(FACTS | {"images": []}))["base_model"] == FACTS["base_model"]


def test_a_local_base_model_is_not_named_to_the_hub(tiny):
    facts = FACTS | {"base_model": str(tiny()), "images": []}
    assert "base_model" not in yaml.safe_load(front_matter(facts))


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("owner/name", 'DiffusionPipeline.from_pretrained("owner/name")'),
        ("model.safetensors", 'StableDiffusionPipeline.from_single_file("model.safetensors")'),
        ("bundled:shapes", "pipe = pipeline('bundled:shapes')"),
    ],
)
def test_how_the_base_model_is_loaded(model, line):
    assert line in load_base(model)


def test_a_single_file_is_loaded_by_its_own_class(tmp_path):
    facts = FACTS | {"base_model": "juggernaut.safetensors", "pipeline": "StableDiffusionXLPipeline"}
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    files = {"diffusers": "pytorch_lora_weights.safetensors"}
    text = write_card(tmp_path, facts | {"files": files}).read_text()
    assert 'pipe = StableDiffusionXLPipeline.from_single_file("juggernaut.safetensors")' in text
    assert "from diffusers import StableDiffusionXLPipeline\n" in text
    assert "# RAFT LoRA for juggernaut\n" in text


def test_the_card_of_full_fine_tuning_speaks_of_no_lora(tmp_path):
    facts = FACTS | {"method": FACTS["method"] | {"adapter": adapter_words({"lora": None})}, "files": {"unet": "unet"}}
    text = write_card(tmp_path, facts).read_text()
    assert "# stable-diffusion-v1-5, fine-tuned by RAFT\n" in text
    assert "lora" not in text.lower()
    assert 'from_pretrained("path/to/this/folder/unet")' in text


def test_the_card_calls_the_pipeline_at_the_size_of_the_run():
    sampling = {"width": 32, "height": 32, "steps": 12, "guidance_scale": 1.5, "guidance_rescale": 0.0, "negative_prompt": ""}
    expected = {"width": 32, "height": 32, "num_inference_steps": 12, "guidance_scale": 1.5}
    assert call_arguments(sampling) == expected
    drawn = []
    exec("pipe = lambda prompt, **words: drawn.append((prompt, words)) or Result\n" + call_example('a "red" cat', expected), {
        "drawn": drawn, "Result": type("Result", (), {"images": [None]})
    })  # fmt: skip
    assert drawn == [('a "red" cat', expected)]


def test_adapters_in_words():
    assert adapter_words({"lora": None}) == "Full fine-tuning of the U-Net"
    lora = {"rank": 8, "conv": True, "text_encoder": True}
    assert adapter_words({"lora": lora}) == "LoRA of rank 8 on attention, convolutions, text encoders"


def test_a_bundled_model_opens_as_a_plain_pipeline():
    assert type(bundle.pipeline("bundled:shapes")).__name__ == "StableDiffusionPipeline"
