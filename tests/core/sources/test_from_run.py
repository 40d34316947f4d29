"""Samples of another run in place of the policy's own: which, with what scores, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from raft_core.capabilities import RunPlans
from raft_core.errors import ConfigError, DataError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.rewards.given import Given
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.best_of_k import BestOfK
from raft_core.sources.from_run import FromRun
from raft_core.store.checkpoint import Keep
from raft_core.store.rounds import round_folder
from raft_core.store.store import Store, read_round
from raft_core.store.tables import write_samples
from raft_core.testing import FakePolicy, FakeReward, FakeWriter
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Grouping, Prompt, Request, Sample, Scores

PROMPTS = [Prompt("one"), Prompt("two")]


def plans(policy, prompts, trace=False):
    return RunPlans(policy, Given(), prompts, 8, trace)


def run(folder, *, policy=None, source=None, scorer=None, rounds=2, k=4, keep=None):
    policy = policy or FakeWriter()
    trainer = Trainer(Optimizer(lr=0.3, weight_decay=0.0), steps=10)
    trainer.attach(policy, seed=1, rounds=rounds)
    with Store.create(folder, {"seed": 1}, 1, keep=keep or Keep()) as store:
        store.note(modality=policy.modality)
        parts = (scorer or Scorer(FakeReward()), BestOfK(), Sft(), trainer, store, Monitor())
        more = {} if source is None else {"source": source}
        align(policy, PromptSet(PROMPTS, [], per_round=2, seed=1), *parts, rounds=rounds, k=k, **more)
    return policy


def stored(folder, rounds, *, descending=frozenset()):
    """A run folder with these rounds: (prompt, text, score, kept, meta) of each sample."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"format": 2, "modality": "text"}))
    for rnd, rows in enumerate(rounds, start=1):
        samples = [
            Sample(Request(Prompt(p), i, 10 * rnd + i), output=t, meta=meta) for i, (p, t, _, _, meta) in enumerate(rows)
        ]
        scores = Scores("r", {"r": np.array([row[2] for row in rows])}, descending=descending)
        write_samples(
            round_folder(folder, rnd) / "samples.parquet", samples, scores, np.array([row[3] for row in rows]), rnd=rnd
        )
    return str(folder)


def said(source):
    return {p: [(e.output, e.score) for group in groups for e in group.outputs] for p, groups in source.groups.items()}


@pytest.fixture
def teacher(tmp_path):
    first = [
        ("p", "a", 1, True, {}),
        ("p", "b", 0, False, {}),
        ("q", "x", np.nan, False, {}),
        ("q", "", 9, True, {"failed": "why"}),
    ]
    second = [
        ("p", "c", 2, True, {}),
        ("p", "a ", 3, True, {}),
        ("q", "y", 1, True, {"rejected": True}),
        ("q", "z", 0, True, {}),
    ]
    return stored(tmp_path / "teacher", [first, second])


def test_the_kept_samples_are_the_best_different_ones_of_each_prompt(teacher):
    assert said(FromRun(teacher)) == {"p": [("a ", 3), ("c", 2)], "q": [("z", 0)]}
    assert said(FromRun(teacher, per_prompt=1)) == {"p": [("a ", 3)], "q": [("z", 0)]}
    assert said(FromRun(teacher, which="all")) == {"p": [("a ", 3), ("c", 2), ("b", 0)], "q": [("z", 0), ("x", None)]}
    assert said(FromRun(teacher, which="all", rounds=1)) == {"p": [("a ", 3), ("c", 2)], "q": [("z", 0)]}


def test_where_lower_was_better_the_scores_are_turned(tmp_path):
    rows = [("p", "a", 1, True, {}), ("p", "b", 5, True, {})]
    assert said(FromRun(stored(tmp_path / "t", [rows], descending=frozenset("r")))) == {"p": [("a", -1), ("b", -5)]}


def test_a_round_uses_at_most_k_and_groups_may_differ(teacher):
    source = FromRun(teacher, which="all")
    asked = source.requests([Prompt("p"), Prompt("nobody"), Prompt("q")], 2, 0, 1)
    assert Grouping.of(asked).sizes.tolist() == [2, 2]
    assert Grouping.of(source.requests([Prompt("p"), Prompt("q")], 8, 0, 1)).sizes.tolist() == [3, 2]
    rounds = [[r.seed for r in source.requests([Prompt("p")], 1, 0, rnd)] for rnd in range(1, 20)]
    assert len({tuple(seeds) for seeds in rounds}) == 3 and rounds[0] == [
        r.seed for r in source.requests([Prompt("p")], 1, 0, 1)
    ]
    with pytest.raises(DataError, match="none of the 1 prompts of round 1 has a sample"):
        source.requests([Prompt("nobody")], 2, 0, 1)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_student_learns_what_the_teacher_has_drawn(tmp_path, modality):
    run(tmp_path / "teacher", policy=FakePolicy(modality), k=8)
    source = FromRun(str(tmp_path / "teacher"))
    assert source.check() == [] and source.check_run(plans(FakeWriter(modality), PROMPTS, trace=False)) == [] == source.notes()
    student = run(tmp_path / "student", policy=FakeWriter(modality), source=source, scorer=Scorer(Given()))
    samples, scores, _ = read_round(tmp_path / "student", 2)
    told = {}
    for rnd in (1, 2):
        drawn, given, kept = read_round(tmp_path / "teacher", rnd)
        rows = zip(drawn, given.columns["mean"], kept, strict=True)
        told |= {_key(sample): score for sample, score, chosen in rows if chosen}
    assert {_key(s): score for s, score in zip(samples, scores.columns["given"], strict=True)} == told
    touched = student.mean[(student.mean != 0).any(dim=1)]
    assert len(touched) == 2 and touched.mean() > 0.2


def _key(sample):
    return sample.output if isinstance(sample.output, str) else sample.output.tobytes()


def test_what_cannot_be_learned_from_is_told(teacher, tmp_path):
    assert "holds no run" in FromRun(str(tmp_path)).check()[0]
    empty = stored(tmp_path / "empty", [[("p", "a", 1, False, {})]])
    assert "holds no samples that could be learned" in FromRun(empty).check()[0] and FromRun(empty, which="all").check() == []
    source = FromRun(teacher)
    assert (
        "holds texts, but the policy FakeWriter makes images"
        in source.check_run(plans(FakeWriter("image"), PROMPTS, trace=False))[0]
    )
    assert "cannot take: use FromPolicy" in source.check_run(plans(FakePolicy(), PROMPTS, trace=False))[0]
    assert (
        "no sample for any training prompt (the first: 'one')" in source.check_run(plans(FakeWriter(), PROMPTS, trace=False))[0]
    )
    assert source.check_run(plans(FakeWriter(), [Prompt("p"), *PROMPTS], trace=False)) == []
    assert source.notes() == [f"2 training prompts have no sample in {teacher}, the first: 'one'"]
    with pytest.raises(ConfigError, match="per_prompt is 0"):
        FromRun(teacher, per_prompt=0)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_run_that_kept_no_outputs_is_told(tmp_path, modality):
    run(tmp_path / "teacher", policy=FakePolicy(modality), keep=Keep(images=False), rounds=1)
    assert "keep.images was off" in FromRun(str(tmp_path / "teacher")).check()[0]
