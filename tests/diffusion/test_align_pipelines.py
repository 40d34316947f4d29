"""A whole run on a flow model: by its winners, by a policy gradient on noisy steps, exported, described, and taken up again."""

from __future__ import annotations

import json

import pytest
import tiny_pipelines
import yaml

from raft_cli import main
from raft_core.workflows.trained import usual_policy

pytestmark = pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated")

METHODS = {
    "sft": {"selector": "BestOfK", "objective": "Sft"},
    "policy gradient": {"selector": "ReinforceRej", "objective": "PolicyGradient"},
}


@pytest.mark.parametrize(("family", "method"), [("flux_guided", "sft"), ("sd3", "policy gradient")])
def test_a_run_from_end_to_end(tmp_path, capsys, family, method):
    folder = tiny_pipelines.write(tmp_path / family, family)
    (tmp_path / "train.txt").write_text("a red cat\na dog of many words\n")
    (tmp_path / "held_out.txt").write_text("a bird\n")
    sampling = {
        "steps": 3,
        "width": 32,
        "height": 32,
        "batch_size": 4,
        "arguments": tiny_pipelines.ARGUMENTS[family],
        **tiny_pipelines.SAMPLING[family],
        "stochastic": {"kind": "flow_grpo", "count": 1},
    }
    arguments = {
        "model": str(folder),
        "lora": {"rank": 2},
        "sampling": sampling,
        "memory": {"preset": "24gb", "prompt_cache": str(tmp_path / "prompts")},
    }
    config = {
        "policy": {"class_path": "TextToImage", "init_args": arguments},
        "prompts": {"train": str(tmp_path / "train.txt"), "held_out": str(tmp_path / "held_out.txt")},
        "reward": "JpegCompressibility",
        **METHODS[method],
        "trainer": {"steps": 2, "batch_size": 2, "optimizer": {"lr": 0.01}},
        "trackers": [],
        "rounds": 1,
        "k": 2,
        "evaluation": {"k": 1, "prompts": 1},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["align", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "run")]) == 0
    export = tmp_path / "run" / "export"
    assert (export / "pytorch_lora_weights.safetensors").is_file()
    card = (export / "README.md").read_text()
    assert "pipe.load_lora_weights(" in card
    assert "lora_kohya" not in card
    assert list((tmp_path / "prompts").glob("*.safetensors"))
    policy = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["policy"]
    assert policy["class_path"] == "TextToImage"
    for target in (folder, export, export / "pytorch_lora_weights.safetensors"):
        assert usual_policy(str(target)) == "TextToImage"
    capsys.readouterr()
    words = ["--prompts", str(tmp_path / "held_out.txt"), "--k", "1", "--output", str(tmp_path / "pictures")]
    assert main(["generate", str(tmp_path / "run"), *words]) == 0
    assert list((tmp_path / "pictures").rglob("*.png"))


def test_a_plan_tells_the_memory_without_loading(tmp_path, capsys):
    folder = tiny_pipelines.write(tmp_path / "sd3", "sd3")
    (tmp_path / "train.txt").write_text("a red cat\na dog\n")
    config = {
        "policy": {"class_path": "TextToImage", "init_args": {"model": str(folder), "sampling": {"steps": 4}}},
        "prompts": {"train": str(tmp_path / "train.txt")},
        "reward": "JpegCompressibility",
    }
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    assert main(["plan", str(tmp_path / "run.yaml"), "--no_probe"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "billion parameters in the denoiser" in told
    assert "blurs them" in told


def test_the_worlds_own_flow_model_is_served(tmp_path):
    """As its script writes it: the same text encoder twice, a T5 that says nothing, weights in half precision."""
    from diffusers import AutoencoderKL
    from test_text_to_image import perturb, requests

    from raft_diffusion import PipelineSampling, TextToImage, TransformerLora
    from raft_diffusion.model import bundle
    from raft_diffusion.world.clip_model import load_clip
    from raft_diffusion.world.emoji.flow import as_projecting_encoder, build_transformer, save_flow
    from raft_diffusion.world.emoji.tokenizer import build_tokenizer

    encoder = as_projecting_encoder(load_clip(bundle.resolve("emoji-clip")).model, build_tokenizer())
    vae = AutoencoderKL.from_pretrained(bundle.resolve("emoji-vae"))
    save_flow(vae, encoder, build_transformer(layers=2), build_tokenizer(), tmp_path / "emoji-flow")
    sampling = PipelineSampling(steps=2, guidance_scale=2.0, width=64, height=64, arguments={"max_sequence_length": 8})
    policy = TextToImage(str(tmp_path / "emoji-flow"), lora=TransformerLora(rank=2), sampling=sampling)
    assert policy.check() == []
    policy.load()
    perturb(policy, 0.1)
    samples = policy.render(policy.sample(requests()))
    assert all(sample.output.size == (64, 64) for sample in samples)
    policy.nll(samples, policy.draw(samples, [1, 2])).sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in policy.trainable().values())
