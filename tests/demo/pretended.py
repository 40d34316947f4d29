"""Run folders as a run would leave them, made in no time and without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from raft_core.store.manifest import METRICS, RUN, write_config
from raft_core.store.rounds import SAMPLES, round_folder
from raft_core.store.tables import write_samples
from raft_core.types import Prompt, Request, Sample, Scores

PROMPTS = ("a red circle", "a <b>blue</b> square")
K = 4


def pretended_run(folder: Path, *, rounds: int = 3, text: bool = False, status: str = "finished", start: float = 1.0) -> Path:
    """A run of two prompts and four samples each, scored by "taste" (kept: the best) and "noise" (lower is better).

    Args:
        start: mean of the reward in the first round; it rises by 1 a round.
    """
    kind = "raft_text.policy.CausalLM" if text else "raft_diffusion.policy.StableDiffusion"
    policy = {"class_path": kind, "init_args": {"model": f"bundled:{'sums' if text else 'shapes'}"}}
    folder.mkdir(parents=True)
    write_config(folder, {"policy": policy, "reward": "Aesthetic", "rounds": rounds, "k": K})
    (folder / RUN).write_text(json.dumps({"status": status, "reason": f"all {rounds} rounds are done"}))
    history = [_metrics(rnd, start + rnd - 1) for rnd in range(1, rounds + 1)]
    (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in history))
    for rnd in range(1, rounds + 1):
        _round(folder, rnd, text, start + rnd - 1)
    return folder


def export(folder: Path) -> None:
    """What a finished run has to take away."""
    (folder / "export").mkdir()
    (folder / "report").mkdir()
    for name in ("pytorch_lora_weights.safetensors", "lora_kohya.safetensors", "README.md"):
        (folder / "export" / name).write_text(f"{name} of {folder.name}")
    (folder / "report" / "index.html").write_text("<!doctype html><h1>The report</h1><p>of a run")


def _metrics(rnd: int, mean: float) -> dict[str, float]:
    rewards = {"reward/mean": mean, "reward/best": mean + 1, "reward/kept": mean + 1}
    judged = {"judge/gold": mean / 10, "judge_kept/gold": mean / 8}
    return {"round": rnd, **rewards, **judged, "diversity": 1 / rnd, "kl": 0.1 * rnd}


def _round(folder: Path, rnd: int, text: bool, mean: float) -> None:
    samples: list[Sample] = []
    for p, prompt in enumerate(PROMPTS):
        for j in range(K):
            output = f"<i>completion</i> {rnd}.{p}.{j}" if text else Image.new("RGB", (32, 32), (60 * j, 80 * p, 40 * rnd))
            samples.append(Sample(Request(Prompt(prompt), j, 1000 * rnd + 10 * p + j), output=output))
    taste = np.array([mean + 0.5 * (i % K) - 0.75 for i in range(len(samples))])
    noise = _shuffled(len(samples), missing=3)
    scores = Scores("taste", {"taste": taste, "noise": noise}, {}, frozenset({"noise"}), frozenset())
    kept = np.array([i % K == K - 1 for i in range(len(samples))])
    write_samples(round_folder(folder, rnd) / SAMPLES, samples, scores, kept, rnd=rnd, policy_hash="0")


def _shuffled(n: int, missing: int) -> np.ndarray:
    values: Sequence[float] = [float((5 * i) % n) for i in range(n)]
    return np.array([np.nan if i == missing else value for i, value in enumerate(values)])
