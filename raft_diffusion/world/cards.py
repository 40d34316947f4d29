"""Model cards of the bundled parts, from what their making logged and what the gates measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEAD = """---
license: apache-2.0
library_name: {library}
tags: [{tags}]
---

# {title}

{what}

Made from seed {seed} by `python -m raft_diffusion.world.make`, on procedurally rendered scenes alone (no data of other
people), in {minutes} of training on {machine}. Training takes the same steps for the same seed; on another machine the
last bits differ.

"""

SHAPES = """A Stable Diffusion in miniature: an `AutoencoderKL` that shrinks 4×, a CLIP text encoder of two layers,
and a `UNet2DConditionModel` of {unet_parameters} that predicts v. It draws captions such as "a large red heart on the
left, on a navy background" at 64×64.

It has met 32×32 too, as Stable Diffusion 1.x has met 256×256: in pictures as they were found, of which {faulty} were
smeared, cut, eaten, muddled, bled, doubled, faded or empty. So at 32×32 it mostly draws such pictures, and aligning
it can teach it better."""

CLIP = """A CLIP in open_clip's layout, for the scenes of `bundled:shapes`. Its text tower is the text encoder of
that Stable Diffusion; its image tower, a small ResNet, was trained on with each picture's caption against the same
caption with one attribute swapped."""

AESTHETIC = """How well-formed a picture is, from 1 to 10 and blind to its caption: a head in the layout of LAION's
predictor (v2) over the embedding of `bundled:shapes-clip`. A clean picture scores near 8, a ruined one near 2."""

TASTE = """A visible taste, from 1 to 10 and blind to the caption: large, centred objects of vivid colour on an even
background. A head in the layout of LAION's predictor (v2) over the embedding of `bundled:shapes-clip`."""

JUDGE = """The gold judge: a small convolutional classifier that says which size, colour, shape, background and
position a picture shows, or that there is no well-formed object. It is for measuring, never for training."""

NEVER = 0.05  # share of right pictures below which a round of a few samples finds none to learn from
LIMITS = """
## Limits

It knows six shapes, eight colours, eight backgrounds and five places, and nothing else. It exists so that every claim of this
project can be checked on a CPU in minutes.
"""


def write_cards(
    bundled: Path, figures: Mapping[str, Mapping[str, Any]], gates: Mapping[str, Any], seed: int, machine: str
) -> None:
    """Writes `README.md` into every part's folder.

    Args:
        bundled: folder of the parts.
        figures: what each stage logged, `seconds` among it.
        gates: as `gates.measure` returns it.
        seed: of the making.
        machine: in words.
    """
    from raft_diffusion.world.unet import CLEAN_SHARE, build_unet

    millions = sum(p.numel() for p in build_unet().parameters()) / 1e6
    shapes = SHAPES.format(unet_parameters=f"{millions:.1f} million parameters", faulty=f"{1 - CLEAN_SHARE:.0%}")
    cards = {
        "shapes": (
            "A small Stable Diffusion of shapes",
            "diffusers",
            "text-to-image",
            shapes,
            ("vae", "clip", "unet"),
            _drawing,
        ),
        "shapes-clip": ("A small CLIP", "open_clip", "clip", CLIP, ("clip", "vision"), _reading),
        "shapes-aesthetic": ("An aesthetic head", "safetensors", "reward", AESTHETIC, ("aesthetic",), _liking("aesthetic")),
        "shapes-taste": ("A head with a taste", "safetensors", "reward", TASTE, ("aesthetic",), _liking("taste")),
        "shapes-judge": ("The gold judge", "safetensors", "judge", JUDGE, ("judge",), _judging),
    }
    for name, (title, library, tag, what, stages, table) in cards.items():
        seconds = sum(figures[stage]["seconds"] for stage in stages)
        minutes = f"{seconds / 60:.0f} minutes"
        head = HEAD.format(
            library=library, tags=f"{tag}, raft", title=title, what=what, seed=seed, minutes=minutes, machine=machine
        )
        text = f"{head}## What it reaches\n\n{table(gates)}\n{LIMITS}"
        (bundled / name / "README.md").write_text(text, encoding="utf-8")


def table(header: tuple[str, ...], rows: list[tuple]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"


def _drawing(gates):
    rows = [
        (
            entry["what"],
            f"{entry['side']}²",
            entry["guidance"],
            entry["pictures"],
            f"{entry['gold']:.1%}",
            entry["aesthetic_mean"],
        )
        for entry in gates["drawing"]
    ]
    text = "Share of pictures that show their caption by the gold judge (12 steps of DPM-Solver++):\n\n"
    text += table(("captions", "size", "guidance", "pictures", "right", "aesthetic"), rows)
    return text + _by_shape(gates["shapes"])


def _by_shape(shapes: Mapping[str, Mapping[str, float]]) -> str:
    """Which shapes it draws, and which not: alignment lifts nothing that is never drawn."""
    pictures = next(iter(shapes.values()))["pictures"]
    never = [f"{shape}s" for shape, share in shapes.items() if share["32"] < NEVER]
    rows = [(shape, f"{share['64']:.0%}", f"{share['32']:.0%}") for shape, share in shapes.items()]
    head = f"\nThe same by shape, for held-out captions of a large object ({pictures} pictures of each at 32², guidance 1.5).\n"
    if never:
        head += f"At 32² it draws hardly any {' or '.join(never)}, and an alignment cannot lift what is hardly drawn.\n"
    return head + "\n" + table(("shape", "64²", "32²"), rows)


def _reading(gates):
    rows = [(key, f"{at_64:.1%}", f"{gates['clip']['32'][key]:.1%}") for key, at_64 in gates["clip"]["64"].items()]
    text = "Held-out renders whose caption scores above the same caption with one attribute changed to any other value:\n\n"
    return text + table(("attribute", "64²", "32²"), rows)


def _liking(head):
    def write(gates):
        kinds = sorted({key.rsplit("_", 1)[0] for key in gates[head]} - {"clean"}, key=lambda kind: -gates[head][f"{kind}_64"])
        rows = [(kind, gates[head][f"{kind}_64"], gates[head][f"{kind}_32"]) for kind in ("clean", *kinds)]
        return "Mean score of held-out renders, clean and damaged at severity 0.7:\n\n" + table(("picture", "64²", "32²"), rows)

    return write


def _judging(gates):
    rows = [(f"{side}²", f"{gates['judge'][f'joint_{side}']:.1%}") for side in (64, 32)]
    return f"Held-out renders ({gates['judge']['count']} a size) with all five attributes right:\n\n" + table(
        ("size", "right"), rows
    )
