"""A comparison as HTML: pairs side by side or under a slider, or a table of pictures, with scores. Pure text; knows no Gradio.

Gradio's own image slider gives its pictures no alternative text and listens to the mouse alone, so this one is a range input
over two pictures: arrow keys move it, and a screen reader says what it shows.
"""

from __future__ import annotations

import base64
import io
import math
from html import escape
from typing import TYPE_CHECKING

from raft_demo.compare.comparison import Column, Comparison, difference
from raft_demo.shared.measures import Measure
from raft_demo.shared.scores_view import ROLES, change, notes, short

if TYPE_CHECKING:
    from PIL.Image import Image

PIXELATED = 160  # pictures up to this side are shown by their pixels, larger ones smoothly
LOSSLESS = 256  # up to this side what is shown is exact; what is downloaded always is

CSS = """
.compare-pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 1rem; }
.compare-card { margin: 0; border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg); overflow: hidden;
  background: var(--block-background-fill); }
.compare-card > .raft-scroll { padding: .35rem .5rem .5rem; }
.compare-slide { position: relative; --at: 50%; background: var(--background-fill-secondary); }
.compare-slide img, .compare-cell img { display: block; width: 100%; height: auto; margin: 0; }
.compare-slide img + img { position: absolute; inset: 0; height: 100%; clip-path: inset(0 0 0 var(--at)); }
.compare-pixel { image-rendering: pixelated; }
.compare-slide input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y; }
.compare-slide::after { content: ""; position: absolute; inset: 0 auto 0 var(--at); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 0 1px rgb(0 0 0 / .45); pointer-events: none; }
.compare-card:focus-within { outline: 3px solid var(--color-accent); }
.compare-chip { position: absolute; top: .4rem; padding: .1rem .5rem; border-radius: 1rem; font-size: .75rem; color: #fff;
  background: rgb(15 23 42 / .72); pointer-events: none; }
.compare-chip.left { left: .4rem; } .compare-chip.right { right: .4rem; }
.compare-two { display: flex; gap: .5rem; padding: .5rem; } .compare-two > div { flex: 1; min-width: 0; }
.compare-two img { display: block; width: 100%; height: auto; margin: 0; }
.compare-two b { display: block; font-size: .82rem; margin-bottom: .25rem; }
.compare-two img, .compare-room { border-radius: var(--radius-md); }
.compare-room { background: var(--background-fill-secondary); }
.compare-scores { min-height: 6.6rem; }
.compare-failed { margin: 0; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.compare-grid { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(118px, 1fr); gap: .8rem .6rem; }
.compare-cell { margin: 0; min-width: 0; } .compare-cell img { border-radius: var(--radius-md); }
.compare-cell figcaption { font-weight: 600; margin-bottom: .2rem; }
.compare-cell table { width: 100%; margin: .3rem 0 0 !important; font-size: .76rem; border: 0 !important; }
.compare-cell tr { border: 0 !important; }
.compare-cell th, .compare-cell td { padding: .05rem 0 !important; border: 0 !important; text-align: right; font-weight: 400;
  font-variant-numeric: tabular-nums; }
.compare-cell th { text-align: left; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.raft-table td { font-variant-numeric: tabular-nums; }
.raft-notes { margin: .5rem 0 0; padding-left: 1.2rem; color: var(--body-text-color-subdued); }
.raft-bar { height: .5rem; border-radius: 1rem; background: var(--border-color-primary); overflow: hidden; }
.raft-bar > div { height: 100%; background: var(--color-accent); transition: width .2s; }
.raft-progress { min-height: 2.2rem; }
.compare-card .raft-table { font-size: .8rem; margin: 0; }
.compare-card .raft-table th, .compare-card .raft-table td { padding: .15rem .3rem !important; }
#compare-result caption { text-align: left; padding: 0 .6rem; }
"""


def shown(comparison: Comparison) -> str:
    """The whole result."""
    body = _pairs(comparison) if comparison.is_pairs else _grid(comparison)
    return f"{body}{summary(comparison)}{notes(comparison.notes)}"  # the summary comes last, so that no picture moves


def summary(comparison: Comparison) -> str:
    """Mean scores of every column over the pictures that are scored; nothing before there are scores."""
    if not comparison.measures:
        return ""
    heads = "".join(f"<th scope='col'>{escape(column.label)}</th>" for column in comparison.columns)
    single = comparison.is_pairs
    rows = "".join(_summary_row(comparison, measure, single) for measure in comparison.measures)
    more = "<th scope='col'>change</th>" if single else ""
    of = "" if comparison.asked.k == 1 else f", mean of {comparison.asked.k} pictures"
    return (
        "<br><div class='raft-scroll'><table class='raft-table'><caption class='raft-muted'>"
        f"Scores{of}</caption><thead><tr><th scope='col'>measure</th>{heads}{more}</tr></thead><tbody>{rows}</tbody>"
        "</table></div>"
    )


