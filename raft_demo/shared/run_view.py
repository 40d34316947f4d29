"""How the pages Align and Runs show a run: curves as in its report, samples as cards. Every text of a run is escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from raft_core.evaluation.table import number
from raft_core.report.plots import Chart, chart
from raft_core.report.render import render_chart
from raft_demo.shared.gallery import Card

CSS = """
.raft-charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(250px, 100%), 1fr)); gap: 1rem 1.2rem;
  --c0: #4f46e5; --c1: #c2410c; --c2: #15803d; --c3: #be185d; --c4: #0e7490; --c5: #7c3aed; }
.dark .raft-charts { --c0: #a5b4fc; --c1: #fdba74; --c2: #86efac; --c3: #f9a8d4; --c4: #67e8f9; --c5: #c4b5fd; }
.raft-charts .chart { margin: 0; color: var(--body-text-color); }
.raft-charts .chart figcaption { font-size: .8rem; color: var(--body-text-color-subdued); margin-bottom: .2rem; }
.raft-charts .chart figcaption b { color: var(--body-text-color); font-size: .92rem; }
.raft-charts .chart > svg { width: 100%; height: auto; display: block; overflow: visible; }
.raft-charts .chart text { font-size: 11px; fill: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
.raft-charts text.y { text-anchor: end; } .raft-charts text.x { text-anchor: middle; }
.raft-charts line.rule { stroke: var(--border-color-primary); stroke-width: 1; }
.raft-charts .n0 { --line: var(--c0); } .raft-charts .n1 { --line: var(--c1); }
.raft-charts .n2 { --line: var(--c2); --dash: 4 3; }
.raft-charts .n3 { --line: var(--c3); --dash: 7 3; } .raft-charts .n4 { --line: var(--c4); --dash: 2 2; }
.raft-charts .n5 { --line: var(--c5); --dash: 8 3 2 3; }
.raft-charts .chart path { fill: none; stroke: var(--line); stroke-width: 1.8; stroke-dasharray: var(--dash, none);
  stroke-linejoin: round; }
.raft-charts .chart circle { fill: var(--line); } .raft-charts .chart circle.hit { fill: transparent; }
.raft-charts .legend { display: flex; flex-wrap: wrap; gap: .2rem .8rem; font-size: .78rem; margin: .1rem 0 0;
  color: var(--body-text-color-subdued); }
.raft-charts .legend span { display: inline-flex; gap: .35rem; align-items: center; overflow-wrap: anywhere; }
.raft-charts .legend svg { flex: none; }
.raft-cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: .8rem; }
.raft-cards.texts { grid-template-columns: repeat(auto-fill, minmax(min(260px, 100%), 1fr)); }
.raft-card { margin: 0; padding: .4rem; border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg);
  background: var(--background-fill-primary); font-size: .8rem; min-width: 0; }
.raft-card.kept { border-color: var(--color-accent); box-shadow: 0 0 0 1px var(--color-accent); }
.raft-card img { width: 100%; height: auto; display: block; border-radius: var(--radius-sm); image-rendering: auto; }
.raft-card p { margin: .35rem 0 0; overflow-wrap: anywhere; }
.raft-card p.output { white-space: pre-wrap; max-height: 13em; overflow-y: auto; font-size: .85rem; margin: 0; }
.raft-card dl { display: grid; grid-template-columns: 1fr auto; gap: 0 .6rem; margin: .3rem 0 0; }
.raft-card dt { color: var(--body-text-color-subdued); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.raft-card dd { margin: 0; font-variant-numeric: tabular-nums; }
.raft-card .mark { font-weight: 600; color: var(--color-accent); } .raft-card .drop { color: var(--body-text-color-subdued); }
.raft-status { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg); padding: .7rem .9rem;
  min-height: 5.6rem; background: var(--background-fill-primary); }
.raft-status b { font-size: 1.02rem; }
.raft-status p { margin: .2rem 0 0; overflow-wrap: anywhere; white-space: pre-line; }
.raft-status .raft-bar { margin-top: .6rem; }
.raft-pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 240px), 1fr)); gap: 1rem; }
.raft-pairs figure { margin: 0; } .raft-pairs figcaption { font-size: .85rem; margin-top: .3rem; overflow-wrap: anywhere; }
.raft-pairs .compare-two { padding: 0; }
.raft-pairs p.output { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; margin: 0; }
.raft-links { display: flex; flex-wrap: wrap; gap: .4rem 1.4rem; margin: .8rem 0 0; }
.raft-links a { font-weight: 600; text-decoration: underline; padding: .3rem 0; }
.raft-badge { display: inline-block; border-radius: 1rem;
  padding: 0 .6rem; font-size: .8rem; font-weight: 600; margin-left: .4rem;
  border: 1px solid currentColor; color: var(--body-text-color-subdued); white-space: nowrap; }
