"""Reading the verdict out of a judge's answer, strictly: what is not plainly said is not guessed, for it would be trained on.

A judge is asked to end with a line of its own (``SCORE_REQUEST``, ``CHOICE_REQUEST``), and that line alone counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

SCORE_REQUEST = (
    "End with a line of its own that holds your verdict and nothing else: Score: N, where N is from {low:g} to {high:g}."
)
CHOICE_REQUEST = "End with a line of its own that holds your verdict and nothing else: Verdict: X, where X is {choices}."
NO_VERDICT = "the judge gave no verdict that can be read, or had nothing to compare with"

_LABEL = r"(?:(?:final|overall)\s+)?(?:score|rating)\s*[:=]\s*"
_NUMBER = r"([-+]?[0-9]+(?:\.[0-9]+)?)(?:\s*/\s*([0-9]+))?\.?"
_BARE_SCORE = re.compile(_NUMBER)
_SCORE = re.compile(_LABEL + _NUMBER, re.IGNORECASE)
_BARE_CHOICE = re.compile(r"\[*(\w+)\]*\.?")
_CHOICE = re.compile(r"(?:final\s+)?verdict\s*[:=]\s*\[*(\w+)\]*\.?", re.IGNORECASE)


def parse_score(reply: str, low: float, high: float) -> float:
    """The number of a reply that ends with ``Score: N``, or that is a number and nothing else; NaN = unparsable.

    Also NaN: a number out of range, one out of another maximum (``3/5`` on a scale to 10), two scores that differ, a number
    within a sentence, thoughts that never end.
    """
    lines = _lines(reply)
    found = _verdict(lines, _SCORE, _BARE_SCORE)
    if found is None or {float(match[1]) for line in lines if (match := _SCORE.fullmatch(line))} - {float(found[1])}:
        return math.nan
    value = float(found[1])
    another_scale = found[2] is not None and float(found[2]) != high
    return math.nan if another_scale or not low <= value <= high else value


def parse_choice(reply: str, choices: Sequence[str]) -> str | None:
    """Which of ``choices`` a reply ends with as ``Verdict: X``, or is and nothing else; None = unparsable.

    Capitals do not matter. Two verdicts that differ are unparsable too.
    """
    lines = _lines(reply)
    found = _verdict(lines, _CHOICE, _BARE_CHOICE)
    if found is None or {match[1].lower() for line in lines if (match := _CHOICE.fullmatch(line))} - {found[1].lower()}:
        return None
    return {choice.lower(): choice for choice in choices}.get(found[1].lower())


def _verdict(lines: Sequence[str], labelled: re.Pattern[str], bare: re.Pattern[str]) -> re.Match[str] | None:
    """The last line as a labelled verdict, or the only line as a bare one."""
    if not lines:
        return None
    return labelled.fullmatch(lines[-1]) or (bare.fullmatch(lines[-1]) if len(lines) == 1 else None)


def _lines(reply: str) -> list[str]:
    """Lines with something in them, less Markdown's emphasis and what a reasoning model thinks aloud before it answers."""
    answer = reply.rpartition("</think>")[2]
    if "<think>" in answer:
        return []
    return [text for line in answer.splitlines() if (text := re.sub(r"[*`]", "", line).strip())]
