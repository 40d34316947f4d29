"""Parts of a file of samples: some columns, some rows, and no more of the file than they are in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raft_core.store.tables import ROWS_PER_GROUP, read_columns, write_samples
from raft_core.store.tensors import UnusableError
from raft_core.types import Prompt, Request, Sample, Scores

N = 2 * ROWS_PER_GROUP + 7


@pytest.fixture
def file(tmp_path: Path) -> Path:
    samples = [Sample(Request(Prompt(f"p{i}"), 0, i), output=f"text {i}") for i in range(N)]
    values = np.arange(N, dtype=float)
    values[3] = np.nan
    write_samples(tmp_path / "samples.parquet", samples, Scores("r", {"r": values}), np.zeros(N, dtype=bool), rnd=4)
    return tmp_path / "samples.parquet"


def test_only_wanted_columns_are_read(file: Path):
    columns, facts = read_columns(file, lambda name: name in ("prompt", "score.r", "image"))
    assert set(columns) == {"prompt", "score.r"}  # there is no image
    assert columns["prompt"][-1] == f"p{N - 1}"
    assert columns["score.r"][2:5] == [2.0, None, 4.0]
    assert (facts["round"], facts["reward"]) == (4, "r")


def test_rows_of_several_groups_come_in_their_order(file: Path):
    rows = [N - 1, 0, ROWS_PER_GROUP - 1, ROWS_PER_GROUP]
    columns, _ = read_columns(file, lambda name: name == "text", rows)
    assert columns["text"] == [f"text {i}" for i in sorted(rows)]
    assert read_columns(file, lambda name: name == "text", [])[0] == {"text": []}


@pytest.mark.parametrize("rows", [[N], [-1], [0, 10 * N]])
def test_a_row_that_is_not_there_is_said(file: Path, rows: list[int]):
    with pytest.raises(UnusableError, match=f"{N} rows"):
        read_columns(file, lambda name: name == "text", rows)


def test_a_damaged_file_is_said(file: Path):
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(UnusableError, match="damaged"):
        read_columns(file, lambda name: name == "text")
