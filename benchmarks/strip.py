"""The README's pictures: the first sample of the first held-out prompts of a run, before above after, nothing picked.

python -m benchmarks.strip RUN OUT.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from raft_core.evaluation.files import read_results
from raft_core.media.image import contact_sheet

PROMPTS, SIDE = 12, 96


def strip(run: Path) -> Image.Image:
    """Two rows of pictures: before, and from the same noise after."""
    results = read_results(run)
    if results is None:
        raise SystemExit(f"{run} has no evaluation: let it finish")
    evaluation = next(e for e in results.evaluations if e.split == "heldout")
    first = [side[:: evaluation.k][:PROMPTS] for side in (evaluation.before, evaluation.after)]
    return contact_sheet([sample.output for side in first for sample in side], len(first[0]), side=SIDE)


if __name__ == "__main__":
    strip(Path(sys.argv[1])).save(sys.argv[2], optimize=True)
