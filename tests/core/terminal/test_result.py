"""What the terminal says of a comparison."""

from __future__ import annotations

from types import SimpleNamespace

from raft_core.terminal.result import unscored


def test_pairs_without_a_score_are_told():
    whole, partly = SimpleNamespace(name="taste", pairs=8, unscored=0), SimpleNamespace(name="ocr", pairs=5, unscored=3)
    evaluation = SimpleNamespace(split="heldout", comparisons=[whole, partly])
    assert unscored([evaluation]) == ["held-out prompts: 3 of 8 pairs have no score by ocr and are left out"]
