"""Offline learning from a table of preferences or labels: the recipe on a tiny model, by every loss that takes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raft_cli import main
from raft_core.store.store import read_history, read_round

RECIPE = Path(__file__).parents[2] / "configs" / "text" / "sums_offline_dpo.yaml"
PAIRS = [
    {"prompt": f"say {word}", "chosen": "abab", "rejected": "ba", "answer_value": "2"}
    for word in ("one", "two", "three", "four")
]
LABELS = [
    {"prompt": p["prompt"], "completion": p[side], "label": side == "chosen", "answer_value": "2"}
    for p in PAIRS
    for side in ("chosen", "rejected")
]
METHODS = {
    "dpo": (PAIRS, []),
    "orpo": (PAIRS, ["--objective", "Orpo"]),
    "kto": (PAIRS, ["--objective", "Kto", "--selector.class_path", "ThresholdLabels", "--selector.score", "1"]),
    "kto of labels": (LABELS, ["--objective", "Kto", "--selector.class_path", "ThresholdLabels", "--selector.score", "1"]),
}


@pytest.mark.parametrize("name", METHODS)
def test_what_is_preferred_gets_likelier_than_what_is_not(name, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, words = METHODS[name]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "held.jsonl").write_text(json.dumps({"question": "say five", "answer_value": "2"}) + "\n")
    settings = {
        "policy.model": tiny(),
        "policy.sampling.max_new_tokens": 6,
        "policy.prompting.template": "{prompt}",
        "prompts.train": "t.jsonl",
        "prompts.held_out": "held.jsonl",
        "samples.table": "t.jsonl",
        "trainer.optimizer.lr": 0.02,
        "trainer.batch_size": 4,
        "trainer.epochs": 3,
        "rounds": 2,
        "evaluation.prompts": 1,
        "trackers": "[]",
        "output": "run",
    }
    given = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    assert main(["align", str(RECIPE), *given, *words]) == 0
    samples, scores, kept = read_round(tmp_path / "run", 2)
    assert kept.all() and sorted(s.output for s in samples) == ["abab"] * 4 + ["ba"] * 4
    assert scores.columns["given"].tolist() == [float(s.output == "abab") for s in samples]
    first, last = read_history(tmp_path / "run")
    loss = name.split()[0]
    assert last[f"{loss}/accuracy"] >= first[f"{loss}/accuracy"] and last["train/loss_last"] < first["train/loss_first"]
