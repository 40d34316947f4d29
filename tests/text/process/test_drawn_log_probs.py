"""Ratios and divergences are of the distribution that completions are drawn from, and the likelihood is the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raft_core.config.run_config import check
from raft_core.errors import ConfigError
from raft_core.metrics.divergence import kl_to_reference, log_ratios
from raft_core.objectives.policy_gradient import PolicyGradient
from raft_core.objectives.raft_plus_plus import RaftPlusPlus
from raft_core.sampling import requests
from raft_core.testing import close
from raft_core.types import Advantages, Prompt, Request, Sample, Weighted
from raft_text.options import Sampling
from raft_text.process.token_choice import Picker

PROMPTS = [Prompt("a red cat sits"), Prompt("dog"), Prompt("what is it?")]
KINDS = ("llama", "gpt2", "qwen2")


def perturb(policy, size=0.3):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return policy


def next_logits(policy, prompt, *, reference=False):
    """[V] float64, of the first token, by the network alone."""
    with torch.no_grad(), policy.engine.version(reference):
        return policy.engine.network(torch.tensor([policy.encode(prompt.text)])).logits[0, -1].double()


def every_first_token(prompt, log_probs):
    """One-token completions, all that there are, as if drawn under these log-probs [V]."""
    mask = torch.ones(1, dtype=torch.bool)
    return [
        Sample(
            Request(prompt, 0, token),
            tensors={"tokens": torch.tensor([token]), "step_log_probs": row[None].float(), "step_mask": mask},
        )
        for token, row in enumerate(log_probs)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_replayed_is_what_was_drawn_from(load, kind):
    settings = {"temperature": 0.7, "repetition_penalty": 1.6, "min_new_tokens": 4, "max_new_tokens": 12}
    policy = perturb(load(kind, sampling=settings))
    policy.engine.ends = tuple(range(0, 250, 2))  # so that a minimum length bars half of all tokens
    samples = policy.sample(requests(PROMPTS, 4, 0, 1), trace=True)
    assert len({len(sample.tensors["tokens"]) for sample in samples}) > 1
    with torch.no_grad():
        replayed, mask = policy.step_log_probs(samples)
        own = policy.token_log_probs(samples)[0]
    for row, other, kept, sample in zip(replayed, own, mask, samples, strict=True):
        close(row[kept], sample.tensors["step_log_probs"])
        assert (row - other)[kept].abs().max() > 0.1


def test_log_probs_are_those_of_the_softmax_at_the_temperature_and_the_likelihood_at_one(load):
    policy = load(sampling={"temperature": 0.7, "max_new_tokens": 1})
    samples = policy.sample(requests(PROMPTS[:1], 8, 0, 1), trace=True)
    logits, tokens = next_logits(policy, PROMPTS[0]), [int(s.tensors["tokens"]) for s in samples]
    expected = (logits / 0.7).log_softmax(dim=-1)[tokens].tolist()
    assert [float(s.tensors["step_log_probs"]) for s in samples] == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        assert policy.step_log_probs(samples)[0][:, 0].tolist() == pytest.approx(expected, rel=1e-4)
        assert policy.nll(samples, None).tolist() == pytest.approx((-logits.log_softmax(dim=-1)[tokens]).tolist(), rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.3])
def test_rewards_of_pure_noise_move_nothing_at_any_temperature(load, temperature):
    """Σ p ∇ log p = 0: the mean update over everything that could be drawn, each with the same reward."""
    policy = load("gpt2", lora=None, sampling={"temperature": temperature, "max_new_tokens": 1})
    log_probs = (next_logits(policy, PROMPTS[0]) / temperature).log_softmax(dim=-1)
    samples, chance = every_first_token(PROMPTS[0], log_probs), log_probs.exp().numpy()
    index = np.arange(len(samples))
    for losses in (
        RaftPlusPlus()(policy, samples, Weighted(index, chance), index.tolist()),
        PolicyGradient()(policy, samples, Advantages(index, chance), index.tolist()),
    ):
        for parameter in policy.trainable().values():
            parameter.grad = None
        losses.sum().backward(retain_graph=True)
        together = torch.cat([p.grad.flatten() for p in policy.trainable().values() if p.grad is not None])
        losses[int(chance.argmax())].backward()
        alone = torch.cat([p.grad.flatten() for p in policy.trainable().values() if p.grad is not None]) - together
        assert together.norm() < 1e-4 * alone.norm()


@pytest.mark.parametrize("sampling", [{"temperature": 0.5}, {"temperature": 2.0, "repetition_penalty": 1.3}])
def test_the_divergence_is_that_of_what_is_sampled(load, sampling):
    policy = perturb(load(sampling={**sampling, "max_new_tokens": 1}))
    picker = Picker(policy.sampling, policy.engine.ends)
    prompt = policy.encode(PROMPTS[1].text)
    logits = [next_logits(policy, PROMPTS[1], reference=reference)[None] for reference in (False, True)]
    now, start = (picker.shaped(each, prompt, torch.tensor([0])).log_softmax(dim=-1)[0] for each in logits)
    expected = float((now.exp() * (now - start)).sum())
    ratios = log_ratios(policy, every_first_token(PROMPTS[1], now), (0, "kl"))
    assert float(now.exp().numpy() @ ratios) == pytest.approx(expected, rel=1e-3) and expected > 0.1
    if "repetition_penalty" not in sampling:
        by_hand = [(each[0] / 0.5).log_softmax(dim=-1) for each in logits]
        assert expected == pytest.approx(float((by_hand[0].exp() * (by_hand[0] - by_hand[1])).sum()), rel=1e-3)


@pytest.mark.parametrize("cut", [{"top_k": 7}, {"top_p": 0.6}, {"top_k": 20, "top_p": 0.8}])
def test_where_tokens_are_cut_off_it_is_that_of_the_others(load, cut):
    policy = load(sampling={"temperature": 0.8, "max_new_tokens": 1, **cut})
    samples = policy.sample(requests(PROMPTS, 4, 0, 1))
    assert kl_to_reference(policy, samples, 0) == 0  # before training
    perturb(policy)
    now, start = (next_logits(policy, PROMPTS[1], reference=reference) / 0.8 for reference in (False, True))
    left = Picker(policy.sampling, policy.engine.ends).kept(now[None], now.argmax()[None])[0]
    now, start = (side.masked_fill(~left, -torch.inf).log_softmax(dim=-1) for side in (now, start))
    drawn = [sample for sample, row in zip(every_first_token(PROMPTS[1], now), left, strict=True) if row]
    ratios = log_ratios(policy, drawn, (0, "kl"))
    assert ratios.tolist() == pytest.approx((now - start)[left].tolist(), rel=1e-3, abs=1e-4)
    assert 1 < left.sum() < 40 and float(now[left].exp().numpy() @ ratios) > 0
    # And one that was drawn otherwise, as a person's text may be, has a ratio all the same.
    assert np.isfinite(log_ratios(policy, policy.written([Request(PROMPTS[0], 0, 0)], ["Hello, world!"]), (0, "kl"))).all()


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"top_k": 40}, r"sampling.top_k is 40, but the objective weighs how likely"),
        ({"top_k": 40, "top_p": 0.9}, r"sampling.top_k is 40 and sampling.top_p is 0.9, but"),
        ({"temperature": 0.0}, r"sampling.temperature is 0, which takes the likeliest token"),
    ],
)
def test_what_cannot_be_replayed_is_refused_before_a_weight_is_loaded(tiny, load, tmp_path, sampling, message):
    (tmp_path / "train.txt").write_text("say one\nsay two\nsay three\n")
    raw = {
        "policy": {
            "class_path": "CausalLM",
            "init_args": {"model": str(tiny()), "sampling": {"max_new_tokens": 4, **sampling}},
        },
        "prompts": {"train": str(tmp_path / "train.txt")},
        "reward": "Length",
    }
    for parts in (
        {"selector": "AllBest", "objective": "RaftPlusPlus"},
        {"selector": "ReinforceRej", "objective": "PolicyGradient"},
    ):
        with pytest.raises(ConfigError, match=message):
            check(raw | parts)
    check(raw)  # the likelihood of what was kept asks for no ratio
    policy = load(sampling=sampling)
    policy.sample(requests(PROMPTS, 1, 0, 1))
    with pytest.raises(ConfigError, match=message):
        policy.sample(requests(PROMPTS, 1, 0, 1), trace=True)


def test_the_likeliest_of_all_have_the_models_own_log_ratios(load):
    policy = perturb(load(sampling={"temperature": 0.0}))
    samples = policy.sample(requests(PROMPTS, 1, 0, 1))
    with torch.no_grad():
        own = policy.nll(samples, None, reference=True) - policy.nll(samples, None)
    assert log_ratios(policy, samples, (0,)).tolist() == pytest.approx(own.tolist(), rel=1e-4, abs=1e-4)


def test_what_occurred_before_is_penalised_and_what_was_early_barred():
    """Prompt 0 1, completion 2 1: the first logits punish 0 and 1, the second 2 too; 3 ends and is barred at first."""
    picker = Picker(Sampling(temperature=0.5, repetition_penalty=2.0, min_new_tokens=1), ends=[3])
    logits = torch.tensor([[1.0, -1.0, 1.0, 1.0]] * 2)
    shaped = picker.shaped(logits, [0, 1], torch.tensor([2, 1]))
    assert shaped.tolist() == [[1.0, -4.0, 2.0, -torch.inf], [1.0, -4.0, 1.0, 2.0]]
    assert picker.shaped(logits[:1], [0, 1], torch.tensor([3]))[0, 3] == 2  # that it is there has shown that it can be
