"""On-policy distillation: the divergence from a teacher, who it may be, and a student that comes nearer to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import yaml

from raft_cli import main
from raft_core.capabilities import RunPlans
from raft_core.errors import ConfigError, ModelError
from raft_core.sampling import requests
from raft_core.store.store import read_history, read_round
from raft_core.testing import close
from raft_core.types import Prompt, Weighted
from raft_text import CausalLM, Lora, Sampling
from raft_text.distillation import Distillation, jensen_shannon
from raft_text.from_teacher import FromTeacher
from raft_text.model.loading import load_model
from raft_text.rewards.length import Length

PROMPTS = [Prompt("abc"), Prompt("a longer one")]


def every(samples):
    return Weighted(np.arange(len(samples)), np.ones(len(samples)))


def losses(objective, policy, samples):
    return objective(policy, samples, every(samples), [0] * len(samples))


@pytest.mark.parametrize(("beta", "expected"), [(0.0, 0.14384), (1.0, 0.13081), (0.5, 0.033822)])
def test_the_divergences_are_those_derived_by_hand(beta, expected):
    """P = (½, ½), Q = (¾, ¼); between them M = (⅝, ⅜), and half of ½·ln ⅘ + ½·ln 4/3 plus half of ¾·ln 6/5 + ¼·ln ⅔."""
    teacher, policy = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
    assert jensen_shannon(teacher, policy, beta).item() == pytest.approx(expected, rel=1e-4)


def test_the_ends_are_what_the_middle_tends_to():
    generator = torch.Generator().manual_seed(0)
    teacher, policy = torch.randn(2, 3, 7, generator=generator, dtype=torch.float64).log_softmax(dim=-1)
    near = 1e-5
    assert torch.allclose(jensen_shannon(teacher, policy, near) / near, jensen_shannon(teacher, policy, 0), rtol=1e-3)
    assert torch.allclose(jensen_shannon(teacher, policy, 1 - near) / near, jensen_shannon(teacher, policy, 1), rtol=1e-3)


def test_a_token_that_one_side_cannot_say_gives_finite_losses_and_gradients():
    teacher = torch.tensor([[0.0, -math.inf]])
    logits = torch.zeros(1, 2, requires_grad=True)
    value = jensen_shannon(teacher, logits.log_softmax(dim=-1), 0)
    value.sum().backward()
    assert value.item() == pytest.approx(math.log(2)) and logits.grad.tolist() == [[-0.5, 0.5]]


@pytest.mark.parametrize("average", ["actions", "samples"])
def test_the_loss_is_that_of_two_plain_models(load, tiny, average):
    """Against transformers' own forward, one prompt and completion at a time; the divergence at temperature 2, forward."""
    policy = load()
    objective = Distillation(str(tiny(seed=1)), beta=0, temperature=2, average=average)
    assert objective.suits(policy) == []
    objective.attach(policy)
    samples = policy.sample(requests(PROMPTS, 2, 0, 1))
    found = losses(objective, policy, samples)
    models = [load_model(str(tiny(seed=seed)), torch.float32) for seed in (1, 0)]
    for sample, value in zip(samples, found, strict=True):
        prompt, tokens = policy.encode(sample.prompt), sample.tensors["tokens"]
        ids = torch.tensor([[*prompt, *tokens.tolist()]])
        with torch.no_grad():
            sides = [(model(ids).logits[0, len(prompt) - 1 : -1] / 2).log_softmax(-1) for model in models]
        terms = (sides[0].exp() * (sides[0] - sides[1])).sum(-1)
        close(value.detach(), terms.sum() if average == "actions" else terms.mean())
    lengths = sum(len(sample.tensors["tokens"]) for sample in samples)
    assert objective.divisor(samples, every(samples)) == (lengths if average == "actions" else len(samples))


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_from_oneself_there_is_nothing_to_learn(load, tiny, beta):
    policy = load()
    objective = Distillation(str(tiny()), beta=beta)
    objective.attach(policy)
    samples = policy.sample(requests(PROMPTS, 2, 0, 1))
    found = losses(objective, policy, samples)
    found.sum().backward()
    assert found.abs().max() < 1e-5
    assert all(p.grad.abs().max() < 1e-4 for p in policy.trainable().values() if p.grad is not None)


def test_a_weight_scales_a_sample(load, tiny):
    policy = load()
    objective = Distillation(str(tiny(seed=1)))
    objective.attach(policy)
    samples = policy.sample(requests(PROMPTS, 1, 0, 1))
    weighted = objective(policy, samples, Weighted(np.array([1, 0]), np.array([2.0, 0.5])), [0, 0])
    close(weighted.detach(), losses(objective, policy, samples).detach()[[1, 0]] * torch.tensor([2.0, 0.5]))


