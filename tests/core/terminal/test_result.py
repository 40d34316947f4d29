"""What the terminal says of a comparison."""

from __future__ import annotations

from types import SimpleNamespace

from raft_core.terminal.result import unscored
from raft_core.types import Prompt, Request, Sample


def test_pairs_without_a_score_are_told():
    whole, partly = SimpleNamespace(name="taste", pairs=8, unscored=0), SimpleNamespace(name="ocr", pairs=5, unscored=3)
    samples = [Sample(Request(Prompt("a"), index, index), output="x") for index in range(8)]
    sides = {"before": samples, "after": samples, "failed": {}}
    evaluation = SimpleNamespace(split="heldout", comparisons=[whole, partly], **sides)
    assert unscored([evaluation]) == ["held-out prompts: 3 of 8 pairs have no score by ocr and are left out"]
    evaluation.after = [*samples[:7], samples[7].as_failed("its pixels are not finite")]
    evaluation.failed = {"after": "1 of 8 failed"}
    assert unscored([evaluation]) == [
        "held-out prompts, after: 1 of 8 failed",
        "held-out prompts: 2 of 8 pairs have no score by ocr and are left out",
    ]
