"""Adaptive numbers of samples against the same number for every prompt: the reward that each reaches, from how many samples.

    python -m benchmarks.adaptive_k                                     shapes/resolution and text/sums_raft, seeds 0, 1, 2
    python -m benchmarks.adaptive_k --recipes text/sums_raft --shares 0.75 0.5

A share of 0.75 draws a quarter fewer samples than the recipe. Beside ``AdaptiveK`` stands the recipe itself with as few: what
adapting gains is the difference from that one. The promise to keep: a reward no lower than the recipe's, from ¾ of the samples.
"""

from __future__ import annotations

import argparse

from benchmarks.variants import compared

RECIPES = ("shapes/resolution", "text/sums_raft")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shares", nargs="+", type=float, default=[0.75], help="of the recipe's samples")
    parser.add_argument("--pilot", type=int, default=4)


def variants(options: argparse.Namespace, k: int) -> dict[str, list[str]]:
    """Name → settings."""
    found: dict[str, list[str]] = {"the recipe": []}
    for share in options.shares:
        fewer = str(max(round(share * k), options.pilot + 1))
        found[f"alike, {share:g}"] = ["--k", fewer]
        found[f"adaptive, {share:g}"] = ["--k", fewer, "--samples", "AdaptiveK", "--samples.pilot", str(options.pilot)]
    return found


if __name__ == "__main__":
    compared(__doc__ or "", RECIPES, variants, add_options, "runs/adaptive_k")
