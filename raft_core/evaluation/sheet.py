"""Before against after for any trained policy, on any prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raft_core.evaluation.evaluate import Evaluation
from raft_core.evaluation.files import write_results
from raft_core.types import Sample

SHEET_PROMPTS, SHEET_SAMPLES, SIDE = 12, 4, 128


def write_comparison(folder: Path, checkpoint: int, evaluation: Evaluation) -> list[Path]:
    """Write the numbers, every pair, and a picture of some; returns the files.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    files = [write_results(folder, checkpoint, [evaluation])]
    files.append(files[0].with_name(f"{evaluation.split}.parquet"))
    if any(hasattr(sample.output, "convert") for sample in evaluation.before):
        files.append(write_sheet(folder / "before_after.png", evaluation))
    return files


def write_sheet(path: Path, evaluation: Evaluation) -> Path:
    """One picture: a row per prompt, before on the left and after on the right, the same seeds on both sides.

    The place of a sample that failed stays empty.
    """
    from raft_core.machine.files import replacing
    from raft_core.media.image import contact_sheet

    columns = min(evaluation.k, SHEET_SAMPLES)
    rows = range(min(len(evaluation.prompts), SHEET_PROMPTS))

    def outputs(samples: Sequence[Sample], row: int) -> list:
        return [samples[row * evaluation.k + j].output for j in range(columns)]

    images = [image for row in rows for side in (evaluation.before, evaluation.after) for image in outputs(side, row)]
    sheet = contact_sheet(images, 2 * columns, side=SIDE)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")
    return path
