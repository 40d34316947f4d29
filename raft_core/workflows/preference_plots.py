"""Plots of learned rewards, as SVG: reliability, and what optimising a proxy does to the gold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raft_core.machine.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from raft_core.preferences.evaluate import Verdict
    from raft_core.workflows.study import Curve

COLOURS = ("#0f8b6f", "#d1603d", "#3d6fd1", "#8a4fbf", "#b58a00", "#c2407f", "#5b6770", "#2b9db5")


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches that belongs to nobody: pyplot would keep it for ever."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, path: Path) -> Path:
    """Write as SVG, whole or not at all; returns the path.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    return path


def reliability(verdicts: Sequence[Verdict], path: Path) -> Path:
    """How often a reward was right against how sure it was; on the diagonal its confidence is earned. Dots by number."""
    figure = new_figure(5.2, 4.6)
    axes = figure.add_subplot()
    axes.plot([0.5, 1], [0.5, 1], color="#999999", linewidth=1)
    for number, verdict in enumerate(verdicts):
        colour = COLOURS[number % len(COLOURS)]
        bins, total = verdict.calibration.bins, sum(b.n for b in verdict.calibration.bins)
        xs, ys = [b.confidence for b in bins], [b.accuracy for b in bins]
        label = f"{verdict.name} (error {verdict.calibration.ece:.3f})"
        axes.plot(xs, ys, color=colour, linewidth=1.4, label=label)
        axes.scatter(xs, ys, s=[16 + 160 * b.n / total for b in bins], color=colour, alpha=0.75)
    axes.set(xlabel="confidence, σ(|Δ|)", ylabel="part of comparisons that were right", xlim=(0.48, 1.02), ylim=(-0.02, 1.02))
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    return save(figure, path)


def over_optimisation(curves: Mapping[str, Sequence[Curve]], path: Path, units: str) -> Path:
    """Proxy (dashed) and gold (solid) against the distance √KL, one colour per proxy, one panel per method."""
    figure = new_figure(5.6 * len(curves), 4.4)
    for place, (method, drawn) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(1, len(curves), place)
        for number, curve in enumerate(drawn):
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(curve.distance, curve.gold, color=colour, linewidth=1.6, label=curve.label)
            axes.fill_between(curve.distance, curve.gold_low, curve.gold_high, color=colour, alpha=0.12, linewidth=0)
            if curve.proxy is not None:
                axes.plot(curve.distance, curve.proxy, color=colour, linewidth=1.2, linestyle="--")
        axes.set(title=method, xlabel="√KL from the reference, √nats", ylabel=units)
        axes.legend(frameon=False, fontsize=8, title="solid: gold, dashed: proxy", title_fontsize=8)
    return save(figure, path)
