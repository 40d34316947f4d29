"""Checkpoints: restored exactly, chosen by the right round's metric, passed over when damaged, removed when not wanted."""

from __future__ import annotations

import pytest
import torch

from raft_core.errors import ConfigError, StoreError
from raft_core.reporter import Silent
from raft_core.store.checkpoint import (
    Keep,
    best_checkpoint,
    checkpoint_folder,
    checkpoints_in,
    load_checkpoint,
    load_weights,
    policy_hash,
    save_checkpoint,
    taken_as_best,
)
from raft_core.store.store import Store, read_history
from raft_core.testing import FakePolicy
from raft_core.workflows.checkpoint_choice import chosen_checkpoint


class Trainer:
    """As much of a trainer as a checkpoint sees: each round's weights are the round's number."""

    def __init__(self):
        self.rounds = 0

    def fit(self, policy, rnd):
        with torch.no_grad():
            policy.mean.fill_(rnd)
        self.rounds += 1

    def state_dict(self):
        return {"optimizer/mean/exp_avg": torch.full((2, 2), float(self.rounds))}, {"rounds": self.rounds, "ε": 1e-8}

    def load_state_dict(self, tensors, plain):
        assert torch.equal(tensors["optimizer/mean/exp_avg"], torch.full((2, 2), float(plain["rounds"])))
        assert plain["ε"] == 1e-8
        self.rounds = plain["rounds"]


class Notes(Silent):
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def run(store, rounds, rewards=(), policy=None, trainer=None):
    """Finish rounds whose samples have these mean rewards."""
    policy, trainer = policy or FakePolicy(), trainer or Trainer()
    store.restore(policy, trainer)
    for rnd in store.unfinished(rounds):
        store.open(rnd, policy)
        trainer.fit(policy, rnd)
        store.finish(rnd, policy, trainer, {"reward/mean": dict(enumerate(rewards, 1)).get(rnd, 0.0)})
    return policy, trainer


def finished(folder, rounds=3, keep=None, rewards=()):
    with Store.create(folder, {}, 0, keep=keep) as store:
        run(store, rounds, rewards)
    return folder


def test_weights_trainer_and_history_are_restored(tmp_path):
    folder = finished(tmp_path / "run")
    policy, trainer = FakePolicy(), Trainer()
    with Store.resume(folder) as store:
        assert store.restore(policy, trainer) == store.last == 3
        assert [row["round"] for row in store.history()] == [1, 2, 3]
        assert list(store.unfinished(5)) == [4, 5]
        assert list(store.unfinished(3)) == []
    assert (policy.mean == 3).all()
    assert trainer.rounds == 3


def test_the_start_is_restored_when_no_round_is_finished(tmp_path):
    start = FakePolicy()
    torch.nn.init.normal_(start.mean)
    with Store.create(tmp_path, {}, 0) as store:
        store.open(1, start)
    policy = FakePolicy()
    with Store.resume(tmp_path) as store:
        assert store.restore(policy, Trainer()) == 0
        assert list(store.unfinished(2)) == [1, 2]
    assert torch.equal(policy.mean, start.mean)


def test_a_round_cannot_start_from_other_weights(tmp_path):
    folder = finished(tmp_path / "run")
    with Store.resume(folder) as store, pytest.raises(StoreError, match=r"round 4 must start from the checkpoint of round 3"):
        store.open(4, FakePolicy())


