"""Measure this machine's GPU in eight minutes: a round of each true architecture against a bare loop of the same work.

    python -m benchmarks.gpu                          all that fits into 8 minutes, then `pytest -m gpu`
    python -m benchmarks.gpu --only sd15 --seconds 200
    python -m benchmarks.gpu --miniature              tiny models on any machine, to see that it works

Nothing is downloaded: the architectures are true (SD 1.5, SDXL, Qwen 2.5 of 0.5B and 1.5B), the weights are random. Both sides
run in one process, one after the other, each alone on the device; the second round of each counts. It prints a table and
writes benchmarks/results/gpu_CARD.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import images, texts
from benchmarks.gpu.images import ImageWork
from benchmarks.gpu.models import write_image_model, write_text_model
from benchmarks.gpu.phases import PHASES
from benchmarks.gpu.texts import TextWork

RESULTS = Path(__file__).parent.parent / "results"
TESTS_S = 100.0  # kept for `pytest -m gpu`

Case = tuple[str, Callable[[], dict[str, Any]]]


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=470.0, help="when to begin nothing more")
    parser.add_argument("--only", default="", help="cases whose names begin so")
    parser.add_argument("--miniature", action="store_true", help="tiny models, a second each, on any machine")
    parser.add_argument("--no_tests", action="store_true", help="without `pytest -m gpu`")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args(words)
    if not arguments.miniature and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here: --miniature shows that the script works")
    began = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() and not arguments.miniature else "cpu")
    with tempfile.TemporaryDirectory() as folder, quietly():
        cases = miniature(Path(folder), device) if arguments.miniature else true_sizes(Path(folder), device)
        tested = not (arguments.no_tests or arguments.miniature)
        until = began + arguments.seconds - (TESTS_S if tested else 0)
        rows = [measured(case, until) for case in cases if case[0].startswith(arguments.only)]
    found = {"machine": machine(device), "cases": rows}
    if tested:
        found["tests"] = gpu_tests(max(10.0, began + arguments.seconds - time.monotonic()))
    print(table(found))
    place = arguments.json or RESULTS / f"gpu_{card(device)}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {place}")
    return found


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the libraries' progress bars, and their words for programmers."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for each in (diffusers_logging, transformers_logging):
        each.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft asks for it
        yield


def true_sizes(folder: Path, device: torch.device) -> list[Case]:
    """The cases by what they tell, the most telling first: what does not fit into the time is left out at the end."""
    sd, xl = folder / "sd15", folder / "sdxl"
    base = ImageWork(sd)
    large = ImageWork(xl, side=1024, prompts=1, batch_size=4, steps=10, train_steps=3, train_batch=2)

    def image(work: ImageWork, kind: Any) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            if not work.model.exists():
                write_image_model(work.model, kind, device)
            return images.both(work, device)

        return run

    def text(kind: Any, **settings: Any) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            place = folder / kind
            return texts.both(TextWork(place if place.exists() else write_text_model(place, kind, device), **settings), device)

        return run

    cases: list[Case] = [
        ("sd15 float16", image(base, "sd15")),
        ("sd15 bfloat16", image(replace(base, dtype="bfloat16"), "sd15")),
        ("qwen 0.5B bfloat16", text("0.5B")),
        ("sdxl float16", image(large, "sdxl")),
        ("sd15 float16 compiled", image(replace(base, compiled=True), "sd15")),
        ("sd15 float16 offload", image(replace(base, offload=True), "sd15")),
        ("qwen 1.5B bfloat16", text("1.5B")),
        ("sd15 float16 batch 2", image(replace(base, batch_size=2), "sd15")),
        ("sd15 float16 batch 16", image(replace(base, batch_size=16, k=8), "sd15")),
        ("sdxl float16 offload", image(replace(large, offload=True), "sdxl")),
    ]
    with contextlib.suppress(ImportError):
        import xformers  # noqa: F401  # pyright: ignore[reportMissingImports] - an extra

        cases.insert(5, ("sd15 float16 xformers", image(replace(base, attention="xformers"), "sd15")))
    return cases


def miniature(folder: Path, device: torch.device) -> list[Case]:
    """The same code on models of a few thousand weights."""
    from raft_diffusion.testing import tiny_pipeline
    from raft_text.testing import tiny_model

    small: dict[str, Any] = {
        "side": 32,
        "dtype": "float32",
        "k": 2,
        "batch_size": 2,
        "steps": 2,
        "train_steps": 1,
        "train_batch": 2,
    }
    text: dict[str, Any] = {"dtype": "float32", "prompts": 2, "k": 2, "tokens": 6, "batch_size": 4, "train_batch": 2}
    kinds: tuple[Any, ...] = ("sd1", "sdxl")
    made: list[Case] = [
        (kind, lambda kind=kind: images.both(ImageWork(tiny_pipeline(folder / kind, kind), **small), device, tiny=True))
        for kind in kinds
    ]
    return [*made, ("qwen2", lambda: texts.both(TextWork(tiny_model(folder / "qwen2", "qwen2"), **text), device))]


def measured(case: Case, until: float) -> dict[str, Any]:
    """The figures of a case, or why there are none: no time is left, or it failed, which the other cases survive."""
    name, run = case
    if time.monotonic() > until:
        return {"case": name, "left_out": "no time was left"}
    start = time.monotonic()
    try:
        found = run()
    except Exception as error:  # noqa: BLE001 - one case must not cost the others on a machine that is lent for minutes
        return {"case": name, "left_out": f"{type(error).__name__}: {str(error)[:500]}"}
    ratio = sum(found["toolkit"]["seconds"].values()) / sum(found["bare"]["seconds"].values())
    return {"case": name, "took_s": time.monotonic() - start, "round_ratio": ratio, **found}


def gpu_tests(seconds: float) -> dict[str, Any]:
    """What `pytest -m gpu` says, in the time that is left."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode(errors="replace")
        return {"left_out": f"not done after {seconds:.0f} s", "said": said[-2000:]}
    return {"status": done.returncode, "said": done.stdout[-4000:]}


def machine(device: torch.device) -> dict[str, Any]:
    import accelerate
    import diffusers
    import peft
    import transformers

    libraries = {each.__name__: each.__version__ for each in (torch, diffusers, transformers, peft, accelerate)}
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    size = torch.cuda.get_device_properties(0).total_memory if device.type == "cuda" else None
    return {"device": name, "memory_bytes": size, "python": platform.python_version(), **libraries}


def card(device: torch.device) -> str:
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def table(found: dict[str, Any]) -> str:
    """A line per case: seconds and peak memory of each phase, ours against the bare loop's."""
    lines = [str(found["machine"]["device"]), f"{'case':<24}{'round':>7}" + "".join(f"{phase:>26}" for phase in PHASES)]
    for row in found["cases"]:
        if "left_out" in row:
            lines.append(f"{row['case']:<24}{row['left_out'].splitlines()[0]}")
            continue
        cells = []
        for phase in PHASES:
            ours, bare = (row[side]["seconds"][phase] for side in ("toolkit", "bare"))
            sizes = (row[side]["peak_bytes"][phase] / 2**30 for side in ("toolkit", "bare"))
            cells.append("{:.2f}/{:.2f} s {:.1f}/{:.1f} G".format(ours, bare, *sizes))
        lines.append(f"{row['case']:<24}{row['round_ratio']:>7.2f}" + "".join(f"{cell:>26}" for cell in cells))
    if "tests" in found:
        lines.append(f"pytest -m gpu: {found['tests'].get('left_out') or found['tests']['said'].strip().splitlines()[-1]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
