"""Rewards of text that are learned from preferences, on models of random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from raft_cli import main
from raft_core.errors import ConfigError, ModelError, RewardError
from raft_core.preferences.folder import read_recipe
from raft_core.preferences.preference import Item
from raft_core.preferences.reward import LearnedReward
from raft_core.types import Prompt, Request, Sample
from raft_text.rewards.learned import TextLearner

WORDS = ["good", "bad", "some", "other", "words", "that", "say", "little", "?"]


def write_base(folder, kind="llama", chat=False):
    """A random model in transformers' layout, without a head for classification."""
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "<end>", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", eos_token="<end>")
    if chat:
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }} <end> {% endfor %}"
    sizes = {"vocab_size": len(vocabulary), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "bert":
            model = BertForMaskedLM(BertConfig(**sizes))
        else:
            model = LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=None, eos_token_id=2))
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    logging.enable_progress_bar()
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Choices among four answers, of which one says "good"; the others say "bad"."""
    rng, rows = np.random.default_rng(0), []
    for i in range(60):
        answers = [" ".join([*rng.choice(WORDS[2:], rng.integers(1, 5)), "bad"]) for _ in range(3)]
        best = int(rng.integers(0, 4))
        answers.insert(best, " ".join([*rng.choice(WORDS[2:], 3), "good"]))
        if len(set(answers)) == 4:
            rows.append({"prompt": f"say {i}", "candidates": answers, "choice": best})
    file = tmp_path_factory.mktemp("data") / "choices.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def train(data, folder, base, *more):
    words = ["reward", "train", str(data), "--output", str(folder), "--learner.model", str(base), "--device", "cpu"]
    words += ["--fit.epochs", "4", "--fit.optimizer.lr", "0.01", "--fit.batch_size", "8", "--fit.micro_batch_size", "4"]
    return main([*words, *more])


def samples(*texts):
    return [Sample(Request(Prompt("say 1"), i, i), output=text) for i, text in enumerate(texts)]


@pytest.mark.parametrize(("kind", "rank"), [("llama", 4), ("llama", 0), ("bert", 4)])
def test_a_choice_among_four_is_learned_and_comes_back(kind, rank, base, data, tmp_path):
    base = write_base(tmp_path / "bert", "bert") if kind == "bert" else base
    assert train(data, tmp_path / "reward", base, "--learner.lora_rank", str(rank)) == 0
    recipe = read_recipe(tmp_path / "reward")
    assert recipe.training["held_out_accuracy"]["value"] > 0.6  # a coin has ¼
    assert recipe.learner["model"] == str(base.resolve())
    reward = LearnedReward(str(tmp_path / "reward"), device="cpu", batch_size=2)
    scores = reward(samples("some words good", "some words bad", "other bad", "other little words good"))
    assert min(scores[0], scores[3]) > max(scores[1], scores[2])
    weights = load_file(tmp_path / "reward" / "weights.safetensors")
    frozen = [name for name in weights if "lora" not in name and "score" not in name and "classifier" not in name]
    assert (not frozen) if (kind, rank) == ("llama", 4) else frozen  # BERT's pooler is new and learns as a whole


def test_texts_are_put_together_and_cut_at_the_beginning(base, tmp_path):
    plain = TextLearner(str(base), max_tokens=8)
    plain.load("cpu")
    (long,) = plain.encode([Item("some " * 20, "words good")])
    assert long["input_ids"] == plain.encode([Item("some " * 6, "words good")])[0]["input_ids"]
    assert len(long["input_ids"]) == 8
    chat = TextLearner(str(write_base(tmp_path / "chat", chat=True)))
    chat.load("cpu")
    (row,) = chat.encode([Item("some", "good")])
    assert row["input_ids"].count(2) == 2  # the end of each turn, by the template
    with pytest.raises(ModelError, match="no chat template"):
        TextLearner(str(base), format="chat").load("cpu")
    with pytest.raises(RewardError, match="no token to score"):
        plain.encode([Item("", "")])


def test_mistakes_are_told_before_work_starts(data, tmp_path, capsys):
    assert train(data, tmp_path / "r", tmp_path / "nothing") == 2
    assert "there is no model folder" in capsys.readouterr().err
    assert main(["reward", "train", str(data), "--output", str(tmp_path / "r"), "--device", "cpu"]) == 2
    assert "learner.model is missing" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="max_tokens is 2"):
        TextLearner("x", max_tokens=2)
