"""A run killed at any instant and resumed ends in the same bits as one that was left alone.

Each life of a run is a process of its own, ended by ``os._exit`` (nothing is cleaned up, as under SIGKILL) at its n-th tick.
Ticks are the file operations in the run folder, as Python's audit hooks see them, and the calls of the policy and the reward;
so every phase and every place between two file operations is met, whatever the store's code looks like.

``python test_resume.py FOLDER some|all`` is the process that the tests start: it forks the lives and prints what came of them;
``life`` instead is one life in that process, ``life50`` one that is killed at tick 50. A third argument is one of ``SOURCES``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from raft_core.loop import align
from raft_core.machine.processes import Processes
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.dpo import Dpo
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.reporter import Silent
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.best_of_k import BestOfK
from raft_core.selectors.pairs import BestVsWorst
from raft_core.sources.adaptive_k import AdaptiveK
from raft_core.sources.from_policy import FromPolicy
from raft_core.sources.from_run import FromRun
from raft_core.sources.from_table import FromTable
from raft_core.sources.halving import Halving
from raft_core.store.checkpoint import TRAINER, WEIGHTS, checkpoint_folder
from raft_core.store.store import Store, read_history, read_round
from raft_core.testing import FakePolicy, FakeReward, FakeStages, FakeWriter, close, together
from raft_core.training.optim import Optimizer
from raft_core.training.reference import Reference
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt

ROUNDS, K, SEED = 2, 4, 3
KILLED = 9
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}


class Clock:
    """Counts ticks and ends the process at the n-th, as a kill would."""

    def __init__(self, kill_at: int | None):
        self.ticks = 0
        self.kill_at = kill_at

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == self.kill_at:
            os._exit(KILLED)

    def watch_files(self, folder: Path) -> None:
        def hook(event: str, args: tuple) -> None:
            if event in FILE_EVENTS and str(folder) in str(args[0]):
                self.tick()

        sys.addaudithook(hook)

    def around(self, function):
        def called(*args, **kwargs):
            self.tick()
            result = function(*args, **kwargs)
            self.tick()
            return result

        return called


PROMPTS = [Prompt(name) for name in "abcd"]


def from_table(base: Path) -> FromTable:
    rows = [{"prompt": p.text, "response": f"{i},{i + 1}"} for p in PROMPTS for i in range(2 if p.text == "a" else K + 1)]
    (base / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FromTable(str(base / "table.jsonl"))


def from_run(base: Path) -> FromRun:
    """A teacher's samples, all of them."""
    if not (base / "teacher").exists():
        policy, trainer = FakePolicy("image", buckets=8), Trainer(Optimizer(lr=0.1), steps=1)
        trainer.attach(policy, SEED, 1)
        with Store.create(base / "teacher", {"k": K}, SEED, reporter=Silent()) as store:
            store.note(modality="image")
            parts = (Scorer(FakeReward()), BestOfK(), Sft(), trainer, store, Monitor())
            align(policy, PromptSet(PROMPTS, [], 4, SEED), *parts, rounds=1, k=K + 1)
    return FromRun(str(base / "teacher"), which="all")


#: Name → (modality, the source, made in the folder where the lives of a run are).
SOURCES = {
    "policy": ("image", lambda _: FromPolicy()),
    "table": ("text", from_table),
    "run": ("image", from_run),
    "halving": ("image", lambda _: Halving()),
    "adaptive": ("image", lambda _: AdaptiveK(pilot=2)),
}
source_name = "policy"


def killable_policy(clock: Clock, start: int) -> FakePolicy:
    """A policy whose start is random, as that of a LoRA is."""
    policy = (FakeStages if source_name == "halving" else FakeWriter)(SOURCES[source_name][0], buckets=8)
    policy.mean.data.normal_(generator=torch.Generator().manual_seed(start))
    for method in {"sample", "render", "written", "sample_in_stages", "nll"} & set(dir(policy)):
        setattr(policy, method, clock.around(getattr(policy, method)))
    return policy


class KillableReward(FakeReward):
    def __init__(self, clock: Clock):
        super().__init__()
        self.clock = clock

    def __call__(self, samples):
        self.clock.tick()
        return super().__call__(samples)


def life(folder: Path, kill_at: int | None = None) -> int:
    """Begin or resume the run in ``folder`` and go on to its end, unless killed; returns the ticks that it took."""
    torch.set_num_threads(1)
    clock = Clock(kill_at)
    clock.watch_files(folder)
    started = checkpoint_folder(folder, 0).exists()
    # Another start than that of the first life: a resumed run must take it from the run folder.
    policy = killable_policy(clock, start=os.getpid() if started else 0)
    trainer = Trainer(Optimizer(lr=0.1), batch_size=2, epochs=2, reference=Reference(every=1, mix=0.5))
    if (folder / "run.json").exists():
        store = Store.resume(folder, reporter=Silent())
    else:
        store = Store.create(folder, {"k": K}, SEED, reporter=Silent())
    trainer.attach(policy, SEED, ROUNDS)
    store.restore(policy, trainer)
    parts = (Scorer(KillableReward(clock)), BestVsWorst(), Dpo(beta=0.5), trainer, store, Monitor())
    source = SOURCES[source_name][1](folder.parent)
    align(policy, PromptSet(PROMPTS, [], 2, SEED), *parts, rounds=ROUNDS, k=K, source=source)
    store.close()
    return clock.ticks