def _summary_row(comparison: Comparison, measure: Measure, single: bool) -> str:
    role = ROLES.get(measure.role, measure.role)
    cells = [
        f"<th scope='row' title='{escape(measure.scale)}'>{escape(measure.name)} <span class='raft-muted'>{role}</span></th>"
    ]
    gains = []
    for column in comparison.columns:
        values = [value for value in column.scores.get(measure.name, ()) if not math.isnan(value)]
        mean = sum(values) / len(values) if values else math.nan
        found = [difference(comparison, column, measure, i) for i in range(comparison.asked.k)]
        known = [value for value in found if not math.isnan(value)]
        gain = sum(known) / len(known) if known else math.nan
        gains.append(gain)
        is_base = comparison.columns[column.base] is column
        beside = "" if single or is_base else f"<br>{change(gain, measure)}"
        cells.append(f"<td>{short(mean)}{beside}</td>")
    if single:
        cells.append(f"<td>{change(gains[1], measure)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _pairs(comparison: Comparison) -> str:
    before, after = comparison.columns if len(comparison.columns) == 2 else (*comparison.columns, None)
    cards = []
    scored = " compare-scores" if comparison.asked.score else ""
    for i in range(comparison.asked.k):
        name = f"picture {i + 1}"
        rows = "".join(_pair_row(comparison, before, after, measure, i) for measure in comparison.measures if after)
        head = (
            f"<tr><th scope='col'>{name}</th><th scope='col'>before</th><th scope='col'>after</th><th scope='col'>±</th></tr>"
        )
        scores = f"<table class='raft-table'><thead>{head}</thead><tbody>{rows}</tbody></table>"
        shown = _pair(comparison, before, after, i)
        cards.append(f"<figure class='compare-card'>{shown}<div class='raft-scroll{scored}'>{scores}</div></figure>")
    return f"<div class='compare-pairs'>{''.join(cards)}</div>"


def _pair_row(comparison: Comparison, before: Column, after: Column, measure: Measure, i: int) -> str:
    gain = change(difference(comparison, after, measure, i), measure)
    values = "".join(f"<td>{_score(column, measure, i)}</td>" for column in (before, after))
    return f"<tr><th scope='row'>{escape(measure.name)}</th>{values}<td>{gain}</td></tr>"


def _pair(comparison: Comparison, before: Column, after: Column | None, i: int) -> str:
    """Before and after side by side, from the first moment on; one over the other where that is asked for."""
    if comparison.asked.slide and after and before.pictures[i] is not None and after.pictures[i] is not None:
        return _slide(comparison, before, after, i)
    later = f"<div><b>after</b>{_room(before.pictures[i])}</div>"
    sides = [f"<div><b>{escape(each.label)}</b>{_picture(comparison, each, i)}</div>" for each in (before, after) if each]
    return f"<div class='compare-two'>{''.join(sides)}{'' if after else later}</div>"


def _room(picture: Image | None) -> str:
    """What keeps the place of a picture that is still to be drawn."""
    width, height = picture.size if picture else (1, 1)
    return f"<div class='compare-room' style='aspect-ratio: {width} / {height}'></div>"


def _slide(comparison: Comparison, before: Column, after: Column, i: int) -> str:
    # An attribute may hold code here because it is the app's own and takes nothing from a visitor.
    move = "oninput=\"this.parentNode.style.setProperty('--at', this.value + '%')\""
    return (
        f"<div class='compare-slide'>{_picture(comparison, before, i)}{_picture(comparison, after, i)}"
        f"<span class='compare-chip left'>{escape(before.label)}</span>"
        f"<span class='compare-chip right'>{escape(after.label)}</span>"
        f"<input type='range' min='0' max='100' value='50' {move} "
        f"aria-label='Picture {i + 1}: how much of it is shown before training'></div>"
    )


def _grid(comparison: Comparison) -> str:
    """A column per model and strength, a row per noise."""
    rows = comparison.asked.k
    cells = "".join(_cell(comparison, column, i) for column in comparison.columns for i in range(rows))
    style = (
        f"grid-template-rows: repeat({rows}, auto); grid-template-columns: repeat({comparison.expected}, minmax(118px, 1fr))"
    )
    return f"<div class='raft-scroll'><div class='compare-grid' style='{style}'>{cells}</div></div>"


def _cell(comparison: Comparison, column: Column, i: int) -> str:
    is_base = comparison.columns[column.base] is column
    lines = "".join(
        f"<tr><th scope='row'>{escape(measure.name)}</th><td>{_score(column, measure, i)}</td>"
        f"<td>{'' if is_base else change(difference(comparison, column, measure, i), measure)}</td></tr>"
        for measure in comparison.measures
    )
    head = f"<figcaption>{escape(column.label)}</figcaption>"
    return f"<figure class='compare-cell'>{head}{_picture(comparison, column, i)}<table>{lines}</table></figure>"


def _score(column: Column, measure: Measure, i: int) -> str:
    return short(column.scores[measure.name][i])


def _picture(comparison: Comparison, column: Column, i: int) -> str:
    picture = column.pictures[i]
    if picture is None:
        return f"<p class='compare-failed'>picture {i + 1} failed: {escape(column.failed[i])}</p>"
    alt = f"{column.label}, picture {i + 1}, seed {comparison.asked.seed}: {comparison.asked.prompt}"
    kind = "compare-pixel" if max(picture.size) <= PIXELATED else ""
    return (
        f"<img src='{_data_url(picture)}' alt='{escape(alt)}' class='{kind}' width='{picture.width}' height='{picture.height}'>"
    )


def _data_url(picture: Image) -> str:
    """Pictures travel inside the page: nothing of a visitor's lies in a folder of the server."""
    data = io.BytesIO()
    if max(picture.size) <= LOSSLESS:
        picture.save(data, format="PNG")
        kind = "png"
    else:
        picture.convert("RGB").save(data, format="WEBP", quality=90)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
