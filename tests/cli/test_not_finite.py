"""A model that diverges, or that draws NaN now and then, as a user meets it: what is said, what is written, with which code."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from raft_cli.command import main
from raft_core.store.checkpoint import checkpoint_folder
from raft_core.store.rounds import TENSORS, round_folder
from raft_core.store.store import read_history, read_run

POLICIES = '''
import math
from dataclasses import replace
from pathlib import Path
from raft_core.errors import ModelError
from raft_core.testing import FakePolicy


class Diverging(FakePolicy):
    """Draws NaN once training has moved it further than ``limit``."""

    def __init__(self, limit: float = 0.0):
        super().__init__("image")
        self.limit = limit

    def sample(self, requests, *, purpose="use", strength=1.0, trace=False):
        drawn = super().sample(requests, purpose=purpose, strength=strength, trace=trace)
        apart = (self.mean - self._start).abs().max() > self.limit and strength > 0
        return [replace(s, tensors={"x": s.tensors["x"] * math.nan}) for s in drawn] if apart else drawn


class Overflowing(FakePolicy):
    """Every other picture has pixels that are not finite."""

    def render(self, samples):
        return [s.as_failed("pixels are not finite") if s.seed % 2 else s for s in super().render(samples)]


class Unlucky(FakePolicy):
    """Fails in comparisons, before training as after it."""

    def sample(self, requests, *, purpose="use", strength=1.0, trace=False):
        drawn = super().sample(requests, purpose=purpose, strength=strength, trace=trace)
        return [s.as_failed("bad luck") for s in drawn] if purpose == "compare" else drawn


class Unlearnable(FakePolicy):
    def nll(self, samples, draw, *, reference=False):
        return super().nll(samples, draw, reference=reference) * math.nan


class Unloadable(FakePolicy):
    """Fails, or is stopped by a signal, while it loads, when a file says so."""

    def load(self):
        if Path("fail").exists():
            raise ModelError("the weights are gone")
        if Path("signal").exists():
            raise KeyboardInterrupt
'''


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("\n".join(f"prompt {i}" for i in range(6)))
    (tmp_path / "policies.py").write_text(POLICIES)
    (tmp_path / "bright.py").write_text(
        "def bright(prompts, images):\n    return [image.getpixel((0, 0))[0] for image in images]\n"
    )
    config = {
        "policy": "policies.py:Diverging",
        "reward": "FakeReward",
        "prompts": {"train": "p.txt"},
        "rounds": 2,
        "k": 4,
        "trainer": {"steps": 4, "batch_size": 4, "optimizer": {"lr": 0.1}},
        "evaluation": {"k": 2},
        "trackers": [],
        "stop_when": [],
        "warn_when": [],
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def pictures_in(run):
    """All pictures that a run's tables hold."""
    for table in run.rglob("*.parquet"):
        for row in pq.read_table(table).to_pylist():
            for cell in (row.get("image"), row.get("before"), row.get("after")):
                if cell is not None:
                    yield Image.open(io.BytesIO(cell["bytes"]))


def test_a_run_whose_model_diverges_ends_in_words_and_exports_nothing(task, capsys):
    assert main(["align", "task.yaml", "--output", "run"]) == 2
    out, err = capsys.readouterr()
    assert "error: round 2: 20 of 20 samples failed: x are not finite" in err and "lower trainer.optimizer.lr" in err
    assert "wins" not in out and "what was made so far is kept in run" in out
    run = task / "run"
    assert read_run(run)["status"] == "failed" and "not finite" in read_run(run)["reason"]
    assert not (run / "export").exists() and not (run / "evaluation").exists()
    assert all(np.asarray(picture).any() for picture in pictures_in(run))
    assert main(["report", "run"]) == 0
    assert "The run failed" in (run / "report/index.html").read_text()
    assert main(["resume", "run"]) == 2  # the same model draws the same


def test_the_last_checkpoint_is_not_exported_when_only_its_own_samples_tell_that_it_diverged(task, capsys):
    assert main(["align", "task.yaml", "--output", "run", "--rounds", "1"]) == 2
    assert "no checkpoint of the run can be exported; after round 1: 12 of 12 samples failed" in capsys.readouterr().err
    assert not (task / "run/export").exists() and read_run(task / "run")["status"] == "failed"


