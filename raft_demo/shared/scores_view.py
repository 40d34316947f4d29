"""Scores as the pages show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from raft_core.evaluation.table import number
from raft_core.format import figure
from raft_demo.shared.measures import Measure

ROLES = {"reward": "reward", "part": "part of the reward", "judge": "judge, never trained on"}


def progress(text: str, done: int = 0, total: int = 0) -> str:
    """A bar with its text; both always take the same height, so that nothing jumps."""
    share = min(100.0, 100 * done / total) if total else 0.0
    bar = (
        f"<div class='raft-bar' role='progressbar' aria-valuemin='0' aria-valuemax='100' aria-valuenow='{share:.0f}' "
        f"aria-label='Progress'><div style='width:{share:.1f}%'></div></div>"
        if text
        else ""
    )
    return f"<div class='raft-progress' aria-live='polite'>{bar}<span class='raft-muted'>{escape(text)}</span></div>"


def change(value: float, measure: Measure) -> str:
    """A signed figure, coloured by whether it is for the better; the sign says it to who sees no colour."""
    if math.isnan(value):
        return "<span class='raft-muted'>–</span>"
    sign = "+" if value > 0 else "−" if value < 0 else "±"
    good = value if measure.higher_is_better else -value
    kind = "raft-better" if good > 0 else "raft-worse" if good < 0 else "raft-muted"
    return f"<span class='{kind}'>{sign}{short(abs(value))}</span>"


def short(value: float) -> str:
    """As the report and the command line write it, in every table alike; – for NaN."""
    return figure(value, 8) if 0 < abs(value) < 0.001 else number(value)


def notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return f"<ul class='raft-notes'>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>"
