"""The main job draws, scores and keeps what it always has: its rows were recorded before the rooms were built."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.golden import machine, rows
from raft_cli import main

RECORD = Path(__file__).parent / "golden" / "resolution.parquet"
ROUNDS = 2  # of five: the second one begins with trained weights


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine
def test_the_main_job_gives_the_rows_that_were_recorded(tmp_path):
    recorded = pq.read_table(RECORD)
    here = json.loads(recorded.schema.metadata[b"machine"]) == machine()
    words = ["--rounds", str(ROUNDS), "--evaluation.k", "1", "--evaluation.prompts", "1", "--output", str(tmp_path / "run")]
    assert main(["align", "shapes/resolution", *words]) == 0
    found = rows(tmp_path / "run")
    expected = recorded.slice(0, len(found))
    for name in ("round", "prompt", "index", "seed"):
        assert found[name].to_pylist() == expected[name].to_pylist()
    if here:  # to the bit
        assert found.to_pylist() == expected.to_pylist()
        return
    first = np.array(found["round"]) == 1  # before any training: what differs is the order of additions alone
    for name in (name for name in found.column_names if name.startswith("score.")):
        ours, theirs = np.array(found[name])[first], np.array(expected[name])[first]
        assert np.mean(np.isclose(ours, theirs, rtol=5e-3, atol=5e-3)) > 0.95  # pixels are rounded to 256 levels
    assert np.mean(np.array(found["kept"])[first] == np.array(expected["kept"])[first]) > 0.95
