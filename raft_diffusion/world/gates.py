"""Measures what the bundled world reaches; the model cards quote it, `python -m raft_diffusion.world.gates` prints it.

The parts are right when clean pictures beat damaged ones, when the judge is right on scenes it never saw, when captions never
seen come out right at 64² and mostly wrong at 32², and when at 32² the aesthetic head, blind to the caption, picks right ones.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from raft_diffusion.world.aesthetic import embed, load_head
from raft_diffusion.world.captions import caption, parse_caption
from raft_diffusion.world.clip_model import load_clip
from raft_diffusion.world.corrupt import CORRUPTIONS, canvases, corrupt
from raft_diffusion.world.judge import GoldJudge
from raft_diffusion.world.pictures import enlarged
from raft_diffusion.world.pipeline import generate, load_pipeline
from raft_diffusion.world.scenes import ATTRIBUTES, SHAPES, render
from raft_diffusion.world.splits import draw_names, draw_scenes
from raft_diffusion.world.vision import Swaps


@dataclass(frozen=True)
class World:
    """The loaded parts."""

    pipeline: object
    clip: torch.nn.Module
    heads: dict[str, torch.nn.Module]
    judge: GoldJudge

    def scores(self, head: str, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Scores [N] of pictures [S, S, 3] uint8 that share one size."""
        with torch.no_grad():
            return self.heads[head](embed(self.clip, enlarged(np.stack(pictures)))).numpy()

    def gold(self, prompts: Sequence[str], pictures: Sequence[Image.Image]) -> np.ndarray:
        """Verdicts [N]."""
        pairs = zip(prompts, pictures, strict=True)
        return self.judge([SimpleNamespace(prompt=SimpleNamespace(text=text), output=picture) for text, picture in pairs])


def load_world(bundled: Path) -> World:
    """All parts of a folder."""
    return World(
        load_pipeline(bundled / "shapes"),
        load_clip(bundled / "shapes-clip").model,
        {name: load_head(bundled / f"shapes-{name}") for name in ("aesthetic", "taste")},
        GoldJudge(bundled / "shapes-judge"),
    )


def judge_gate(world: World, count: int = 1000) -> dict[str, float]:
    """Share of held-out clean renders with all five attributes right, by size."""
    scenes = draw_scenes(np.random.default_rng(11), count, heldout=True)
    found: dict[str, float] = {"count": count}
    for side in (64, 32):
        shown = world.judge.attributes([Image.fromarray(picture) for picture in render(scenes, side)])
        found[f"joint_{side}"] = float(np.mean([a == s.attributes() for a, s in zip(shown, scenes, strict=True)]))
    return found


@torch.no_grad()
def clip_gate(world: World, count: int = 300) -> dict[str, dict[str, float]]:
    """By size and attribute: share of held-out renders whose caption scores above those with this attribute changed."""
    scenes = draw_scenes(np.random.default_rng(13), count, heldout=True)
    swaps, projection = Swaps(world.clip), world.clip.get_parameter("text_projection")
    found: dict[str, dict[str, float]] = {}
    for side in (64, 32):
        image = embed(world.clip, enlarged(render(scenes, side)))  # [N, D]
        found[str(side)] = {}
        for key, values in ATTRIBUTES.items():
            text = F.normalize(swaps.ends[[swaps.rows(scene, key) for scene in scenes]] @ projection, dim=-1)  # [N, values, D]
            best = torch.einsum("nd,nvd->nv", image, text).argmax(-1).tolist()
            right = [values[i] == getattr(scene, key) for i, scene in zip(best, scenes, strict=True)]
            found[str(side)][key] = round(float(np.mean(right)), 3)
    return found


def aesthetic_gate(world: World, head: str = "aesthetic", count: int = 64) -> dict[str, float]:
    """Mean score of clean held-out renders and of every corruption at severity 0.7, at 64² and 32²."""
    found = {}
    for side in (64, 32):
        rng = np.random.default_rng(12)
        drawn = canvases(draw_scenes(rng, count, heldout=True), side, rng)
        found[f"clean_{side}"] = world.scores(head, [(c.picture * 255 + 0.5).astype(np.uint8) for c in drawn])
        for kind in CORRUPTIONS:
            found[f"{kind}_{side}"] = world.scores(head, [corrupt(canvas, kind, 0.7) for canvas in drawn])
    return {key: round(float(np.mean(value)), 2) for key, value in found.items()}


