"""What docs/background/ziegler.md shows is true: its steps, shrunken, run one after the other on a tiny model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from raft_cli import main
from raft_core.evaluation.files import read_results
from raft_core.preferences.ballots import read_ballots
from raft_core.preferences.read import read_preferences

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "background" / "ziegler.md").read_text(encoding="utf-8")
RECIPE = ROOT / "configs" / "text" / "tales_preferences.yaml"
#: What makes a step of the page small enough for a test.
SHRUNKEN = {
    "generate": ["--policy.device", "cpu"],
    "label": ["--labeller", "gold.py:vowels"],
    "train": ["--fit.epochs", "2", "--device", "cpu", "--learner.lora_rank", "2"],
    "align": [
        "--rounds",
        "2",
        "--prompts.per_round",
        "4",
        "--trainer.batch_size",
        "4",
        "--trackers",
        "[]",
        "--policy.device",
        "cpu",
    ],
    "compare": [],
}


def commands(section: str) -> list[list[str]]:
    """The words of each `raft` line of a section's first block."""
    block = re.findall(r"^```bash\n(.*?)^```$", PAGE.split(f"## {section}\n")[1], re.M | re.S)[0]
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines() if line.startswith("raft ")]


def test_its_steps_lead_from_samples_to_a_win_rate(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gold.py").write_text(
        "def vowels(prompts, outputs):\n    return [sum(c in 'aeiou' for c in o) for o in outputs]\n"
    )
    (tmp_path / "my_prompts.txt").write_text("Once\nTwice\nNever\n")
    lines = [f"{name} went to the {place}" for name in ("Ann", "Bob", "Eve") for place in ("sea", "fair")]
    (tmp_path / "tales.txt").write_text("\n".join(lines))
    config = yaml.safe_load(RECIPE.read_text()) | {"reward": "gold.py:vowels", "judges": ["gold.py:vowels"]}
    config["prompts"] = {"train": "tales.txt", "held_out_fraction": 0.34}
    config["policy"]["init_args"]["model"] = str(tiny())
    config["policy"]["init_args"]["sampling"] = {"max_new_tokens": 8}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    known = {
        "bundled:tales": str(tiny()),
        "text/tales_preferences": "my.yaml",
        "bundled:prompts/tales_train.jsonl": "tales.txt",
    }
    steps = commands("Step by step")
    assert [words[0 if words[0] != "reward" else 1] for words in steps] == list(SHRUNKEN)
    for words, small in zip(steps, SHRUNKEN.values(), strict=True):
        assert main([known.get(word, word) for word in words] + small) == 0, (words, capsys.readouterr().err)
    assert len(read_preferences("candidates/labels.jsonl").preferences) == len(
        read_ballots(tmp_path / "candidates" / "labels.jsonl")
    )
    results = read_results(tmp_path / "runs" / "mine")
    assert results is not None
    (gold,) = [each for each in results.evaluations[-1].comparisons if each.name == "vowels"]
    assert gold.role == "judge" and 0 <= gold.win_rate.low <= gold.win_rate.value <= gold.win_rate.high <= 1
    shown = capsys.readouterr().out
    assert "learned (reward)" in shown and "vowels (judge)" in shown and "wins" in shown


def test_its_ballot_is_one(tmp_path):
    (example,) = re.findall(r"^```json\n(.*?)\n```$", PAGE, re.M | re.S)
    row = json.loads(example) | {"candidates": list("abcd")}
    (tmp_path / "labels.jsonl").write_text(json.dumps(row))
    assert read_ballots(tmp_path / "labels.jsonl")[0].best == ()


@pytest.mark.parametrize("words", commands("Offline and online"), ids=" ".join)
def test_its_commands_of_stages_are_taken(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--candidates", "1"]) == 2
    error = capsys.readouterr().err
    assert "candidates is 1" in error or "my.yaml" in error
    assert "is not known" not in error
