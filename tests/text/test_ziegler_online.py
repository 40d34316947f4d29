"""Aligning by preferences in stages, on a tiny language model: what is asked, what is learned, how it goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

from raft_cli import main
from raft_core.errors import ConfigError
from raft_core.preferences.ballots import Ballot, open_ones, read_ballots, write_ballots
from raft_core.preferences.folder import read_recipe
from raft_core.preferences.read import read_items
from raft_core.preferences.reward import LearnedReward
from raft_core.store.manifest import read_history
from raft_core.store.rounds import read_round
from raft_core.testing import close
from raft_core.types import Prompt, Request, Sample
from raft_core.workflows import online as module
from raft_core.workflows.online import OnlineSettings

GOLD = '''
def vowels(prompts, outputs):
    """Share of letters that are vowels."""
    return [sum(c in "aeiou" for c in o) / max(len(o), 1) for o in outputs]
'''
WORDS = ["--stages", "2", "--labels", "36", "--reference", "40", "--device", "cpu", "--fit.epochs", "3"]


@pytest.fixture
def place(tiny, tmp_path, monkeypatch):
    """A folder with a configuration of PPO on a tiny model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(["Once there was", "The dog", "A girl", "In the town", "My friend", "He"]))
    (tmp_path / "gold.py").write_text(GOLD)
    config = {
        "policy": {
            "class_path": "CausalLM",
            "init_args": {
                "model": str(tiny()),
                "critic": {},
                "lora": {"rank": 2},
                "device": "cpu",
                "sampling": {"max_new_tokens": 8, "batch_size": 16},
            },
        },
        "prompts": {"train": "prompts.txt", "held_out_fraction": 0.34},
        "reward": "gold.py:vowels",
        "selector": "EveryScore",
        "objective": {"class_path": "Ppo", "init_args": {"kl": {"beta": 0.15, "target": 1, "horizon": 100}}},
        "trainer": {"batch_size": 8, "optimizer": {"lr": 0.01}},
        "rounds": 3,
        "k": 4,
        "trackers": [],
        "evaluation": {"k": 2},
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def online(*words):
    return main(["reward", "online", "my.yaml", *WORDS, *map(str, words)])


def texts(folder):
    return [item.output for item in read_items(folder)]


def test_labels_are_asked_for_twice_and_the_run_follows_the_newest_reward(place, capsys):
    assert online("--output", "out") == 0
    shown = capsys.readouterr().out
    assert "right on held-out labels" in shown and "vowels (judge)" in shown
    out = place / "out"
    history = read_history(out / "run")
    assert [row["round"] for row in history] == [1, 2, 3]
    betas = [row["ppo/kl_coefficient"] for row in history]
    assert betas[0] == 0.15 and betas[1] < 0.15 and betas[2] != betas[1]  # β is adapted, across the stages too
    found = json.loads((out / "rounds.json").read_text())
    assert [row["stage"] for row in found["rounds"]] == [1, 2, 2]  # 3 rounds over 2 stages
    assert [row["labels"] for row in found["stages"]] == [18, 36]
    assert found["stages"][0]["stale"] is None and 0 <= found["stages"][1]["stale"] <= 1
    assert (out / "online.svg").read_text().startswith("<?xml")
    # Labels are the configuration's reward's, of samples that the policy drew when the stage began.
    for stage in (1, 2):
        for ballot in read_ballots(out / f"stage_{stage}" / "labels.jsonl"):
            shares = [sum(c in "aeiou" for c in text) / max(len(text), 1) for text in ballot.candidates]
            assert ballot.best == tuple(np.flatnonzero(np.array(shares) == max(shares)))
    assert read_recipe(out / "stage_2" / "reward").training["preferences"] > 18
    # Each reward has mean 0 and variance 1 on the same samples of the reference, whatever the policy has become.
    items = read_items(out / "reference")
    samples = [Sample(Request(Prompt(item.prompt), i, i), output=item.output) for i, item in enumerate(items)]
    for stage in (1, 2):
        scores = LearnedReward(str(out / f"stage_{stage}" / "reward"), device="cpu")(samples)
        assert len(scores) == 40 and abs(scores.mean()) < 1e-3 and abs(scores.std() - 1) < 1e-3
    rounds = [read_round(out / "run", rnd) for rnd in (1, 3)]
    for stage, (drawn, scored, _) in zip((1, 2), rounds, strict=True):
        learned = LearnedReward(str(out / f"stage_{stage}" / "reward"), device="cpu")(drawn)
        close(learned, scored.columns["learned"], 1e-3)
    mean = np.mean([sum(c in "aeiou" for c in text) / max(len(text), 1) for text in texts(out / "reference")])
    deviation = np.std([sum(c in "aeiou" for c in text) / max(len(text), 1) for text in texts(out / "reference")])
    assert found["rounds"][2]["gold"] == pytest.approx((history[2]["judge/vowels"] - mean) / deviation)


def test_a_killed_run_ends_as_it_would_have_and_other_settings_are_refused(place, monkeypatch, capsys):
    assert online("--output", "whole") == 0

    def killed(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "train_reward", killed)
        assert online("--output", "cut") == 130
    fit, calls = module.train_reward, []
    with monkeypatch.context() as patch:
        patch.setattr(module, "train_reward", lambda *a, **k: killed() if calls else calls.append(fit(*a, **k)))
        assert online("--output", "cut") == 130  # in its second stage
    assert online("--output", "cut") == 0
    capsys.readouterr()
    for name in ("stage_2/labels.jsonl", "stage_2/reward/weights.safetensors", "run/export/adapter_model.safetensors"):
        assert (place / "cut" / name).read_bytes() == (place / "whole" / name).read_bytes(), name
    assert online("--output", "cut", "--temperature", "1") == 2
    assert "labeller.temperature: 0.0 → 1.0" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in (place / "cut" / "run" / "rounds").rglob("*.parquet")}
    assert online("--output", "cut") == 0  # all is there already
    assert before == {path: path.stat().st_mtime_ns for path in (place / "cut" / "run" / "rounds").rglob("*.parquet")}


