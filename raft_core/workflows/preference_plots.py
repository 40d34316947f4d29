"""Plots of learned rewards, as SVG: reliability, and what optimising a proxy does to the gold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raft_core.report.plots import Series, plot
from raft_core.report.render import COLOURS, GUIDE, write_plot

if TYPE_CHECKING:
    from raft_core.preferences.evaluate import Verdict
    from raft_core.workflows.study import Curve

SIZE = (480.0, 330.0)


def reliability(verdicts: Sequence[Verdict], path: Path) -> Path:
    """How often a reward was right against how sure it was; on the diagonal its confidence is earned. Dots by number."""
    series = [Series("", [0.5, 1], [0.5, 1], colour=GUIDE)]
    for number, verdict in enumerate(verdicts):
        bins, total = verdict.calibration.bins, sum(b.n for b in verdict.calibration.bins)
        series.append(
            Series(
                f"{verdict.name} (error {verdict.calibration.ece:.3f})",
                [b.confidence for b in bins],
                [b.accuracy for b in bins],
                [f"{verdict.name}: right {b.accuracy:.0%} of {b.n}, sure {b.confidence:.0%}" for b in bins],
                colour=number % len(COLOURS),
                radii=[2 + 6 * (b.n / total) ** 0.5 for b in bins],
            )
        )
    drawn = plot(
        "Reliability",
        series,
        note="grey: confidence that is earned; dots: how many comparisons",
        summary="how often each reward was right against how sure it was",
        x_label="confidence, σ(|Δ|)",
        y_label="share of comparisons that were right",
        x_span=(0.48, 1.02),
        y_span=(-0.02, 1.02),
        size=SIZE,
    )
    return write_plot([drawn], path)


def over_optimisation(curves: Mapping[str, Sequence[Curve]], path: Path, units: str) -> Path:
    """Proxy (dashed) and gold (solid) against the distance √KL, one colour per proxy, one panel per method."""
    panels = []
    for method, drawn in curves.items():
        series = []
        for number, curve in enumerate(drawn):
            colour = number % len(COLOURS)
            series.append(
                Series(curve.label, curve.distance, curve.gold, low=curve.gold_low, high=curve.gold_high, colour=colour)
            )
            if curve.proxy is not None:
                series.append(Series("", curve.distance, curve.proxy, dashed=True, colour=colour))
        panels.append(
            plot(
                method,
                series,
                note="solid: gold, dashed: proxy",
                summary=f"{method}: gold and proxy against the distance from the reference",
                x_label="√KL from the reference, √nats",
                y_label=units,
                size=SIZE,
            )
        )
    return write_plot(panels, path)