@pytest.mark.parametrize("name", ["weights.safetensors", "trainer.safetensors", "state.json", "SHA256SUMS"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, name):
    folder = finished(tmp_path / "run")
    path = checkpoint_folder(folder, 3) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    notes = Notes()
    with Store.resume(folder, reporter=notes) as store:
        assert len(notes.warnings) == 1
        assert "the checkpoint of round 3 is damaged" in notes.warnings[0]
        assert "going back to the one before" in notes.warnings[0]
        assert [row["round"] for row in read_history(folder)] == [1, 2]
        assert not (folder / "rounds" / "0003" / "metrics.json").exists()
        policy, _ = run(store, 3)
    assert (policy.mean == 3).all()
    assert [row["round"] for row in read_history(folder)] == [1, 2, 3]
    assert checkpoints_in(folder) == [0, 1, 2, 3]


def test_with_all_checkpoints_damaged_the_run_begins_anew(tmp_path):
    folder = finished(tmp_path / "run")
    for rnd in range(4):
        (checkpoint_folder(folder, rnd) / "weights.safetensors").write_bytes(b"")
    notes = Notes()
    with Store.resume(folder, reporter=notes) as store:
        assert len(notes.warnings) == 4
        assert list(store.unfinished(3)) == [1, 2, 3]
        run(store, 3)
    assert checkpoints_in(folder) == [0, 1, 2, 3]


def test_metrics_follow_from_the_newest_checkpoint(tmp_path):
    """Killed after the checkpoint and before the metrics, or in the middle of either: no line is lost or doubled."""
    folder = finished(tmp_path / "run")
    whole = (folder / "metrics.jsonl").read_text()
    for torn in ("", whole.splitlines()[0] + "\n", whole + whole):
        (folder / "metrics.jsonl").write_text(torn)
        (folder / "rounds" / "0003" / "metrics.json").unlink()
        Store.resume(folder).close()
        assert (folder / "metrics.jsonl").read_text() == whole
        assert (folder / "rounds" / "0003" / "metrics.json").exists()


def test_the_best_checkpoint_is_the_one_that_its_samples_were_drawn_from():
    """Round 3's samples have the best reward, and they were drawn before round 3's update: by the checkpoint of round 2."""
    history = [{"round": rnd, "reward/mean": reward, "loss": -reward} for rnd, reward in enumerate([1, 2, 5, 3], 1)]
    assert best_checkpoint(history, Keep()) == 2
    assert best_checkpoint(history, Keep(best="loss", best_is_highest=False)) == 2
    assert best_checkpoint(history[:1], Keep()) == 0
    assert best_checkpoint(history, Keep(best="judge/clip")) is None


def test_when_the_last_round_is_the_best_its_own_checkpoint_is_taken():
    """By `--checkpoint best` as by `export: best`: one update further on a way that was the best so far."""
    rising = [{"round": rnd, "reward/mean": float(rnd)} for rnd in (1, 2, 3)]
    assert taken_as_best(rising, Keep()) == chosen_checkpoint(rising, Keep(), "best") == 3
    falling = [*rising, {"round": 4, "reward/mean": 0.0}]
    assert taken_as_best(falling, Keep()) == chosen_checkpoint(falling, Keep(), "best") == 2
    assert taken_as_best(rising, Keep(best="judge/clip")) is None


def test_the_newest_the_first_and_the_best_are_kept(tmp_path):
    keep = Keep(checkpoints=2)
    folder = finished(tmp_path / "run", 7, keep, rewards=[1, 2, 3, 9, 3, 2, 1])
    assert checkpoints_in(folder) == [0, 3, 6, 7]
    assert len(read_history(folder)) == 7
    assert checkpoints_in(finished(tmp_path / "all", 7, Keep(checkpoints=None))) == [*range(8)]
    with pytest.raises(ConfigError, match=r"keep.checkpoints is 0"):
        Keep(checkpoints=0)


def test_any_checkpoint_can_be_loaded(tmp_path):
    folder = finished(tmp_path / "run", 4, rewards=[1, 2, 5, 3])
    policy = FakePolicy()
    for which, rnd in (("best", 2), ("last", 4), (3, 3), (0, 0)):
        assert load_checkpoint(folder, which, policy) == rnd
        assert (policy.mean == rnd).all()
    with pytest.raises(StoreError, match=r"no checkpoint of round 9 \(rounds with one: 0, 2, 3, 4\)"):
        load_checkpoint(folder, 9, policy)
    with pytest.raises(StoreError, match="'newest' is no checkpoint"):
        load_checkpoint(folder, "newest", policy)
    with pytest.raises(StoreError, match=r"does not fit this policy: 'mean' has shape \[64, 2\] in the file and \[8, 2\]"):
        load_checkpoint(folder, "last", FakePolicy(buckets=8))


def test_a_checkpoint_of_a_trainer_with_a_moving_average_is_the_average(tmp_path):
    policy = FakePolicy()
    tensors = {"ema/mean": torch.full((64, 2), 7.0), "optimizer/mean/exp_avg": torch.ones(64, 2)}
    save_checkpoint(tmp_path, 1, policy, (tensors, {}), {})
    save_checkpoint(tmp_path, 0, policy, ({}, {}), {})
    assert load_checkpoint(tmp_path, 1, policy) == 1
    assert (policy.mean == 7).all()
    load_weights(tmp_path, 1, policy)  # what training goes on from
    assert (policy.mean == 0).all()
    load_checkpoint(tmp_path, 0, policy)
    assert (policy.mean == 0).all()


def test_a_policy_hash_is_of_names_shapes_and_bytes():
    policy = FakePolicy()
    before = policy_hash(policy)
    assert before == policy_hash(FakePolicy())
    assert len(before) == 16
    assert before != policy_hash(FakePolicy(dim=1, buckets=128))
    with torch.no_grad():
        policy.mean[5, 1] = 1e-30
    assert policy_hash(policy) != before


def test_the_same_weights_are_the_same_bytes(tmp_path):
    files = [checkpoint_folder(finished(tmp_path / name), 3) / "weights.safetensors" for name in "abc"]
    assert len({file.read_bytes() for file in files}) == 1