.raft-badge.running { color: var(--color-accent); } .raft-badge.finished { color: #15803d; }
.raft-badge.failed, .raft-badge.damaged { color: #b91c1c; } .raft-badge.interrupted, .raft-badge.stopped { color: #a16207; }
.dark .raft-badge.finished { color: #4ade80; } .dark .raft-badge.running { color: #a5b4fc; }
.dark .raft-badge.failed, .dark .raft-badge.damaged { color: #f87171; }
.dark .raft-badge.interrupted, .dark .raft-badge.stopped { color: #facc15; }
.raft-more { margin-top: .8rem; }
.raft-more summary { cursor: pointer; color: var(--body-text-color-subdued); margin-bottom: .6rem; }
.raft-name { display: inline-block; min-width: 6.5rem; }
.raft-wrap { overflow-wrap: anywhere; }
.raft-wrap p { margin: .2rem 0; font-size: .88rem; }
.raft-facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem .9rem; margin: .4rem 0 0; font-size: .9rem; }
.raft-facts dt { color: var(--body-text-color-subdued); } .raft-facts dd { margin: 0; overflow-wrap: anywhere; }
"""
METRICS = (("Reward", "reward/mean"), ("Best of K", "reward/best"), ("Diversity", "diversity"), ("KL to the start", "kl"))
OVERLAID = 6  # as many as the eye and the colours tell apart


def charts_html(charts: Sequence[Chart]) -> str:
    """Charts beside one another."""
    return f"<div class='raft-charts'>{''.join(map(render_chart, charts))}</div>"


def overlaid(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Chart]:
    """The same metric of several runs in one chart, for all that at least one of them has; runs in the order given.

    Args:
        histories: name of a run → metrics by round.
    """
    rounds = sorted({row["round"] for history in histories.values() for row in history})
    if not rounds:
        return []
    keys = dict.fromkeys(key for history in histories.values() for row in history for key in row)
    judges = [(f"Judge: {key.removeprefix('judge/')}", key) for key in keys if key.startswith("judge/")]
    found = []
    for title, key in (METRICS[0], *judges, *METRICS[1:]):
        curves = {name: _curve(history, key, rounds) for name, history in histories.items()}
        found.append(chart(title, rounds, curves))
    return [drawn for drawn in found if drawn]


def _curve(history: Sequence[Mapping[str, Any]], key: str, rounds: Sequence[int]) -> list[float]:
    values = {row["round"]: row[key] for row in history if isinstance(row.get(key), (int, float))}
    return [values.get(rnd, math.nan) for rnd in rounds]


def cards_html(cards: Sequence[Card], with_mark: bool = True) -> str:
    """Samples as cards; what was kept is framed, and says so."""
    texts = any(card.text for card in cards)
    return f"<div class='raft-cards{' texts' if texts else ''}'>{''.join(_card(card, with_mark) for card in cards)}</div>"


def _card(card: Card, with_mark: bool) -> str:
    if card.uri:
        shown = f"<img src='{card.uri}' alt='{escape(card.alt)}' width='{card.width}' height='{card.height}'>"
    else:
        text = f"failed: {card.failed}" if card.failed else card.text
        shown = f"<p class='output' tabindex='0'>{escape(text) or '(not kept)'}</p>"
    mark = "<span class='mark'>✓ kept</span>" if card.kept else "<span class='drop'>dropped</span>"
    scores = "".join(f"<dt title='{escape(n)}'>{escape(n)}</dt><dd>{number(v)}</dd>" for n, v in card.scores.items())
    return (
        f"<figure class='raft-card{' kept' if card.kept and with_mark else ''}'>{shown}<figcaption>"
        f"<p class='raft-muted'>{escape(card.prompt)}</p><dl>{scores}</dl>"
        f"{f'<p>{mark}</p>' if with_mark else ''}</figcaption></figure>"
    )


def badge(status: str) -> str:
    """A status as a small mark. The word itself is of the app's own."""
    return f"<span class='raft-badge {escape(status.split(',')[0].split(' ')[0])}'>{escape(status)}</span>"


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the cells are HTML already."""
    heading = "".join(f"<th scope='col'>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f"<div class='raft-scroll' tabindex='0'><table class='raft-table'><thead><tr>{heading}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )
