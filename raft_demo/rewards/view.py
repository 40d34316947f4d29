"""What the page Rewards shows, as HTML. All text of visitors and of runs is escaped."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from raft_demo.shared.offered import Offer

DIGITS = 4


def ranking(marks: Mapping[str, Any], by: str) -> list[int]:
    """Places of the outputs, the best by one reward first; what it has not scored comes last, in its order."""
    sign = -1 if by in marks["descending"] else 1
    values = [None if value is None else sign * value for value in marks["columns"][by]]
    return sorted(range(len(values)), key=lambda i: (values[i] is None, -(values[i] or 0.0), i))


def best(marks: Mapping[str, Any], key: str) -> float | None:
    """The best score of a column; None when nothing stands out."""
    scored = [value for value in marks["columns"][key] if value is not None]
    return (min if key in marks["descending"] else max)(scored) if len(set(scored)) > 1 else None


def table(marks: Mapping[str, Any], by: str) -> str:
    """The outputs ranked by one reward, with the scores of all."""
    keys = list(marks["columns"])
    heads = "".join(_head(marks, key, key == by) for key in keys)
    tops = {key: best(marks, key) for key in keys}
    rows = "".join(
        f"<tr><td class='rewards-place'>{place}</td><th scope='row'>{_output(marks, i)}</th>"
        + "".join(_cell(marks["columns"][key][i], marks["columns"][key][i] == tops[key], key == by) for key in keys)
        + "</tr>"
        for place, i in enumerate(ranking(marks, by), 1)
    )
    return (
        "<div class='raft-scroll' tabindex='0' role='region' aria-label='Scores'><table class='raft-table rewards-scores'>"
        f"<thead><tr><th scope='col'>place</th><th scope='col' class='rewards-what'>output</th>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{_remarks(marks)}"
    )


def _head(marks: Mapping[str, Any], key: str, chosen: bool) -> str:
    scale = marks["scales"].get(key, "")
    arrow = "lower is better" if key in marks["descending"] else "higher is better"
    note = html.escape(", ".join(filter(None, [scale, arrow])))
    sort = " aria-sort='descending'" if chosen else ""
    return f"<th scope='col'{sort} title='{note}'>{html.escape(marks['labels'][key])}{' ▾' if chosen else ''}</th>"


def _output(marks: Mapping[str, Any], i: int) -> str:
    name = html.escape(marks["names"][i])
    if not marks["pictures"][i]:
        return f"<span class='rewards-text'>{name}</span>"
    return (
        f"<span class='rewards-thumb'><img src='{marks['pictures'][i]}' alt='the uploaded picture {name}'></span>"
        f"<span class='rewards-name'>{name}</span>"
    )


def _cell(value: float | None, top: bool, chosen: bool) -> str:
    if value is None:
        return "<td class='raft-muted'>not scored</td>"
    text = figure(value)
    return f"<td{' class=rewards-by' if chosen else ''}>{f'<b>{text}</b>' if top else text}</td>"


def figure(value: float) -> str:
    """Four significant digits, in powers of ten only where a person would write them."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    digits = max(0, DIGITS - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}"


def _remarks(marks: Mapping[str, Any]) -> str:
    """Why something has no score, or was not taken."""
    of_reason: dict[str, list[str]] = {}
    for key, why in marks["reasons"].items():
        of_reason.setdefault(why, []).append(marks["labels"][key])
    said = [f"Not scored by {html.escape(', '.join(labels))}: {html.escape(why)}" for why, labels in of_reason.items()]
    said += [f"{html.escape(name)} was refused: it {html.escape(why)}" for name, why in marks["refused"]]
    return f"<ul class='rewards-remarks'>{''.join(f'<li>{line}</li>' for line in said)}</ul>" if said else ""


def guide(offers: Sequence[Offer]) -> str:
    """What each reward measures, and what those need that cannot be used yet."""
    ready = [offer for offer in offers if not offer.needs]
    waiting = [offer for offer in offers if offer.needs]
    parts = [_list(ready, lambda offer: _code(offer.measures) + (" Needs a prompt." if offer.sees_prompt else ""))]
    if waiting:
        parts.append("<p class='rewards-more'>These need something first:</p>")
        parts.append(_list(waiting, lambda offer: f"{_code(offer.measures)} <i>Needs {_code(offer.needs)}.</i>"))
    return "".join(parts)


def _list(offers: Sequence[Offer], said: Any) -> str:
    rows = "".join(f"<dt>{html.escape(offer.label)}</dt><dd>{said(offer)}</dd>" for offer in offers)
    return f"<dl class='rewards-guide'>{rows}</dl>"


def _code(text: str) -> str:
    """Escaped, with what stands between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))