@pytest.mark.usefixtures("task")
def test_weights_that_are_not_finite_are_not_drawn_from(capsys, monkeypatch):
    place = "raft_core.workflows.checkpoint_choice"
    monkeypatch.setattr(f"{place}.load_weights", lambda *parts: parts[2].mean.data.fill_(float("inf")))
    monkeypatch.setattr(f"{place}.evaluations", lambda *_: pytest.fail("drawn from"))
    assert main(["align", "task.yaml", "--output", "run", "--policy", "FakePolicy"]) == 2
    assert "no checkpoint of the run can be exported; after round 2: weights are not finite" in capsys.readouterr().err


@pytest.mark.parametrize("export", ["best", "last"])
def test_an_earlier_checkpoint_whose_samples_are_sound_is_exported_in_its_place(task, capsys, export):
    words = ["--policy", "policies.py:Diverging", "--policy.limit", "0.6", "--export", export]
    assert main(["align", "task.yaml", "--output", "run", *words]) == 0
    out = capsys.readouterr().out
    assert "the checkpoint of round 1 is exported and not that of round 2" in " ".join(out.split())
    run = read_run(task / "run")
    assert (run["status"], run["checkpoint"]) == ("finished", 1)
    exported = np.array(json.loads((task / "run/export/means.json").read_text()))
    assert 0 < np.abs(exported).max() <= 0.6
    # A run that was stopped after its comparison does not make it again.
    (task / "run/run.json").write_text(json.dumps({**run, "status": "interrupted"}))
    before = (task / "run/evaluation/train.parquet").stat().st_mtime_ns
    assert main(["resume", "run"]) == 0
    assert (task / "run/evaluation/train.parquet").stat().st_mtime_ns == before
    assert read_run(task / "run")["checkpoint"] == 1


