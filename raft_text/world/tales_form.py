"""Which sentences of a text are of the tales' grammar: what a small model garbles is told from what it has learnt to say."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from raft_text.world.tales_plots import PLOTS
from raft_text.world.tales_words import AFTER_ALL, BOYS, FELT, GIRLS, SAID, SKY

_PARTS = re.compile(r"(\[[^\]]*\]|\{\w+\})")
_SLOT = re.compile(r"(\{\w+\})")
_NEXT = re.compile(r'[.!?]"? (?=[A-Z"])')
_SLOTS = {
    "{hero}": f"(?:{'|'.join(GIRLS + BOYS)})",
    "{friend}": f"(?:{'|'.join(GIRLS + BOYS)})",
    "{thing}": "[a-zA-Z ]+",
    "{the}": "[a-zA-Z ]+",
}


def well_formed(text: str) -> tuple[int, int]:
    """(sentences that some wording of the tales matches, all sentences). What was said and who said it are one sentence.

    Names and things count wherever they stand, so this says nothing of whether they are those of the opening.
    """
    right = count = 0
    rest = text.strip()
    while rest:
        end = max((found.end() for each in _wordings() if (found := each.match(rest))), default=0)
        if not end:
            following = _NEXT.search(rest)
            end = following.end() if following else len(rest)
        else:
            right += 1
        count += 1
        rest = rest[end:].strip()
    return right, count


def people(text: str) -> set[str]:
    """The people that a text names."""
    return set(re.findall(rf"\b(?:{'|'.join(GIRLS + BOYS)})\b", text))


def well_formed_share(texts: Sequence[str]) -> float:
    """Share of the sentences of all texts that are well formed."""
    right, count = (sum(each) for each in zip(*map(well_formed, texts), strict=True))
    return right / count


@functools.cache
def _wordings() -> tuple[re.Pattern[str], ...]:
    told = [wordings for plot in PLOTS.values() for wordings in (plot.first, plot.then, plot.last)] + [
        SKY,
        SAID,
        FELT,
        AFTER_ALL,
    ]
    return tuple(_matching(wording) for wordings in told for mood in wordings.values() for wording in mood)


def _matching(wording: str) -> re.Pattern[str]:
    pieces = [_piece(part) for part in _PARTS.split(wording)]
    articles = re.sub(r"(^|\\ )([Aa])\\ ", r"\1\2n?\\ ", "".join(pieces))
    return re.compile(rf"{articles}(?= |$)", re.IGNORECASE)


def _piece(part: str) -> str:
    if part.startswith("["):
        return f"(?:{'|'.join(''.join(_piece(each) for each in _SLOT.split(choice)) for choice in part[1:-1].split('|'))})"
    if part.startswith("{"):
        return _SLOTS.get(part, "(?:he|she|him|her|his)")
    return re.escape(part)