def test_raft_keeps_its_price_of_divergence(place, capsys):
    penalised = {"class_path": "KLPenalised", "init_args": {"reward": "gold.py:vowels", "beta": 0.1, "draws": 1}}
    without_ratios(place, reward=penalised)
    assert online("--output", "out") == 0
    assert "learned_kl (reward)" in capsys.readouterr().out
    history = read_history(place / "out" / "run")
    rounds = json.loads((place / "out" / "rounds.json").read_text())["rounds"]
    assert [row["learned"] for row in rounds] == [row["score/learned"] for row in history]
    assert history[2]["reward/mean"] != history[2]["score/learned"]
    drawn, scored, _ = read_round(place / "out" / "run", 3)
    learned = LearnedReward(str(place / "out" / "stage_2" / "reward"), device="cpu")(drawn)
    close(learned, scored.columns["learned"], 1e-3)


def test_people_are_waited_for(place, capsys):
    def fill_in(stage):
        file = place / "out" / f"stage_{stage}" / "labels.jsonl"
        ballots = read_ballots(file)
        assert list(open_ones(ballots)) == list(range(18))
        write_ballots(file, [Ballot(b.prompt, b.candidates, (i % 4,)) for i, b in enumerate(ballots)])

    for stage in (1, 2):
        assert online("--output", "out", "--person") == 0
        assert f"stage_{stage}/labels.jsonl waits for people" in capsys.readouterr().out
        assert (place / "out" / "run").exists() == (stage == 2)
        fill_in(stage)
    assert online("--output", "out", "--person") == 0
    assert "vowels" not in capsys.readouterr().out  # the configuration's reward has no say
    assert len(read_history(place / "out" / "run")) == 3
    assert {row["gold"] for row in json.loads((place / "out" / "rounds.json").read_text())["rounds"]} == {None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "1"], "rounds is 1, but there are 2 stages"),
        (["--labels", "3"], "labels is 3, but must be at least 4"),
        (["--candidates", "1"], "candidates is 1, but must be at least 2"),
        (["--temperature", "-1"], "temperature is -1"),
        (["--learner.lora_rank", "-1"], "lora_rank is -1"),
        (["--fit.epochs", "0"], "fit.epochs is 0"),
        (["--roundz", "1"], "roundz is not known"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(place, capsys, words, message):
    assert online("--output", "out", *words) == 2
    assert message in capsys.readouterr().err
    assert not (place / "out" / "reference").exists()


def without_ratios(place, **more):
    """The configuration with an objective that does not ask how likely a token was when it was drawn."""
    config = yaml.safe_load((place / "my.yaml").read_text())
    del config["policy"]["init_args"]["critic"]
    (place / "my.yaml").write_text(yaml.safe_dump(config | {"selector": "BestOfK", "objective": "Sft"} | more))


@pytest.mark.usefixtures("place")
def test_a_policy_that_says_one_thing_gives_nothing_to_choose_from(capsys):
    assert online("--output", "out", "--policy.sampling.temperature", "1e-6") == 2
    assert "hardly 4 different samples" in capsys.readouterr().err


def test_labels_and_rounds_are_spread_over_the_stages():
    settings = OnlineSettings(stages=3, labels=100)
    assert [settings.labels_until(stage) for stage in range(4)] == [0, 33, 66, 100]
    assert [settings.rounds_until(stage, 8) for stage in range(4)] == [0, 2, 5, 8]
    with pytest.raises(ConfigError, match="stages is 0"):
        OnlineSettings(stages=0)
