"""Pictures of a table: encoded by the policy's own autoencoder, fitted to its size, and learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raft_cli import main
from raft_core.errors import ModelError
from raft_core.sampling import requests
from raft_core.store.store import read_history, read_round
from raft_core.testing import close
from raft_core.types import Prompt
from raft_diffusion import Sampling, StableDiffusion
from raft_diffusion.model.written import fitted

PROMPTS = [Prompt("a large red heart"), Prompt("a small blue square")]


@pytest.fixture(scope="module")
def shapes():
    policy = StableDiffusion("bundled:shapes", sampling=Sampling(scheduler="ddim", steps=8, batch_size=4))
    policy.load()
    return policy


def pixels(picture):
    return np.asarray(picture, dtype=np.float64) / 255


def test_a_picture_that_was_drawn_comes_back_from_its_encoding(shapes):
    drawn = shapes.render(shapes.sample(requests(PROMPTS, 2, 0, 1)))
    written = shapes.written([s.request for s in drawn], [s.output for s in drawn])
    assert [s.output for s in written] == [s.output for s in drawn]  # what a reward sees is what was given
    again = shapes.render([s.with_output(None) for s in written])
    for one, other, sample, original in zip(drawn, again, written, drawn, strict=True):
        assert np.abs(pixels(one.output) - pixels(other.output)).mean() < 0.1 * np.std(pixels(one.output))
        latents, expected = sample.tensors["latents"], original.tensors["latents"]
        assert latents.shape == expected.shape and latents.dtype == expected.dtype
        assert (latents - expected).abs().mean() < 0.3 * expected.std()


def test_the_encoding_is_the_same_every_time_and_in_any_company(shapes):
    drawn = shapes.render(shapes.sample(requests(PROMPTS, 2, 0, 1)))
    asked, outputs = [s.request for s in drawn], [s.output for s in drawn]
    once, again = shapes.written(asked, outputs), shapes.written(asked, outputs)
    assert all((a.tensors["latents"] == b.tensors["latents"]).all() for a, b in zip(once, again, strict=True))
    (alone,) = shapes.written(asked[3:], outputs[3:])
    assert (alone.tensors["latents"] - once[3].tensors["latents"]).abs().max() < 1e-4 * once[3].tensors["latents"].abs().max()


def test_a_picture_of_another_size_is_scaled_and_its_middle_cut_out():
    picture = Image.new("L", (40, 20), 0)
    picture.paste(255, (10, 0, 30, 20))
    cut = fitted(picture, 10, 10)
    assert (
        cut.size == (10, 10) and cut.mode == "RGB" and np.asarray(cut).min() > 220
    )  # the black sides are gone, but for what blends in at the edge
    assert fitted(cut, 10, 10) is cut


def test_nobody_knows_the_steps_of_a_picture_that_was_not_drawn_here(shapes):
    with pytest.raises(ModelError, match="no denoising steps"):
        shapes.written([], [], trace=True)


def test_pictures_that_people_prefer_are_learned_and_a_killed_run_goes_on(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = shapes.render(shapes.sample(requests(PROMPTS, 2, 0, 1)))
    for number, sample in enumerate(drawn):
        sample.output.resize((80, 48)).save(tmp_path / f"{number}.png")
    rows = [
        {"caption": prompt.text, "jpg_0": f"{2 * n}.png", "jpg_1": f"{2 * n + 1}.png", "label_0": 0, "label_1": 1}
        for n, prompt in enumerate(PROMPTS)
    ]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "policy": {
            "class_path": "StableDiffusion",
            "init_args": {"model": "bundled:shapes", "sampling": {"steps": 2, "batch_size": 4}},
        },
        "prompts": {"train": "votes.jsonl", "held_out_fraction": 0},
        "samples": {"class_path": "FromTable", "init_args": {"table": "votes.jsonl"}},
        "reward": "Given",
        "trainer": {"steps": 2, "batch_size": 2, "optimizer": {"lr": 1e-3}},
        "rounds": 2,
        "evaluation": {"k": 1},
        "trackers": [],
        "output": "run",
    }
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    assert main(["align", "c.yaml"]) == 0
    samples, scores, kept = read_round(tmp_path / "run", 2, tensors=True)
    assert scores.columns["given"].tolist() == [0, 1, 0, 1] and kept.tolist() == [False, True] * 2
    assert {s.output.size for s in samples} == {drawn[0].output.size}  # fitted to what the model draws
    assert [row["train/steps"] for row in read_history(tmp_path / "run")] == [2, 2]
    config["objective"] = "RaftPlusPlus"
    (tmp_path / "c.yaml").write_text(json.dumps({**config, "output": "other"}))
    assert main(["align", "c.yaml"]) == 2  # ratios of pictures that were not drawn
    assert not (tmp_path / "other").exists()


@pytest.fixture
def taught(tmp_path, monkeypatch):
    """A teacher's run on the bundled shapes in ``teacher``, and its configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a large red heart\na small blue square\n")
    arguments = {"model": "bundled:shapes", "sampling": {"steps": 2, "batch_size": 4}}
    config = {
        "policy": {"class_path": "StableDiffusion", "init_args": arguments},
        "prompts": {"train": "p.txt", "held_out_fraction": 0},
        "reward": "Colorfulness",
        "trainer": {"steps": 1, "batch_size": 2},
        "rounds": 1,
        "k": 2,
        "evaluation": {"k": 1},
        "trackers": [],
    }
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    assert main(["align", "c.yaml", "--output", "teacher"]) == 0
    student = {
        **config,
        "samples": {"class_path": "FromRun", "init_args": {"run": "teacher", "which": "all"}},
        "reward": "Given",
    }
    return tmp_path, student


