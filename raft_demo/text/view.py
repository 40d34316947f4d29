"""Texts before and after, and votes on an answer, as HTML. Pure text; knows no Gradio."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from raft_core.report.differing import differing
from raft_demo.shared.measures import Measure
from raft_demo.shared.scores_view import ROLES, change, notes, short
from raft_demo.text.texts import Accuracies, Chain, Completion, Completions, Party, Verdict

DIFFERENCES, LIKELIHOOD, NOTHING = "what differs", "what training made likelier", "nothing"
FULL = 3.0  # nats at which a token's shade is the strongest
WEAKEST = 0.1  # share of that from which a token is marked
KEY = (
    "<p class='raft-key'><span class='raft-of-differences raft-said'><del>struck out</del>: in the text before training alone; "
    "<ins>underlined</ins>: in the one after alone.</span>"
    "<span class='raft-of-likelihood raft-said'><span data-up style='--by:.8'>underlined, blue</span>: training made the token "
    "likelier; <span data-down style='--by:.8'>dotted, orange</span>: less likely. Point at one to see both figures.</span></p>"
)
METHODS = {"top-1": "one chain", "vote": "the majority", "rerank": "the reward's choice"}

CSS = """
.raft-text { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg); overflow: hidden;
  background: var(--block-background-fill); margin: 0 0 1rem; }
.raft-sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 260px), 1fr)); }
.raft-side { padding: .6rem .8rem; min-width: 0; }
.raft-side + .raft-side { border-left: 1px solid var(--border-color-primary); }
.raft-side h4 { margin: 0 0 .3rem; font-size: .8rem; font-weight: 600; color: var(--body-text-color-subdued); }
.raft-said { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.55; min-height: 3.2rem; }
.raft-said del, .raft-said ins { border-radius: .2rem; color: inherit; text-decoration-thickness: 1.5px; }
.raft-said del { background: rgb(220 38 38 / .16); text-decoration: line-through; text-decoration-color: rgb(220 38 38 / .75); }
.raft-said ins { background: rgb(22 163 74 / .18); text-decoration: underline; text-decoration-color: rgb(22 163 74); }
[data-mark=likelihood] .raft-said :is(del, ins), [data-mark=nothing] .raft-said :is(del, ins) {
  background: none; text-decoration: none; }
[data-mark=likelihood] .raft-said :is([data-up], [data-down]) { border-radius: .2rem; text-underline-offset: .2em; }
[data-mark=likelihood] .raft-said [data-up] { background: rgb(37 99 235 / calc(.08 + var(--by) * .5));
  text-decoration: underline; }
[data-mark=likelihood] .raft-said [data-down] { background: rgb(234 88 12 / calc(.08 + var(--by) * .5));
  text-decoration: underline dotted; }
.raft-key { margin: 0 0 .6rem; min-height: 1.4rem; font-size: .85rem; color: var(--body-text-color-subdued); }
.raft-key > span { display: none; } [data-mark=likelihood] .raft-key > .raft-of-likelihood { display: inline; }
#text-result:not([data-mark=likelihood], [data-mark=nothing]) .raft-key > .raft-of-differences { display: inline; }
#text-mark { padding: 0 !important; border: 0 !important; box-shadow: none !important; background: none !important; }
.raft-text > .raft-scroll { border-top: 1px solid var(--border-color-primary); padding: 0 .3rem; }
.raft-text .raft-table { font-size: .82rem; margin: 0; }
.raft-text .raft-table :is(th, td) { padding: .15rem .5rem !important; }
.raft-key .raft-said { min-height: 0; }
.raft-verdict { margin: 0 0 .8rem; font-size: 1.02rem; line-height: 1.6; } .raft-verdict b { font-size: 1.15em; }
.raft-party { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg); margin: 0 0 .6rem;
  background: var(--block-background-fill); }
.raft-party summary { cursor: pointer; padding: .5rem .8rem; display: grid; align-items: center; gap: .15rem .8rem;
  grid-template-columns: minmax(3rem, auto) 1fr auto; }