def test_a_run_goes_on_with_what_is_sound(task, capsys):
    words = ["--policy", "policies.py:Overflowing", "--policy.modality", "image"]
    assert main(["align", "task.yaml", "--output", "run", *words]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "samples failed: pixels are not finite" in out and "training prompts, before training:" in out
    assert all(row["sample/failed"] > 0 and row["train/steps"] == 4 for row in read_history(task / "run"))
    report = (task / "run/report/index.html").read_text()
    assert "samples failed in 2 rounds, last in round 2: pixels are not finite" in report
    assert "failed: pixels are not finite" in report
    numbers = json.loads((task / "run/evaluation/evaluation.json").read_text())
    assert "pixels are not finite" in numbers["evaluations"][0]["failed"]["after training"]
    for command in (
        ["compare", "run", "--prompts", "p.txt", "--output", "compared"],
        ["generate", "run", "--prompts", "p.txt", "--k", "4", "--output", "drawn"],
        ["generate", "run", "--prompts", "p.txt", "--k", "4", "--rerank", "FakeReward", "--output", "ranked"],
        ["rescore", "run", "--reward", "bright.py:bright"],
        ["whatif", "run", "--k", "2"],
    ):
        assert main(command) == 0, command
    rows = [json.loads(line) for line in (task / "drawn/samples.jsonl").read_text().splitlines()]
    assert {bool(row["seed"] % 2) for row in rows if "failed" in row} == {True}
    assert len(list((task / "drawn").glob("*.png"))) == sum("file" in row for row in rows) > 0
    chosen = [json.loads(line) for line in (task / "ranked/samples.jsonl").read_text().splitlines()]
    assert not any(row["chosen"] for row in chosen if "failed" in row)


def test_what_fails_before_training_too_is_not_held_against_a_checkpoint(task, capsys):
    assert main(["align", "task.yaml", "--output", "run", "--policy", "policies.py:Unlucky"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "training prompts, before training: 10 of 10 samples failed: bad luck" in out and "100 %" not in out
    assert read_run(task / "run")["checkpoint"] == 2


def test_samples_that_failed_are_not_offered_for_a_choice(task):
    words = ["--policy", "policies.py:Overflowing", "--policy.modality", "image"]
    assert main(["align", "task.yaml", "--output", "run", *words]) == 0
    assert main(["generate", "run", "--prompts", "p.txt", "--k", "8", "--output", "drawn"]) == 0
    assert main(["reward", "label", "drawn", "--blank", "--candidates", "2"]) == 0
    ballots = [json.loads(line) for line in (task / "drawn/labels.jsonl").read_text().splitlines()]
    assert ballots and all(candidate.endswith(".png") for ballot in ballots for candidate in ballot["candidates"])


@pytest.mark.parametrize("words", [["generate", "run", "--prompt", "x"], ["compare", "run", "--prompts", "p.txt"]])
def test_a_model_that_draws_nothing_sound_writes_nothing(task, capsys, words):
    assert main(["align", "task.yaml", "--output", "run"]) == 2
    capsys.readouterr()
    assert main([*words, "--checkpoint", "1", "--output", "out"]) == 2
    assert "samples failed: x are not finite" in capsys.readouterr().err
    assert not (task / "out").exists()


def test_a_run_that_could_train_nothing_is_no_run_that_worked(task, capsys):
    assert main(["align", "task.yaml", "--output", "run", "--policy", "policies.py:Unlearnable", "--rounds", "1"]) == 2
    assert "nothing was trained: in all 4 steps" in capsys.readouterr().err
    assert not (task / "run/export").exists()
    assert main(["align", "task.yaml", "--output", "more", "--policy", "policies.py:Unlearnable"]) == 2
    assert "round 2, step 1" in capsys.readouterr().err  # the fifth in a row


# ---------------------------------------------------------------------- resumed


@pytest.fixture
def stopped(task):
    """A run that is done but for its comparison, and was killed."""
    assert main(["align", "task.yaml", "--output", "run", "--policy", "policies.py:Unloadable"]) == 0
    run = read_run(task / "run")
    (task / "run/run.json").write_text(json.dumps({**run, "status": "running"}))
    (task / "run/evaluation/evaluation.json").unlink()
    return task / "run"


def test_an_error_while_a_resumed_run_loads_is_noted_with_the_way_on(stopped, capsys):
    (stopped.parent / "fail").touch()
    assert main(["resume", "run"]) == 2
    out, err = capsys.readouterr()
    assert "the weights are gone" in err and "go on with: raft resume run" in out
    assert read_run(stopped)["status"] == "failed" and "the weights are gone" in read_run(stopped)["reason"]
    (stopped.parent / "fail").unlink()
    assert main(["resume", "run"]) == 0
    assert read_run(stopped)["status"] == "finished"


def test_a_signal_while_a_resumed_run_loads_is_noted_with_the_way_on(stopped, capsys):
    (stopped.parent / "signal").touch()
    assert main(["resume", "run"]) == 130
    assert "interrupted; resume with: raft resume run" in capsys.readouterr().err
    assert read_run(stopped)["status"] == "interrupted"


def test_a_signal_before_the_folder_is_taken_over_has_its_hint_too(stopped, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("raft_core.store.store.newest_whole", interrupted)
    assert main(["resume", "run"]) == 130
    assert "resume with: raft resume run" in capsys.readouterr().err
    assert read_run(stopped)["status"] == "interrupted"
    monkeypatch.undo()
    monkeypatch.chdir(stopped.parent)
    assert main(["resume", "run"]) == 0  # the lock was given back


def test_damage_that_does_not_keep_a_run_from_going_on_is_told(stopped, capsys):
    for path in (checkpoint_folder(stopped, 0) / "weights.safetensors", round_folder(stopped, 1) / TENSORS):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    assert main(["resume", "run"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "the checkpoint of the start, round 0, is damaged" in out
    assert "round 1 cannot be trained on again: latents.safetensors is damaged" in out
    assert "round 2 cannot" not in out
    assert "the checkpoint of the start, round 0, is damaged" in (stopped / "report/index.html").read_text()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")  # its generated protobuf modules
def test_tensorboard_gets_the_round_that_a_kill_swallowed(task):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ["--policy", "policies.py:Unloadable"]
    assert main(["align", "task.yaml", "--output", "run", *words]) == 0  # without a tracker: nothing is logged
    config = yaml.safe_load((task / "run/config.yaml").read_text()) | {"trackers": ["TensorBoard"]}
    assert not (task / "run/tensorboard").exists()
    (task / "run/config.yaml").write_text(yaml.safe_dump(config))
    assert main(["resume", "run", "--force"]) == 0
    events = EventAccumulator(str(task / "run/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("reward/mean")] == [1, 2]
