"""Makes every part of the emoji world from a seed: `python -m raft_diffusion.world.emoji.make --stage NAME [--steps N]`.

Each stage resumes from its checkpoint under `--work`; SIGTERM ends it with one. `--steps` may change while the learning rate is
still constant, which is until 70 % of the steps. `--warm FOLDER` begins a stage from the weights of such a part where there is
no checkpoint yet; `state/` says what there is and how to go on. Order: vae, decoder · clip, vision, judge, aesthetic (beside
it) · unet · flow · bundle.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.world.emoji.tokenizer import build_tokenizer

BUNDLED = Path(__file__).parents[2] / "bundled"


@dataclass(frozen=True)
class Build:
    """Where the parts go, what they are seeded with, how long the stage is, and what it begins from."""

    out: Path
    work: Path
    seed: int
    steps: int | None = None
    warm: Path | None = None

    @property
    def length(self) -> dict[str, int]:
        """The number of steps as an argument, if it was given."""
        return {"steps": self.steps} if self.steps else {}

    def log(self, stage: str, **figures: float) -> None:
        """Keeps a stage's figures in `work/figures.json`."""
        path = self.work / "figures.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known | {stage: figures}, indent=2) + "\n")
        print(stage, figures, flush=True)


def make_prompts(build: Build) -> None:
    """The prompt files of both tasks."""
    from raft_diffusion.world.emoji.prompts import write_prompts

    write_prompts(build.out / "prompts")


def make_vae(build: Build) -> None:
    """The autoencoder, in full precision under `work`."""
    from raft_diffusion.world.emoji.vae import train_vae

    vae, seconds = train_vae(build.work, build.seed, warm=build.warm, **build.length)
    vae.save_pretrained(build.work / "vae")
    build.log("vae", seconds=round(seconds))


def make_decoder(build: Build) -> None:
    """The autoencoder with its decoder trained on, the encoder as it was: the latents stay what they are."""
    from raft_diffusion.world.emoji.vae import train_decoder

    vae, seconds = train_decoder(_vae(build, final=False), build.work, build.seed, **build.length)
    vae.save_pretrained(build.work / "vae-final")
    build.log("decoder", seconds=round(seconds))


def make_clip(build: Build) -> None:
    """Both towers of the CLIP, under `work`; the text tower is final."""
    from raft_diffusion.world.clip_model import save_clip
    from raft_diffusion.world.emoji.clip import train_clip

    clip, seconds = train_clip(build.work, build.seed, **build.length)
    save_clip(clip, build.work / "emoji-clip", build_tokenizer())
    build.log("clip", seconds=round(seconds))


def make_vision(build: Build) -> None:
    """The CLIP with its image tower trained on."""
    from raft_diffusion.world.clip_model import save_clip
    from raft_diffusion.world.emoji.vision import train_vision

    clip = _clip(build)
    seconds = train_vision(build.work, build.seed, clip, **build.length)  # type: ignore[arg-type] - the number of steps alone
    save_clip(clip, build.out / "emoji-clip", build_tokenizer())
    build.log("vision", seconds=round(seconds))


def make_judge(build: Build) -> None:
    """The gold judge; an eighth of its pictures go through the autoencoder, if there is one already."""
    from raft_diffusion.world.emoji.judge_net import save_judge
    from raft_diffusion.world.emoji.judge_train import train_judge
    from raft_diffusion.world.vae import round_trip

    develop = partial(round_trip, _vae(build)) if (build.work / "vae").exists() else None
    net, seconds = train_judge(build.work, build.seed, develop=develop, warm=build.warm, **build.length)
    save_judge(net, build.out / "emoji-judge")
    build.log("judge", seconds=round(seconds))


def make_aesthetic(build: Build) -> None:
    """The two heads over the CLIP's image embedding."""
    from raft_diffusion.world.emoji.aesthetic import make_heads

    seconds = make_heads(build.out, build.work, build.seed)
    build.log("aesthetic", seconds=round(seconds))


