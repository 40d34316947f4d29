"""What the terminal says of a comparison."""

from __future__ import annotations

from types import SimpleNamespace

from raft_core.terminal.result import unscored


def test_pairs_without_a_score_are_told():
    whole, partly = SimpleNamespace(name="taste", pairs=8, unscored=0), SimpleNamespace(name="ocr", pairs=5, unscored=3)
    sound, broken = SimpleNamespace(failed=""), SimpleNamespace(failed="its pixels are not finite")
    evaluation = SimpleNamespace(split="heldout", comparisons=[whole, partly], before=[sound] * 8, after=[sound] * 8, failed={})
    assert unscored([evaluation]) == ["held-out prompts: 3 of 8 pairs have no score by ocr and are left out"]
    evaluation.after, evaluation.failed = [sound] * 7 + [broken], {"after": "1 of 8 failed"}
    assert unscored([evaluation]) == [
        "held-out prompts, after: 1 of 8 failed",
        "held-out prompts: 2 of 8 pairs have no score by ocr and are left out",
    ]
