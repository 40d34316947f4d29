"""The whole language model with what was trained: transformers alone predicts what the policy predicts."""

from __future__ import annotations

import json

import pytest
import torch

from raft_core.sampling import requests
from raft_core.types import Prompt
from raft_text import CausalLM, Lora, Sampling


def moved(policy, size=0.1):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.engine.parameters.values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return policy


def logits(network, ids):
    with torch.no_grad():
        return network(torch.tensor([ids])).logits


@pytest.mark.parametrize(
    ("kind", "lora"),
    [
        ("llama", Lora(rank=2)),
        ("gpt2", Lora(rank=2)),
        ("qwen2", Lora(rank=2)),
        ("qwen2", Lora(rank=2, targets=["lm_head", "q_proj"])),  # shares its weights with the embedding
        ("llama", None),
    ],
)
def test_transformers_predicts_what_the_policy_predicts(load, tmp_path, kind, lora):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = moved(load(kind, lora=lora), 0.1 if lora else 0.01)
    before = {name: value.clone() for name, value in policy.engine.network.state_dict().items()}
    ids = policy.encode("say four")
    files = policy.merge(tmp_path / "whole")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in files}
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    assert type(theirs) is type(policy.engine.network)
    assert torch.allclose(logits(theirs, ids), logits(policy.engine.network, ids), atol=1e-4)
    with policy.engine.version(True):
        assert not torch.allclose(logits(theirs, ids), logits(policy.engine.network, ids), atol=1e-2)
    assert tuple(AutoTokenizer.from_pretrained(tmp_path / "whole").encode("say four")) == ids
    after = policy.engine.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)

    again = CausalLM(str(tmp_path / "whole"), lora=None, sampling=policy.sampling)  # and it is a model to go on from
    assert again.check() == []
    again.load()
    asked = requests([Prompt("say four")], 2, 0, 1)
    ours, theirs = ([s.output for s in p.render(p.sample(asked))] for p in (policy, again))
    assert ours == theirs


def test_at_other_strengths_and_precisions(load, tmp_path):
    from transformers import AutoModelForCausalLM

    policy = moved(load("llama", lora=Lora(rank=2)))
    ids = policy.encode("say four")
    for strength in (0.0, 0.5):
        policy.merge(tmp_path / str(strength), strength=strength)
    start = AutoModelForCausalLM.from_pretrained(tmp_path / "0.0")
    with policy.engine.version(True):
        assert torch.allclose(logits(start, ids), logits(policy.engine.network, ids), atol=1e-5)
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "0.5").state_dict()
    policy.merge(tmp_path / "bf16", dtype="bfloat16")
    bf16 = AutoModelForCausalLM.from_pretrained(tmp_path / "bf16", dtype="auto").state_dict()
    assert {value.dtype for value in bf16.values()} == {torch.bfloat16}
    name = "model.layers.0.self_attn.q_proj.weight"
    layer = policy.engine.network.get_submodule(name.removesuffix(".weight"))
    base, update = layer.base_layer.weight, layer.get_delta_weight("default")
    assert torch.equal(bf16[name], (base + update).bfloat16())
    assert torch.allclose(half[name], base + update / 2, atol=1e-6)


def test_nothing_in_it_tells_where_things_lay(load, tmp_path):
    policy = load("llama")
    policy.merge(tmp_path / "whole")
    told = "".join(path.read_text() for path in (tmp_path / "whole").glob("*.json"))
    assert policy.model not in told and str(tmp_path) not in told
    assert "raft.json" not in {path.name for path in (tmp_path / "whole").iterdir()}  # it is a model, not what was trained
    assert json.loads((tmp_path / "whole/config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_where_it_cannot_be_written(tmp_path):
    (mistake,) = CausalLM.merge_mistakes(tmp_path)
    assert "exists already" in mistake
    (mistake,) = CausalLM.merge_mistakes(tmp_path / "a.safetensors")
    assert "give a new folder" in mistake


@pytest.mark.filterwarnings("ignore:.*target_parameters.*")
def test_adapters_on_experts_are_merged_too(tmp_path):
    """Experts are stacked in memory and lie one by one in the files."""
    from families import family
    from transformers import AutoModelForCausalLM

    folder = family(tmp_path / "base", "mixtral")
    policy = CausalLM(str(folder), lora=Lora(rank=2), sampling=Sampling(max_new_tokens=4))
    policy.load()
    assert any("experts" in name for name in policy.engine.parameters)
    moved(policy)
    ids = policy.encode("say four")
    policy.merge(tmp_path / "whole")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    assert torch.allclose(logits(theirs, ids), logits(policy.engine.network, ids), atol=1e-4)
    with policy.engine.version(True):
        assert not torch.allclose(logits(theirs, ids), logits(policy.engine.network, ids), atol=1e-2)
