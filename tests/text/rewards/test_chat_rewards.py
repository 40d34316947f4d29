"""Rewards that read conversations: with their roles, through their own model's template, refused in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from chat_templates import chat_model, chat_tokenizer

from raft_cli import main
from raft_core.errors import DataError
from raft_core.preferences.fit import FitSettings
from raft_core.preferences.preference import Item
from raft_core.preferences.read import read_preferences
from raft_core.preferences.train import train_reward
from raft_core.reporter import Silent
from raft_core.rewards.judge.chat import Unanswered
from raft_core.rewards.scoring import Scorer
from raft_core.types import Prompt, Request, Sample
from raft_text.rewards.learned import TextLearner
from raft_text.rewards.local_chat import LocalChat
from raft_text.rewards.reward_model import RewardModel


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


TALK = [user("a"), bot("b"), user("c")]
SYSTEM = [{"role": "system", "content": "s"}, user("a")]


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """style → folder of a random reward model with one output."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    def made(style):
        folder = tmp_path_factory.mktemp(style)
        tokenizer = chat_tokenizer(style)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=None, initializer_range=0.3, **sizes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            LlamaForSequenceClassification(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return {style: made(style) for style in ("gemma", "chatml")}


def asked(messages, text):
    return Sample(Request(Prompt("transcript", {"messages": messages}), 0, 0), output=text)


def test_a_reward_model_reads_the_conversation(judge):
    reward = RewardModel(str(judge["chatml"]), device="cpu")
    reward.load()
    text = reward._chat(reward._loaded.tokenizer, Prompt("x", {"messages": TALK}), "d")
    assert text.endswith("user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
                         "<|im_start|>assistant\nd<|im_end|>\n")  # fmt: skip
    whole, one, same = reward([asked(TALK, "d"), asked([user("c")], "d"), Sample(Request(Prompt("c"), 0, 0), output="d")])
    assert whole != one and one == pytest.approx(same, rel=1e-5)
    begun = reward([asked([user("a"), bot("an ")], "swer"), asked([user("a")], "an swer")])
    assert begun[0] == pytest.approx(begun[1], rel=1e-5)  # the beginning of an answer, and the rest of it


def test_what_its_template_refuses_is_not_scored_and_told_before(judge):
    reward = RewardModel(str(judge["gemma"]), device="cpu")
    scores = Scorer(reward)([asked(TALK, "d"), asked(SYSTEM, "d")])
    assert np.isnan(scores.columns["reward_model"]).tolist() == [False, True]
    assert "System role not supported" in scores.failures["reward_model"].first_error
    (told,) = reward.check_prompts([Prompt("x", {"messages": SYSTEM})], [])
    assert "refuses a conversation of system, user, assistant" in told
    assert reward.check_prompts([Prompt("x", {"messages": TALK})], [Prompt("y")]) == []
    assert RewardModel(str(judge["gemma"]), format="plain").check_prompts([Prompt("x", {"messages": SYSTEM})], []) == []


def test_a_reward_is_learned_of_conversations(judge, tmp_path):
    learner = TextLearner(str(judge["chatml"]), lora_rank=2)
    learner.load("cpu")
    rows = learner.encode([Item("x", "d", TALK), Item("c", "d")])
    read = [learner._loaded.tokenizer.decode(row["input_ids"]) for row in rows]
    assert "assistant\nb<|im_end|>" in read[0] and read[0].endswith("user\nc<|im_end|>\n<|im_start|>assistant\nd<|im_end|>\n")
    assert "assistant\nb" not in read[1]
    plain = TextLearner(str(judge["chatml"]), format="plain", lora_rank=0)
    plain.load("cpu")
    (row,) = plain.encode([Item("x", "d", TALK)])
    assert plain._loaded.tokenizer.decode(row["input_ids"]) == "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d"

    rows = [
        {"chosen": [*TALK[:2], user(str(n)), bot("good")], "rejected": [*TALK[:2], user(str(n)), bot("bad")]} for n in range(8)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["--learner.model", str(judge["chatml"]), "--fit.epochs", "2", "--device", "cpu", "--output", str(tmp_path / "r")]
    assert main(["reward", "train", str(tmp_path / "data.jsonl"), *words]) == 0
    assert json.loads((tmp_path / "r" / "config.json").read_text())["learner"]["chat_template_kwargs"] == {}


def test_preferences_that_a_template_refuses_are_told_before_weights_load(judge, tmp_path, monkeypatch):
    rows = [{"prompt": [*SYSTEM[:1], user(str(n))], "chosen": [bot("x")], "rejected": [bot("y")]} for n in range(4)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    preferences = read_preferences(tmp_path / "data.jsonl").preferences
    learner = TextLearner(str(judge["gemma"]))
    monkeypatch.setattr(learner, "load", lambda _: pytest.fail("weights were loaded"))
    with pytest.raises(DataError, match="refuses a conversation of system, user, assistant: System role not supported"):
        train_reward(learner, preferences, FitSettings(), tmp_path / "r", Silent())


def test_a_judge_whose_template_refuses_says_so_and_ends_as_its_template_does(tmp_path):
    chat = LocalChat(str(chat_model(tmp_path / "judge", "gemma")), max_tokens=4, device="cpu")
    refused, answered = chat.ask_all([SYSTEM, [user("a")]])
    assert isinstance(refused, Unanswered) and "System role not supported" in str(refused)
    assert not isinstance(answered, Unanswered) or "System" not in str(answered)
    assert chat._loaded.tokenizer.convert_ids_to_tokens(chat._ends) == ["<eos>", "<end_of_turn>"]
