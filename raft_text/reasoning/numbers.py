"""The number that a short text states, if it states one and only one."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raft_text.reasoning.markup import LONGEST, plain_text
from raft_text.reasoning.numerals import Numeral, numerals

# In what follows a number is one such character for each of its own, so that patterns see where numbers are, and not into them.
MASK = "\x00"
NOTHING = re.compile(
    r"""\b(?:none|cannot|can't|n/a|undefined|impossible|unknown|unable|infinite(?:ly)?|insufficient|indeterminate|
    (?:does|do|did|is)\s*(?:n't|\s+not)\s+(?:exist|know|enough|possible|defined|determined|given)|
    no\s+(?:\w+\s+){0,2}(?:solutions?|answers?|roots?|such|way|values?|numbers?)|
    not\s+(?:enough|known|possible|defined|determined|given|sufficient))\b""",
    re.VERBOSE | re.IGNORECASE,
)
# Where the statement ends and an explanation begins.
EXPLAINED = re.compile(
    r"""[.!?](?=\s+[A-Z]|\s*$) | :(?!\s*\x00) | \s[-–]\s+(?=[A-Za-z]) | [—\n]
    | \s(?:because|since|as|when|where|if|given|so|that|which|who|while|with|rather|instead|after|before|due|assuming)\b""",
    re.VERBOSE,
)
# C(5, 2) = 10: the arguments of what is equal to the answer are no candidates.
CALL = re.compile(r"(?<![^\W\d_])[A-Za-z]\w{0,9}\s?\([^()=]*\)(?=\s*=)", re.ASCII)
# "half of 10 is 5", "2 + 3, which equals 5": what is left to work out, and its result.
RESULT = re.compile(r"=|\b(?:is|equals|makes|gives)(?=\s+(?:equal\s+to\s+)?[-+–]?\s*\x00)")
COMPUTED = re.compile(
    r"""\x00\s*(?:[-+*/^÷]|squared\b|cubed\b|plus\b|minus\b|times\b|divided\b|multiplied\b|(?:%|percent\b)?\s*of\b)|√|\\sqrt
    |\b(?:half|third|quarter|twice|double|triple|square|cube|sum|product|difference|root)\b""",
    re.VERBOSE | re.IGNORECASE,
)
WHICH = re.compile(r",?\s+which\s+(?=(?:is|equals|makes|gives)\s)")
REMARK = re.compile(r"(?<=[\w.%°¢\"'\x00])\s+\(([^()]*)\)")
SEPARATOR = re.compile(r",|;|&|\s+(?:and/or|and|or|but|nor|then)\s+|\s+(?=not\s)")
NEGATED = re.compile(r"^\W*(?:\w+\s+){0,2}not\b", re.IGNORECASE)
# A further candidate: "and 3 pears", "y = 3", "Ann has 3", but not "3 are left".
CANDIDATE = re.compile(
    r"""^[^\w\x00]*(?:(?:either|maybe|perhaps|possibly|about|approximately|also|the|even|minus|negative)\s+){0,2}
    (?:\w+\s*(?:[=:]|\b(?:is|has|was|gets|have|are)\b)\s*|(?-i:[A-Z])\w*\s+)? [-+–]?\s*\x00+
    (?!\s+(?:are|is|were|was|remains?|left|of)\b)""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
TUPLE = re.compile(r"^[^\w\x00]*[(\[][^()\[\]]*,[^()\[\]]*[)\]]")
BOUND = re.compile(r"\bat\s+(?:most|least)\b")  # behind a number
COEFFICIENT = re.compile(r"\x00\s?[xyzn]\b(?!\s*\x00)")
LONE_VARIABLE = re.compile(r"(?:^|[,;\s])[A-Za-z]\s*$")
RANGE = {"to", "through", "thru", "until", "till", "versus", "vs", "by", "times", "plus", "minus", "mod", "over", "than", "x"}
# A word between two numbers that begins a remark ("$64 for 16 glasses"); any other is a unit, and one quantity has two: 5 ft 6.
LINKS = {"of", "in", "for", "per", "each", "every", "at", "on", "from"} | {
    "is",
    "are",
    "was",
    "were",
    "his",
    "her",
    "their",
    "left",
}


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a piece of a statement says: a number, something with numbers that is none, or nothing of the kind."""

    kind: Literal["number", "other", "nothing"]
    value: float = math.nan


NOTHING_READ, OTHER = _Reading("nothing"), _Reading("other")


def number(text: str) -> float | None:
    """The number that a short text states.

    Read are thousands separators (``1,234``, ``1{,}234``, thin spaces, apostrophes, ``12,34,567``), decimals, fractions and
    mixed numbers (``3/4``, ``1 3/4``, ``½``, ``\\frac{3}{4}``), scientific notation (``1.5e3``, ``1.5 × 10^3``), scale words
    (``2 million``, ``3 dozen``), signs, also in words, currency before and units after, LaTeX and Markdown around. A per-cent
    sign is a unit: ``25%`` is 25. Of a calculation the result counts (``3 * 4 = 12``), of a sentence what precedes its reasons.

    Returns:
        None where there is no number, or in its place an expression, a bound, a range, a ratio, a date or time, a quantity of
        two units, several candidates that differ, a comma or point that may separate decimals or thousands (``12,34``,
        ``1.234.567``), a division by zero, or what no float can hold.
    """
    text = WHICH.sub(" ", CALL.sub(" ", plain_text(text.replace(MASK, " "))))
    found = numerals(text)
    if not found or NOTHING.search(text[: found[0].start]):
        return None
    masked = list(text)
    for each in found:
        masked[each.start : each.end] = MASK * (each.end - each.start)
    clause = _main_clause("".join(masked), found)
    return _stated(clause, text, [each for each in found if clause[each.start : each.start + 1] == MASK])


def result(text: str) -> float | None:
    """The number that a chain of calculations ends in: the one behind its last ``=``, or its first one when it has none."""
    before, _, after = plain_text(text[-LONGEST:]).rpartition("=")
    found = numerals(after) or numerals(before)
    return found[0].value if found else None


def _main_clause(masked: str, found: Sequence[Numeral]) -> str:
    """The statement without remarks in parentheses and without what explains it, positions unchanged."""

    def open_or_blank(remark: re.Match[str]) -> str:
        another = re.match(r"\s*(?:or|and|actually|possibly|perhaps|maybe|out\s+of)\b", remark[1])
        return remark[0].translate({ord("("): " ", ord(")"): " "}) if another else " " * len(remark[0])

    first = found[0].end
    masked = masked[:first] + REMARK.sub(open_or_blank, masked[first - 1 :])[1:]
    negated = NEGATED.match(masked[: found[0].start])
    begin = found[1].end if negated and len(found) > 1 else first
    ends = EXPLAINED.search(masked, begin)
    clause = masked[: ends.start()] if ends else masked
    colon = clause.find(":", begin)  # "7: 3 red, 4 blue", but not the second one of "Tom: 5, Ann: 6"
    return clause if colon < 0 or SEPARATOR.search(clause, begin, colon) else clause[:colon]


def _stated(masked: str, text: str, found: Sequence[Numeral]) -> float | None:
    """The number that all candidates of a clause agree on; denied ones ("not 10") do not count."""
    if TUPLE.match(masked):
        return None
    answer = None
    separators = [each.span() for each in SEPARATOR.finditer(masked)]
    negated = False
    for (before, start), (end, _) in itertools.pairwise([(0, 0), *separators, (len(masked), 0)]):
        segment = masked[start:end]
        negated = bool(NEGATED.match(segment.partition(MASK)[0])) or (negated and masked[before:start].strip() in ("or", "nor"))
        if negated or not re.search(r"[\w\x00]", segment):
            continue
        reading = _segment(masked, text, found, start, end)
        if answer is None:
            if reading is OTHER:
                return None
            answer = reading.value if reading.kind == "number" else None
        elif not CANDIDATE.match(segment):
            break
        elif reading is OTHER or not math.isclose(reading.value, answer, rel_tol=1e-9):
            return None
    return answer


def _segment(masked: str, text: str, found: Sequence[Numeral], start: int, end: int) -> _Reading:
    """What a statement without separators says: behind its last ``=`` that a plain number follows, else before.

    A verb ("is", "equals") counts where what stands before it is left to work out, or has no number.
    """
    if not any(start <= each.start < end for each in found):
        return NOTHING_READ
    answer, assigned, position, by_verb = OTHER, False, start, False
    ends = [(each.start() + start, each.end() + start, each[0] != "=") for each in RESULT.finditer(masked[start:end])]
    for stop, after, verb in [*ends, (end, end, False)]:
        reading = _side(masked, text, [each for each in found if position <= each.start < stop], position, stop)
        before = masked[start:position]
        if reading.kind == "number" and (not by_verb or MASK not in before or (answer is OTHER and COMPUTED.search(before))):
            answer, assigned = reading, bool(LONE_VARIABLE.search(masked[start : position - 1])) and position > start
        position, by_verb = after, verb
    return OTHER if COEFFICIENT.search(masked[start:end]) and not assigned else answer


def _side(masked: str, text: str, found: Sequence[Numeral], start: int, end: int) -> _Reading:
    """What one side of an equation states."""
    if not found:
        return NOTHING_READ
    first = found[0]
    if first.value is None or "\\" in text[start : first.start] or BOUND.search(masked, first.end, end):
        return OTHER
    if len(found) > 1 and _belong_together(first, masked[first.end : found[1].start], masked[found[1].end : end]):
        return OTHER
    return _Reading("number", first.value)


def _belong_together(first: Numeral, between: str, after: str) -> bool:
    """Whether two numbers are one statement, as in ``5 ft 6``, ``5 out of 6``, ``5 apples to 6``, ``50% of 20``, ``1 in 6``."""
    words = re.findall(r"[^\W\d_]+", between.lower())
    if not words or words[-1] in RANGE or re.search(r"\bout of\b", " ".join(words)):
        return True
    if words == ["of"]:
        return first.fraction or "%" in between
    if words in (["percent", "of"], ["per", "cent", "of"]):
        return True
    return len(words) == 1 and (words[0] not in LINKS or not re.search(r"\w", after))
