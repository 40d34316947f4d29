"""``raft align --processes N``: the run of one process, made by several; and what is said when one of them is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from raft_cli import main
from raft_core.errors import ConfigError
from raft_core.store.checkpoint import read_tensors
from raft_core.store.store import read_history, read_round, read_run
from raft_core.testing import close

KILLER = """
import os
from raft_core.testing import FakePolicy

class Killed(FakePolicy):
    '''The second process dies in the second round, as if memory had run out.'''
    def nll(self, samples, draw, *, reference=False):
        if os.environ.get("RANK") == "1" and os.path.exists(os.environ["ROUND_ONE"]):
            print("no room left", file=__import__("sys").stderr, flush=True)
            os._exit(9)
        return super().nll(samples, draw, reference=reference)
"""


@pytest.fixture
def task(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(f"prompt {i}" for i in range(6)))
    (tmp_path / "killer.py").write_text(KILLER)
    config = {
        "policy": "FakePolicy",
        "reward": "FakeReward",
        "prompts": {"train": str(tmp_path / "p.txt")},
        "rounds": 2,
        "k": 4,
        "trainer": {"steps": 4, "batch_size": 6, "optimizer": {"lr": 0.1}},
        "evaluation": {"k": 2},
        "trackers": [],
        "stop_when": [],
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def command(words, folder: Path, launcher=(), **environment) -> subprocess.CompletedProcess:
    places = os.pathsep.join(place for place in sys.path if place)
    settings = {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": places, "ROUND_ONE": str(folder / "run/checkpoints/0001")}
    return subprocess.run(
        [sys.executable, *launcher, "-m", "raft_cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **settings, **environment},
        cwd=folder,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(task):
    done = command(["align", task / "task.yaml", "--processes", 2, "--output", task / "two"], task)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder") == 1  # one process speaks
    assert main(["align", str(task / "task.yaml"), "--output", str(task / "one")]) == 0
    assert [row["round"] for row in read_history(task / "two")] == [1, 2]
    assert read_run(task / "two")["status"] == "finished"
    for rnd in (1, 2):
        (_, scores, kept), (_, alone, kept_alone) = (read_round(task / name, rnd) for name in ("two", "one"))
        close(scores.columns["mean"], alone.columns["mean"])
        np.testing.assert_array_equal(kept, kept_alone)
        two, one = (read_tensors(task / name / f"checkpoints/000{rnd}/weights.safetensors")["mean"] for name in ("two", "one"))
        close(two, one)


@pytest.mark.slow
def test_accelerate_launch_starts_a_run(task):
    launcher = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    done = command(["align", task / "task.yaml", "--rounds", 1, "--output", task / "run"], task, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert read_run(task / "run")["status"] == "finished"


@pytest.mark.slow
def test_a_dead_process_ends_the_others_in_words_and_any_number_goes_on(task):
    killer = ["--policy", f"{task / 'killer.py'}:Killed"]
    done = command(["align", task / "task.yaml", *killer, "--processes", 2, "--output", task / "run"], task)
    assert done.returncode == 2
    assert "error: another process of this run has ended" in done.stderr
    assert "error: process 1 of 2 ended with exit status 9" in done.stderr and "no room left" in done.stderr
    assert "Traceback" not in done.stderr
    assert read_run(task / "run")["status"] == "failed"
    done = command(["resume", task / "run", "--processes", 3], task, ROUND_ONE="nowhere")
    assert done.returncode == 0, done.stderr
    assert main(["align", str(task / "task.yaml"), "--output", str(task / "one")]) == 0
    (_, _, kept), (_, _, kept_alone) = (read_round(task / name, 2) for name in ("run", "one"))
    np.testing.assert_array_equal(kept, kept_alone)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes", "0"], "--processes is 0"),
        (["--shard"], "say over how many with --processes"),
        (["--processes", "2", "--k", "0"], "k is 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_anything_starts(task, capsys, words, said):
    assert main(["align", str(task / "task.yaml"), *words]) == 2
    assert said in capsys.readouterr().err


def test_processes_do_not_start_processes(monkeypatch):
    from raft_core.machine.launch import require_launchable

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="leave it out where accelerate launch"):
        require_launchable(2)
