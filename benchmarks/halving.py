"""In-flight halving against whole samples: what choosing the best still gains, and for how many passes of the network.

    python -m benchmarks.halving                                   shapes/resolution and text/tales_sentiment, seeds 0, 1, 2
    python -m benchmarks.halving --recipes shapes/resolution --looks 0.25,0.5,0.75@0.5 0.34,0.6@0.33

A look is POINT,POINT…@KEPT. The promise to keep: of what the best of K gains over a sample at random, at least 95 % (round 1,
where all variants draw the same samples from the same model), for at most half of the passes. Scoring on the way is
not counted among the passes.
"""

from __future__ import annotations

import argparse

from benchmarks.variants import compared

RECIPES = ("shapes/resolution", "text/tales_sentiment")
LOOKS = ("0.25,0.5,0.75@0.5", "0.34,0.6@0.33", "0.5@0.25")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--looks", nargs="+", default=list(LOOKS))


def variants(options: argparse.Namespace, k: int) -> dict[str, list[str]]:  # noqa: ARG001 - as every benchmark of this kind
    """Name → settings."""
    found: dict[str, list[str]] = {"whole samples": []}
    for look in options.looks:
        points, _, kept = look.partition("@")
        found[f"halving at {look}"] = ["--samples", "Halving", "--samples.at", f"[{points}]", "--samples.keep", kept or "0.5"]
    return found


if __name__ == "__main__":
    compared(__doc__ or "", RECIPES, variants, add_options, "runs/halving")