def make_unet(build: Build) -> None:
    """The denoiser, and the pipeline folder around it; unfinished versions are written on the way."""
    from raft_diffusion.world.emoji.unet import train_unet
    from raft_diffusion.world.pipeline import save_pipeline

    encoder, folder = _text_encoder(build), build.out / "emoji"

    def publish(unet, step):
        save_pipeline(_vae(build), encoder, unet, folder, build_tokenizer())
        print(f"  step {step}: {folder}", flush=True)

    unet, seconds = train_unet(
        build.work, build.seed, encoder, _lessons(build), warm=build.warm, publish=publish, **build.length
    )
    save_pipeline(_vae(build), encoder, unet, folder, build_tokenizer())
    build.log("unet", seconds=round(seconds))


def make_flow(build: Build) -> None:
    """The flow transformer, and the pipeline folder around it; unfinished versions are written on the way."""
    from raft_diffusion.world.emoji.flow import as_projecting_encoder, save_flow, train_flow

    encoder, folder = as_projecting_encoder(_clip(build), build_tokenizer()), build.out / "emoji-flow"

    def publish(transformer, step):
        save_flow(_vae(build), encoder, transformer, build_tokenizer(), folder)
        print(f"  step {step}: {folder}", flush=True)

    transformer, seconds = train_flow(
        build.work, build.seed, encoder, _lessons(build), warm=build.warm, publish=publish, **build.length
    )
    save_flow(_vae(build), encoder, transformer, build_tokenizer(), folder)
    build.log("flow", seconds=round(seconds))


def make_bundle(build: Build) -> None:
    """Puts the autoencoder beside the other parts, in half precision, measures all that is there and writes the cards."""
    from raft_diffusion.world.emoji.cards import write_cards
    from raft_diffusion.world.emoji.gates import measure

    _vae(build).half().save_pretrained(build.out / "emoji-vae")
    gates = measure(build.out)
    (build.work / "gates.json").write_text(json.dumps(gates, indent=2) + "\n")
    write_cards(build.out, json.loads((build.work / "figures.json").read_text()), gates, build.seed)


def _clip(build):
    from raft_diffusion.world.clip_model import load_clip

    return load_clip(build.work / "emoji-clip").model


def _text_encoder(build):
    from raft_diffusion.world.clip_model import as_text_encoder

    return as_text_encoder(_clip(build), build_tokenizer()).requires_grad_(False)


def _lessons(build):
    from raft_diffusion.world.emoji.lessons import load_lessons

    return load_lessons(build.work / "lessons.pt", _vae(build, final=False), build.seed)


def _vae(build, final=True):
    """The autoencoder with the best decoder so far, or with the one that its encoder was trained with."""
    ensure_importable()
    from diffusers import AutoencoderKL

    done = build.work / "vae-final"
    return AutoencoderKL.from_pretrained(done if final and done.exists() else build.work / "vae").eval()


STAGES: dict[str, Callable[[Build], None]] = {
    "prompts": make_prompts,
    "vae": make_vae,
    "decoder": make_decoder,
    "clip": make_clip,
    "vision": make_vision,
    "judge": make_judge,
    "aesthetic": make_aesthetic,
    "unet": make_unet,
    "flow": make_flow,
    "bundle": make_bundle,
}


def main() -> None:
    """Runs one stage or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=BUNDLED, help="folder of the parts (default: the package's own)")
    parser.add_argument("--work", type=Path, default=Path("runs/emoji"), help="checkpoints and full-precision parts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of the stage (default: its own number)")
    parser.add_argument("--warm", type=Path, help="folder of weights to begin from where there is no checkpoint")
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all")
    options = parser.parse_args()
    build = Build(options.out, options.work, options.seed, options.steps, options.warm)
    for name in STAGES if options.stage == "all" else [options.stage]:
        started = time.perf_counter()
        STAGES[name](build)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
