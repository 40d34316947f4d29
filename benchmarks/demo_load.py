"""Twenty visitors at once on the demo's page Compare, against the pipeline that draws the same pictures by itself.

    python -m benchmarks.demo_load                                        20 visitors, 4 pictures each before and after
    python -m benchmarks.demo_load --visitors 4 --pictures 2 --turns 1

The app runs as `raft demo` runs it, in processes of its own; the visitors are Gradio's own clients, who all ask at once. The
plain pipeline of diffusers (with the LoRA for the pictures after training) draws as many pictures in turn with it. What counts
is the ratio of the times per picture. The visitors' time includes the way to the server and back, the line, and the pictures as
HTML and as files; it is told without scores and with them (the page's default: three rewards on every picture). Processor time,
of the web server and its worker together, is told besides: other programs on the machine change it little.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXAMPLE = "bundled:examples/resolution"
STEPS, GUIDANCE, SIDE = 12, 1.5, 32
START_S = 300


@contextmanager
def served() -> Iterator[tuple[str, int]]:
    """Address and process of an app with an empty runs folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "raft_cli", "demo", runs, "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process)
            yield url, process.pid
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(url: str, process: subprocess.Popen) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < START_S:
        if process.poll() is not None:
            raise SystemExit("the app ended at once")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the app does not answer")


class Visitor(threading.Thread):
    """Asks for one comparison and notes when it was there."""

    def __init__(self, url: str, number: int, pictures: int, score: bool, together: threading.Barrier):
        super().__init__(daemon=True)
        from gradio_client import Client

        self.number = number
        self._client = Client(url, verbose=False)
        self._asked = ([EXAMPLE], "a large red circle on the left, on a gray background", number, pictures)
        self._score = score
        self._together = together
        self.asked_at = self.done_at = 0.0
        self.failed = ""

    def run(self) -> None:
        self._together.wait()
        self.asked_at = time.perf_counter()
        settings = ("Side by side", 1.0, STEPS, GUIDANCE, f"{SIDE} × {SIDE}", self._score)
        try:
            job = self._client.submit(*self._asked, *settings, api_name="/compare")
            job.result()
            html = next(output[1] for output in reversed(job.outputs()) if isinstance(output[1], str))
            if html.count("<img ") != 2 * self._asked[-1]:
                self.failed = "not all pictures came"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what a visitor would meet
            self.failed = f"{type(error).__name__}: {error}"
        self.done_at = time.perf_counter()


def processor_s(process: int) -> float:
    """Processor time of an app and all that it has begun."""
    import psutil

    app = psutil.Process(process)
    times = [each.cpu_times() for each in (app, *app.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def visit(url: str, process: int, visitors: int, pictures: int, score: bool) -> dict[str, Any]:
    """All ask at once; seconds per picture, each one's wait, and who failed."""
    together = threading.Barrier(visitors)
    crowd = [Visitor(url, number, pictures, score, together) for number in range(visitors)]
    spent = processor_s(process)
    for visitor in crowd:
        visitor.start()
    for visitor in crowd:
        visitor.join()
    begun, ended = min(v.asked_at for v in crowd), max(v.done_at for v in crowd)
    waits = sorted(v.done_at - v.asked_at for v in crowd)
    return {
        "seconds_per_picture": (ended - begun) / (visitors * 2 * pictures),
        "processor_s_per_picture": (processor_s(process) - spent) / (visitors * 2 * pictures),
        "first_s": waits[0],
        "median_s": statistics.median(waits),
        "last_s": waits[-1],
        "failed": [v.failed for v in crowd if v.failed],
    }


class Bare:
    """The pipeline of diffusers, with and without the LoRA."""

    def __init__(self) -> None:
        from raft_core.machine.torchvision import ensure_importable

        ensure_importable()
        import torch
        from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

        from raft_core.bundled import bundled_models, bundled_runs

        self._pipe = StableDiffusionPipeline.from_pretrained(
            bundled_models()["bundled:shapes"], dtype=torch.float32, safety_checker=None
        )
        self._pipe.scheduler = DPMSolverMultistepScheduler.from_config(self._pipe.scheduler.config)
        self._pipe.set_progress_bar_config(disable=True)
        self._pipe.load_lora_weights(str(bundled_runs()[EXAMPLE] / "export"))

    def draw(self, seed: int, pictures: int) -> None:
        import torch

        for on in (False, True):
            (self._pipe.enable_lora if on else self._pipe.disable_lora)()
            self._pipe(
                ["a large red circle on the left, on a gray background"] * pictures,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                width=SIDE,
                height=SIDE,
                generator=[torch.Generator().manual_seed(seed * pictures + i) for i in range(pictures)],
            )

    def measure(self, visitors: int, pictures: int) -> dict[str, float]:
        begun, spent = time.perf_counter(), time.process_time()
        for seed in range(visitors):
            self.draw(seed, pictures)
        drawn = visitors * 2 * pictures
        return {
            "seconds_per_picture": (time.perf_counter() - begun) / drawn,
            "processor_s_per_picture": (time.process_time() - spent) / drawn,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=4, help="of each visitor, before and after (4)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    import torch

    bare = Bare()
    bare.draw(0, args.pictures)
    turns = []
    with served() as (url, process):
        visit(url, process, 1, args.pictures, True)  # loads the model and the rewards
        for _ in range(args.turns):
            before = bare.measure(args.visitors, args.pictures)
            plain, scored = (visit(url, process, args.visitors, args.pictures, score) for score in (False, True))
            after = bare.measure(args.visitors, args.pictures)
            turns.append({"bare": [before, after], "unscored": plain, "scored": scored})
            print(json.dumps(turns[-1]), flush=True)
    figures = {
        "machine": {
            "cpu_count": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": os.getloadavg()[0],
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "visitors": args.visitors,
        "pictures": 2 * args.pictures,
        "failed": sum(len(turn[kind]["failed"]) for turn in turns for kind in ("unscored", "scored")),
        "ratio": {
            f"{kind} {what}": _spread([_ratio(turn, kind, what) for turn in turns])
            for kind in ("unscored", "scored")
            for what in ("seconds_per_picture", "processor_s_per_picture")
        },
        "turns": turns,
    }
    for name, (middle, low, high) in figures["ratio"].items():
        print(f"{name}: {middle:.2f} ({low:.2f} … {high:.2f}) times the bare pipeline's")
    print(f"failed: {figures['failed']} of {2 * args.turns * args.visitors} comparisons")
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _ratio(turn: dict[str, Any], kind: str, what: str) -> float:
    return turn[kind][what] / statistics.mean(each[what] for each in turn["bare"])


def _spread(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


if __name__ == "__main__":
    main()
