"""Curves as plain geometry: where lines, dots, bands and ticks go. A template turns it into SVG, in a page or as a file.

In a page the curves follow the page's colours, and a dot tells its value when it is pointed at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raft_core.format import figure
from raft_core.metrics.statistics import Estimate

WIDTH, HEIGHT = 320.0, 170.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 22.0
LABEL = 16.0  # room for the name of an axis
Y_TICKS, X_TICKS = 4, 7
RADIUS = 2.4

Span = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Values that are drawn as one curve; NaN in y = missing.

    Attributes:
        label: in the legend; "" = not there.
        x, y: [N].
        texts: [N] what a dot tells when it is pointed at; by default the values.
        low, high: [N] bounds of a band about the curve; None = no band.
        dashed: drawn so.
        colour: number of its colour; None = its place among the series.
        radii: [N] of the dots, in units of the drawing.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    texts: Sequence[str] | None = None
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False
    colour: int | None = None
    radii: Sequence[float] | None = None


@dataclass(frozen=True)
class Dot:
    """A value that can be pointed at."""

    x: float
    y: float
    text: str
    radius: float = RADIUS


@dataclass(frozen=True)
class Line:
    """One curve: an SVG path, broken where values are missing, its dots, and the band about it, "" = none."""

    label: str
    path: str
    dots: tuple[Dot, ...]
    colour: int = 0
    dashed: bool = False
    band: str = ""


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """Curves in a box of ``width`` × ``height`` units, y downwards."""

    title: str
    note: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str
    x_label: str = ""
    y_label: str = ""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    bottom: float = HEIGHT - BOTTOM

    @property
    def legend(self) -> list[Line]:
        """The lines that a legend names."""
        return [line for line in self.lines if line.label]


def chart(title: str, rounds: Sequence[int], curves: Mapping[str, Sequence[float]], note: str = "") -> Chart | None:
    """A chart of one or more curves over the same rounds; None when there is no finite value.

    Args:
        rounds: [N] numbers of the rounds.
        curves: label → [N] values, NaN = missing. A curve without a value is left out, and of equal curves one is drawn.
    """
    drawn = {label: list(values) for label, values in _merged(curves).items() if any(map(math.isfinite, values))}
    if not drawn:
        return None
    series = [
        Series(label, rounds, curve, [f"round {rnd}, {label}: {figure(y)}" for rnd, y in zip(rounds, curve, strict=True)])
        for label, curve in drawn.items()
    ]
    summary = f"{title} by round: " + "; ".join(_words(label, curve) for label, curve in drawn.items())
    whole = [t for t in _ticks(rounds[0], rounds[-1], X_TICKS) if t == round(t) and rounds[0] <= t <= rounds[-1]]
    return plot(title, series, note=note, summary=summary, x_ticks=whole or [rounds[0]], x_span=(rounds[0], rounds[-1]))


def plot(
    title: str,
    series: Sequence[Series],
    *,
    note: str = "",
    summary: str = "",
    x_label: str = "",
    y_label: str = "",
    x_span: Span | None = None,
    y_span: Span | None = None,
    x_ticks: Sequence[float] | None = None,
    size: Span = (WIDTH, HEIGHT),
) -> Chart:
    """A drawing of series over any x.

    Args:
        summary: the drawing in words, for those who do not see it; by default its title.
        x_label, y_label: names of the axes.
        x_span, y_span: what the axes show at least; by default what there is to see.
        x_ticks: where the ticks of x are; by default at round numbers.
        size: width and height in units.

    Raises:
        ValueError: there is no finite value.
    """
    ys = [y for one in series for values in (one.y, one.low or (), one.high or ()) for y in values if math.isfinite(y)]
    xs = [x for one in series for x, y in zip(one.x, one.y, strict=True) if math.isfinite(y)]
    if not ys:
        raise ValueError(f"{title!r} has no finite value to draw")
    x_low, x_high = x_span or (min(xs), max(xs))
    x_at = _ticks(x_low, x_high, X_TICKS) if x_ticks is None else list(x_ticks)
    y_at = _ticks(*(y_span or (min(ys), max(ys))), round(Y_TICKS * size[1] / HEIGHT))
    y_low, y_high = y_span or (min(y_at[0], *ys), max(y_at[-1], *ys))
    left, right = LEFT + LABEL * bool(y_label), size[0] - RIGHT
    bottom = size[1] - BOTTOM - LABEL * bool(x_label)

    def place(x: float, y: float) -> tuple[float, float]:
        across = 0.5 if x_low == x_high else (x - x_low) / (x_high - x_low)
        return left + across * (right - left), bottom - (y - y_low) / (y_high - y_low) * (bottom - TOP)

    return Chart(
        title=title,
        note=note,
        lines=tuple(_line(one, number, place) for number, one in enumerate(series)),
        x_ticks=tuple(Tick(round(place(t, y_low)[0], 1), tick_label(t, x_at)) for t in x_at if x_low <= t <= x_high),
        y_ticks=tuple(Tick(round(place(x_low, t)[1], 1), tick_label(t, y_at)) for t in y_at if y_low <= t <= y_high),
        summary=summary or title,
        x_label=x_label,
        y_label=y_label,
        width=size[0],
        height=size[1],
        left=left,
        right=right,
        bottom=bottom,
    )


def _line(one: Series, number: int, place: Callable[[float, float], tuple[float, float]]) -> Line:
    texts = one.texts or [
        f"{one.label + ': ' if one.label else ''}{figure(x)}, {figure(y)}" for x, y in zip(one.x, one.y, strict=True)
    ]
    radii = one.radii or [RADIUS] * len(one.y)
    dots = tuple(
        Dot(round(place(x, y)[0], 1), round(place(x, y)[1], 1), text, round(radius, 1))
        for x, y, text, radius in zip(one.x, one.y, texts, radii, strict=True)
        if math.isfinite(y)
    )
    return Line(
        label=one.label,
        path=_path([place(x, y) for x, y in zip(one.x, one.y, strict=True)]),
        dots=dots,
        colour=number if one.colour is None else one.colour,
        dashed=one.dashed,
        band="" if one.low is None or one.high is None else _band(one.x, one.low, one.high, place),
    )


def _band(
    x: Sequence[float], low: Sequence[float], high: Sequence[float], place: Callable[[float, float], tuple[float, float]]
) -> str:
    """The outline of a band, along its upper bound and back along the lower one; "" where no bound is known."""
    known = [(u, a, b) for u, a, b in zip(x, low, high, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(known) < 2:
        return ""
    outline = [place(u, b) for u, _, b in known] + [place(u, a) for u, a, _ in reversed(known)]
    return f"{_path(outline)} Z"


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
