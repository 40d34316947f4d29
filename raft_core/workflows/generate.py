"""Outputs into a folder: each as a file of its own where it is a picture, all of them in one table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raft_core.machine.files import write_text
from raft_core.machine.out_of_memory import in_words
from raft_core.media.medium import medium_of
from raft_core.protocols import Policy
from raft_core.reporter import Reporter
from raft_core.sampling import rendered, requests, require_strength, sampled
from raft_core.soundness import require_sound
from raft_core.store.tables import write_samples
from raft_core.types import MESSAGES, Prompt, Sample, Scores


def generate(
    policy: Policy, prompts: Sequence[Prompt], *, k: int, seed: int, reporter: Reporter, strength: float = 1.0
) -> list[Sample]:
    """K rendered samples per prompt, prompt-major, each fixed by (seed, prompt, index) alone; some may have failed.

    Args:
        strength: how strongly what was trained acts: 0 is the model as it was before training, 1 as trained.

    Raises:
        ConfigError: a negative strength.
        NotFiniteError: all of them failed.
        DeviceError: memory ran out.
    """
    require_strength(strength)
    asked = requests(prompts, k, seed, "generate")
    with in_words("sample"), policy.resident("sample"), reporter.phase("sampling", len(asked)) as bar:
        samples = sampled(policy, asked, bar, strength=strength)
    with in_words("render"), policy.resident("render"), reporter.phase("rendering", len(asked)) as bar:
        outputs = rendered(policy, samples, bar)
    require_sound(outputs, "generating", reporter.warn)
    return outputs


UNSCORED = Scores("", {})


def write_outputs(
    folder: Path,
    samples: Sequence[Sample],
    scores: Scores = UNSCORED,
    kept: np.ndarray | None = None,
    more: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Write pictures as PNG, and ``samples.jsonl`` and ``samples.parquet`` with all; returns the files.

    A sample that failed has no output there; in its place ``samples.jsonl`` has ``failed``, the reason.

    Args:
        scores: of the samples.
        kept: [N] bool, the samples that were chosen; None = nothing was chosen.
        more: [N] what else ``samples.jsonl`` says of each.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    files, lines = [], []
    for number, (sample, stem) in enumerate(zip(samples, stems(samples), strict=True)):
        row: dict[str, Any] = {"prompt": sample.prompt.text, "index": sample.request.index, "seed": sample.seed}
        if sample.prompt.messages is not None:
            row[MESSAGES] = list(sample.prompt.messages)
        if sample.failed:
            row["failed"] = sample.failed
        else:
            told, written = medium_of(sample.output).write(sample.output, folder, stem)
            row |= told
            files += written
        lines.append(json.dumps({**row, **more[number]} if more else row, ensure_ascii=False))
    write_text(folder / "samples.jsonl", "\n".join(lines) + "\n")
    write_samples(folder / "samples.parquet", samples, scores, np.zeros(len(samples), dtype=bool) if kept is None else kept)
    return [*files, folder / "samples.jsonl", folder / "samples.parquet"]


def stems(samples: Sequence[Sample]) -> Iterator[str]:
    """``003-a-large-red-circle-1``: number of the prompt, the prompt, index of the sample."""
    number, last = 0, None
    for sample in samples:
        if sample.prompt.id != last:
            number, last = number + 1, sample.prompt.id
        slug = re.sub(r"[^a-z0-9]+", "-", sample.prompt.text.lower()).strip("-")[:48].rstrip("-")
        yield f"{number:03d}-{slug}-{sample.request.index}"
