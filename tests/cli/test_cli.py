"""The command line as a user meets it: what it prints, what it writes, with which code it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from raft_cli.command import COMMANDS, SUBCOMMANDS, main
from raft_cli.list import setting
from raft_core.config import listing
from raft_core.config.listing import public_names
from raft_core.config.recipes import recipe_folders
from raft_core.prompts import read_prompts
from raft_core.sampling import requests
from raft_core.store.checkpoint import load_weights
from raft_core.store.store import read_history, read_run
from raft_core.terminal.outcome import guarded
from raft_core.testing import FakePolicy

WIDTH = 80


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A configuration of a fake policy, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("\n".join(f"prompt {i}" for i in range(6)))
    config = {
        "policy": {"class_path": "FakePolicy", "init_args": {"modality": "image"}},
        "reward": "FakeReward",
        "judges": [{"class_path": "FakeReward", "init_args": {"name": "judge"}}],
        "prompts": {"train": "p.txt"},
        "rounds": 2,
        "k": 4,
        "trainer": {"steps": 4, "optimizer": {"lr": 0.1}},
        "evaluation": {"k": 2},
        "trackers": [],
        "stop_when": [],
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run that no test changes."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "p.txt").write_text("\n".join(f"prompt {i}" for i in range(6)))
    words = "policy: FakePolicy\nreward: FakeReward\nprompts: {train: p.txt}\ntrackers: []\nk: 4\nrounds: 2\n"
    (folder / "task.yaml").write_text(words + "trainer: {steps: 4, optimizer: {lr: 0.1}}\n")
    run = folder / "run"
    assert main(["align", str(folder / "task.yaml"), "--output", str(run)]) == 0
    return run


def fits(text: str) -> bool:
    """Whether every line fits into 80 columns, paths aside."""
    return all(len(line) <= WIDTH or "/" in line for line in text.splitlines())


def test_align_shows_rounds_and_before_and_after(task, capsys):
    assert main(["align", "task.yaml"]) == 0
    out, err = capsys.readouterr()
    assert not err
    assert out.splitlines()[0] == "run folder: runs/task"
    for expected in ("all 2 rounds are done", "mean (reward)", "judge (judge)", "diversity", "95 % interval", "wins"):
        assert expected in out
    assert "5 training prompts × 2 samples" in out and "1 held-out prompts × 2 samples" in out
    assert str(Path("runs/task/report/index.html")) in out
    assert fits(out)
    run = task / "runs/task"
    assert read_run(run)["status"] == "finished"
    assert [row["round"] for row in read_history(run)] == [1, 2]
    for name in ("report/index.html", "report/report.json", "export/means.json", "evaluation/heldout.parquet", "config.yaml"):
        assert (run / name).is_file(), name


def test_a_second_run_takes_the_next_free_folder(task, capsys):
    (task / "runs/task").mkdir(parents=True)
    (task / "runs/task/something").touch()
    assert main(["align", "task.yaml", "--rounds", "1"]) == 0
    assert "run folder: runs/task-2" in capsys.readouterr().out


def test_print_config_is_a_configuration(task, capsys):
    assert main(["align", "task.yaml", "--k", "7", "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["k"] == 7 and printed["trainer"]["steps"] == 4
    assert not (task / "runs").exists()


def test_a_path_that_the_system_refuses_is_a_mistake_and_no_surprise(capsys):
    assert guarded(lambda: len(Path("a" * 5000).read_text())) == 2
    assert capsys.readouterr().err.endswith("a…: File name too long; give another path\n")
    assert guarded(lambda: Path("nowhere/at/all").stat().st_size) == 1
    assert "this was not foreseen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["align", "task.yaml", "--kk", "3"], "kk is not known"),
        (["align", "task.yaml", "--k", "0"], "k is 0"),
        (["align", "tusk.yaml"], "there is no configuration 'tusk.yaml'"),
        (["align", "task.yaml", "--prompts.train", "q.txt"], "q.txt does not exist (did you mean 'p.txt'?)"),
        (["align", "task.yaml", "--output", "p.txt", "--k", "0"], "p.txt is a file"),
        (["align", "task.yaml", "more.yaml"], "'more.yaml' is one word too many"),
        (["align", "task.yaml", "--prompts.per_round", "9"], "there are 5 training prompts: choose 1 to 5"),
        (["align", "task.yaml", "--reward", "mine.py"], "name the class or function in it, mine.py:NAME"),
        (["resume", "nowhere"], "nowhere holds no run"),
        (["resume"], "something is missing"),
        (["align", ""], "the first word is empty"),
        (["resume", "a" * 5000], "File name too long"),
        (["report", "nowhere"], "holds no run"),
        (["whatif", "nowhere"], "holds no scored round"),
        (["rescore", "nowhere", "--reward", "FakeReward"], "holds no scored round"),
        (["compare", "nowhere", "--prompts", "p.txt"], "neither a run folder"),
        (["generate", "task.yaml"], "nothing to generate from"),
        (["generate", "task.yaml", "--prompt", "x", "--k", "0"], "--k is 0"),
        (["list", "nothing"], "nothing is called 'nothing'"),
        (["list", "--loud"], "--loud is not known"),
        (["algin"], "there is no command 'algin' (did you mean 'align'?)"),
    ],
)
def test_mistakes_end_with_2_in_words_and_nothing_is_written(task, capsys, words, message):
    before = sorted(task.rglob("*"))
    assert main(words) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and "Traceback" not in err
    assert sorted(task.rglob("*")) == before


@pytest.mark.usefixtures("task")
def test_debug_shows_the_traceback(capsys):
    assert main(["align", "task.yaml", "--k", "0", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_round_without_a_score_ends_the_run_with_the_reason(task, capsys):
    (task / "mine.py").write_text("def mine(prompts, outputs):\n    raise ValueError('the scorer is down')\n")
    assert main(["align", "task.yaml", "--reward", "mine.py:mine", "--output", "run"]) == 2
    err = capsys.readouterr().err
    assert "none of the 20 samples could be scored" in err and "the scorer is down" in err and "Traceback" not in err
    (task / "mine.py").write_text("def mine(prompts, outputs):\n    return [float(i) for i, _ in enumerate(outputs)]\n")
    sys.modules.pop(f"raft_function_{(task / 'mine.py').resolve().as_posix()}", None)
    assert main(["resume", "run"]) == 0


def test_an_unforeseen_error_keeps_its_traceback_and_a_hint(task, capsys):
    (task / "broken.py").write_text(
        "from raft_core.testing import FakePolicy\n"
        "class Broken(FakePolicy):\n    def render(self, samples):\n        raise ZeroDivisionError('no')\n"
    )
    assert main(["align", "task.yaml", "--policy", "broken.py:Broken"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and "raft resume RUN" in err
    assert read_run(task / "runs/task")["status"] == "failed"


@pytest.mark.usefixtures("task")
def test_an_occupied_output_folder_is_refused_with_the_way_on(capsys):
    assert main(["align", "task.yaml", "--rounds", "1", "--output", "out"]) == 0
    capsys.readouterr()
    assert main(["align", "task.yaml", "--output", "out"]) == 2
    assert "raft resume out" in capsys.readouterr().err


def test_resume_of_a_finished_run_says_so(finished, capsys):
    assert main(["resume", str(finished)]) == 0
    out = capsys.readouterr().out
    assert "is finished already: all 2 rounds are done" in out and "mean (reward)" in out


def test_resume_with_other_settings_asks_for_force_and_then_goes_on(task, capsys):
    assert main(["align", "task.yaml", "--output", "run"]) == 0
    capsys.readouterr()
    assert main(["resume", "run", "--rounds", "3"]) == 2
    assert "rounds: 2 → 3" in capsys.readouterr().err
    assert main(["resume", "run", "--rounds", "3", "--force"]) == 0
    assert [row["round"] for row in read_history(task / "run")] == [1, 2, 3]
    assert read_run(task / "run")["status"] == "finished"


def test_resume_with_other_prompts_is_refused(task, capsys):
    assert main(["align", "task.yaml", "--output", "run"]) == 0
    (task / "p.txt").write_text("\n".join(f"another {i}" for i in range(6)))
    run = json.loads((task / "run/run.json").read_text())
    (task / "run/run.json").write_text(json.dumps(run | {"status": "interrupted"}))
    capsys.readouterr()
    assert main(["resume", "run"]) == 2
    assert "the prompts are not those" in capsys.readouterr().err


def test_a_run_that_failed_in_its_comparison_resumes_there(task, capsys):
    (task / "judge.py").write_text(
        "from pathlib import Path\n"
        "calls = []\n"
        "def judge(prompts, outputs):\n"
        "    calls.append(len(outputs))\n"
        "    if Path('stop').exists() and len(calls) > 2:\n        raise KeyboardInterrupt\n"  # after two rounds
        "    return [1.0 for _ in outputs]\n"
    )
    (task / "stop").touch()
    words = ["align", "task.yaml", "--judges", "judge.py:judge", "--output", "run"]
    assert main(words) == 130
    assert "resume with: raft resume run" in capsys.readouterr().err
    assert read_run(task / "run")["status"] == "interrupted"
    first = [row["time/round_s"] for row in read_history(task / "run")]
    assert len(first) == 2
    (task / "stop").unlink()
    assert main(["resume", "run"]) == 0
    assert [row["time/round_s"] for row in read_history(task / "run")] == first
    assert read_run(task / "run")["status"] == "finished"


def test_a_signal_ends_a_run_with_130_and_it_resumes_to_the_same_bytes(task):
    (task / "slow.py").write_text(
        "import time\nfrom pathlib import Path\nfrom raft_core.testing import FakePolicy\n"
        "class Slow(FakePolicy):\n"
        "    def sample(self, requests, **settings):\n"
        "        Path('started').touch()\n        time.sleep(0.2)\n        return super().sample(requests, **settings)\n"
    )
    command = [sys.executable, "-m", "raft_cli"]
    words = ["align", "task.yaml", "--policy", "slow.py:Slow", "--output"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [*command, *words, "run"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 200
        while not (task / "started").exists() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=80)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 130, err
    assert "resume with: raft resume run" in err and "Traceback" not in err
    assert main(["resume", "run"]) == 0
    assert main([*words, "whole"]) == 0
    weights = "checkpoints/0002/weights.safetensors"
    assert (task / "run" / weights).read_bytes() == (task / "whole" / weights).read_bytes()


def test_prompts_that_are_too_long_are_shown_as_the_model_sees_them(task, capsys):
    (task / "short.py").write_text(
        "from raft_core.testing import FakePolicy\n"
        "class Short(FakePolicy):\n    def visible(self, text):\n        return text[:7]\n"
    )
    assert main(["align", "task.yaml", "--policy", "short.py:Short", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "it sees only: 'prompt '" in " ".join(out.split()) and "3 more prompts are cut off likewise" in " ".join(out.split())


def test_compare_evaluates_the_trained_policy_on_other_prompts(finished, tmp_path, capsys):
    (tmp_path / "other.txt").write_text("something else\nand more\n")
    words = ["compare", str(finished), "--prompts", str(tmp_path / "other.txt"), "--k", "2", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "2 prompts of other × 2 samples" in out and "mean (reward)" in out
    numbers = json.loads((tmp_path / "out/evaluation/evaluation.json").read_text())
    assert numbers["evaluations"][0]["prompts"] == ["something else", "and more"]


def test_compare_writes_over_nothing(finished, tmp_path, capsys):
    (tmp_path / "other.txt").write_text("something else\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    words = ["compare", str(finished), "--prompts", str(tmp_path / "other.txt"), "--output"]
    assert main([*words, str(tmp_path / "out")]) == 2
    assert "is not empty (it holds 'mine')" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    assert main([*words, str(tmp_path / "other.txt")]) == 2
    assert "other.txt is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["compare", "run", "--prompts", "p.txt", "--k", "1"], ["generate", "run", "--prompts", "p.txt"]]
)
def test_other_commands_warn_of_long_prompts_too(task, capsys, words):
    (task / "short.py").write_text(
        "from raft_core.testing import FakePolicy\n"
        "class Short(FakePolicy):\n    def visible(self, text):\n        return text[:7]\n"
    )
    assert main(["align", "task.yaml", "--policy", "short.py:Short", "--rounds", "1", "--output", "run"]) == 0
    capsys.readouterr()
    assert main(words) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "warning: a prompt is longer than the model takes in; it sees only: 'prompt '" in out
    assert "3 more prompts are cut off likewise" in out


def test_a_checkpoint_is_generated_from_by_its_moving_average(task):
    """The last checkpoint is what was exported, and exports are of the average."""
    words = ["--output", "run", "--rounds", "1", "--export", "last", "--trainer.ema_decay", "0.9"]
    assert main(["align", "task.yaml", "--judges", "[]", *words]) == 0
    assert main(["generate", "run", "--prompts", "p.txt", "--checkpoint", "last", "--output", "drawn"]) == 0
    exported = json.loads((task / "run/export/means.json").read_text())
    policy = FakePolicy("image")
    load_weights(task / "run", 1, policy)
    assert not np.allclose(policy.mean.tolist(), exported)
    policy.mean.data = torch.tensor(exported)
    asked = requests(read_prompts("p.txt"), 1, 0, "generate")
    for sample, line in zip(
        policy.render(policy.sample(asked)), (task / "drawn/samples.jsonl").read_text().splitlines(), strict=True
    ):
        with Image.open(task / "drawn" / json.loads(line)["file"]) as picture:
            assert picture.tobytes() == sample.output.tobytes()


def test_a_run_with_files_of_its_own_resumes_from_another_folder(task, monkeypatch, capsys):
    (task / "mine.py").write_text(
        "from pathlib import Path\nfrom raft_core.testing import FakePolicy\n"
        "class Mine(FakePolicy):\n"
        "    def __init__(self, model: str):\n        super().__init__('image')\n        self.model = model\n"
        "    def load(self):\n        Path(self.model).read_text()\n"
    )
    (task / "weights.txt").touch()
    policy = ["--policy", "mine.py:Mine", "--policy.model", "weights.txt"]
    assert main(["align", "task.yaml", *policy, "--rounds", "1", "--output", "run"]) == 0
    (task / "elsewhere").mkdir()
    monkeypatch.chdir(task / "elsewhere")
    assert main(["resume", "../run", "--rounds", "2", "--force"]) == 0
    assert [row["round"] for row in read_history(task / "run")] == [1, 2]
    assert "Traceback" not in capsys.readouterr().err


def test_compare_draws_a_picture_of_pictures(task):
    assert main(["align", "task.yaml", "--rounds", "1", "--output", "run"]) == 0
    assert main(["compare", "run", "--prompts", "p.txt", "--k", "2"]) == 0
    assert (task / "run/compare/p/before_after.png").is_file()


def test_generate_writes_the_same_files_for_the_same_seed(task):
    assert main(["align", "task.yaml", "--rounds", "1", "--output", "run"]) == 0
    for folder in ("one", "two"):
        assert main(["generate", "run", "--prompt", "A red, RED star!", "--k", "2", "--output", folder]) == 0
    names = sorted(path.name for path in (task / "one").iterdir())
    assert names == ["001-a-red-red-star-0.png", "001-a-red-red-star-1.png", "samples.jsonl", "samples.parquet"]
    assert all((task / "one" / name).read_bytes() == (task / "two" / name).read_bytes() for name in names[:3])
    rows = [json.loads(line) for line in (task / "one/samples.jsonl").read_text().splitlines()]
    assert rows[1]["prompt"] == "A red, RED star!" and rows[1]["index"] == 1
    assert pq.read_table(task / "one/samples.parquet")["image"].to_pylist()[0]["bytes"].startswith(b"\x89PNG")
    assert main(["generate", "run", "--prompt", "x", "--output", "one"]) == 2


def test_generate_from_the_base_differs_from_the_trained_policy(task):
    assert main(["align", "task.yaml", "--rounds", "1", "--output", "run"]) == 0
    for words in (["--base", "--output", "before"], ["--output", "after"]):
        assert main(["generate", "run", "--prompts", "p.txt", *words]) == 0
    pairs = [(file.read_bytes(), (task / "after" / file.name).read_bytes()) for file in (task / "before").glob("*.png")]
    assert len(pairs) == 6 and sum(before != after for before, after in pairs) == 5  # one prompt is held out


def test_whatif_reads_what_was_stored(finished, capsys):
    assert main(["whatif", str(finished)]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert table[0] == ["round", "k", "=", "1", "k", "=", "2", "k", "=", "4"]
    history = read_history(finished)
    for row, metrics in zip(table[1:], history, strict=True):
        assert float(row[1]) == pytest.approx(metrics["reward/mean"], abs=1e-3)
        assert float(row[3]) == pytest.approx(metrics["reward/best"], abs=1e-3)
        assert float(row[1]) < float(row[2]) < float(row[3])


def test_whatif_another_selector_had_chosen(finished, capsys):
    assert main(["whatif", str(finished), "--selector", "TopFraction", "--selector.fraction", "0.05"]) == 0
    out = capsys.readouterr().out
    assert "kept by TopFraction" in out and "1 (5)" in out
    assert main(["whatif", str(finished), "--k", "9"]) == 2
    out, err = capsys.readouterr()
    assert "4 samples per prompt are stored" in err and not out


def test_whatif_leaves_scores_out_rather_than_cutting_figures_off(finished):
    from raft_cli.whatif import choice_table
    from raft_core.selectors.best_of_k import TopFraction
    from raft_core.workflows.whatif import stored_rounds

    stored = stored_rounds(finished)
    names = list(stored[0].columns)
    table, left_out = choice_table(stored, names[0], TopFraction(0.5), 30)
    assert len(table.columns) == 4 and left_out == names[1:]
    assert choice_table(stored, names[0], TopFraction(0.5), 500)[1] == []


@pytest.mark.usefixtures("task")
def test_a_configuration_may_stand_behind_an_option(capsys):
    assert main(["plan", "--no_probe", "task.yaml", "--k", "3"]) == 0
    assert "15 per round (5 prompts × 3)" in capsys.readouterr().out
    assert main(["align", "--print_config", "task.yaml", "more.yaml"]) == 2
    assert "'more.yaml' is one word too many" in capsys.readouterr().err


def test_rescore_keeps_the_scores_and_their_direction(task, capsys):
    (task / "mine.py").write_text("def green(prompts, outputs):\n    return [float(o.getpixel((0, 0))[1]) for o in outputs]\n")
    assert main(["align", "task.yaml", "--output", "run"]) == 0
    capsys.readouterr()
    words = ["rescore", "run", "--reward", "mine.py:green", "--reward.higher_is_better", "false"]
    assert main(words) == 0
    out = capsys.readouterr().out
    first = out.splitlines()[1].split()
    assert first[:2] == ["1", "green"] and float(first[3]) < float(first[2])  # lower is better
    assert main(["whatif", "run", "--by", "green", "--k", "1", "4"]) == 0
    row = capsys.readouterr().out.splitlines()[2].split()
    assert float(row[2]) < float(row[1])
    assert main(["rescore", "run", "--reward", "FakeReward"]) == 2  # needs tensors, which are not stored with the pictures


def test_list_names_everything_in_80_columns(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for kind in ("policy", "reward", "selector", "objective", "rule", "tracker"):
        assert all(name in out for name in public_names(kind))
    assert "FakePolicy" not in out and "shapes/resolution" in out
    assert fits(out)


def test_list_groups_what_goes_together(capsys):
    assert main(["list", "selectors"]) == 0
    out = capsys.readouterr().out
    assert fits(out)
    pairs = re.split(r"\n  (?! )", out.split("  pairs, with Dpo, Orpo:\n")[1])[0]
    assert all(name in pairs for name in ("AllPairs", "BestVsWorst", "RandomPairs")) and "BestOfK" not in pairs
    assert main(["list", "objectives"]) == 0
    assert "  labels, with MedianLabels, ThresholdLabels:" in capsys.readouterr().out
    assert main(["list", "Kto"]) == 0
    assert "Goes with the selector: MedianLabels, ThresholdLabels" in capsys.readouterr().out


def test_list_explains_every_part_in_80_columns(capsys):
    for kind in listing.KINDS:
        for name in {found.name for found in listing.classes(kind) if "Protocol" not in found.bases}:
            assert main(["list", name]) == 0
            out = capsys.readouterr().out
            assert out.startswith(name) and fits(out), name


def test_what_is_wide_is_listed_in_80_columns():
    long = "Literal['first', 'second', 'third', 'fourth', 'fifth', 'sixth', 'seventh', 'eighth']"
    assert list(setting(f"which: {long} = 'first'")) == [
        "  # Literal['first', 'second', 'third', 'fourth', 'fifth', 'sixth', 'seventh',",
        "  # 'eighth']",
        "  which: 'first'",
    ]
    assert [len(line) for line in setting(f"text = '{'x' * 100}'")] == [80]
    assert list(setting("kl: KlPenalty = field(default_factory=KlPenalty)")) == ["  kl: {}  # KlPenalty"]


def test_plan_counts_and_probes_and_writes_nothing(task, capsys):
    before = sorted(task.rglob("*"))
    assert main(["plan", "task.yaml", "--selector", "TopFraction", "--selector.fraction", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "20 per round (5 prompts × 4), 2 of them kept" in out
    assert "4 steps of 8 per round" in out
    labels = [line.split("  ")[0] for line in out.splitlines() if not line.startswith(" ")]
    assert labels[:4] == ["work", "the run", "memory", "gain"]
    for label in ("a round", "peaks", "spread", "gain by k"):
        assert f"\n{label} " in out
    assert fits(out) and "class_path" not in out
    assert sorted(task.rglob("*")) == before


def test_a_configuration_for_another_machine_is_planned_without_a_probe(capsys, monkeypatch):
    """fp16 and xformers need a GPU: here that is a remark, and where the run would begin a mistake."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = ["sd15/aesthetic", "--policy.memory.attention", "xformers", "--trainer.optimizer.name", "adamw8bit"]
    assert main(["plan", *words, "--no_probe"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("prompts  ") and fits(out) and len([line for line in out.splitlines() if line[0] != " "]) >= 4
    told = " ".join(out.split())
    for lack in ("mixed_precision is 'fp16'", "memory.attention is xformers", "optimizer.name is 'adamw8bit'"):
        assert "note on this machine it could not run: " in told and lack in told
    assert main(["align", *words, "--print_config"]) == 2
    assert "mixed_precision is 'fp16'" in capsys.readouterr().err
    assert main(["plan", *words, "--no_probe", "--k", "0"]) == 2
    err = capsys.readouterr().err
    assert "k is 0" in err and "fp16" not in err


@pytest.mark.usefixtures("task")
def test_plan_prints_the_configuration_where_it_is_asked_for(capsys):
    assert main(["plan", "task.yaml", "--no_probe", "--print_config"]) == 0
    counts, _, printed = capsys.readouterr().out.partition("\n\n")
    assert len(counts.splitlines()) >= 4 and yaml.safe_load(printed)["k"] == 4


def test_report_is_written_again(finished, capsys):
    (finished / "report/index.html").unlink()
    assert main(["report", str(finished)]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in SUBCOMMANDS])
def test_every_command_explains_itself(command, capsys):
    explained([command], capsys)


@pytest.mark.parametrize("words", [(family, name) for family, names in SUBCOMMANDS.items() for name in names])
def test_every_subcommand_explains_itself(words, capsys):
    explained(words, capsys)


@pytest.mark.parametrize("family", SUBCOMMANDS)
def test_a_family_of_commands_names_its_members(family, capsys):
    assert main([family, "--help"]) == 0
    out = capsys.readouterr().out
    assert fits(out) and all(name in out for name in SUBCOMMANDS[family])


def explained(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and f"usage: raft {' '.join(words)}" in out
    assert fits(out)


def test_recipes_of_another_package_are_not_ours(tmp_path, monkeypatch):
    """An installed package lies beside others, of which one may have a folder ``configs``."""
    ours = recipe_folders()
    assert ours and all((folder / "shapes/resolution.yaml").is_file() for folder in ours)
    site = tmp_path / "site-packages"
    (site / "configs/shapes").mkdir(parents=True)
    (site / "configs/shapes/resolution.yaml").write_text("theirs: true")
    monkeypatch.setattr("raft_cli.settings.__file__", str(site / "raft_cli/settings.py"))
    assert site / "configs" not in recipe_folders()


def test_help_imports_nothing_heavy():
    code = "import sys; from raft_cli import main; main(['--version']); main([]); print('LOADED', *sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    text, _, loaded = out.partition("LOADED ")
    heavy = {"torch", "numpy", "rich", "jsonargparse", "diffusers", "transformers", "yaml", "pyarrow"}
    assert not heavy & set(loaded.split())
    assert all(command in text for command in COMMANDS) and fits(text)
