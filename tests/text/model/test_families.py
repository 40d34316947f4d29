"""Models of many families: drawn as they are scored, with the attention that they know, or refused in words."""

from __future__ import annotations

import json

import pytest
import torch
from families import FAMILIES, family

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


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - {"lfm2"}))
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


def test_layers_that_keep_a_state_are_told_before_a_weight_is_loaded(tmp_path):
    folder = family(tmp_path, "lfm2")
    (mistake,) = CausalLM(str(folder), sampling=Sampling(max_new_tokens=8)).check()
    assert "holds a Lfm2ForCausalLM, whose layers of the kind conv keep a state; only models whose every layer is" in mistake
    with pytest.raises(ModelError, match="layers of the kind conv keep a state"):
        CausalLM(str(folder), sampling=Sampling(max_new_tokens=8)).load()
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "layer_types": ["full_attention", "mamba", "linear_attention"]}))
    (mistake,) = CausalLM(str(folder), sampling=Sampling(max_new_tokens=8)).check()
    assert "layers of the kind linear_attention and mamba keep a state" in mistake


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
