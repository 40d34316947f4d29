"""The recipes of other methods on the bundled pictures: each runs, shrunken, with the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft_cli import main
from raft_core.store.store import read_history, read_round

CONFIGS = Path(__file__).parents[2] / "configs" / "shapes"
SHRUNKEN = {
    "policy.sampling.steps": 3,
    "prompts.per_round": 3,
    "trackers": "[]",
    "rounds": 2,
    "k": 4,
    "evaluation.k": 1,
    "evaluation.prompts": 1,
    "output": "run",
}


@pytest.mark.parametrize(
    ("name", "settings", "kept", "metrics"),
    [
        ("dpo", {"trainer.steps": 2, "trainer.batch_size": 3}, 6, {"dpo/accuracy", "dpo/margin"}),
        ("dpo", {"trainer.steps": 2, "trainer.batch_size": 3, "trainer.reference.every": 1}, 6, {"dpo/accuracy"}),
        ("ddpo", {"trainer.batch_size": 12, "trainer.micro_batch_size": 6}, 12, {"policy/clip_fraction"}),
        ("ddpo", {"trainer.batch_size": 12, "objective.beta": 1.0, "objective.kl": "prediction"}, 12, {"policy/kl"}),
        ("kto", {"trainer.steps": 2, "trainer.batch_size": 4}, 12, {"kto/margin", "kto/accuracy", "kto/point"}),
        ("boltzmann", {"trainer.steps": 2, "trainer.batch_size": 4}, 12, {"select/effective_samples"}),
    ],
    ids=["dpo", "iterative dpo", "ddpo", "ddpo near the start", "kto", "boltzmann"],
)
def test_a_recipe_is_the_same_loop_with_other_parts(name, settings, kept, metrics, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word for key, value in {**SHRUNKEN, **settings}.items() for word in (f"--{key}", str(value))]
    assert main(["align", str(CONFIGS / f"{name}.yaml"), *words]) == 0
    history = read_history(tmp_path / "run")
    for row in history:
        assert row["train/steps"] > 0 and set(row) >= metrics and row["train/skipped_steps"] == 0
        assert row.get("policy/replay_error", 0) < 1  # nats, of 768 elements
    assert read_round(tmp_path / "run", 1)[2].sum() == kept
