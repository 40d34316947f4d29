"""Model cards of the emoji world's parts, from what their making logged and what the gates measured."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_diffusion.world.cards import table

HEAD = """---
license: apache-2.0
library_name: {library}
tags: [{tag}, raft]
---

# {title}

{what}

Made from seed {seed} by `python -m raft_diffusion.world.emoji.make`, on rendered scenes alone, in {minutes} of training on
shared CPU cores. The sprites are Noto Color Emoji (© Google; images Apache-2.0, font SIL Open Font License 1.1).

"""

LIMITS = """
## Limits

It knows 24 objects, five tints, eight backgrounds, five places and two sizes, and nothing else. It exists so that every claim
of this project can be checked on a CPU in minutes.
"""


@dataclass(frozen=True)
class Part:
    """What a card says of one folder.

    `stages` are the names under which its seconds of training were logged; `reached` writes the tables from the gates.
    """

    title: str
    library: str
    tag: str
    what: str
    stages: tuple[str, ...]
    reached: Callable[[Mapping[str, Any]], str]


def _by_size(gate):
    """One row for every size of a gate that has attributes by size."""

    def write(gates):
        sides = [key for key in gates[gate] if key.isdigit()]
        names = list(gates[gate][sides[0]])
        rows = [(f"{side}²", *(f"{gates[gate][side][name]:.1%}" for name in names)) for side in sides]
        return f"Held-out renders ({gates[gate]['count']} a size) with the right answer:\n\n" + table(("side", *names), rows)

    return write


def _scores(head):
    """Mean scores of clean and of damaged renders."""

    def write(gates):
        own = {key.removeprefix(f"{head}_"): value for key, value in gates["heads"].items() if key.startswith(f"{head}_")}
        kinds = sorted({key.rsplit("_", 1)[0] for key in own} - {"clean", "correlation"}, key=lambda kind: -own[f"{kind}_128"])
        rows = [(kind, own[f"{kind}_128"], own[f"{kind}_80"]) for kind in ("clean", *kinds)]
        text = "Mean score of held-out renders, clean and damaged at severity 0.7:\n\n"
        return text + table(("picture", "128²", "80²"), rows)

    return write


def _autoencoding(gates):
    rows = [(f"{side}²", f"{value['joint']:.1%}") for side, value in gates["autoencoder"].items() if side.isdigit()]
    text = "Held-out renders in which the gold judge still sees all attributes after encoding and decoding:\n\n"
    return text + table(("size", "right"), rows)


def _drawing(gates):
    rows = [(f"{g['side']}²", g["guidance"], g["pictures"], f"{g['gold']:.1%}") for g in gates["drawing"]]
    text = "Share of pictures of held-out captions that show their caption by the gold judge:\n\n"
    return text + table(("size", "guidance", "pictures", "right"), rows)


PARTS = {
    "emoji-vae": Part(
        "An autoencoder of emoji", "diffusers", "autoencoder",
        "An `AutoencoderKL` that shrinks 8× into eight channels of mean 0 and deviation 1.",
        ("vae", "decoder"), _autoencoding,
    ),
    "emoji-clip": Part(
        "A small CLIP of emoji", "open_clip", "clip",
        "A CLIP in open_clip's layout. Its text tower is the text encoder of the bundled denoisers; its image tower, a small "
        "ResNet, was trained on with each picture's caption against the same caption with one attribute swapped.",
        ("clip", "vision"), _by_size("clip"),
    ),
    "emoji-judge": Part(
        "The gold judge of emoji", "safetensors", "judge",
        "A small convolutional classifier that says which size, tint, object, background and place a picture shows, or that "
        "there is no well-formed object. It is for measuring, never for training.",
        ("judge",), _by_size("judge"),
    ),
    "emoji-aesthetic": Part(
        "An aesthetic head", "safetensors", "reward",
        "How well-formed a picture is, nominally from 1 to 10 and blind to its caption: a head in the layout of LAION's "
        "predictor (v2) over the embedding of `bundled:emoji-clip`. A clean picture is to score near 8, a ruined one near 2.",
        ("aesthetic",), _scores("aesthetic"),
    ),
    "emoji-taste": Part(
        "A head with a taste", "safetensors", "reward",
        "A visible taste, nominally from 1 to 10 and blind to the caption: a large, centred object on a bright background, "
        "not cut off. A head in the layout of LAION's predictor (v2) over the embedding of `bundled:emoji-clip`.",
        ("aesthetic",), _scores("taste"),
    ),
    "emoji": Part(
        "A small Stable Diffusion of emoji", "diffusers", "text-to-image",
        "A Stable Diffusion in miniature: an `AutoencoderKL` that shrinks 8×, a CLIP text encoder of two layers, and a "
        "`UNet2DConditionModel` that predicts v. It draws captions such as \"a large blue cat on the left, on a pink "
        "background\" at 128×128. It has seen no other size, so it fails at smaller ones by itself.",
        ("vae", "decoder", "clip", "unet"), _drawing,
    ),
}  # fmt: skip


def write_cards(bundled: Path, figures: Mapping[str, Mapping[str, Any]], gates: Mapping[str, Any], seed: int) -> None:
    """Writes `README.md` into the folder of every part that is there.

    Args:
        bundled: folder of the parts.
        figures: what each stage logged, `seconds` among it.
        gates: as `gates.measure` returns it.
        seed: of the making.
    """
    for name, part in PARTS.items():
        if not (bundled / name).is_dir():
            continue
        seconds = sum(figures[stage]["seconds"] for stage in part.stages if stage in figures)
        head = HEAD.format(
            library=part.library,
            tag=part.tag,
            title=part.title,
            what=part.what,
            seed=seed,
            minutes=f"{seconds / 60:.0f} minutes",
        )
        text = f"{head}## What it reaches\n\n{part.reached(gates)}{LIMITS}"
        (bundled / name / "README.md").write_text(text, encoding="utf-8")
