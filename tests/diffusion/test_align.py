"""A whole run on a tiny pipeline: sampled, scored, trained, exported, described, and taken up again from its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

import httpx
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from markdown_it import MarkdownIt
from safetensors import safe_open

from raft_cli import main
from raft_core.config.run_config import check
from raft_core.evaluation.files import read_results
from raft_core.workflows.align import align_run
from raft_core.workflows.trained import open_source
from raft_diffusion import Lora, StableDiffusion
from raft_diffusion.export.card import adapter_words, addon_words, write_run_card
from raft_diffusion.export.files import KOHYA_FILE
from raft_diffusion.model import bundle
from raft_diffusion.model.lora_file import DIFFUSERS_FILE

HOSTILE = "<img src=x>![t](https://evil.example/t.png)[c](javascript:alert(1))|`x`"


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    (root / "train.txt").write_text("a red cat\n")
    (root / "held_out.txt").write_text(f"a dog\n{HOSTILE}\n")
    sampling = {
        "scheduler": "dpm++",
        "steps": 2,
        "guidance_scale": 2.0,
        "batch_size": 2,
        "options": {"use_karras_sigmas": True},
    }
    arguments = {"model": str(tiny()), "lora": {"rank": 2}, "sampling": sampling, "loss": {"guided_scale": 2.0}}
    raw = {
        "policy": {"class_path": "StableDiffusion", "init_args": arguments},
        "prompts": {"train": str(root / "train.txt"), "held_out": str(root / "held_out.txt")},
        "reward": {"class_path": "JpegCompressibility", "init_args": {"name": "small|<b>"}},
        "selector": "BestOfK",
        "trainer": {"steps": 4, "batch_size": 1, "optimizer": {"lr": 0.05}},
        "trackers": [],
        "rounds": 1,
        "k": 2,
        "evaluation": {"k": 2, "prompts": 2},
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
    return arguments | {"lora": Lora(**arguments["lora"])}


def test_compare_takes_the_model_of_the_run_that_an_export_lies_in(run, tiny, tmp_path):
    source = open_source(str(run / "export/lora_kohya.safetensors"), [])
    assert source.raw["policy"]["init_args"]["model"] == str(tiny())
    shutil.copy(run / "export/lora_kohya.safetensors", tmp_path)
    assert "model" not in open_source(str(tmp_path / "lora_kohya.safetensors"), []).raw["policy"]["init_args"]


def test_the_card_of_a_run(run):
    text = (run / "export" / "README.md").read_text()
    matter = yaml.safe_load(text.split("---")[1])
    assert matter["tags"][0] == "stable-diffusion"
    assert matter["widget"] == [{"text": "a dog", "output": {"url": "before_after.png"}}]
    assert "license" not in matter and "base_model" not in matter  # the one on this machine is nothing that the Hub knows
    assert "LoRA of rank 2 on attention, for **sd1**" in text
    assert "![Before (left half)" in text
    assert "| held-out prompts | small\\|\\<b\\> | reward |" in text
    for split in ("held-out prompts", "training prompts"):
        assert f"| {split} | diversity | diversity |" in text
    assert "use\\_karras\\_sigmas = True" in text
    assert "nan" not in text.lower()
    assert "\n\n\n" not in text


def test_the_lines_of_the_card_draw_the_first_picture_after(run, tiny):
    text = (run / "export" / "README.md").read_text()
    assert "this draws the first picture of the right half" in text
    lines = text.split("```python")[1].split("```")[0]
    lines = lines.replace("path/to/this/folder", str(run / "export")).replace("path/to/sd1", str(tiny()))
    names = {}
    exec(compile(lines, "card", "exec"), names)
    (evaluation,) = (e for e in read_results(run).evaluations if e.split == "heldout")
    drawn, ours = (np.asarray(image, dtype=np.int64) for image in (names["image"], evaluation.after[0].output))
    assert abs(drawn - ours).max() <= 1
    assert abs(drawn - np.asarray(evaluation.before[0].output, dtype=np.int64)).max() > 1


def test_nothing_that_is_published_tells_where_things_lay(run, tiny):
    card = (run / "export" / "README.md").read_text()
    headers = []
    for file in (run / "export").glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            headers.append(json.dumps(opened.metadata()))
    for place in (str(run), str(run.parent), str(tiny()), str(tiny().parent)):
        assert not any(place in text for text in (card, *headers))


def test_a_hostile_prompt_and_a_hostile_name_are_text(run, tmp_path):
    for file in ("config.yaml", "run.json", "evaluation"):
        (shutil.copytree if (run / file).is_dir() else shutil.copy)(run / file, tmp_path / file)
    numbers = json.loads((tmp_path / "evaluation/evaluation.json").read_text())
    numbers["evaluations"][0]["comparisons"][0]["name"] = HOSTILE
    (tmp_path / "evaluation/evaluation.json").write_text(json.dumps(numbers))
    text = write_run_card(tmp_path, tmp_path).read_text().split("---", 2)[2]
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens if token.type == "inline" for child in token.children]
    assert not [token for token in (*tokens, *inline) if token.type in ("html_block", "html_inline")]
    assert [token.attrs["src"] for token in inline if token.type == "image"] == ["before_after.png"]
    assert {token.attrs["href"] for token in inline if token.type == "link_open"} == {"https://arxiv.org/abs/2304.06767"}
    assert HOSTILE in [token.content for token in inline]


def test_numbers_that_are_not_there_are_a_dash(run, tmp_path):
    """One prompt gives no interval, and a reward that scored nothing no mean."""
    for file in ("config.yaml", "run.json", "evaluation"):
        (shutil.copytree if (run / file).is_dir() else shutil.copy)(run / file, tmp_path / file)
    numbers = json.loads((tmp_path / "evaluation/evaluation.json").read_text())
    for comparison in numbers["evaluations"][0]["comparisons"]:
        comparison |= {"before": None, "difference": {"value": None, "low": None, "high": None}, "pairs": 0}
    (tmp_path / "evaluation/evaluation.json").write_text(json.dumps(numbers))
    text = write_run_card(tmp_path, tmp_path).read_text()
    assert "nan" not in text.lower()
    assert "| reward | – |" in text


def test_the_lines_of_the_card_say_what_the_prompts_row_asked_for(run, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in ("config.yaml", "run.json", "evaluation"):
        (shutil.copytree if (run / file).is_dir() else shutil.copy)(run / file, tmp_path / file)
    file = tmp_path / "evaluation/heldout.parquet"
    table = pq.read_table(file)
    meta = pa.array([json.dumps({"width": 32, "negative_prompt": "blue"})] * len(table))
    pq.write_table(table.set_column(table.column_names.index("prompt_meta"), "prompt_meta", meta), file)
    text = write_run_card(tmp_path, tmp_path).read_text()
    assert "width=32," in text and "height=32," in text and "negative_prompt='blue'," in text


def test_samples_that_failed_are_counted_in_the_card(run, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in ("config.yaml", "run.json", "evaluation"):
        (shutil.copytree if (run / file).is_dir() else shutil.copy)(run / file, tmp_path / file)
    file = tmp_path / "evaluation/heldout.parquet"
    table = pq.read_table(file)
    reasons = pa.array(["the latents are not finite", *[None] * (len(table) - 1)], pa.string())
    table = table.set_column(table.column_names.index("after_failed"), "after_failed", reasons)
    pq.write_table(table, file)
    text = write_run_card(tmp_path, tmp_path).read_text()
    assert "In no figure, for there was no output: held-out prompts, " in text
    assert "1 of 4 samples failed: the latents are not finite" in text
    assert "generator" not in text  # there is no first picture to draw again


def test_a_card_without_an_evaluation(run, tmp_path):
    """Such as of a run that was stopped: the lines draw a picture of any seed."""
    for file in ("config.yaml", "run.json"):
        shutil.copy(run / file, tmp_path)
    text = write_run_card(tmp_path, tmp_path, "me/mine").read_text()
    assert "Before and after" not in text and "generator" not in text
    assert "pipe.load_lora_weights('me/mine', weight_name='pytorch_lora_weights.safetensors')" in text


def test_the_card_of_full_fine_tuning_speaks_of_no_lora(run, tmp_path):
    shutil.copy(run / "config.yaml", tmp_path)
    facts = json.loads((run / "run.json").read_text())
    del facts["policy"]["lora"]
    facts["policy"]["model"] = "owner/name"
    (tmp_path / "run.json").write_text(json.dumps(facts))
    text = write_run_card(tmp_path, tmp_path).read_text()
    assert "# name, fine-tuned by RAFT\n" in text
    assert "lora" not in text.lower()
    assert "base_model: owner/name" in text
    assert "from_pretrained('path/to/this/folder', subfolder='unet'" in text


FORBIDDEN = httpx.Response(403, request=httpx.Request("POST", "https://huggingface.co/api/repos/create"))


class Hub:
    """What is asked of the Hub, kept."""

    asked: ClassVar[list] = []

    def create_repo(self, name, **how):
        self.asked.append((name, how))
        return f"https://huggingface.co/{name}"

    def create_commit(self, name, operations, commit_message):
        self.asked.append((name, {each.path_in_repo: Path(each.path_or_fileobj).read_bytes() for each in operations}))


def test_a_run_is_pushed_with_a_card_that_loads_from_there(run, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "asked", [])
    assert main(["export", str(run), "--push", "me/mine", "--private"]) == 0
    assert "https://huggingface.co/me/mine" in capsys.readouterr().out
    (made, how), (name, files) = Hub.asked
    assert (made, name, how) == ("me/mine", "me/mine", {"private": True, "exist_ok": True})
    assert set(files) == {DIFFUSERS_FILE, KOHYA_FILE, "README.md", "before_after.png"}
    assert files[KOHYA_FILE] == (run / "export" / KOHYA_FILE).read_bytes()
    card = files["README.md"].decode()
    assert "pipe.load_lora_weights('me/mine', weight_name='pytorch_lora_weights.safetensors')" in card
    assert KOHYA_FILE in card and "| diversity |" in card and str(run.parent) not in card


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (lambda: LocalTokenNotFoundError("no token"), "you are not logged in on the Hub; run: hf auth login"),
        (lambda: HfHubHTTPError("403 forbidden", response=FORBIDDEN), "your token may not write to me"),
        (lambda: httpx.ConnectError("nobody there"), "me/mine could not be reached: nobody there"),
    ],
)
def test_a_hub_that_does_not_take_it(run, monkeypatch, capsys, error, says):
    def refuse(*_, **__):
        raise error()

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    assert main(["export", str(run), "--push", "me/mine"]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing to do"),
        (["--push", "mine"], "names no owner"),
        (["--push", "me/mi ne"], "no name of a repository"),
        (["--push", "me/mine", "--strength", "0.5"], "--strength is for --merge"),
        (["--push", "me/mine", "--policy.sampling.steps", "9"], "--policy.sampling.steps is for --merge"),
        (["--merge", "a.safetensors", "--dtype", "float8"], "must be one of float32, float16, bfloat16"),
        (["--merge", "a.safetensors", "--strength", "-1"], "must not be negative"),
        (["--merge", "folder"], "no name of a single file"),
    ],
)
def test_mistakes_in_exporting(run, monkeypatch, tmp_path, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), *words]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_run_that_has_exported_nothing_is_not_pushed(run, tmp_path, capsys):
    for file in ("config.yaml", "run.json"):
        shutil.copy(run / file, tmp_path)
    assert main(["export", str(tmp_path), "--push", "me/mine"]) == 2
    assert "has exported nothing yet" in " ".join(capsys.readouterr().err.split())


def test_the_merged_model_of_a_run_draws_what_the_run_drew(run, tmp_path, monkeypatch):
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "--merge", "whole.safetensors"]) == 0
    pipe = StableDiffusionPipeline.from_single_file("whole.safetensors", config="whole", local_files_only=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
    (evaluation,) = (e for e in read_results(run).evaluations if e.split == "heldout")
    first = evaluation.after[0]
    settings = {"num_inference_steps": 2, "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(first.seed)}
    image = np.asarray(pipe(first.prompt.text, **settings).images[0], dtype=np.int64)
    assert abs(image - np.asarray(first.output, dtype=np.int64)).max() <= 1


def test_adapters_and_addons_in_words():
    assert adapter_words(None) == "Full fine-tuning of the denoiser"
    lora = {"rank": 8, "conv": True, "text_encoder": True}
    assert adapter_words(lora) == "LoRA of rank 8 on attention, convolutions, text encoders"
    assert adapter_words({"init": "/home/me/style.safetensors"}) == "LoRA, gone on from style.safetensors"
    addons = {
        "vae": "owner/vae",
        "loras": [{"file": "/home/me/a.safetensors", "weight": 0.5}],
        "embeddings": [{"file": "/home/me/b.safetensors", "token": "<b>"}],
    }
    assert addon_words(addons) == "the VAE owner/vae, a.safetensors at 0.5, b.safetensors as <b>"


def test_a_bundled_model_opens_as_a_plain_pipeline():
    assert type(bundle.pipeline("bundled:shapes")).__name__ == "StableDiffusionPipeline"
