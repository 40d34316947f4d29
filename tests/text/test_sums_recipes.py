"""The recipes on word problems are one loop with other parts: each runs, shrunken, on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raft_cli import main
from raft_core.store.store import read_history, read_round

CONFIGS = Path(__file__).parents[2] / "configs" / "text"
RECIPES = (
    "sft",
    "offline_st",
    "online_st",
    "raft",
    "adaptive",
    "process",
    "conditioned",
    "reft",
    "choice",
    "dpo",
    "grpo",
    "kto",
    "orpo",
    "rrhf",
    "bonbon",
    "boltzmann",
    "rest",
    "distill",
    "calculator",
)


@pytest.fixture
def shrunken(tiny, tmp_path, monkeypatch):
    """Arguments that put a tiny model and four problems in a recipe's place."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"question": f"{n}?", "answer_value": "2", "response": "Therefore, the answer is: 2"}
        | {"question_choices": f"{n}? (A) 2 (B) 3", "answer_letter": "A"}
        for n in range(5)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:4]))
    (tmp_path / "others.jsonl").write_text(json.dumps(rows[4]) + "\n")
    settings = {
        "policy.model": tiny(),
        "policy.sampling.max_new_tokens": 6,
        "policy.sampling.batch_size": 8,
        "policy.prompting.template": "{prompt}",
        "prompts.train": "sums.jsonl",
        "prompts.held_out": "others.jsonl",
        "prompts.per_round": 4,
        "trainer.batch_size": 4,
        "trackers": "[]",
        "evaluation.prompts": 1,
        "rounds": 1,
        "output": "run",
    }
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_same_loop_with_other_parts(name, shrunken, tiny, tmp_path, monkeypatch):
    # Six random bytes are no answer; so that something is selected, every other one counts as right.
    alternating = lambda _self, samples: [float(i % 2) for i in range(len(samples))]  # noqa: E731
    monkeypatch.setattr("raft_text.reasoning.reward.AnswerReward.__call__", alternating)
    if name == "distill":
        shrunken += ["--objective.teacher", str(tiny(seed=1))]
    assert main(["sft" if name == "sft" else "align", str(CONFIGS / f"sums_{name}.yaml"), *shrunken]) == 0
    (row,) = read_history(tmp_path / "run")
    _, scores, kept = read_round(tmp_path / "run", 1)
    assert row["train/steps"] > 0 and "judge/accuracy" in row
    if name in ("dpo", "orpo"):
        assert kept.sum() == 8 and set(row) >= {f"{name}/accuracy"}
    elif name in ("grpo", "kto", "rrhf", "bonbon", "boltzmann"):
        assert kept.all() and row.get("policy/replay_error", 0) < 1e-3
        assert name != "boltzmann" or 4 < row["select/effective_samples"] < 5  # four of eight are right
        assert name != "kto" or set(row) >= {"kto/margin", "kto/accuracy"}
    elif name in ("reft", "choice"):
        assert kept.all() and {"ppo/kl", "ppo/value_loss"} <= set(row)
    elif name == "distill":
        assert kept.all() and kept.sum() == 8
    elif name == "conditioned":
        assert kept.all() and row["conditioned/best_fraction"] == 0.5
    elif name == "sft":
        assert kept.all() and row["reward/mean"] == 1
    else:
        right = scores.columns["answer" if name == "process" else scores.reward]
        assert (right[kept] == 1).all() and kept.sum() == {
            "offline_st": 16,
            "online_st": 8,
            "raft": 4,
            "adaptive": 4,
            "process": 4,
            "rest": 16,
            "calculator": 4,
        }[name]
    assert ("text/turns" in row) == (name == "calculator")


def test_a_student_learns_the_right_solutions_of_a_run(shrunken, tmp_path, monkeypatch):
    alternating = lambda _self, samples: [float(i % 2) for i in range(len(samples))]  # noqa: E731
    monkeypatch.setattr("raft_text.reasoning.reward.AnswerReward.__call__", alternating)
    assert main(["align", str(CONFIGS / "sums_raft.yaml"), *shrunken]) == 0
    words = [*shrunken[:-1], "student", "--samples.run", "run", "--evaluation.prompts", "1"]
    assert main(["align", str(CONFIGS / "sums_distilled.yaml"), *words]) == 0
    drawn, _, chosen = read_round(tmp_path / "run", 1)
    samples, scores, kept = read_round(tmp_path / "student", 1)
    winners = {(s.prompt.text, s.output.strip()) for s, each in zip(drawn, chosen, strict=True) if each}
    assert {(s.prompt.text, s.output.strip()) for s in samples} <= winners and kept.all()
    assert (scores.columns["given"] == 1).all()
    (row,) = read_history(tmp_path / "student")
    assert row["train/steps"] > 0 and "judge/accuracy" in row
