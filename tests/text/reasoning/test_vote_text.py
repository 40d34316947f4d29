"""A language model that is asked several times, and what it says most often."""

from __future__ import annotations

import json

import yaml

from raft_cli import main

QUESTIONS = ["say one", "say two", "say three", "say four"]


def test_a_run_votes_with_its_own_reward_and_a_model_with_the_usual_one(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"question": text, "response": "####7", "solution": 7.0}) for text in QUESTIONS]
    (tmp_path / "q.jsonl").write_text("\n".join(rows) + "\n")
    arguments = {"model": str(tiny()), "lora": None, "sampling": {"max_new_tokens": 6, "temperature": 1.0}}
    raw = {
        "policy": {"class_path": "CausalLM", "init_args": arguments},
        "prompts": {"train": "q.jsonl", "held_out_fraction": 0.0},
        "judges": [{"class_path": "AnswerReward", "init_args": {"column": "solution", "name": "accuracy"}}],
        "trainer": {"steps": 12, "batch_size": 4, "optimizer": {"lr": 2e-2}},
        "evaluation": {"k": 1, "prompts": 1},
        "trackers": [],
        "output": "run",
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    assert main(["sft", "c.yaml"]) == 0
    capsys.readouterr()
    words = ["--vote", "3", "--rerank", "Length", "--rerank.unit", "characters"]
    assert main(["generate", "run", "--prompts", "q.jsonl", *words, "--output", "voted"]) == 0
    table = {line.split()[0]: line.split()[1:4] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert table["vote"] == ["3", "4", "100.0%"] and table["rerank"][:2] == ["3", "4"]
    chosen = [json.loads(line) for line in (tmp_path / "voted/chosen.jsonl").read_text().splitlines()]
    assert [row["vote"]["answer"] for row in chosen] == [7.0] * 4 and chosen[0]["reference"] == 7.0
    words = ["--policy.sampling.max_new_tokens", "4", "--vote", "2", "--voter.column", "solution", "--output", "untrained"]
    assert main(["generate", str(tiny()), "--prompts", "q.jsonl", *words]) == 0
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines() if line.startswith("vote")] == ["0.0%"]
