"""The README's picture: the first sample of the first held-out prompts of a run, before above after, with their prompts.

python -m benchmarks.strip RUN OUT.png [--without WORD …]

Prompts with a word that is left out are skipped, such as a shape that the model never draws; nothing else is picked.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw

from raft_core.evaluation.files import read_results
from raft_core.media.image import enlarged

PROMPTS, SIDE, GAP, HEAD = 8, 128, 8, 56


def strip(run: Path, without: list[str]) -> Image.Image:
    """Two labelled rows of pictures: before, and from the same noise after, below their prompts."""
    results = read_results(run)
    if results is None:
        raise SystemExit(f"{run} has no evaluation: let it finish")
    evaluation = next(e for e in results.evaluations if e.split == "heldout")
    pairs = list(zip(evaluation.before, evaluation.after, strict=True))[:: evaluation.k]
    shown = [pair for pair in pairs if not set(without) & set(pair[0].prompt.text.replace(",", "").split())][:PROMPTS]
    left = 64
    sheet = Image.new("RGB", (left + len(shown) * (SIDE + GAP), HEAD + 2 * (SIDE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, label in enumerate(("before", "after")):
        draw.text((GAP, HEAD + row * (SIDE + GAP) + SIDE / 2), label, fill="black", anchor="lm", font_size=16)
    for column, pair in enumerate(shown):
        x = left + column * (SIDE + GAP)
        lines = textwrap.wrap(pair[0].prompt.text, 21)
        draw.multiline_text((x, 2), "\n".join(lines[:4]), fill="black", font_size=11, spacing=1)
        for row, sample in enumerate(pair):
            sheet.paste(enlarged(sample.output.convert("RGB"), SIDE), (x, HEAD + row * (SIDE + GAP)))
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--without", nargs="*", default=[])
    arguments = parser.parse_args()
    strip(arguments.run, arguments.without).save(arguments.out, optimize=True)