def forked(folder: Path, kill_at: int | None = None) -> int:
    """Exit status of a life in a process of its own: 0 = came to its end, KILLED, 1 = an error, shown on stderr."""
    pid = os.fork()
    if not pid:
        try:
            life(folder, kill_at)
        except BaseException:  # noqa: BLE001 - the child must not return into the parent's code
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def result(folder: Path) -> dict:
    """All of a run that has to be the same, as plain data: the bytes of every checkpoint kept, samples, scores, metrics."""
    costs = ("time/", "memory/")
    rounds = [read_round(folder, rnd, tensors=True) for rnd in range(1, ROUNDS + 1)]
    return {
        "files": {
            f"{rnd}/{name}": (checkpoint_folder(folder, rnd) / name).read_bytes().hex()
            for rnd in range(ROUNDS + 1)
            for name in (WEIGHTS, TRAINER)
        },
        "outputs": [[_bytes(sample.output).hex() for sample in samples] for samples, _, _ in rounds],
        "tensors": [[sample.tensors["x"].tolist() for sample in samples] for samples, _, _ in rounds],
        "scores": [repr(scores.columns["mean"].tolist()) for _, scores, _ in rounds],  # NaN is not NaN, but is written alike
        "kept": [np.flatnonzero(kept).tolist() for _, _, kept in rounds],
        "history": [{k: v for k, v in row.items() if not k.startswith(costs)} for row in read_history(folder)],
        "left over": sorted(str(path) for pattern in (".*.tmp", ".*.old", "parts") for path in folder.rglob(pattern)),
    }


def _bytes(output: object) -> bytes:
    return output.encode() if isinstance(output, str) else output.tobytes()


def differences(found: dict, expected: dict) -> list[str]:
    return [name for name in expected if found[name] != expected[name]]


def kill_once(base: Path, ticks: range, expected: dict) -> Iterator[str]:
    """What goes wrong when a run is killed at these ticks, each in a run of its own, and resumed."""
    for tick in ticks:
        folder = base / f"killed-at-{tick}"
        statuses = [forked(folder, tick), forked(folder)]
        if statuses != [KILLED, 0]:
            yield f"killed at tick {tick}: exit statuses {statuses}"
        elif wrong := differences(result(folder), expected):
            yield f"killed at tick {tick}: other {wrong}"


def kill_again_and_again(base: Path, every: int, expected: dict) -> Iterator[str]:
    """What goes wrong when every life of a run is killed after so many ticks, until one comes to the end."""
    folder = base / f"killed-every-{every}"
    for lives in range(1, 20):
        status = forked(folder, every)
        if status == 0:
            wrong = differences(result(folder), expected)
            if wrong or lives < 2:
                yield f"killed every {every} ticks: {lives} lives, other {wrong}"
            return
        if status != KILLED:
            yield f"killed every {every} ticks: exit status {status} in life {lives}"
            return
    yield f"killed every {every} ticks: the run does not get on"


def main(base: Path, what: str, source: str = "policy") -> None:
    global source_name
    source_name = source
    os.fsync = lambda _: None  # slow, and matters only when the machine dies with the process
    if what.startswith("life"):
        life(base, int(what.removeprefix("life") or 0))
        Processes.current().wait()  # whoever left first would look like a failure to the other
        return
    ticks = life(base / "undisturbed")
    expected = result(base / "undisturbed")
    failures: list[str] = []
    if what == "some":
        failures += kill_once(base, range(3, ticks, 13), expected)
        failures += kill_again_and_again(base, 90, expected)
    else:
        failures += kill_once(base, range(1, ticks + 1), expected)
    print(json.dumps({"ticks": ticks, "failures": failures}))


def run_lives(folder: Path, what: str, source: str = "policy") -> dict:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, folder, what, source], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "stderr": done.stderr}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the lives of a run are forked")
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("what", ["some", pytest.param("all", marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_a_run_killed_at_any_instant_ends_in_the_same_bits(tmp_path, what, source):
    found = run_lives(tmp_path, what, source)
    assert found["ticks"] > 100
    assert found["failures"] == [], found["stderr"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_killed_and_resumed_select_as_one_does(tmp_path):
    assert together(__file__, lambda _: (tmp_path / "two", "life85"), 2, timeout_s=400)[0] == KILLED
    assert together(__file__, lambda _: (tmp_path / "two", "life"), 2, timeout_s=400) == [0, 0]
    assert together(__file__, lambda _: (tmp_path / "one", "life"), 1, timeout_s=400) == [0]
    two, one = result(tmp_path / "two"), result(tmp_path / "one")
    # Half of a batch each adds up in another order, so what is trained is the same up to rounding from the first update on.
    assert two["kept"] == one["kept"]
    assert two["left over"] == []
    np.testing.assert_array_equal(two["tensors"][0], one["tensors"][0])
    close(two["tensors"][1], one["tensors"][1], 1e-4)
    close(*([float(x) for rnd in run["scores"] for x in json.loads(rnd)] for run in (two, one)), 1e-4)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
