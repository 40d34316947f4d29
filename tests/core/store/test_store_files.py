"""Files that are whole or absent."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from raft_core.errors import StoreError
from raft_core.machine import files
from raft_core.machine.folders import free_folder
from raft_core.machine.lock import Lock
from raft_core.rewards.scoring import Scorer
from raft_core.rollout import Rollout
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK
from raft_core.sources.from_policy import FromPolicy
from raft_core.store.store import Store, rounds_in
from raft_core.store.tables import read_samples, write_samples
from raft_core.testing import FakePolicy, FakeReward
from raft_core.types import Prompt, Sample, Scores


@pytest.fixture
def small_disk():
    """Files may grow to 64 KiB, as on a disk that is nearly full; real errors from the system, also in Rust and C++."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "deep" / "file"
    files.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    files.write_text(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["deep", "file"]


def test_a_lock_on_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(_handle, _text):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(StoreError, match=r"\.lock cannot be written: .*No space left.*make room"):
            Lock(tmp_path)
    Lock(tmp_path).release()  # the failed one holds nothing


def test_the_first_folder_that_is_free(tmp_path):
    assert free_folder(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    assert free_folder(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run" / "x").touch()
    (tmp_path / "run-2").touch()  # a file is in the way as a full folder is
    assert free_folder(tmp_path / "run") == tmp_path / "run-3"
    with pytest.raises(StoreError, match=r"run-2 is a file"):
        free_folder(tmp_path / "run-2" / "deep" / "run")


def test_reading_scores_does_not_import_pandas(tmp_path):
    """It takes half a second and is only installed beside us."""
    samples = [Sample(request, output="x") for request in requests([Prompt("a")], 3, 0, 1)]
    scores = Scores("r", {"r": np.array([1.0, np.nan, 3.0])})
    write_samples(tmp_path / "samples.parquet", samples, scores, np.array([True, False, True]))
    _, read, kept, _ = read_samples(tmp_path / "samples.parquet")
    np.testing.assert_array_equal(read.columns["r"], [1, np.nan, 3])
    assert read.columns["r"].dtype == np.float64 and kept.tolist() == [True, False, True] and kept.dtype == bool
    code = (
        "import sys; from pathlib import Path; from raft_core.store.tables import read_samples; "
        f"read_samples(Path({str(tmp_path / 'samples.parquet')!r})); print('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_folder_is_published_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), files.publishing(tmp_path / "x") as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == []
    for content in ("first", "second"):
        with files.publishing(tmp_path / "x") as temporary:
            (temporary / "a").write_text(content)
        assert (tmp_path / "x" / "a").read_text() == content
        assert files.damage(tmp_path / "x") is None
    assert names(tmp_path) == ["SHA256SUMS", "a", "x"]


def test_checksums_are_those_of_sha256sum(tmp_path):
    with files.publishing(tmp_path / "x") as temporary:
        (temporary / "a").write_bytes(b"abc")
        (temporary / "b").write_bytes(b"")
    assert subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "x", check=False).returncode == 0


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "a").write_bytes(b"abd"), "checksum of a does not hold"),
        (lambda folder: (folder / "a").unlink(), "cannot be read"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "cannot be read"),
        (lambda folder: (folder / "SHA256SUMS").write_text(""), "empty"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b"\xff\xfe"), "cannot be read"),
    ],
)
def test_damage_is_found_and_named(tmp_path, harm, said):
    with files.publishing(tmp_path / "x") as temporary:
        (temporary / "a").write_bytes(b"abc")
    harm(tmp_path / "x")
    assert said in files.damage(tmp_path / "x")


def test_leftovers_of_killed_processes_are_swept_away(tmp_path):
    (tmp_path / ".run.json.17.tmp").write_text("half")
    (tmp_path / "checkpoints" / ".0003.17.tmp").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".0003.17.tmp" / "weights").write_text("half")
    (tmp_path / "checkpoints" / ".0002.17.old").mkdir()
    (tmp_path / "run.json").write_text("{}")
    files.sweep(tmp_path)
    assert names(tmp_path) == ["checkpoints", "run.json"]


def test_json_is_strict():
    found = files.strict({"a": float("nan"), "b": [np.float32(0.5), -np.inf], 3: (np.int64(2), torch.tensor(1.5))})
    assert found == {"a": None, "b": [0.5, None], "3": [2, 1.5]}


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_told_in_words_and_leaves_nothing(tmp_path):
    with pytest.raises(StoreError, match=r"disk is full: \S+big\S* could not be written \(\d+ MiB free\)"):
        files.write_text(tmp_path / "big", "x" * 100_000)
    with pytest.raises(StoreError, match="disk is full"), files.replacing(tmp_path / "big.safetensors") as temporary:
        save_file({"x": torch.zeros(100_000)}, temporary)
    with pytest.raises(StoreError, match="disk is full"), files.publishing(tmp_path / "folder") as temporary:
        save_file({"x": torch.zeros(100_000)}, temporary / "x")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_is_told_in_words(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="could not be written"):
        files.write_text(tmp_path / "file" / "below", "x")
    with pytest.raises(StoreError, match="cannot be made"):
        Store.create(tmp_path / "file" / "below", {}, 0)


def test_a_run_goes_on_after_the_disk_was_full(tmp_path, request):
    store = Store.create(tmp_path / "run", {}, 0)
    policy = FakePolicy(dim=4000)
    folder = store.open(1, policy)
    made = Rollout(policy, FromPolicy(), Scorer(FakeReward()), BestOfK(), False, store.reporter).begin(folder)
    asked = requests([Prompt("a")], 8, 0, 1)
    samples = made.sample(asked)  # two parts of 4 × 16 kB
    request.getfixturevalue("small_disk")
    with pytest.raises(StoreError, match="disk is full"):
        made.judge(samples)
    assert rounds_in(store.folder) == []
    assert names(folder.path) == ["0000.safetensors", "0001.safetensors", "parts"]