def latents_of(folder):
    samples, _, _ = read_round(folder, 1, tensors=True)
    return {(s.prompt.text, s.output.tobytes()): s.tensors["latents"] for s in samples}


def test_a_student_with_the_same_autoencoder_takes_the_latents_over(taught):
    folder, student = taught
    (folder / "s.yaml").write_text(json.dumps(student))
    assert main(["align", "s.yaml", "--output", "student"]) == 0
    teacher, own = latents_of(folder / "teacher"), latents_of(folder / "student")
    assert len(own) == 4 and own.keys() == teacher.keys()
    assert all((own[key] == teacher[key]).all() for key in own)
    _, scores, _ = read_round(folder / "student", 1)
    _, told, _ = read_round(folder / "teacher", 1)
    assert sorted(scores.columns["given"]) == sorted(told.columns["colorfulness"])


def test_a_student_with_another_autoencoder_or_size_encodes_the_pictures(taught):
    folder, student = taught
    (folder / "s.yaml").write_text(json.dumps(student))
    run = json.loads((folder / "teacher" / "run.json").read_text())
    assert len(run["latent_space"]) == 32
    (folder / "teacher" / "run.json").write_text(json.dumps({**run, "latent_space": "another"}))
    assert main(["align", "s.yaml", "--output", "student"]) == 0
    teacher, own = latents_of(folder / "teacher"), latents_of(folder / "student")
    assert own.keys() == teacher.keys()
    assert all(0 < (own[key] - teacher[key]).abs().mean() < 0.3 * teacher[key].std() for key in own)
    (folder / "teacher" / "run.json").write_text(json.dumps(run))
    assert (
        main(["align", "s.yaml", "--output", "smaller", "--policy.sampling.width", "32", "--policy.sampling.height", "32"]) == 0
    )
    samples, _, _ = read_round(folder / "smaller", 1, tensors=True)
    assert {s.output.size for s in samples} == {(32, 32)} and {s.tensors["latents"].shape[-1] for s in samples} == {8}


RECIPES = Path(__file__).parents[2] / "configs" / "shapes"


def test_the_recipe_of_a_student_runs_on_the_recipe_of_its_teacher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a large red heart\na small blue square\n")
    (tmp_path / "h.txt").write_text("a small red heart\n")
    small = {"policy.sampling.steps": 2, "policy.sampling.batch_size": 4, "prompts.train": "p.txt", "prompts.held_out": "h.txt"}
    small |= {"trainer.steps": 1, "trainer.batch_size": 2, "rounds": 1, "k": 2, "evaluation.k": 1, "trackers": "[]"}
    words = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    assert main(["align", str(RECIPES / "aesthetic.yaml"), *words, "--output", "teacher"]) == 0
    assert main(["align", str(RECIPES / "distilled.yaml"), *words, "--output", "student", "--samples.run", "teacher"]) == 0
    winners, taste, kept = read_round(tmp_path / "teacher", 1)
    samples, scores, _ = read_round(tmp_path / "student", 1)
    assert [s.output.tobytes() for s in samples] == [s.output.tobytes() for s, each in zip(winners, kept, strict=True) if each]
    assert scores.columns["given"].tolist() == taste.columns["taste"][kept].tolist()
    close(scores.columns["taste"], scores.columns["given"])  # the judge, asked about the same pictures


def test_the_recipe_of_reward_conditioning_learns_every_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a large red heart\na small blue square\n")
    (tmp_path / "h.txt").write_text("a small red heart\n")
    small = {"policy.sampling.steps": 2, "policy.sampling.batch_size": 4, "prompts.train": "p.txt", "prompts.held_out": "h.txt"}
    small |= {
        "trainer.steps": 2,
        "trainer.batch_size": 4,
        "rounds": 1,
        "k": 5,
        "evaluation.k": 1,
        "trackers": "[]",
        "output": "run",
    }
    words = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    assert main(["align", str(RECIPES / "conditioned.yaml"), *words]) == 0
    _, _, kept = read_round(tmp_path / "run", 1)
    (row,) = read_history(tmp_path / "run")
    assert kept.all() and row["conditioned/best_fraction"] == 0.2 and np.isfinite(row["train/loss_first"])
