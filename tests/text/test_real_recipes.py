"""The recipes for real models: the same path, up to the export, on tiny random models; and what is told without network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_text_models import causal_classifier

from raft_cli import main
from raft_core.store.store import read_history, read_round

CONFIGS = Path(__file__).parents[2] / "configs" / "text"
NAMES = ("gsm8k_qwen", "gsm8k_tools", "hh_llama", "self_rewarding_qwen")
GSM8K, TOOLS, HH, SELF = (CONFIGS / f"{name}.yaml" for name in NAMES)
KINDS = ("qwen2", "llama", "gpt2")


def words(settings):
    """Settings as they are typed."""
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def answers(texts):
    return [{"question": text, "answer": f"It is <<1+1=2>>2.\n#### {1000 + number}"} for number, text in enumerate(texts)]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Problems in GSM8K's own layout."""
    monkeypatch.chdir(tmp_path)
    for name, texts in (("train", ("What?", "How many?", "How much?")), ("test", ("Why?",))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers(texts)))
    return ["--prompts.train", "train.jsonl", "--prompts.held_out", "test.jsonl", "--output", "run"]


@pytest.mark.parametrize(("recipe", "kind"), [*((GSM8K, kind) for kind in KINDS), (TOOLS, "qwen2")])
def test_a_chat_model_is_aligned_with_right_answers(recipe, kind, tiny, files, tmp_path, monkeypatch):
    # Random bytes are no answer: where a sample ends in the right one is decided here, by the file's own answers.
    right = lambda self, samples: [float(s.request.index % 2 and self.reference(s.prompt) >= 1001) for s in samples]  # noqa: E731
    monkeypatch.setattr("raft_text.reasoning.reward.AnswerReward.__call__", right)
    settings = {
        "policy.model": tiny(kind, chat=True, context=256),
        "policy.sampling.max_new_tokens": 4,
        "rounds": 1,
        "k": 4,
        "evaluation.prompts": 1,
        "trainer.batch_size": 4,
        "trackers": "[]",
    }
    assert main(["align", str(recipe), *files, *words(settings)]) == 0
    (row,) = read_history(tmp_path / "run")
    samples, _, kept = read_round(tmp_path / "run", 1)
    assert row["train/steps"] == 1 and row["reward/mean"] == pytest.approx(1 / 3)
    assert [s.request.index for s, chosen in zip(samples, kept, strict=True) if chosen] == [1, 3, 1, 3]
    assert {s.prompt.text for s, chosen in zip(samples, kept, strict=True) if chosen} == {"How many?", "How much?"}
    assert (tmp_path / "run" / "export" / "adapter_model.safetensors").is_file()
    assert ("text/turns" in row) == (recipe == TOOLS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_model_is_aligned_in_full_with_a_reward_model(kind, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {
        "policy.model": tiny(kind, context=256),
        "policy.prompting.max_tokens": 16,
        "policy.sampling.max_new_tokens": 4,
        "prompts.per_round": 2,
        "reward.model": causal_classifier(tmp_path / "rewarding"),
        "reward.max_tokens": 32,
        "trainer.mixed_precision": "no",
        "trainer.batch_size": 2,
        "rounds": 1,
        "k": 3,
        "evaluation.prompts": 1,
        "trackers": "[]",
        "output": "run",
    }
    assert main(["align", str(HH), *words(settings)]) == 0
    (row,) = read_history(tmp_path / "run")
    _, scores, kept = read_round(tmp_path / "run", 1)
    best = scores.grid(3).argmax(axis=1)
    assert row["train/steps"] == 2 and kept.reshape(2, 3)[[0, 1], best].all() and kept.sum() == 2
    assert (tmp_path / "run" / "export" / "model.safetensors").is_file()


def test_a_chat_model_judges_itself_and_learns_its_best_against_its_worst(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("What?\nHow?\nWhy?\n")
    asked = []

    def ask_all(_self, conversations):  # random bytes are no verdict: what the policy says is decided here
        asked.extend(conversations)
        return [f"Score: {1 + len(str(each)) % 10}" for each in conversations]

    monkeypatch.setattr("raft_text.rewards.self_judge.PolicyChat.ask_all", ask_all)
    settings = {
        "policy.model": tiny("qwen2", chat=True, context=256),
        "policy.sampling.max_new_tokens": 6,
        "prompts.train": "p.txt",
        "prompts.held_out_fraction": 0.34,
        "rounds": 2,
        "k": 4,
        "evaluation.prompts": 1,
        "trainer.batch_size": 2,
        "trackers": "[]",
        "output": "run",
    }
    assert main(["align", str(SELF), *words(settings)]) == 0
    rows = read_history(tmp_path / "run")
    _, scores, kept = read_round(tmp_path / "run", 1)
    grid = scores.grid(4)
    pairs = grid.max(axis=1) > grid.min(axis=1)
    assert pairs.any() and kept.sum() == 2 * pairs.sum() and rows[-1]["train/steps"] > 0 and "dpo/accuracy" in rows[-1]
    assert "How helpful" in str(asked[0]) or "how helpful" in str(asked[0])


def test_it_is_checked_up_to_the_weights_without_a_network(files, capsys):
    assert main(["plan", str(GSM8K), *files, "--no_probe"]) == 0
    assert "3 to train on" in capsys.readouterr().out


def test_missing_data_and_weights_are_told(files, capsys, monkeypatch):
    assert main(["align", str(GSM8K), *files, "--prompts.train", "tain.jsonl"]) == 2
    assert "tain.jsonl does not exist (did you mean 'train.jsonl'?)" in capsys.readouterr().err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["align", str(GSM8K), *files]) == 2
    told = capsys.readouterr().err
    assert "model: the tokenizer of Qwen/Qwen2.5-0.5B-Instruct could not be loaded" in told
    assert "give the folder of a copy" in told
    assert not Path("run").exists()
