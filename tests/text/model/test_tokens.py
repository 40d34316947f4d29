"""Special tokens at which completions end, and tokens that a tokenizer has and its model has not."""

from __future__ import annotations

import json

import pytest
import torch
from families import family

from raft_core.config.run_config import check
from raft_core.conversations import response
from raft_core.errors import ConfigError, DataError, ModelError
from raft_core.sampling import requests
from raft_core.types import Prompt, Request
from raft_text import CausalLM, Lora, Sampling
from raft_text.testing import tiny_tokenizer

STOP = "<|stop|>"
BYTES = len(tiny_tokenizer())


def extended():
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [STOP]})
    return tokenizer


def policy(folder, **sampling):
    return CausalLM(str(folder), lora=Lora(rank=2), sampling=Sampling(**{"max_new_tokens": 24, "batch_size": 64} | sampling))


def loaded(folder, **sampling):
    made = policy(folder, **sampling)
    assert made.check() == []
    made.load()
    return made


# ---------------------------------------------------------------------- stop texts that are tokens


def test_a_special_token_among_the_stop_texts_ends_completions(tmp_path):
    folder = family(tmp_path, "mistral", extended())
    asked = requests([Prompt("a red cat"), Prompt("dog")], 64, 0, 1)
    free, cut = loaded(folder).sample(asked), loaded(folder, stop=[STOP, "\n\n"])
    number = cut.encode.tokenizer.convert_tokens_to_ids(STOP)
    samples, ended = cut.render(cut.sample(asked, trace=True)), 0
    for sample, other in zip(samples, free, strict=True):
        row, tokens = other.tensors["tokens"].tolist(), sample.tensors["tokens"].tolist()
        assert tokens == row[: len(tokens)] and number not in tokens[:-1]
        if number in row:
            ended += 1
            assert tokens[-1] == number and sample.meta["finish"] == "end" and STOP not in sample.output
    assert ended > 3
    log_probs, mask = cut.step_log_probs(samples)
    for row, kept, sample in zip(log_probs, mask, samples, strict=True):
        assert torch.allclose(row[kept], sample.tensors["step_log_probs"], atol=1e-3)


def test_it_is_not_drawn_before_the_minimum_length(tmp_path):
    made = loaded(family(tmp_path, "mistral", extended()), stop=[STOP], min_new_tokens=20)
    samples = made.sample(requests([Prompt("a red cat")], 64, 0, 1), trace=True)
    number = made.encode.tokenizer.convert_tokens_to_ids(STOP)
    assert all(number not in sample.tensors["tokens"][:20].tolist() for sample in samples)
    assert min(len(sample.tensors["tokens"]) for sample in samples) >= 20


@pytest.mark.parametrize("stop", [f"\n{STOP}", f"{STOP} and so on", "</s>\n"])
def test_a_stop_text_with_a_special_token_in_it_is_refused_before_a_weight_is_loaded(tmp_path, stop):
    made = policy(family(tmp_path, "mistral", extended()), stop=["fine", stop])
    (mistake,) = made.check()
    assert "is a special token, which no completion's text shows, so it would never be found: give " in mistake
    with pytest.raises(ConfigError, match="is a special token"):
        made.load()


# ---------------------------------------------------------------------- tokenizers longer than the embedding


def test_a_token_that_the_model_does_not_know_is_refused_where_it_occurs(tmp_path):
    folder = family(tmp_path / "model", "mistral", extended(), vocab_size=BYTES)
    made = loaded(folder)
    made.sample(requests([Prompt("a red cat")], 2, 0, 1))
    told = rf"has the token '<\|stop\|>' \(number {BYTES}\), but .* knows {BYTES} tokens: its tokenizer was extended"
    with pytest.raises(DataError, match=told):
        made.visible(f"a {STOP}")
    with pytest.raises(DataError, match=told):
        made.written([Request(Prompt("a"), 0, 0)], [f"yes{STOP}"])
    (tmp_path / "train.txt").write_text(f"say one\nsay {STOP} two\nsay three\n")
    raw = {
        "policy": {"class_path": "CausalLM", "init_args": {"model": str(folder), "sampling": {"max_new_tokens": 4}}},
        "prompts": {"train": str(tmp_path / "train.txt")},
        "reward": "Length",
    }
    with pytest.raises(ConfigError, match=told):
        check(raw)


def test_a_model_whose_end_of_text_it_is_is_refused(tmp_path):
    tokenizer = extended()
    tokenizer.eos_token = STOP
    folder = family(tmp_path, "mistral", tokenizer, vocab_size=BYTES, eos_token_id=None)
    with pytest.raises(ModelError, match=rf"the end-of-text token of .* has the number {BYTES}, but the model knows {BYTES}"):
        policy(folder).load()


# ---------------------------------------------------------------------- written responses


def test_a_response_that_is_null_leaves_the_word_to_the_next_column(tmp_path):
    assert response(Prompt("a", {"response": None, "completion": "b"})) == "b"
    assert response(Prompt("a", {"response": None, "completion": None})) is None
    rows = [{"prompt": "a", "response": None, "completion": "b"}, {"prompt": "c", "response": "d", "completion": None}]
    (tmp_path / "table.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    made = CausalLM(
        str(family(tmp_path / "model", "mistral")),
        lora=Lora(rank=2),
        sampling=Sampling(max_new_tokens=4),
        references=str(tmp_path / "table.jsonl"),
    )
    assert made.check() == []
    made.load()
    assert [sample.output for sample in made._references] == ["b", "d"]
