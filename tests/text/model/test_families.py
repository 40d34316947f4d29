"""Models of many families: drawn as they are scored, with the attention that they know, or refused in words."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, WITH_STATE, family

from raft_core.config.run_config import check
from raft_core.errors import ModelError
from raft_core.reporter import Silent
from raft_core.sampling import requests
from raft_core.types import Prompt
from raft_core.workflows.align import align_run
from raft_text import CausalLM, Lora, Memory, Sampling

WITHOUT_SDPA = {"bloom", "mpt", "xglm", "gptoss", "gemma2", "gptneo"}
PROMPTS = [Prompt("a red cat sits"), Prompt("dog"), Prompt("what is it?")]


class Heard(Silent):
    def __init__(self):
        self.lines: list[str] = []

    def line(self, text):
        self.lines.append(text)

    warn = line


def loaded(folder, **arguments):
    policy = CausalLM(str(folder), lora=Lora(rank=2), sampling=Sampling(max_new_tokens=12, batch_size=4), **arguments)
    assert policy.check() == []
    policy.load()
    return policy


def perturb(policy):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_what_is_drawn_replays_with_the_attention_that_a_model_knows(tmp_path, name):
    policy = loaded(family(tmp_path, name))
    samples = policy.sample(requests(PROMPTS, 2, 0, 1), trace=True)
    with torch.no_grad():
        log_probs, mask = policy.step_log_probs(samples)
    for row, kept, sample in zip(log_probs, mask, samples, strict=True):
        assert torch.allclose(row[kept], sample.tensors["step_log_probs"], atol=1e-3)
    if name in WITHOUT_SDPA:
        (note,) = policy.notes()
        assert "does not know the attention 'sdpa': 'eager' takes its place" in note
        assert policy.describe()["attention"] == "eager"
        assert loaded(tmp_path, memory=Memory(attention="eager")).notes() == []
    else:
        assert policy.notes() == [] and policy.describe()["attention"] == "sdpa"


@pytest.mark.parametrize("name", ["phimoe", "llama4"])
def test_what_chooses_experts_gets_no_adapter(tmp_path, name):
    policy = loaded(family(tmp_path, name))
    assert policy.trainable() and not [each for each in policy.trainable() if ".router." in each]
    with pytest.raises(ModelError, match="'router' chooses experts"):
        CausalLM(str(tmp_path), lora=Lora(targets=["router"]), sampling=Sampling(max_new_tokens=8)).load()


@pytest.mark.parametrize("name", sorted(WITH_STATE))
def test_models_that_keep_a_state_are_drawn_by_generate(tmp_path, name):
    """Each sample by its own seed, alone as in any batch; what is drawn replays; and it can be trained."""
    policy = loaded(family(tmp_path, name))
    assert any("keeps a state of what it has read" in note for note in policy.notes())
    perturb(policy)
    asked = requests(PROMPTS, 2, 0, 1)
    samples = policy.sample(asked, trace=True)
    log_probs, mask = policy.step_log_probs(samples)
    for row, kept, sample, request in zip(log_probs.detach(), mask, samples, asked, strict=True):
        assert torch.allclose(row[kept], sample.tensors["step_log_probs"], atol=1e-3)
        (alone,) = policy.sample([request])
        assert alone.tensors["tokens"].equal(sample.tensors["tokens"])
    assert len({tuple(sample.tensors["tokens"].tolist()) for sample in samples}) == len(samples)
    before = policy.nll(samples, None)
    before.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.trainable().values())
    assert (before.detach() - policy.nll(samples, None, reference=True)).abs().max() > 1e-3  # the adapters act


def test_a_state_is_the_likeliest_tokens_of_plain_generate(tmp_path):
    """Against transformers' own greedy ``generate``, prompt by prompt."""
    folder = family(tmp_path, "jamba")
    policy = CausalLM(str(folder), lora=Lora(rank=2), sampling=Sampling(max_new_tokens=12, batch_size=4, temperature=0.0))
    policy.load()
    for sample in policy.sample(requests(PROMPTS, 1, 0, 1)):
        ids = torch.tensor([policy.encode(sample.prompt)])
        plain = policy.engine.network.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        assert sample.tensors["tokens"].tolist() == plain.tolist()


def test_layers_that_are_read_around_get_no_adapter(tmp_path):
    """Mamba reads ``dt_proj`` itself: an adapter there would act where it is folded into the weights and nowhere else."""
    policy = loaded(family(tmp_path, "mamba"))
    assert any("all-linear leaves dt_proj, out_proj out" in note for note in policy.notes())
    assert not any("dt_proj" in name or "out_proj" in name for name in policy.trainable())
    named = CausalLM(str(tmp_path), lora=Lora(targets=["dt_proj"]), sampling=Sampling(max_new_tokens=8))
    with pytest.raises(ModelError, match="reads the weights of 'dt_proj' without asking the layer"):
        named.load()


def test_a_model_that_is_not_drawn_as_it_is_trained_is_refused(tmp_path, monkeypatch):
    """Where reading at once gives other log-probs than going on step by step, what is drawn could not be trained on."""
    from raft_text.process import generated

    folder = family(tmp_path, "lfm2")
    policy = CausalLM(str(folder), lora=Lora(rank=2), sampling=Sampling(max_new_tokens=8))
    policy.load()
    read = generated.token_log_probs
    monkeypatch.setattr(generated, "token_log_probs", lambda *a, **b: [row - 0.5 for row in read(*a, **b)])
    with pytest.raises(ModelError, match=r"Lfm2ForCausalLM predicts otherwise step by step than at once \(by 0\.5 nats"):
        policy.load()


def test_a_draft_needs_a_past_that_can_be_taken_back(tmp_path):
    folder = family(tmp_path, "lfm2")
    policy = CausalLM(str(folder), lora=Lora(rank=2), sampling=Sampling(max_new_tokens=8, draft=str(folder)))
    with pytest.raises(ModelError, match=r"sampling\.draft: Lfm2ForCausalLM keeps a state"):
        policy.load()


def test_a_run_says_what_should_be_known_before_it_begins(tmp_path):
    (tmp_path / "train.txt").write_text("say one\nsay two\nsay three\n")
    folder = family(tmp_path / "model", "gemma2", tie_word_embeddings=True)
    arguments = {"model": str(folder), "sampling": {"max_new_tokens": 2}, "lora": {"rank": 2, "targets": ["lm_head", "q_proj"]}}
    raw = {
        "policy": {"class_path": "CausalLM", "init_args": arguments},
        "prompts": {"train": str(tmp_path / "train.txt"), "held_out_fraction": 0.0},
        "reward": "Length",
        "selector": "AllBest",
        "objective": "RaftPlusPlus",
        "trackers": [],
        "rounds": 1,
        "k": 2,
        "evaluation": {"k": 1, "prompts": 1},
    }
    told = Heard()
    align_run(check(raw), told, folder=tmp_path / "run")
    for message in (
        "note: selector.least is null, so of a prompt whose samples are all wrong every one is trained on",
        "Gemma2ForCausalLM does not know the attention 'sdpa': 'eager' takes its place",
        "model.embed_tokens and lm_head share their weights",
    ):
        assert any(message in line for line in told.lines), message
    settled = check(raw | {"selector": {"class_path": "AllBest", "init_args": {"least": 1.0}}})
    assert not [note for note in settled.notes if "least" in note]
