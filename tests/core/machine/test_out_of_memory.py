"""Memory that runs out is told with its remedy, wherever it does; other errors pass as they are."""

from __future__ import annotations

import pytest
import torch
import yaml

from raft_cli import main
from raft_core.config.run_config import check
from raft_core.errors import DeviceError
from raft_core.evaluation.evaluate import evaluate
from raft_core.machine.out_of_memory import in_words
from raft_core.monitoring.monitor import Monitor
from raft_core.reporter import Silent
from raft_core.rewards.scoring import Scorer
from raft_core.store.store import read_run
from raft_core.testing import FakePolicy, FakeReward
from raft_core.types import Prompt
from raft_core.workflows.generate import generate
from raft_core.workflows.plan import probe
from raft_core.workflows.rescore import rescored

PROMPTS = [Prompt("a"), Prompt("b")]
CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore about it.")


class Large(FakePolicy):
    """A policy that memory does not suffice for in one of its methods."""

    def __init__(self, where: str = "sample"):
        super().__init__("image")
        setattr(self, where, self._run_out)

    def _run_out(self, *_, **__):
        raise CUDA


def config(tmp_path, where):
    (tmp_path / "p.txt").write_text("a\nb\nc")
    policy = {"class_path": f"{__name__}.Large", "init_args": {"where": where}}
    prompts = {"train": str(tmp_path / "p.txt")}
    return {"policy": policy, "reward": "FakeReward", "prompts": prompts, "k": 2, "trackers": []}


@pytest.mark.parametrize(
    "error",
    [
        CUDA,
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 2 GiB)"),
        MemoryError(),
        MemoryError("Unable to allocate 8.00 TiB for an array"),
    ],
)
def test_every_way_of_running_out_of_memory_is_one_error(error):
    words = r"out of memory while sampling \(.+\): use a smaller policy.sampling.batch_size"
    with pytest.raises(DeviceError, match=words), in_words("sample"):
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("no"), DeviceError("x")]
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, in_words("sample"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(("where", "doing"), [("sample", "sampling"), ("render", "rendering and scoring")])
def test_drawing_outside_of_a_run(where, doing):
    scorer = Scorer(FakeReward())
    for act in (
        lambda: generate(Large(where), PROMPTS, k=1, seed=0, reporter=Silent()),
        lambda: evaluate(Large(where), PROMPTS, scorer, k=1, seed=0),
    ):
        with pytest.raises(DeviceError, match=f"out of memory while {doing}"):
            act()


def test_a_scorer_that_does_not_fit():
    def full(_samples):
        raise CUDA

    with pytest.raises(DeviceError, match=r"device: cpu"):
        evaluate(FakePolicy("image"), PROMPTS, full, k=1, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("where", "doing"), [("sample", "sampling"), ("render", "rendering"), ("nll", "training|item")])
def test_a_probe(tmp_path, where, doing):
    with pytest.raises(DeviceError, match=doing):
        probe(check(config(tmp_path, where)), Silent())


@pytest.mark.parametrize(
    ("where", "remedy"),
    [("sample", "policy.sampling.batch_size"), ("render", "batch_size of the rewards"), ("embed", "trainer.micro_batch_size")],
)
def test_a_round(tmp_path, capsys, where, remedy):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config(tmp_path, where)))
    assert main(["align", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "out of memory" in err and remedy in err and "--force" in err and "Traceback" not in err
    assert read_run(tmp_path / "run")["status"] == "failed"


def test_moving_the_model_to_the_device():
    class Heavy(FakePolicy):
        def resident(self, phase):
            raise CUDA

    with pytest.raises(DeviceError, match="out of memory while training"), Monitor().phase(1, "train", Heavy()):
        pass


def test_scoring_again(tmp_path, monkeypatch):
    raw = config(tmp_path, "unused") | {"policy": {"class_path": "FakePolicy", "init_args": {"modality": "image"}}, "rounds": 1}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    assert main(["align", str(tmp_path / "c.yaml"), "--output", str(tmp_path / "run")]) == 0

    def full(_scorer, _samples):
        raise CUDA

    monkeypatch.setattr(Scorer, "__call__", full)
    with pytest.raises(DeviceError, match="rendering and scoring"):
        list(rescored(tmp_path / "run", Scorer(FakeReward()), None, Silent()))
