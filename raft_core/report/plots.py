"""Curves as plain geometry: where lines, dots and ticks go. A template turns it into SVG that follows the page's colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raft_core.format import figure
from raft_core.metrics.statistics import Estimate

WIDTH, HEIGHT = 320.0, 170.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 22.0
Y_TICKS, X_TICKS = 4, 7


@dataclass(frozen=True)
class Dot:
    """A value that can be pointed at."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """One curve: an SVG path, broken where values are missing, and its dots."""

    label: str
    path: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Curves over rounds in a box of ``WIDTH`` × ``HEIGHT`` units, y downwards."""

    title: str
    note: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    bottom: float = HEIGHT - BOTTOM


def chart(title: str, rounds: Sequence[int], curves: Mapping[str, Sequence[float]], note: str = "") -> Chart | None:
    """A chart of one or more curves over the same rounds; None when there is no finite value.

    Args:
        rounds: [N] numbers of the rounds.
        curves: label → [N] values, NaN = missing. A curve without a value is left out, and of equal curves one is drawn.
    """
    drawn = {label: list(values) for label, values in _merged(curves).items() if any(map(math.isfinite, values))}
    if not drawn:
        return None
    values = [value for curve in drawn.values() for value in curve if math.isfinite(value)]
    y_at = _ticks(min(values), max(values), Y_TICKS)
    low, high = min(y_at[0], *values), max(y_at[-1], *values)
    first, last = rounds[0], rounds[-1]

    def x(rnd: float) -> float:
        if first == last:
            return (LEFT + WIDTH - RIGHT) / 2
        return LEFT + (rnd - first) / (last - first) * (WIDTH - RIGHT - LEFT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    lines = []
    for label, curve in drawn.items():
        dots = tuple(
            Dot(round(x(rnd), 1), round(y(value), 1), f"round {rnd}, {label}: {figure(value)}")
            for rnd, value in zip(rounds, curve, strict=True)
            if math.isfinite(value)
        )
        lines.append(Line(label, _path([(x(r), y(v)) for r, v in zip(rounds, curve, strict=True)]), dots))
    x_at = [t for t in _ticks(first, last, X_TICKS) if t == round(t) and first <= t <= last] or [first]
    return Chart(
        title=title,
        note=note,
        lines=tuple(lines),
        x_ticks=tuple(Tick(round(x(t), 1), str(round(t))) for t in x_at),
        y_ticks=tuple(Tick(round(y(t), 1), tick_label(t, y_at)) for t in y_at),
        summary=f"{title} by round: " + "; ".join(_words(label, curve) for label, curve in drawn.items()),
    )


def _merged(curves: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Curves that coincide under a common label: with best-of-K what is kept is what is best."""
    merged: dict[str, Sequence[float]] = {}
    for label, values in curves.items():
        same = next((known for known, other in merged.items() if _equal(values, other)), None)
        if same is None:
            merged[label] = values
        else:
            merged = {f"{known} = {label}" if known == same else known: other for known, other in merged.items()}
    return merged


def _equal(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(math.isclose(u, v, rel_tol=1e-9) or (math.isnan(u) and math.isnan(v)) for u, v in zip(a, b, strict=True))


def _words(label: str, curve: Sequence[float]) -> str:
    finite = [value for value in curve if math.isfinite(value)]
    return f"{label} from {figure(finite[0])} to {figure(finite[-1])}"


def _ticks(low: float, high: float, n: int) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    return [float(t) for t in MaxNLocator(nbins=n, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def tick_label(value: float, ticks: Sequence[float]) -> str:
    """As many decimals as the distance of the ticks needs; a true minus sign."""
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else abs(value)
    if not step:
        return "0"
    if step < 1e-4 or abs(value) >= 1e6:
        return f"{value:.1e}".replace("-", "−")
    decimals = next(d for d in range(7) if abs(step * 10**d - round(step * 10**d)) < 1e-6 * step * 10**d or d == 6)
    return f"{value:.{decimals}f}".replace("-", "−")


def _path(points: Sequence[tuple[float, float]]) -> str:
    parts, pen_down = [], False
    for x, y in points:
        if math.isnan(y):
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
        pen_down = True
    return " ".join(parts)


@dataclass(frozen=True)
class Whisker:
    """An interval on a line whose middle is zero, all in per cent of its width."""

    low: float
    high: float
    at: float


def whisker(estimate: Estimate) -> Whisker | None:
    """Where the interval of a difference lies about zero; scaled to itself, for only the side of zero is to be seen."""
    if not all(map(math.isfinite, (estimate.low, estimate.high, estimate.value))):
        return None
    reach = 1.1 * max(abs(estimate.low), abs(estimate.high), abs(estimate.value)) or 1.0
    low, high, at = (round(50 + 50 * value / reach, 1) for value in (estimate.low, estimate.high, estimate.value))
    return Whisker(low, high, at)