@pytest.fixture
def recipe(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    raw = {
        "policy": {
            "class_path": "CausalLM",
            "init_args": {"model": str(tiny()), "lora": {"rank": 4}, "sampling": {"max_new_tokens": 6, "batch_size": 8}},
        },
        "prompts": {"train": "prompts.txt"},
        "reward": "Length",
        "selector": {"class_path": "AtLeast", "init_args": {"score": 0}},
        "objective": {"class_path": "Distillation", "init_args": {"teacher": str(tiny(seed=1))}},
        "trainer": {"batch_size": 8, "epochs": 4, "optimizer": {"lr": 2e-2}},
        "rounds": 3,
        "k": 4,
        "stop_when": [],
        "evaluation": {"k": 1, "prompts": 1},
        "trackers": [],
        "output": "run",
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path


def test_a_student_comes_nearer_to_its_teacher_and_can_teach_in_turn(recipe, tiny):
    assert main(["align", "c.yaml"]) == 0
    rows = read_history(recipe / "run")
    assert rows[-1]["train/loss_last"] < 0.7 * rows[0]["train/loss_first"]
    _, _, kept = read_round(recipe / "run", 1)
    assert kept.all()
    student = CausalLM(str(tiny()), lora=Lora(rank=4), sampling=Sampling(max_new_tokens=6, batch_size=8))
    student.load()
    student.load_weights(recipe / "run" / "export")
    samples = student.sample(requests(PROMPTS, 2, 0, 1))
    for place in ("run", "run/export"):  # it says the same as what it was exported as
        objective = Distillation(place, beta=1)
        assert objective.suits(student) == []
        objective.attach(student)
        assert losses(objective, student, samples).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ("absent/folder/here", "objective.teacher: absent/folder/here does not exist"),
        ("bundled:tals", "objective.teacher: no bundled language model is called 'tals'"),
        ("bundled:tales", "has another tokenizer than the policy's model"),
    ],
)
def test_a_teacher_that_cannot_teach_is_told_before_weights_load(recipe, teacher, told, capsys, monkeypatch):
    from raft_text.model import loading

    monkeypatch.setattr(loading, "load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    assert main(["align", "c.yaml", "--objective.teacher", teacher]) == 2
    assert told in capsys.readouterr().err and not (recipe / "run").exists()


def test_a_hubs_teacher_is_compared_before_its_weights_load(load, monkeypatch):
    from raft_text.model import loading

    policy = load()
    objective = Distillation("org/name")
    assert objective.suits(policy) == []
    place = loading.locate("bundled:tales")[1]
    monkeypatch.setattr(loading, "locate", lambda name: ("hub", place if name == "org/name" else name))
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(ModelError, match="has another tokenizer than the policy's model"):
        objective.attach(policy)


def test_a_policy_of_pictures_is_refused():
    from raft_diffusion import StableDiffusion

    (told,) = Distillation("bundled:sums").suits(StableDiffusion("bundled:shapes"))
    assert "which the policy StableDiffusion does not write" in told


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError) as told:
        Distillation("bundled:sums", beta=1.5, temperature=0, average="tokens")  # type: ignore[arg-type] - as typed
    assert len(told.value.mistakes) == 3


def test_the_teacher_writes_its_share(load, tiny):
    """Its samples are the tokens that it would draw itself; the others are the policy's own; traced, all are the policy's."""
    policy, other = load(), CausalLM(str(tiny(seed=1)), lora=None, sampling=Sampling(max_new_tokens=8, batch_size=4))
    other.load()
    source = FromTeacher(str(tiny(seed=1)), share=0.5)
    assert source.check_run(RunPlans(policy, Length(), PROMPTS, 8, True)) == []
    source.attach(policy)
    asked = source.requests(PROMPTS, 8, 0, 1)
    samples = source.samples(policy, asked, trace=True)
    assert [sample.request for sample in samples] == asked
    by = [sample.meta.get("teacher") is not None for sample in samples]
    assert 2 < sum(by) < 14
    for model, chosen in ((other, True), (policy, False)):
        expected = model.sample([r for r, b in zip(asked, by, strict=True) if b == chosen])
        drawn = [s for s, b in zip(samples, by, strict=True) if b == chosen]
        assert all(s.tensors["tokens"].equal(e.tensors["tokens"]) for s, e in zip(drawn, expected, strict=True))
    replayed, _ = policy.step_log_probs(samples)
    for sample, row in zip(samples, replayed.detach(), strict=True):
        close(sample.tensors["step_log_probs"], row[: len(sample.tensors["tokens"])])


def test_an_objective_and_a_source_share_their_teacher(recipe, tiny):
    from raft_text.model import loading

    with pytest.MonkeyPatch.context() as patch:
        asked = []
        load_model = loading.load_model
        patch.setattr(
            loading, "load_model", lambda model, *rest, **more: asked.append(model) or load_model(model, *rest, **more)
        )
        words = ["--samples", "FromTeacher", "--samples.teacher", str(tiny(seed=1)), "--rounds", "1"]
        assert main(["align", "c.yaml", *words]) == 0
    assert asked.count(str(tiny(seed=1))) == 1
    samples, _, _ = read_round(recipe / "run", 1)
    assert all(sample.meta["teacher"] == str(tiny(seed=1)) for sample in samples)
