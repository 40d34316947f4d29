"""A policy small enough to read and fast enough to run the whole loop in a test.

``FakePolicy`` draws x ~ N(mean[prompt], 1) in D dimensions and learns the means. Everything that the core asks of a policy is
there, so the loop, the store, resume, evaluation and the report can be tested without a model.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from raft_core.machine.launch import run_together
from raft_core.protocols import Phase, Purpose, RewardInfo
from raft_core.rng import seed_for, torch_rng
from raft_core.types import Prompt, Request, Sample


class FakePolicy:
    """A table of Gaussians, one mean per prompt bucket, unit variance.

    Args:
        modality: ``"text"`` renders x as a comma-separated string, ``"image"`` as an 8×8 picture as bright as the mean of x.
        dim: D, dimensions of a sample.
        buckets: rows of the table; a prompt uses the row that its hash names.
        batch_size: requests per call that the loop aims at.
    """

    def __init__(self, modality: Literal["text", "image"] = "text", dim: int = 2, buckets: int = 64, batch_size: int = 4):
        self.modality = modality
        self.batch_size = batch_size
        self.mean = torch.nn.Parameter(torch.zeros(buckets, dim))
        self._start = self.mean.detach().clone()

    def check(self) -> list[str]:
        return []

    def load(self) -> None:
        """Nothing to load."""

    def visible(self, text: str) -> str:
        return text

    def _means(self, items: Sequence[Request | Sample], strength: float) -> torch.Tensor:
        rows = [seed_for("bucket", item.prompt.text) % len(self.mean) for item in items]
        table = {0.0: self._start, 1.0: self.mean}.get(strength)
        return (torch.lerp(self._start, self.mean, strength) if table is None else table)[rows]  # [B, D]

    def sample(
        self, requests: Sequence[Request], *, purpose: Purpose = "use", strength: float = 1.0, trace: bool = False
    ) -> list[Sample]:
        with torch.no_grad():
            means = self._means(requests, strength)
            noise = torch.stack([torch.randn(means.shape[1], generator=torch_rng(r.seed)) for r in requests])
            drawn = means + noise
        samples = [Sample(request, tensors={"x": x}, meta={"steps": 1}) for request, x in zip(requests, drawn, strict=True)]
        return self._traced(samples, strength == 0) if trace else samples

    def _traced(self, samples: Sequence[Sample], reference: bool) -> list[Sample]:
        with torch.no_grad():
            log_probs, masks = self.step_log_probs(samples, reference=reference)
        pairs = zip(samples, log_probs, masks, strict=True)
        return [replace(s, tensors={**s.tensors, "step_log_probs": row, "step_mask": mask}) for s, row, mask in pairs]

    def render(self, samples: Sequence[Sample]) -> list[Sample]:
        return [sample.with_output(self._output(sample.tensors["x"])) for sample in samples]

    def _output(self, x: torch.Tensor) -> Any:
        if self.modality == "text":
            return ",".join(f"{value:.6f}" for value in x.tolist())
        from PIL import Image

        level = int(255 * torch.sigmoid(x.mean()))
        return Image.new("RGB", (8, 8), (level, level, 255 - level))

    def draw(self, samples: Sequence[Sample], seeds: Sequence[int]) -> None:
        return None

    def nll(self, samples: Sequence[Sample], draw: None, *, reference: bool = False) -> torch.Tensor:
        x = torch.stack([sample.tensors["x"] for sample in samples])
        error = (x - self._means(samples, 0.0 if reference else 1.0)) ** 2  # [B, D]
        return error.sum(dim=1).detach() / 2 if reference else error.sum(dim=1) / 2

    def step_log_probs(self, samples: Sequence[Sample], *, reference: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        log_probs = -self.nll(samples, None, reference=reference)[:, None]
        return log_probs, torch.ones_like(log_probs, dtype=torch.bool)

    def embed(self, samples: Sequence[Sample]) -> np.ndarray:
        x = torch.stack([torch.cat([sample.tensors["x"], torch.ones(1)]) for sample in samples])
        return torch.nn.functional.normalize(x, dim=1).numpy()

    @contextlib.contextmanager
    def resident(self, phase: Phase) -> Iterator[None]:
        yield

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        return {"mean": self.mean}

    def describe(self) -> dict[str, Any]:
        return {"model": "fake", "dim": self.mean.shape[1]}

    def save(self, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "means.json").write_text(json.dumps(self.mean.tolist()))
        return [folder / "means.json"]


class FakeWriter(FakePolicy):
    """A ``FakePolicy`` that also takes outputs that were made elsewhere."""

    traces_written = True

    def check_written(self, prompts: Sequence[Prompt], outputs: Sequence[Any]) -> list[str]:
        return [f"{output!r} is no list of numbers" for output in outputs if isinstance(output, str) and not output.strip()][:1]

    def fitted(self, request: Request, output: Any) -> Any:
        return output if isinstance(output, str) else output.resize((8, 8))

    def written(self, requests: Sequence[Request], outputs: Sequence[Any], *, trace: bool = False) -> list[Sample]:
        samples = [
            Sample(request, self.fitted(request, output), {"x": self._read(output)}, {"finish": "written"})
            for request, output in zip(requests, outputs, strict=True)
        ]
        return self._traced(samples, False) if trace else samples

    def _read(self, output: Any) -> torch.Tensor:
        """The x that an output shows."""
        if isinstance(output, str):
            return torch.tensor([float(number) for number in output.split(",")])
        level = (output.getpixel((0, 0))[0] + 0.5) / 256
        return torch.full((self.mean.shape[1],), level).logit()


class FakeStages(FakePolicy):
    """A ``FakePolicy`` whose samples can be looked at on the way: at a point a, x is a·x, and a whole way costs 100 passes."""

    def check_stages(self, at: Sequence[float]) -> list[str]:
        return []

    def sample_in_stages(
        self,
        requests: Sequence[Request],
        at: Sequence[float],
        goes_on: Callable[[Sequence[Sample]], Sequence[bool]],
        *,
        trace: bool = False,
    ) -> list[Sample]:
        whole = self.sample(requests, purpose="round", trace=trace)
        found = [replace(sample, meta={**sample.meta, "evaluations": 100}) for sample in whole]
        left = list(range(len(found)))
        for point in at:
            previews = [replace(whole[i], tensors={"x": point * whole[i].tensors["x"]}) for i in left]
            verdicts = goes_on(self.render(previews))
            for i, preview, stays in zip(left, previews, verdicts, strict=True):
                if not stays:
                    meta = {**preview.meta, "rejected": True, "evaluations": round(100 * point)}
                    found[i] = replace(preview, meta=meta)
            left = [i for i, stays in zip(left, verdicts, strict=True) if stays]
        return found


class FakeReward:
    """The mean of x: higher in every direction that the policy can move to.

    Args:
        name: label of the score.
        fails_on: seeds that are left unscored when divisible by this; 0 = none.
    """

    def __init__(self, name: str = "mean", fails_on: int = 0):
        self.info = RewardInfo(name=name, scale="mean of x")
        self.fails_on = fails_on

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        scores = [float(sample.tensors["x"].mean()) for sample in samples]
        failed = [bool(self.fails_on) and sample.seed % self.fails_on == 0 for sample in samples]
        return np.where(failed, np.nan, scores)


def close(found: Any, expected: Any, relative: float = 1e-4) -> None:
    """Assert that two computations of the same numbers agree up to rounding.

    What float32 loses by adding up in another order (of a batch, with padding, on another processor) is a part of the largest
    term and not of each result: a difference of two hundreds is unsure in its fifth digit, however small it is. So the
    largest deviation is held against the largest expected value. 1e-4 is about 1000 roundings, as of a small network's layers.

    Args:
        found, expected: tensors or arrays of the same shape; NaN in the same places.
        relative: largest deviation as a part of the largest expected value, > 0.

    Raises:
        AssertionError: they differ by more, in shape, or in where they are NaN.
    """
    a, b = (np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x, dtype=np.float64) for x in (found, expected))
    assert a.shape == b.shape, f"the shapes {a.shape} and {b.shape} differ"
    assert (np.isnan(a) == np.isnan(b)).all(), f"NaN in other places:\n{a}\n{b}"
    if a.size and not np.isnan(a).all():
        off, scale = float(np.nanmax(np.abs(a - b))), float(np.nanmax(np.abs(b)))
        assert off <= relative * scale, f"off by {off:.3g}, but {relative:g} of {scale:.3g} is allowed:\n{a}\n{b}"


def together(script: str, arguments: Callable[[int], Sequence[object]], count: int, timeout_s: float = 280) -> list[int]:
    """Run a script in ``count`` processes on the CPU that find one another, and wait for every one; returns exit statuses.

    Args:
        arguments: of a rank.
    """
    environment = {
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(place for place in sys.path if place),
    }
    ended = run_together(
        lambda rank: [sys.executable, script, *map(str, arguments(rank))], count, environment, timeout_s=timeout_s
    )
    return list(ended.statuses)
