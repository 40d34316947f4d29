"""Adapters wherever they sit: what is drawn with them folded in is drawn from the weights that are trained."""

from __future__ import annotations

import pytest
import torch
from families import family

from raft_core.sampling import requests
from raft_core.testing import close
from raft_core.types import Prompt
from raft_text import CausalLM, Lora, Sampling
from raft_text.model.lora import folded
from raft_text.testing import tiny_model

PROMPTS = [Prompt("a red cat sits"), Prompt("dog")]
EXPERTS = ["mixtral", "qwen3moe", "olmoe"]


def loaded(folder, **lora):
    policy = CausalLM(str(folder), lora=Lora(rank=2, **lora), sampling=Sampling(max_new_tokens=12))
    assert policy.check() == []
    policy.load()
    with torch.no_grad():
        for number, parameter in enumerate(policy.trainable().values()):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return policy


def is_drawn_as_trained(policy):
    network = policy.engine.network
    before = dict(network.named_parameters(remove_duplicate=False))
    values = {name: parameter.clone() for name, parameter in before.items()}
    ids = torch.tensor([policy.encode("why?")])
    with torch.no_grad():
        trained = network(ids).logits
        with folded(network):
            drawn = network(ids).logits
        with policy.engine.reference():
            start = network(ids).logits
    assert torch.allclose(trained, drawn, rtol=1e-4, atol=1e-4 * trained.std())
    assert (trained - start).std() > 0.1 * trained.std()  # the adapters do something
    after = dict(network.named_parameters(remove_duplicate=False))
    assert all(after[name] is parameter and torch.equal(parameter, values[name]) for name, parameter in before.items())
    asked = requests(PROMPTS, 8, 0, 1)
    pairs = zip(policy.sample(asked), policy.sample(asked, trace=True), strict=True)
    return [torch.equal(one.tensors["tokens"], two.tensors["tokens"]) for one, two in pairs]


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("qwen2", ["lm_head"]),
        ("qwen2", ["embed_tokens"]),
        ("qwen2", ["embed_tokens", "lm_head", "q_proj"]),
        ("gpt2", ["lm_head"]),
        ("gpt2", ["wte"]),
        ("gpt2", ["wte", "lm_head", "c_attn"]),
        ("llama", ["embed_tokens", "lm_head"]),  # which are not tied
    ],
)
def test_tied_weights_are_updated_where_the_adapter_is(tmp_path, kind, targets):
    assert all(is_drawn_as_trained(loaded(tiny_model(tmp_path, kind), targets=targets)))


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_and_routers_are_folded(tmp_path, name):
    policy = loaded(family(tmp_path, name))
    assert any("experts" in parameter for parameter in policy.trainable())
    assert all(is_drawn_as_trained(policy))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers by an old name
@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning")
@pytest.mark.parametrize("name", EXPERTS)
def test_adapters_of_experts_are_what_peft_loads(tmp_path, name):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = family(tmp_path / "model", name)
    policy = loaded(folder)
    policy.save(tmp_path / "export")
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "export").eval()
    ids = torch.tensor([policy.encode("why?")])
    with torch.no_grad():
        close(theirs(ids).logits, policy.engine.network(ids).logits)
    again = CausalLM(str(folder), lora=Lora(rank=2), sampling=Sampling(max_new_tokens=12))
    again.load()
    again.load_weights(tmp_path / "export")
    assert all(torch.equal(value, policy.trainable()[key]) for key, value in again.trainable().items())
