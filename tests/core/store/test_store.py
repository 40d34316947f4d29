"""The run folder: what is kept, what is read back, what is made again, and who is turned away."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from raft_core.errors import ModelError, RewardError, StoreError
from raft_core.machine.processes import Processes
from raft_core.reporter import Silent
from raft_core.rewards.scoring import Scorer
from raft_core.rollout import Rollout
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK, TopFraction
from raft_core.sources.from_policy import FromPolicy
from raft_core.store.rounds import RoundFolder
from raft_core.store.store import Keep, Store, add_scores, changes, read_config, read_history, read_round, read_run, rounds_in
from raft_core.store.tensors import load_tensors, normalised, save_tensors
from raft_core.testing import FakePolicy, FakeReward
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt, Sample

K = 4
PROMPTS = [Prompt("a cat"), Prompt("ein Hündchen", {"answer": 7, "score": 0.1})]


class Notes(Silent):
    """A reporter that remembers."""

    def __init__(self):
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Drawn(FakePolicy):
    """Counts what it is asked to draw."""

    def __init__(self):
        super().__init__("image")
        self.asked: list[int] = []

    def sample(self, requests, **settings):
        self.asked.append(len(requests))
        return super().sample(requests, **settings)


def a_trainer(policy) -> Trainer:
    trainer = Trainer(Optimizer(lr=0.1))
    trainer.attach(policy, 0, 3)
    return trainer


def round_of(folder, policy, reporter, scorer=None, selector=None, processes=None):
    makes = (FromPolicy(), scorer or Scorer(FakeReward()), selector or BestOfK(), False, reporter)
    return Rollout(policy, *makes, processes or Processes.current()).begin(folder)


def one_round(store, policy, trainer=None, rnd=1, scorer=None, selector=None, prompts=PROMPTS):
    """Sample and score a round, and finish it when there is a trainer."""
    scorer, selector = scorer or Scorer(FakeReward()), selector or BestOfK()
    made = round_of(store.open(rnd, policy), policy, store.reporter, scorer, selector)
    samples, scores, selection = made.judge(made.sample(requests(prompts, K, store.seed, rnd)))
    if trainer:
        store.finish(rnd, policy, trainer, {"reward/mean": float(scores.columns["mean"].mean()), "kl": math.nan})
    return samples, scores, selection


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def store(tmp_path, notes):
    with Store.create(tmp_path / "run", {"k": K, "reward": {"name": "mean"}}, seed=5, reporter=notes) as store:
        yield store


@pytest.fixture
def finished(tmp_path):
    """The folder of a run with one finished round."""
    with Store.create(tmp_path / "finished", {"k": K}, seed=5) as store:
        policy = FakePolicy("image")
        one_round(store, policy, a_trainer(policy))
    return store.folder


# --- what is kept ---


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_round_is_read_back_bit_by_bit(store, modality):
    policy = FakePolicy(modality)
    samples, scores, selection = one_round(store, policy, scorer=Scorer(FakeReward(fails_on=3), [FakeReward("judge")]))
    again, same_scores, kept = read_round(store.folder, 1, tensors=True)
    assert [s.request for s in again] == [s.request for s in samples]
    assert [s.meta for s in again] == [s.meta for s in samples]
    assert all(torch.equal(a.tensors["x"], b.tensors["x"]) for a, b in zip(again, samples, strict=True))
    if modality == "image":
        assert [s.output.tobytes() for s in again] == [s.output.tobytes() for s in samples]
    else:
        assert [s.output for s in again] == [s.output for s in samples]
    for name in ("mean", "judge"):
        np.testing.assert_array_equal(same_scores.columns[name], scores.columns[name])
    assert np.isnan(scores.columns["mean"]).any()
    assert same_scores.failures == scores.failures
    assert (same_scores.reward, same_scores.descending, same_scores.parts) == ("mean", frozenset(), frozenset())
    np.testing.assert_array_equal(np.flatnonzero(kept), selection.kept)


def test_pictures_survive_pixel_by_pixel(store):
    class Noise(FakePolicy):
        def _output(self, x):
            pixels = np.random.default_rng(int(abs(x[0]) * 1e6)).integers(0, 256, (13, 7, 4), dtype=np.uint8)
            return Image.fromarray(pixels, "RGBA" if x[0] > 0 else "CMYK")

    samples, _, _ = one_round(store, Noise("image"))
    assert {sample.output.mode for sample in samples} == {"RGB"}
    again, _, _ = read_round(store.folder, 1)
    assert [s.output.tobytes() for s in again] == [s.output.tobytes() for s in samples]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of datasets' own dependencies
def test_datasets_shows_the_pictures(finished, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    path = finished / "rounds" / "0001" / "samples.parquet"
    table = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(table[0]["image"], Image.Image)
    assert table.features["image"] == datasets.Image()
    samples, scores, kept = read_round(finished, 1)
    assert [row["image"].tobytes() for row in table] == [s.output.tobytes() for s in samples]
    assert table["score.mean"][:] == scores.columns["mean"].tolist()
    assert table["kept"][:] == kept.tolist()
    assert json.loads(table[K]["prompt_meta"]) == {"answer": 7, "score": 0.1}


def test_pandas_opens_a_round(finished):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(finished / "rounds" / "0001" / "samples.parquet")
    assert list(table["prompt"]) == ["a cat"] * K + ["ein Hündchen"] * K
    assert list(table["index"]) == [*range(K)] * 2
    assert table["image"][0]["bytes"].startswith(b"\x89PNG")


def test_what_was_not_scored_is_null_for_databases(store):
    import pyarrow.parquet as pq

    _, scores, _ = one_round(store, FakePolicy(), scorer=Scorer(FakeReward(fails_on=3)))
    column = pq.read_table(store.folder / "rounds" / "0001" / "samples.parquet")["score.mean"]
    assert column.null_count == np.isnan(scores.columns["mean"]).sum() > 0


def test_tensors_of_different_shapes_and_kinds_are_kept(tmp_path):
    asked = requests(PROMPTS, 2, 0, 1)
    rows = [
        {"tokens": torch.arange(n + 1), "step": torch.tensor(n), "half": torch.full((2, 2), n, dtype=torch.bfloat16)}
        for n in range(4)
    ]
    rows[3]["extra"] = torch.zeros(0, 3)
    samples = normalised([Sample(request, tensors=row) for request, row in zip(asked, rows, strict=True)])
    save_tensors(tmp_path / "x.safetensors", samples, {"round": 1})
    again = load_tensors(tmp_path / "x.safetensors", asked, {"round": 1})
    for one, other in zip(samples, again, strict=True):
        assert one.tensors.keys() == other.tensors.keys()
        assert all(
            torch.equal(one.tensors[name], other.tensors[name]) and one.tensors[name].dtype == other.tensors[name].dtype
            for name in one.tensors
        )


def test_metrics_are_kept_as_strict_json(finished):
    line = (finished / "metrics.jsonl").read_text().strip()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["kl"] is None
    assert json.loads(line) == json.loads((finished / "rounds" / "0001" / "metrics.json").read_text())
    (row,) = read_history(finished)
    assert row["round"] == 1
    assert math.isnan(row["kl"])
    with Store.resume(finished) as store:
        assert store.history()[0]["reward/mean"] == row["reward/mean"]


def test_outputs_and_latents_can_be_dropped(tmp_path):
    keep = Keep(latents=False, images=False)
    with Store.create(tmp_path / "run", {}, 5, keep=keep) as store:
        policy = FakePolicy("image")
        one_round(store, policy, a_trainer(policy))
    samples, scores, _ = read_round(tmp_path / "run", 1)
    assert samples[0].output is None
    assert not np.isnan(scores.columns["mean"]).any()
    assert not (tmp_path / "run" / "rounds" / "0001" / "latents.safetensors").exists()
    with Store.resume(tmp_path / "run") as store:
        assert store.keep == keep


def test_scores_can_be_added_and_replaced_but_not_the_reward(finished):
    more = np.array([1.0, np.nan, *range(6)])
    add_scores(finished, 1, {"clip": more})
    add_scores(finished, 1, {"clip": more + 1, "gold": more})
    samples, scores, _ = read_round(finished, 1)
    assert list(scores.columns) == ["mean", "clip", "gold"]
    np.testing.assert_array_equal(scores.columns["clip"], more + 1)
    assert samples[0].output is not None
    with pytest.raises(StoreError, match="reward that round 1 was selected by"):
        add_scores(finished, 1, {"mean": more})
    with pytest.raises(ValueError, match="8 samples"):
        add_scores(finished, 1, {"clip": more[:3]})


def test_a_round_that_is_not_there_names_those_that_are(finished):
    assert rounds_in(finished) == [1]
    with pytest.raises(StoreError, match=r"round 7 \(rounds with samples: 1\)"):
        read_round(finished, 7)


# --- what is not made twice ---


def test_a_killed_sampling_goes_on_with_the_parts_that_are_missing(store):
    class Killed(Drawn):
        def sample(self, requests, **settings):
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().sample(requests, **settings)

    killed, policy = Killed(), Drawn()
    asked = requests(PROMPTS * 2, K, store.seed, 1)[:14]
    with pytest.raises(KeyboardInterrupt):
        round_of(store.open(1, killed), killed, store.reporter).sample(asked)
    samples = round_of(store.open(1, policy), policy, store.reporter).sample(asked)
    assert (killed.asked, policy.asked) == ([4, 4], [4, 2])
    undisturbed = FakePolicy("image").sample(asked)
    assert all(torch.equal(a.tensors["x"], b.tensors["x"]) for a, b in zip(samples, undisturbed, strict=True))


def test_a_damaged_part_is_drawn_again_and_named(store, notes):
    policy = Drawn()
    asked = requests(PROMPTS, K, store.seed, 1)
    first = round_of(store.open(1, policy), policy, store.reporter).sample(asked)
    part = store.folder / "rounds" / "0001" / "parts" / "0001.safetensors"
    data = bytearray(part.read_bytes())
    data[-3] ^= 1  # in the middle of a number: still a valid file
    part.write_bytes(data)
    second = round_of(store.open(1, policy), policy, store.reporter).sample(asked)
    assert policy.asked == [4, 4, 4]
    assert len(notes.warnings) == 1
    assert "4 samples are drawn again" in notes.warnings[0]
    assert "0001.safetensors" in notes.warnings[0]
    assert all(torch.equal(a.tensors["x"], b.tensors["x"]) for a, b in zip(first, second, strict=True))
    part.write_bytes(b"")
    round_of(store.open(1, policy), policy, store.reporter).sample(asked)
    assert len(notes.warnings) == 2


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_round_is_sampled_again_and_named(store, notes, harm):
    policy = Drawn()
    first, *_ = one_round(store, policy)
    path = store.folder / "rounds" / "0001" / "samples.parquet"
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes({"flip": data, "cut": data[: len(data) // 2], "empty": b""}[harm])
    second, *_ = one_round(store, policy)
    assert policy.asked == [4] * 4
    assert "round 1 is sampled again: samples.parquet is damaged" in notes.warnings[0]
    assert [s.output.tobytes() for s in first] == [s.output.tobytes() for s in second]


def test_a_scored_round_is_neither_drawn_nor_scored_again(store):
    policy = Drawn()
    samples, scores, _ = one_round(store, policy)
    drawn = list(policy.asked)
    scorer = Scorer(FakeReward())
    folder = store.open(1, policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "__call__", lambda *_: pytest.fail("scored again"))
        made = round_of(folder, policy, store.reporter, scorer)
        again, same, selection = made.judge(made.sample([s.request for s in samples]))
    assert policy.asked == drawn
    assert [s.output.tobytes() for s in again] == [s.output.tobytes() for s in samples]
    np.testing.assert_array_equal(same.columns["mean"], scores.columns["mean"])
    assert len(selection) == len(PROMPTS)
    assert not (folder.path / "parts").exists()


def test_another_selection_of_stored_scores_is_noted(store):
    one_round(store, FakePolicy())
    _, _, selection = one_round(store, FakePolicy(), selector=TopFraction(0.5))
    _, _, kept = read_round(store.folder, 1)
    assert np.flatnonzero(kept).tolist() == selection.kept.tolist()
    assert kept.sum() == 4


def test_samples_of_another_policy_or_of_other_prompts_are_not_used(store, notes):
    policy = Drawn()
    one_round(store, policy)
    one_round(store, policy, prompts=PROMPTS[::-1])
    assert "answers other prompts" in notes.warnings[0]
    with torch.no_grad():
        policy.mean.add_(1)
    folder = RoundFolder(store.folder / "rounds" / "0001", 1, "another")
    round_of(folder, policy, notes).sample(requests(PROMPTS[::-1], K, store.seed, 1))
    assert "another policy" in notes.warnings[1]
    assert policy.asked == [4] * 6


def test_the_sampling_is_shared_and_every_process_has_it_all(store, monkeypatch):
    """Three processes, one after the other, each at the wait when the others have done their share."""
    asked = requests(PROMPTS, K, store.seed, 1)
    policies = [Drawn() for _ in range(3)]
    for policy in policies:
        policy.batch_size = 2
    folder = RoundFolder(store.folder / "rounds" / "0001", 1, "same")
    made = [round_of(folder, policy, Silent(), processes=Processes(rank, 3)) for rank, policy in enumerate(policies)]

    class Waited(Exception):  # noqa: N818
        pass

    def stop(_):
        raise Waited

    with monkeypatch.context() as patch:
        patch.setattr(Processes, "wait", stop)
        for one in made:
            with pytest.raises(Waited):
                one.sample(asked)
    monkeypatch.setattr(Processes, "wait", lambda _: None)
    found = [one.sample(asked) for one in made]
    assert [policy.asked for policy in policies] == [[2, 2], [2], [2]]
    alone = FakePolicy().sample(asked)
    for samples in found:
        assert all(torch.equal(a.tensors["x"], b.tensors["x"]) for a, b in zip(samples, alone, strict=True))


# --- what cannot go on ---


def test_a_round_with_nothing_scored_says_why_and_keeps_the_samples(store):
    class Broken(FakeReward):
        def __call__(self, samples):
            raise OSError("the model file is missing")

    policy = Drawn()
    with pytest.raises(RewardError, match=r"round 1: none of the 8 samples(.|\n)*OSError: the model file is missing"):
        one_round(store, policy, scorer=Scorer(Broken()))
    assert not (store.folder / "rounds" / "0001" / "samples.parquet").exists()
    one_round(store, policy)
    assert policy.asked == [4, 4]


@pytest.mark.parametrize("method", ["sample", "render"])
def test_a_policy_that_mixes_up_its_samples_is_refused(store, method):
    policy = FakePolicy()
    right = getattr(policy, method)
    setattr(policy, method, lambda items, **settings: right(items, **settings)[::-1])
    with pytest.raises(ModelError, match=f"method '{method}'"):
        one_round(store, policy)


def test_a_folder_that_holds_anything_is_left_alone(finished, tmp_path):
    with pytest.raises(StoreError, match=rf"already holds a run \(1 rounds finished\)(.|\n)*raft resume {finished}"):
        Store.create(finished, {}, 0)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match=r"not empty \(it holds 'thesis.tex'\)"):
        Store.create(other, {}, 0)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]
    with pytest.raises(StoreError, match="is a file"):
        Store.create(other / "thesis.tex", {}, 0)
    with pytest.raises(StoreError, match="holds no run"):
        Store.resume(other)


def test_an_empty_folder_is_taken(tmp_path):
    Store.create(tmp_path, {"a": None}, 1).close()
    assert read_config(tmp_path) == {"a": None}
    assert read_run(tmp_path)["seed"] == 1


def test_a_run_has_one_writer(store):
    with pytest.raises(StoreError, match="in use by process"):
        Store.resume(store.folder)
    script = f"from raft_core.machine.lock import Lock; from pathlib import Path; Lock(Path({str(store.folder)!r}))"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert f"StoreError: {store.folder} is in use by process" in other.stderr
    store.close()
    Store.resume(store.folder).close()


def test_a_changed_configuration_is_named_and_refused_unless_forced(finished, notes):
    with pytest.raises(StoreError, match=r"k: 4 → 8\n(.|\n)*rounds: \(not set\) → 3\n(.|\n)*--force"):
        Store.resume(finished, {"k": 8, "rounds": 3})
    assert read_config(finished) == {"k": K}
    Store.resume(finished, {"k": K}).close()
    with Store.resume(finished, {"k": 8}, force=True, reporter=notes) as store:
        assert list(store.unfinished(2)) == [2]
    assert read_config(finished) == {"k": 8}
    (entry,) = read_run(finished)["changes"]
    assert (entry["after_round"], entry["changed"]) == (1, ["k: 4 → 8"])


def test_a_config_file_that_was_edited_is_noticed(finished):
    (finished / "config.yaml").write_text("k: 5\n")
    with pytest.raises(StoreError, match="k: 4 → 5"):
        Store.resume(finished)
    (finished / "config.yaml").write_text("k: [")
    with pytest.raises(StoreError, match=r"config.yaml cannot be read"):
        Store.resume(finished)


def test_a_forced_change_drops_the_round_begun_under_the_old_one(finished):
    policy = Drawn()
    with Store.resume(finished) as store:
        store.restore(policy, a_trainer(policy))
        one_round(store, policy, rnd=2)
    with Store.resume(finished, {"k": K, "steps": 9}, force=True) as store:
        assert rounds_in(finished) == [1]
        store.restore(policy, a_trainer(policy))
        one_round(store, policy, rnd=2)
    assert policy.asked == [4] * 4


def test_other_means_than_before_are_named(finished, notes):
    run = read_run(finished)
    (finished / "run.json").write_text(json.dumps({**run, "versions": {**run["versions"], "torch": "1.0"}}))
    Store.resume(finished, reporter=notes).close()
    (warning,) = notes.warnings
    assert f'torch: "1.0" → "{torch.__version__}"' in warning


def test_changes_are_flat_and_see_through_tuples():
    old = {"a": {"b": [1, 2]}, "c": None, "d": {}}
    assert changes(old, {"a": {"b": (1, 2)}, "c": None, "d": {}}) == []
    assert changes(old, {"a": {"b": [1, 3]}, "d": {"e": "x"}}) == [
        "a.b.1: 2 → 3",
        "c: null → (not set)",
        "d: {} → (not set)",
        'd.e: (not set) → "x"',
    ]


def test_how_a_run_ended_is_noted(store):
    store.note(policy={"model": "fake"})
    store.ended("finished", "all 3 rounds are done")
    run = read_run(store.folder)
    assert (run["status"], run["reason"], run["policy"]) == ("finished", "all 3 rounds are done", {"model": "fake"})
    assert run["versions"]["torch"] == torch.__version__
    assert run["started"] <= run["ended"]
