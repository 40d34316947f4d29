"""What goes by a metric knows which way it is better, and a metric that there is not is a mistake."""

from __future__ import annotations

import pytest
import yaml

from raft_cli import main
from raft_core.config.metric_directions import directions
from raft_core.config.run_config import check
from raft_core.errors import ConfigError
from raft_core.monitoring.stopping import JudgeDrop
from raft_core.protocols import RewardInfo
from raft_core.store.checkpoint import Keep, best_checkpoint
from raft_core.store.store import read_history, read_run
from raft_core.testing import FakeReward
from raft_core.workflows.checkpoint_choice import chosen_checkpoint

FALLING = [{"round": rnd, "reward/mean": value} for rnd, value in enumerate([5.0, 3.0, 1.0, 4.0], 1)]


class Cost(FakeReward):
    """A reward of which less is better."""

    def __init__(self, name: str = "cost"):
        self.info = RewardInfo(name, higher_is_better=False)
        self.fails_on = 0


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(f"prompt {i}" for i in range(6)))
    return {
        "policy": {"class_path": "FakePolicy"},
        "reward": f"{__name__}.Cost",
        "judges": [{"class_path": f"{__name__}.Cost", "init_args": {"name": "toxicity"}}, "FakeReward"],
        "prompts": {"train": str(tmp_path / "p.txt")},
    }


def mistakes(raw):
    with pytest.raises(ConfigError) as caught:
        check(raw)
    return caught.value.mistakes


def test_the_best_round_is_the_lowest_where_lower_is_better(raw):
    checked = check(raw)
    assert checked.config.keep.best_is_highest is False
    assert chosen_checkpoint(FALLING, checked.config.keep, "best") == 2  # round 3 was drawn from the checkpoint of round 2
    assert best_checkpoint(FALLING, checked.config.keep) == 2
    assert check(raw | {"reward": "FakeReward", "judges": []}).config.keep.best_is_highest is True


@pytest.mark.parametrize(
    ("metric", "highest"),
    [
        ("reward/kept", False),
        ("reward/std_within", True),
        ("judge/toxicity", False),
        ("judge_kept/mean", True),
        ("diversity", True),
        ("kl", False),
    ],
)
def test_every_metric_has_its_own_direction(raw, metric, highest):
    assert check(raw | {"keep": {"best": metric}}).config.keep.best_is_highest is highest


def test_parts_of_a_reward_have_theirs(raw):
    parts = {"class_path": "Weighted", "init_args": {"rewards": [f"{__name__}.Cost", "FakeReward"]}}
    config = check(raw | {"reward": parts, "judges": [], "keep": {"best": "score/cost"}}).config
    assert config.keep.best_is_highest is False
    assert directions(config.scorer)["reward/mean"] is True


def test_a_judge_that_rises_where_less_is_better_ends_the_run(raw):
    raw["stop_when"] = [{"class_path": "JudgeDrop", "init_args": {"judge": "toxicity", "by": 0.1}}]
    raw["warn_when"] = [{"class_path": "JudgeDrop", "init_args": {"judge": "mean", "by": 0.1}}]
    config = check(raw).config
    history = [{"round": 1, "judge/toxicity": 0.2, "judge/mean": 0.2}, {"round": 2, "judge/toxicity": 0.9, "judge/mean": 0.9}]
    assert "toxicity rose from 0.2 in round 1 to 0.9" in config.stop_when[0](history)
    assert config.warn_when[0](history) is None


def test_a_resumed_run_goes_by_the_same_directions(raw):
    raw["stop_when"] = [{"class_path": "JudgeDrop", "init_args": {"judge": "toxicity", "by": 0.1}}, "Plateau"]
    checked = check(raw)
    assert checked.plain["keep"]["best_is_highest"] is False
    assert checked.plain["stop_when"][0]["init_args"]["higher_is_better"] is False
    again = check(checked.plain)
    assert again.plain == checked.plain
    assert again.config.stop_when == checked.config.stop_when and not again.notes[len(checked.notes) :]


def test_a_direction_that_is_given_stays_and_is_remarked_upon(raw):
    checked = check(raw | {"keep": {"best_is_highest": True}})
    assert checked.config.keep.best_is_highest is True
    assert [note for note in checked.notes if note.startswith("keep.best_is_highest is true, against the metric's own")]


def test_without_a_configuration_higher_is_better():
    assert best_checkpoint(FALLING, Keep()) == 0
    fell = [{"round": 1, "judge/gold": 0.9}, {"round": 2, "judge/gold": 0.2}]
    assert "fell" in str(JudgeDrop("gold", by=0.1)(fell))


def test_metrics_that_there_are_not_are_mistakes(raw):
    raw |= {
        "stop_when": [
            {"class_path": "JudgeDrop", "init_args": {"judge": "toxicty", "by": 1}},
            {"class_path": "Plateau", "init_args": {"metric": "reward/men"}},
        ],
        "warn_when": [{"class_path": "JudgeDrop", "init_args": {"judge": "cost", "by": 1}}],
        "keep": {"best": "judge/toxicty"},
        "k": 0,
    }
    found = mistakes(raw)
    assert "stop_when.0.judge is 'toxicty', but there is no judge of that name (did you mean 'toxicity'?)" in found
    assert "stop_when.1.metric is 'reward/men', but no round has such a metric (did you mean 'reward/mean'?)" in found
    assert any(mistake.startswith("warn_when.0.judge is 'cost', but there is no judge of that name") for mistake in found)
    assert "keep.best is 'judge/toxicty', but no round has such a metric (did you mean 'judge/toxicity'?)" in found
    assert "k is 0, but at least 1 sample per prompt is needed" in found


def test_a_judge_that_is_a_part_of_the_reward_is_measured_as_one(raw):
    raw["reward"] = {"class_path": "Weighted", "init_args": {"rewards": ["FakeReward"]}}
    raw["stop_when"] = [{"class_path": "JudgeDrop", "init_args": {"judge": "mean", "by": 1}}]
    assert "stop_when.0.judge is 'mean', which is a part of the reward and no judge" in mistakes(raw)[0]


def test_a_run_exports_its_lowest_round_and_every_figure_of_it_is_known(raw, tmp_path):
    (tmp_path / "shade.py").write_text(
        "def shade(prompts, outputs):\n    return [float(o.getpixel((0, 0))[2]) for o in outputs]\n"
    )
    raw |= {
        "policy": {"class_path": "FakePolicy", "init_args": {"modality": "image"}},
        "reward": {"class_path": f"{tmp_path}/shade.py:shade", "init_args": {"higher_is_better": False}},
        "judges": ["FakeReward"],
        "rounds": 3,
        "k": 4,
        "trainer": {"steps": 4, "optimizer": {"lr": 0.1}},
        "evaluation": {"k": 1},
        "stop_when": [],
        "trackers": [],
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(raw))
    assert main(["align", str(tmp_path / "task.yaml"), "--output", str(tmp_path / "run")]) == 0
    history = read_history(tmp_path / "run")
    means = [row["reward/mean"] for row in history]
    assert means[2] < means[1] < means[0]
    assert read_run(tmp_path / "run")["checkpoint"] == 3  # the last round was the best so far
    known = directions(check(raw).config.scorer)
    aims = ("reward/", "judge", "select/", "train/loss", "kl", "diversity", "score/")
    assert {name for name in history[0] if name.startswith(aims)} <= set(known)
