"""Measures what the emoji world reaches: `python -m raft_diffusion.world.emoji.gates --what judge|clip|heads|drawing`.

The judge is to be right on held-out renders at every size; captions of held-out pairs are to come out right at 128², and at a
smaller size in part, since the denoiser has never seen it.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from raft_diffusion.world.aesthetic import embed, load_head
from raft_diffusion.world.clip_model import RESOLUTION, load_clip
from raft_diffusion.world.emoji.captions import caption, parse_caption
from raft_diffusion.world.emoji.corrupt import CORRUPTIONS, canvases, corrupt
from raft_diffusion.world.emoji.make import BUNDLED
from raft_diffusion.world.emoji.pictures import resized
from raft_diffusion.world.emoji.scenes import ATTRIBUTES, render
from raft_diffusion.world.emoji.splits import draw_scenes, draw_split_names
from raft_diffusion.world.emoji.tokenizer import token_ids
from raft_diffusion.world.judge import GoldJudge
from raft_diffusion.world.pipeline import generate, load_pipeline
from raft_diffusion.world.vae import round_trip


def judge_gate(judge: GoldJudge, count: int = 1000, sides: Sequence[int] = (128, 96, 80, 64), develop=None) -> dict[str, Any]:
    """Share of held-out clean renders with all attributes right, and each alone, by size."""
    scenes = draw_scenes(np.random.default_rng(11), count, heldout=True)
    found: dict[str, Any] = {"count": count}
    for side in sides:
        drawn = render(scenes, side)
        shown = judge.attributes([Image.fromarray(picture) for picture in (develop(drawn) if develop else drawn)])
        right = {k: [a[k] == s.attributes()[k] for a, s in zip(shown, scenes, strict=True)] for k in ATTRIBUTES}
        found[str(side)] = {key: round(float(np.mean(value)), 4) for key, value in right.items()}
        found[str(side)]["joint"] = round(float(np.mean(np.all(list(right.values()), axis=0))), 4)
    return found


def damage_gate(judge: GoldJudge, count: int = 40, side: int = 80) -> dict[str, float]:
    """Share of severely damaged held-out renders in which the judge still sees the object, by damage."""
    rng = np.random.default_rng(12)
    drawn = canvases(draw_scenes(rng, count, heldout=True), side, rng)
    found = {}
    for kind in CORRUPTIONS:
        shown = judge.attributes([Image.fromarray(corrupt(canvas, kind, 0.9)) for canvas in drawn])
        found[kind] = float(np.mean([a["object"] == c.scene.object for a, c in zip(shown, drawn, strict=True)]))  # pyright: ignore[reportAttributeAccessIssue]
    return found


def drawing_gate(pipeline, judge: GoldJudge, prompts: list[str], side: int, *, guidance: float, steps: int = 16, seed: int = 0):
    """Share of pictures that show their caption, each attribute alone, and the objects that fail most."""
    pictures = generate(pipeline, prompts, side, steps=steps, guidance=guidance, seed=seed)
    said = [parse_caption(text) for text in prompts]
    shown = judge.attributes(pictures)
    samples = [SimpleNamespace(prompt=SimpleNamespace(text=t), output=p) for t, p in zip(prompts, pictures, strict=True)]
    found: dict[str, Any] = {
        "side": side,
        "guidance": guidance,
        "pictures": len(pictures),
        "gold": float(judge(samples).mean()),
    }
    for key in ATTRIBUTES:
        pairs = [(a[key], b[key]) for a, b in zip(shown, said, strict=True) if key in b]
        found[f"{key}_right"] = round(float(np.mean([a == b for a, b in pairs])), 3)
    asked = Counter(b["object"] for b in said)
    drawn = Counter(b["object"] for a, b in zip(shown, said, strict=True) if a["object"] == b["object"])
    found["objects"] = {
        kind: f"{drawn[kind]}/{asked[kind]}" for kind in sorted(asked, key=lambda kind: drawn[kind] / asked[kind])
    }
    return found, pictures


@torch.no_grad()
def clip_gate(clip, count: int = 100, sides: Sequence[int] = (128, 80)) -> dict[str, Any]:
    """By size and attribute: share of held-out renders whose caption scores above those with this attribute changed."""
    scenes = draw_scenes(np.random.default_rng(13), count, heldout=True)
    images = {side: embed(clip, resized(render(scenes, side), RESOLUTION)) for side in sides}  # [N, D]
    found: dict[str, Any] = {"count": count} | {str(side): {} for side in sides}
    for key, values in ATTRIBUTES.items():
        texts = [caption(scene.attributes() | {key: value}) for scene in scenes for value in values]
        parts = [clip.encode_text(token_ids(texts[at : at + 512]), True) for at in range(0, len(texts), 512)]
        told = torch.cat(parts).view(count, len(values), -1)  # [N, values, D]
        for side, image in images.items():
            best = torch.einsum("nd,nvd->nv", image, told).argmax(-1).tolist()
            right = [values[at] == getattr(scene, key) for at, scene in zip(best, scenes, strict=True)]
            found[str(side)][key] = round(float(np.mean(right)), 3)
    return found


def heads_gate(bundled: Path, count: int = 48) -> dict[str, Any]:
    """Mean scores of clean held-out renders and of every damage at severity 0.7, at 128² and 80²; correlation of taste."""
    from raft_diffusion.world.emoji.aesthetic import taste
    from raft_diffusion.world.emoji.pictures import Picture

    clip = load_clip(bundled / "emoji-clip").model
    found: dict[str, Any] = {}
    for name in ("aesthetic", "taste"):
        head = load_head(bundled / f"emoji-{name}")

        @torch.no_grad()
        def scores(pictures, head=head):
            return head(embed(clip, resized(pictures, RESOLUTION))).numpy()

        for side in (128, 80):
            rng = np.random.default_rng(12)
            drawn = canvases(draw_scenes(rng, count, heldout=True), side, rng)
            clean = [(canvas.picture * 255 + 0.5).astype(np.uint8) for canvas in drawn]
            found[f"{name}_clean_{side}"] = round(float(scores(clean).mean()), 2)
            for kind in CORRUPTIONS:
                found[f"{name}_{kind}_{side}"] = round(float(scores([corrupt(c, kind, 0.7) for c in drawn]).mean()), 2)
            if name == "taste":
                targets = [taste(Picture(canvas.scene, (), canvas.picture)) for canvas in drawn]  # pyright: ignore[reportArgumentType]
                found[f"taste_correlation_{side}"] = round(float(np.corrcoef(scores(clean), targets)[0, 1]), 3)
    return found


def measure(bundled: Path, judged: int = 1000, drawn: int = 192) -> dict[str, Any]:
    """All gates of the parts that are there.

    Args:
        bundled: folder of the parts.
        judged: held-out renders a size for the judge.
        drawn: pictures a size for the denoiser.
    """
    from diffusers import AutoencoderKL

    judge, found = GoldJudge(bundled / "emoji-judge"), {}
    found["judge"] = judge_gate(judge, judged) | {"still_seen": damage_gate(judge)}
    found["clip"] = clip_gate(load_clip(bundled / "emoji-clip").model)
    found["heads"] = heads_gate(bundled)
    vae = AutoencoderKL.from_pretrained(bundled / "emoji-vae").eval()
    found["autoencoder"] = judge_gate(judge, judged // 5, (128, 80), partial(round_trip, vae))
    found["drawing"] = []
    if (bundled / "emoji").is_dir():
        pipeline, prompts = load_pipeline(bundled / "emoji"), heldout_captions(drawn)
        for side in (128, 96, 80, 64):
            found["drawing"].append(drawing_gate(pipeline, judge, prompts, side, guidance=2.0)[0])
    return found


def heldout_captions(count: int, seed: int = 21, **fixed: str) -> list[str]:
    """Full plain captions of held-out pairs; objects take turns."""
    rng = np.random.default_rng(seed)
    return [caption(draw_split_names(rng, heldout=True) | fixed) for _ in range(count)]


def contact_sheet(pictures: Sequence, columns: int = 12) -> Image.Image:
    """PIL pictures of one size side by side."""
    arrays = [np.asarray(picture) for picture in pictures]
    arrays += [np.full_like(arrays[0], 255)] * (-len(arrays) % columns)
    rows = [np.concatenate(arrays[at : at + columns], 1) for at in range(0, len(arrays), columns)]
    return Image.fromarray(np.concatenate(rows, 0))


def main() -> None:
    """Prints one group of figures as JSON; `drawing` also writes a contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundled", type=Path, default=BUNDLED)
    parser.add_argument("--what", choices=("judge", "clip", "heads", "drawing"), required=True)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--count", type=int, default=96, help="pictures drawn, or renders judged")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--sheet", type=Path, help="PNG of the first 96 pictures")
    options = parser.parse_args()
    if options.what == "heads":
        print(json.dumps(heads_gate(options.bundled), indent=2))
        return
    if options.what == "clip":
        print(json.dumps(clip_gate(load_clip(options.bundled / "emoji-clip").model), indent=2))
        return
    judge = GoldJudge(options.bundled / "emoji-judge")
    if options.what == "judge":
        print(json.dumps(judge_gate(judge, options.count) | {"still_seen": damage_gate(judge)}, indent=2))
        return
    pipeline, prompts = load_pipeline(options.bundled / "emoji"), heldout_captions(options.count)
    found, pictures = drawing_gate(pipeline, judge, prompts, options.side, guidance=options.guidance)
    print(json.dumps(found, indent=2))
    if options.sheet:
        contact_sheet(pictures[:96]).save(options.sheet)


if __name__ == "__main__":
    main()
