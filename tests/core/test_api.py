"""The front door from Python: six lines, offline, on the bundled models."""

from __future__ import annotations

import numpy as np
import pytest

import raft_core as raft
from raft_core.errors import ConfigError
from raft_core.testing import FakePolicy, FakeReward

HEARTS = ["a large red heart", "a large blue square"]
TINY = {"trainer": {"steps": 2}, "evaluation": {"k": 1}, "policy": {"sampling": {"steps": 2, "batch_size": 4}}}


def test_the_public_names_are_these():
    assert raft.__all__ == ["Comparison", "ConfigError", "Outputs", "RaftError", "Run", "align", "compare", "generate", "score"]
    assert all(hasattr(raft, name) for name in raft.__all__)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        raft.train  # noqa: B018


def test_six_lines_align_a_bundled_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = raft.align("bundled:shapes", reward="Aesthetic", prompts=HEARTS, rounds=1, k=2, progress=False, **TINY)
    assert run.status == "finished" and run.reason == "all 1 rounds are done"
    assert sorted(run.scores.columns) == sorted(["round", "prompt", "index", "seed", "aesthetic", "clip_score", "gold", "kept"])
    assert len(run.scores) == 4 and run.scores["kept"].sum() == 2 and set(run.scores["prompt"]) == set(HEARTS)
    assert run.before_after().size[0] > 100
    assert {path.name for path in run.export} >= {"pytorch_lora_weights.safetensors", "README.md"}
    assert all(path.is_file() for path in run.export)
    assert "text/html" not in run._repr_html_() and "finished" in run._repr_html_()
    assert run.report.path.is_file() and "report" in run.report._repr_html_()
    assert list(run.evaluation.table["name"][:1]) == ["aesthetic"]
    pictures = run.generate(["a large red circle"], k=2, progress=False)
    assert len(pictures) == 2 and pictures[0].size == (32, 32) and "<img" in pictures._repr_html_()
    again = raft.Run(run.folder)
    drawn = raft.generate(again, ["a large red circle"], k=2, progress=False)
    assert [np.array(a).tobytes() for a in drawn] == [np.array(b).tobytes() for b in pictures]
    found = raft.compare(again, ["a large red circle"], k=1, progress=False)
    assert set(found.table["prompts"]) == {"prompts"}
    assert capsys.readouterr().out == ""  # nothing is printed but by the reporter


def brightness(prompts, images):  # noqa: ARG001 - a reward's arguments
    return [float(np.asarray(image).mean()) for image in images]


def test_a_function_or_an_object_is_a_reward_and_an_object_a_policy(tmp_path):
    settings = {"prompts": ["a", "b"], "held_out": ["c"], "rounds": 1, "k": 2, "trainer": {"steps": 2}, "progress": False}
    run = raft.align(FakePolicy("image"), reward=brightness, judges=[FakeReward()], output=str(tmp_path / "a"), **settings)
    assert {"brightness", "mean"} <= set(run.scores.columns)
    assert set(run.evaluation.table["prompts"]) == {"train", "heldout"}
    texts = raft.align(FakePolicy("text"), reward=FakeReward(), output=str(tmp_path / "b"), **settings)
    assert "before:" in str(texts.before_after()) and "<table>" in texts.before_after()._repr_html_()


def test_scores_of_pictures_of_ones_own():
    from PIL import Image

    found = raft.score(brightness, [Image.new("RGB", (4, 4), (level,) * 3) for level in (0, 100)])
    assert found["brightness"].tolist() == [0, 100]
    with pytest.raises(ConfigError, match="3 prompts for 1 outputs"):
        raft.score(brightness, [Image.new("RGB", (4, 4))], prompts=["a", "b", "c"])
    with pytest.raises(ConfigError, match="there is no reward called 'Aestetic'"):
        raft.score("Aestetic", [])


def test_mistakes_are_those_of_a_configuration_all_at_once(tmp_path):
    with pytest.raises(ConfigError) as refused:
        raft.align(FakePolicy(), reward="Aestetic", prompts=[], rounds=0, round=3, output=str(tmp_path / "run"))
    assert [mistake.split()[0] for mistake in refused.value.mistakes] == ["round", "reward:", "rounds", "prompts:"]
    assert not (tmp_path / "run").exists()


def test_a_recipe_is_taken_and_changed():
    with pytest.raises(ConfigError, match=r"rounds is 0"):
        raft.align(config="shapes/resolution", rounds=0)
