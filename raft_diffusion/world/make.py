"""Makes every bundled part from a seed: `python -m raft_diffusion.world.make [--stage NAME] [--out DIR] [--seed N]`.

Each stage skips nothing and repeats nothing: it resumes from its checkpoint under `--work`, and writes its folder under
`--out`. Later stages read what earlier ones wrote.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BUNDLED = Path(__file__).parents[1] / "bundled"


@dataclass(frozen=True)
class Build:
    """Where the parts go and what they are seeded with."""

    out: Path
    work: Path
    seed: int

    def log(self, stage: str, **figures: float) -> None:
        """Keeps a stage's figures in `work/figures.json`."""
        path = self.work / "figures.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known | {stage: figures}, indent=2) + "\n")
        print(stage, figures, flush=True)


def make_prompts(build: Build) -> None:
    """The prompt files of both tasks."""
    from raft_diffusion.world.prompts import write_prompts

    write_prompts(build.out / "prompts")


def make_vae(build: Build) -> None:
    """The autoencoder, in full precision under `work`; `unet` puts it into the pipeline."""
    from raft_diffusion.world.vae import train_vae

    vae, seconds = train_vae(build.work, build.seed)
    vae.save_pretrained(build.work / "vae")
    build.log("vae", seconds=round(seconds), scaling_factor=vae.config.scaling_factor)


def make_clip(build: Build) -> None:
    """Both towers of the CLIP; the text tower is final."""
    from raft_diffusion.world.clip_model import save_clip
    from raft_diffusion.world.clip_train import train_clip

    clip, seconds = train_clip(build.work, build.seed)
    save_clip(clip, build.work / "shapes-clip")
    build.log("clip", seconds=round(seconds))


def make_vision(build: Build) -> None:
    """The CLIP with its image tower trained on."""
    from raft_diffusion.world.clip_model import load_clip, save_clip
    from raft_diffusion.world.vision import train_vision

    clip = load_clip(build.work / "shapes-clip").model
    seconds = train_vision(build.work, build.seed, clip, _vae(build))
    save_clip(clip, build.out / "shapes-clip")
    build.log("vision", seconds=round(seconds))


def make_aesthetic(build: Build) -> None:
    """The two heads over the CLIP's image embedding."""
    from raft_diffusion.world.aesthetic import make_heads

    seconds = make_heads(build.out, build.work, build.seed, _vae(build))
    build.log("aesthetic", seconds=round(seconds))


def make_judge(build: Build) -> None:
    """The gold judge."""
    from raft_diffusion.world.judge_net import save_judge
    from raft_diffusion.world.judge_train import train_judge

    net, seconds = train_judge(build.work, build.seed, _vae(build))
    save_judge(net, build.out / "shapes-judge")
    build.log("judge", seconds=round(seconds))


def make_unet(build: Build) -> None:
    """The denoiser, and the pipeline folder around it; unfinished versions are written on the way."""
    from raft_diffusion.world.clip_model import as_text_encoder, load_clip
    from raft_diffusion.world.pipeline import save_pipeline
    from raft_diffusion.world.tokenizer import build_tokenizer
    from raft_diffusion.world.unet import train_unet

    vae, encoder = _vae(build), as_text_encoder(load_clip(build.work / "shapes-clip").model)
    folder = build.out / "shapes"

    def publish(unet, step):
        save_pipeline(vae, encoder, unet, folder)
        print(f"  step {step}: {folder}", flush=True)

    unet, seconds = train_unet(build.work, build.seed, vae, encoder, build_tokenizer(), publish)
    save_pipeline(vae, encoder, unet, folder)
    build.log("unet", seconds=round(seconds))


def make_cards(build: Build) -> None:
    """Measures everything and writes the model cards."""
    from raft_diffusion.world.cards import write_cards
    from raft_diffusion.world.gates import measure

    gates = measure(build.out)
    (build.work / "gates.json").write_text(json.dumps(gates, indent=2) + "\n")
    figures = json.loads((build.work / "figures.json").read_text())
    write_cards(build.out, figures, gates, build.seed, f"{os.cpu_count()} CPU cores, no GPU")


def _vae(build):
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(build.work / "vae").eval()


STAGES: dict[str, Callable[[Build], None]] = {
    "prompts": make_prompts,
    "vae": make_vae,
    "clip": make_clip,
    "vision": make_vision,
    "aesthetic": make_aesthetic,
    "judge": make_judge,
    "unet": make_unet,
    "cards": make_cards,
}


def main() -> None:
    """Runs one stage or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUNDLED, help="folder of the parts (default: the package's own)")
    parser.add_argument("--work", type=Path, default=Path("runs/world"), help="checkpoints and full-precision parts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all")
    options = parser.parse_args()
    build = Build(options.out, options.work, options.seed)
    for name in STAGES if options.stage == "all" else [options.stage]:
        started = time.perf_counter()
        STAGES[name](build)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
