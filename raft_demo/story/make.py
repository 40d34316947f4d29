"""Make the pictures that the app opens with, from a finished run: python -m raft_demo.story.make RUN

Nothing is picked: the first prompt of the first round with all its samples, and the first sample of the first held-out prompts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raft_core.errors import DataError
from raft_core.machine.files import write_json
from raft_core.media.image import data_uri, enlarged, fitted
from raft_core.report.data import read_run_data
from raft_core.report.facts import label
from raft_core.types import Sample, Scores

FILE = Path(__file__).parent / "story.json"
PAIRS, SIDE = 6, 192


def story_of(folder: Path) -> dict[str, Any]:
    """What the opening page shows of a run, as plain data.

    Raises:
        DataError: the run has no rounds with pictures, or no comparison.
    """
    data = read_run_data(folder)
    if not data.rounds or not data.evaluations or not hasattr(data.rounds[0].samples[0].output, "size"):
        raise DataError(f"{folder} has no rounds with pictures and a comparison: give a finished run of an image model")
    first, compared = data.rounds[0], data.evaluations[0]
    prompt = first.samples[0].prompt.text
    rows = [i for i, sample in enumerate(first.samples) if sample.prompt.text == prompt]
    reward = compared.comparisons[0]
    pairs = range(0, len(compared.before), compared.k)[:PAIRS]
    return {
        "prompt": prompt,
        "reward": label(first.scores.reward),
        "rounds": data.stored,
        "ranked": [_ranked(first.samples[i], first.scores, i, bool(first.kept[i])) for i in _best_first(first.scores, rows)],
        "pairs": [
            {
                "prompt": compared.before[i].prompt.text,
                **{side: _picture(samples[i]) for side, samples in (("before", compared.before), ("after", compared.after))},
            }
            for i in pairs
        ],
        "means": [reward.before, reward.after],
        "prompts": len(compared.prompts),
    }


def _best_first(scores: Scores, rows: Sequence[int]) -> list[int]:
    values = scores.columns[scores.reward]
    sign = 1 if scores.reward in scores.descending else -1
    return sorted((i for i in rows if not np.isnan(values[i])), key=lambda i: sign * values[i])


def _ranked(sample: Sample, scores: Scores, i: int, kept: bool) -> dict[str, Any]:
    return {"picture": _picture(sample), "score": round(float(scores.columns[scores.reward][i]), 4), "kept": kept}


def _picture(sample: Sample) -> str:
    return data_uri(enlarged(fitted(sample.output, SIDE), SIDE))


if __name__ == "__main__":
    write_json(FILE, story_of(Path(sys.argv[1])))
    print(FILE)
