"""Numbers, durations and sizes as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

NARROWEST, WIDEST = 8, 10  # of a column; 1.23e-05 is 8 wide, and so is kl in the first rounds


def cell_width(label: str) -> int:
    return min(max(len(label), NARROWEST), WIDEST)


def shortened(label: str, width: int) -> str:
    return label if len(label) <= width else label[: width - 1] + "…"


def figure(value: Any, width: int = 9) -> str:
    """Four significant digits, without an exponent where it can be avoided; – for what is missing or NaN.

    Args:
        width: at most so many characters, ≥ 8; a negative number with an exponent gives up a digit for it.
    """
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "–"
    if value and not 1e-3 <= abs(value) < 1e5:
        return text if len(text := f"{value:.2e}") <= width else f"{value:.1e}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 3
    return f"{value:.{min(decimals, 4)}f}"


def duration(seconds: float) -> str:
    """In the unit that a person would use: 0.034 s, 75 s, 2 h 01 min."""
    if math.isnan(seconds):
        return "unknown"
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def evenly(items: Sequence[Any], n: int) -> list[Any]:
    """At most n of the items, evenly spaced, the first and the last among them."""
    if len(items) <= n:
        return list(items)
    if n == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (n - 1))] for i in range(n)]


def size(n_bytes: float | None) -> str:
    if not n_bytes:
        return "–"
    return f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"