def drawing_gate(world: World, prompts: list[str], side: int, guidance: float, k: int, steps: int = 12) -> dict[str, float]:
    """Gold accuracy, mean scores, and what choosing by a head does: gold of the best of K against gold of all."""
    texts = [text for text in prompts for _ in range(k)]
    pictures = generate(world.pipeline, texts, side, steps=steps, guidance=guidance, seed=side)
    right = world.gold(texts, pictures).reshape(-1, k)
    arrays = [np.asarray(picture) for picture in pictures]
    found = {"gold": right.mean(), "prompts_with_a_right_one": (right.max(1) > 0).mean()}
    shown, said = world.judge.attributes(pictures), [parse_caption(text) for text in texts]
    for key in ("size", "colour", "shape", "background", "position"):
        pairs = [(a[key], b[key]) for a, b in zip(shown, said, strict=True) if key in b]
        found[f"{key}_right"] = float(np.mean([a == b for a, b in pairs])) if pairs else float("nan")
    for head in world.heads:
        scores = world.scores(head, arrays).reshape(-1, k)
        found[f"{head}_mean"] = scores.mean()
        if k > 1:
            found[f"{head}_best"] = scores.max(1).mean()
            found[f"gold_of_{head}_best"] = right[np.arange(len(right)), scores.argmax(1)].mean()
            found[f"correlation_{head}_gold"] = np.corrcoef(scores.ravel(), right.ravel())[0, 1]
    return {key: round(float(value), 3) for key, value in found.items()}


def shape_gate(world: World, count: int = 128) -> dict[str, dict[str, float]]:
    """By shape and side: share of pictures that show their caption, of held-out captions of a large object.

    Args:
        count: pictures at 32²; at 64², where nearly all are right, a quarter as many.
    """
    found: dict[str, dict[str, float]] = {}
    for number, shape in enumerate(SHAPES):
        rng = np.random.default_rng(20 + number)
        drawn = (draw_names(rng, heldout=True) | {"size": "large"} for _ in itertools.count())
        texts = [caption(names) for names in itertools.islice((n for n in drawn if n["shape"] == shape), count)]
        found[shape] = {"pictures": count}
        for side, asked in ((64, texts[: count // 4]), (32, texts)):
            pictures = generate(world.pipeline, asked, side, steps=12, guidance=1.5, seed=side)
            found[shape][str(side)] = round(float(world.gold(asked, pictures).mean()), 3)
    return found


def lines(bundled: Path, name: str) -> list[str]:
    """The prompts of one file."""
    return (bundled / "prompts" / f"{name}.txt").read_text().splitlines()


def measure(bundled: Path, k: int = 16) -> dict[str, Any]:
    """All gates; `k` pictures per caption at 32²."""
    world = load_world(bundled)
    found: dict[str, Any] = {
        "judge": judge_gate(world),
        "clip": clip_gate(world),
        "aesthetic": aesthetic_gate(world),
        "taste": aesthetic_gate(world, "taste"),
        "shapes": shape_gate(world),
        "drawing": [],
    }
    for what, file, side, guidance, each in (
        ("held out", "resolution_heldout", 64, 1.5, 8),
        ("held out", "resolution_heldout", 64, 3.0, 8),
        ("held out, shorter", "aesthetic_heldout", 64, 1.5, 8),
        ("alignment", "resolution_train", 32, 1.0, k),
        ("alignment", "resolution_train", 32, 1.5, k),
        ("held out", "resolution_heldout", 32, 1.5, k),
    ):
        prompts = lines(bundled, file)
        head = {"what": what, "side": side, "guidance": guidance, "pictures": len(prompts) * each}
        found["drawing"].append(head | drawing_gate(world, prompts, side, guidance, each))
    return found


def main() -> None:
    """Prints all gates as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundled", type=Path, default=Path(__file__).parents[1] / "bundled")
    parser.add_argument("--k", type=int, default=16, help="pictures per caption at 32²")
    options = parser.parse_args()
    print(json.dumps(measure(options.bundled, options.k), indent=2))


if __name__ == "__main__":
    main()
