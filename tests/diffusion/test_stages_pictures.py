"""Pictures that are looked at on the way: what is expected of them, who goes on, and that those are drawn as ever."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from raft_cli import main
from raft_core.sampling import requests
from raft_core.store.store import read_history, read_round
from raft_core.testing import close
from raft_core.types import Prompt
from raft_diffusion import Sampling, StableDiffusion
from raft_diffusion.process.schedulers import make_scheduler
from raft_diffusion.process.stages import alpha_bar_at, clean, narrow, stage_steps

PROMPTS = [Prompt("a red cat"), Prompt("dog")]
SCHEDULERS = ("ddim", "dpm++", "euler", "euler_a", "unipc")


def test_points_of_the_way_are_steps_between_the_first_and_the_last():
    assert stage_steps((0.25, 0.5, 0.75), 12) == [3, 6, 9]
    assert stage_steps((0.01, 0.99), 4) == [1, 3]
    assert stage_steps((0.4, 0.5), 2) == [1]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_what_is_expected_follows_from_what_the_network_says(prediction):
    x0, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    power = 0.3
    x = power**0.5 * x0 + (1 - power) ** 0.5 * noise
    said = {"epsilon": noise, "sample": x0, "v_prediction": power**0.5 * noise - (1 - power) ** 0.5 * x0}[prediction]
    close(clean(x, said, power, prediction), x0, 1e-5)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_whose_network_knows_the_picture_expects_it_at_every_step(load, name):
    """With the true noise as the prediction, x̂₀ is the picture from the first step to the last."""
    config = load("sd1").engine.pipe.scheduler.config
    sampling = Sampling(scheduler=name, steps=6)
    scheduler = make_scheduler(config, sampling)
    scheduler.set_timesteps(6)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    picture, generator = torch.randn(3, 4, 8, 8), torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 8, 8, generator=generator) * scheduler.init_noise_sigma
    for step, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, t)
        power = alpha_bar_at(scheduler, step, t)
        noise = (scaled - power**0.5 * picture) / (1 - power) ** 0.5
        close(clean(scaled, noise, power, "epsilon"), picture, 1e-3)
        more = {"generator": generator} if name == "euler_a" else {}
        x = scheduler.step(noise, t, x, return_dict=False, **more)[0]
        if step == 2:  # and when one of them is given up
            left = torch.tensor([0, 2])
            narrow(scheduler, left, 3)
            x, picture = x[left], picture[left]
    assert (x - picture).abs().mean() < 0.1 * picture.std()  # they do lead there


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_those_that_go_on_are_drawn_as_ever(load, scheduler):
    policy = load("sd1", sampling={"scheduler": scheduler, "steps": 6, "batch_size": 3})
    asked = requests(PROMPTS, 4, 0, 1)
    expected = {r.seed: s.tensors["latents"] for r, s in zip(asked, policy.sample(asked), strict=True)}
    seen = []

    def goes_on(previews):
        seen.append([p.request.seed for p in previews])
        assert all(p.output.size == previews[0].output.size for p in previews)  # rendered
        return [place % 2 == 0 for place in range(len(previews))]

    samples = policy.sample_in_stages(asked, (0.34, 0.67), goes_on)
    assert [s.request for s in samples] == asked and [len(each) for each in seen] == [8, 4]
    left = [s for s in samples if not s.meta.get("rejected")]
    assert [s.seed for s in left] == seen[1][::2]
    for sample in left:
        close(sample.tensors["latents"], expected[sample.seed], 2e-3)
    assert sorted(s.meta["evaluations"] for s in samples) == [2] * 4 + [4] * 2 + [6] * 2
    given_up = [s for s in samples if s.meta.get("rejected")]
    assert all(torch.isfinite(s.tensors["latents"]).all() for s in given_up)
    assert len(policy.render(samples)) == 8  # what was given up can be looked at, too


def test_a_trace_of_what_goes_on_can_be_replayed(load):
    policy = load("sd1", sampling={"scheduler": "ddim", "steps": 4, "eta": 1.0})
    asked = requests(PROMPTS, 2, 0, 1)
    samples = policy.sample_in_stages(asked, (0.5,), lambda previews: [p.request.index == 1 for p in previews], trace=True)
    whole = [s for s in samples if not s.meta.get("rejected")]
    assert [s.request.index for s in whole] == [1, 1] and not any("trajectory" in s.tensors for s in samples if s not in whole)
    with torch.no_grad():
        log_probs, mask = policy.step_log_probs(whole)
    close(log_probs[mask], torch.stack([s.tensors["step_log_probs"] for s in whole])[mask], 1e-4)


def test_where_none_goes_on_nothing_more_is_computed(load):
    policy = load("sd1", sampling={"steps": 6})
    samples = policy.sample_in_stages(requests(PROMPTS, 2, 0, 1), (0.5,), lambda previews: [False] * len(previews))
    assert all(s.meta["rejected"] and s.meta["evaluations"] == 3 for s in samples)


def test_too_few_steps_are_told(tiny):
    policy = StableDiffusion(str(tiny()), sampling=Sampling(steps=2))
    assert policy.check_stages((0.5,)) == []
    assert "sampling.steps is 2, too few for 3 looks" in policy.check_stages((0.25, 0.5, 0.75))[0]


def test_the_recipe_halves_on_the_way_and_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a large red heart\na small blue square\n")
    (tmp_path / "h.txt").write_text("a small red heart\n")
    small = {"policy.sampling.steps": 4, "policy.sampling.batch_size": 8, "prompts.train": "p.txt", "prompts.held_out": "h.txt"}
    small |= {
        "trainer.steps": 1,
        "trainer.batch_size": 2,
        "rounds": 1,
        "k": 8,
        "evaluation.k": 1,
        "trackers": "[]",
        "output": "run",
    }
    recipe = Path(__file__).parents[2] / "configs" / "shapes" / "halving.yaml"
    assert main(["align", str(recipe), *[word for name, value in small.items() for word in (f"--{name}", str(value))]]) == 0
    samples, scores, kept = read_round(tmp_path / "run", 1)
    (row,) = read_history(tmp_path / "run")
    given_up = np.array([bool(s.meta.get("rejected")) for s in samples])
    assert row["sample/given_up"] == given_up.sum() > 0 and not kept[given_up].any() and kept.sum() == 2
    assert row["sample/evaluations"] == sum(s.meta["evaluations"] for s in samples) < 16 * 4
    assert np.isnan(scores.columns[scores.reward]).tolist() == given_up.tolist()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"