.raft-party summary:focus-visible { outline: 3px solid var(--color-accent); outline-offset: -3px; }
.raft-party summary b { font-variant-numeric: tabular-nums; }
.raft-party .raft-bar { min-width: 3rem; } .raft-party ol { list-style: none; margin: 0; padding: 0 .8rem .4rem; }
.raft-party li { border-top: 1px solid var(--border-color-primary); padding: .5rem 0; margin: 0; }
.raft-party li p { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.raft-party li small { display: block; color: var(--body-text-color-subdued); }
.raft-tags { grid-column: 1 / -1; display: flex; flex-wrap: wrap; gap: .3rem; }
.raft-tag { font-size: .75rem; padding: 0 .5rem; border: 1px solid currentColor; border-radius: 1rem; }
#text-result caption { text-align: left; padding: 0 .6rem; }
"""


# ---------------------------------------------------------------------- before and after


def shown(found: Completions) -> str:
    """A card per seed, with the mean scores above."""
    cards = "".join(_card(found, i) for i in range(len(found.before)))
    return f"{KEY}{summary(found)}{cards}{notes(found.notes)}"


def summary(found: Completions) -> str:
    """Mean scores over the completions that are scored on both sides; nothing before there are scores."""
    rows = "".join(_mean_row(found, measure) for measure in found.measures)
    if not rows:
        return ""
    of = "" if len(found.before) == 1 else f", mean of {len(found.before)} completions"
    head = "".join(f"<th scope='col'>{each}</th>" for each in ("measure", "before", "after", "change"))
    return (
        f"<div class='raft-scroll'><table class='raft-table'><caption class='raft-muted'>Scores{of}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div><br>"
    )


def _mean_row(found: Completions, measure: Measure) -> str:
    both = [i for i in range(len(found.before)) if not math.isnan(found.gain(measure, i))]
    before, after = (_mean([side[measure.name][i] for i in both]) for side in (found.scores_before, found.scores_after))
    role = f"<span class='raft-muted'>{ROLES.get(measure.role, measure.role)}</span>"
    return (
        f"<tr><th scope='row' title='{escape(measure.scale)}'>{escape(measure.name)} {role}</th>"
        f"<td>{short(before)}</td><td>{short(after)}</td><td>{change(after - before, measure)}</td></tr>"
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _card(found: Completions, i: int) -> str:
    before, after = found.before[i], found.after[i] if found.after else None
    removed, added = ([False] * len(before.pieces), [])
    if after is not None:
        removed, added = differing(before.pieces, after.pieces)
    right = (
        _side("After training", after, added, "ins")
        if after is not None
        else "<div class='raft-side'><h4>After training</h4><p class='raft-said raft-muted'>being written …</p></div>"
    )
    left = _side("Before training", before, removed, "del")
    same = " · both are the same" if after is not None and after.text == before.text else ""
    label = f"Completion {i + 1}{same}"
    sides = f"<div class='raft-sides'>{left}{right}</div>"
    return f"<section class='raft-text' aria-label='{label}'>{sides}{_table(found, i)}</section>"


def _side(head: str, said: Completion, marked: Sequence[bool], tag: str) -> str:
    words = f"{sum(1 for piece in said.pieces if piece)} tokens, {said.finish}"
    text = "".join(_runs(said, marked, tag)) or "<span class='raft-muted'>(nothing)</span>"
    return f"<div class='raft-side'><h4>{head} <small>({escape(words)})</small></h4><p class='raft-said'>{text}</p></div>"


def _runs(said: Completion, marked: Sequence[bool], tag: str) -> Iterator[str]:
    """The text, neighbouring tokens that differ in one element."""
    is_open = False
    for i, piece in enumerate(said.pieces):
        if not piece:
            continue
        if marked[i] != is_open:
            yield f"<{tag}>" if marked[i] else f"</{tag}>"
            is_open = marked[i]
        yield _token(piece, said.before[i], said.after[i]) if said.before and said.after else escape(piece)
    if is_open:
        yield f"</{tag}>"


def _token(piece: str, before: float, after: float) -> str:
    """A token with how likely it was to either model."""
    by = min(1.0, abs(after - before) / FULL)
    kind = "" if by < WEAKEST else " data-up" if after > before else " data-down"
    told = f"before {_percent(before)}, after {_percent(after)}"
    return f"<span{kind} style='--by:{by:.2f}' title='{told}'>{escape(piece)}</span>"


def _percent(log_prob: float) -> str:
    if not math.isfinite(log_prob):
        return "–"
    share = 100 * math.exp(log_prob)
    return f"{share:.0f} %" if share >= 1 else f"{share:.1g} %"


def _table(found: Completions, i: int) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{escape(measure.name)}</th><td>{short(found.scores_before[measure.name][i])}</td>"
        f"<td>{short(found.scores_after[measure.name][i])}</td><td>{change(found.gain(measure, i), measure)}</td></tr>"
        for measure in found.measures
    )
    head = "".join(f"<th scope='col'>{each}</th>" for each in (f"completion {i + 1}", "before", "after", "±"))
    return (
        f"<div class='raft-scroll'><table class='raft-table'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


# ---------------------------------------------------------------------- votes


def verdict(found: Verdict) -> str:
    """What the majority says, what the reward chooses, and every chain of thought by the answer it comes to."""
    count = sum(len(party.chains) for party in found.parties)
    parties = "".join(_party(party, count, found.reranker) for party in found.parties)
    return f"<p class='raft-verdict'>{'<br>'.join(_sentences(found, count))}</p>{parties}{notes(found.notes)}"


def _sentences(found: Verdict, count: int) -> Iterator[str]:
    elected = next((party for party in found.parties if party.elected), None)
    if elected is None:
        yield "No chain of thought states an answer that can be read."
    else:
        yield f"The majority says <b>{escape(elected.answer)}</b>: {len(elected.chains)} of {count} chains.{_judged(elected)}"
    best = next((party for party in found.parties if party.best), None)
    if best is not None:
        said = f"<b>{escape(best.answer)}</b>" if best.answer else "one without an answer"
        yield f"The reward {escape(found.reranker)} chooses {said}.{_judged(best)}"
    if found.reference:
        right = sum(len(party.chains) for party in found.parties if party.right)
        told = f"The right answer is {escape(found.reference)}; {right} of {count} chains reach it."
        yield f"<span class='raft-muted'>{told}</span>"
    else:
        yield "<span class='raft-muted'>The right answer is not known here.</span>"


def _judged(party: Party) -> str:
    if party.right is None:
        return ""
    return " <span class='raft-better'>✓ right</span>" if party.right else " <span class='raft-worse'>✗ wrong</span>"


def _party(party: Party, count: int, reranker: str) -> str:
    tags = [
        ("majority", "", party.elected),
        (f"chosen by {escape(reranker)}", "", party.best),
        ("✓ right answer", "raft-better", bool(party.right)),
    ]
    said = "".join(f"<span class='raft-tag {kind}'>{text}</span>" for text, kind, is_so in tags if is_so)
    share = 100 * len(party.chains) / count
    name = escape(party.answer) if party.answer else "no answer"
    chains = "".join(_chain(chain, reranker) for chain in party.chains)
    is_open = " open" if party.elected or party.best or party.right else ""
    return (
        f"<details class='raft-party'{is_open}><summary><b>{name}</b>"
        f"<span class='raft-bar' aria-hidden='true'><span style='display:block;height:100%;width:{share:.0f}%;"
        f"background:var(--color-accent)'></span></span><span>{len(party.chains)} of {count}</span>"
        f"<span class='raft-tags'>{said}</span></summary><ol>{chains}</ol></details>"
    )


def _chain(chain: Chain, reranker: str) -> str:
    score = f" · {escape(reranker)} {short(chain.score)}" if reranker else ""
    told = f"chain {chain.number} · {escape(chain.finish)}{score}"
    return f"<li><p>{escape(chain.text.strip()) or '(nothing)'}</p><small>{told}</small></li>"


def accuracies(found: Accuracies) -> str:
    """The table of accuracies with their intervals."""
    rows = "".join(
        f"<tr><th scope='row'>{METHODS.get(method, escape(method))}</th><td>{samples}</td><td>{questions}</td>"
        f"<td>{100 * value:.1f} %</td><td>{100 * low:.1f} … {100 * high:.1f}</td></tr>"
        for method, samples, questions, value, low, high in found.rows
    )
    heads = ("right answers of", "chains", "problems", "accuracy", "95 %")
    head = "".join(f"<th scope='col'>{each}</th>" for each in heads)
    return (
        f"<div class='raft-scroll'><table class='raft-table'><caption class='raft-muted'>{escape(found.label)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{notes(found.notes)}"
    )
