"""Seeds depend on their path and on nothing else."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from raft_core.rng import seed_for, torch_rng
from raft_core.sampling import chunks, requests
from raft_core.types import Prompt

paths = st.lists(st.one_of(st.integers(-(2**70), 2**70), st.text(max_size=5)), max_size=4)


@given(paths, paths)
def test_different_paths_have_different_seeds(one, other):
    assert (seed_for(*one) == seed_for(*other)) == (one == other)


@given(paths)
def test_a_seed_fits_torch_numpy_and_parquet(path):
    seed = seed_for(*path)
    assert 0 <= seed < 2**63
    torch_rng(seed)


def test_pinned():
    """A run that was begun with one version must not change under the next."""
    assert seed_for(0, "sample", 1, "prompt", 0) == 3829844937929760462
    assert seed_for(1) != seed_for("1")


def test_global_state_is_neither_read_nor_written():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = torch.randn(3, generator=torch_rng(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(torch.randn(3, generator=torch_rng(5)), first)


def test_requests_are_prompt_major_and_know_no_neighbours():
    one, two = Prompt("one"), Prompt("two")
    asked = requests([one, two], 3, seed=7, rnd=2)
    assert [(r.prompt.text, r.index) for r in asked] == [("one", 0), ("one", 1), ("one", 2), ("two", 0), ("two", 1), ("two", 2)]
    assert requests([two], 3, seed=7, rnd=2) == asked[3:]
    assert requests([one, two], 2, seed=7, rnd=2) == [r for r in asked if r.index < 2]
    assert len({r.seed for r in asked + requests([one, two], 3, 7, 3) + requests([one, two], 3, 8, 2)}) == 18


def test_chunks():
    assert [list(part) for part in chunks([1, 2, 3, 4, 5], 2)] == [[1, 2], [3, 4], [5]]
    assert list(chunks([], 2)) == []
