"""Numbers in plain text, one by one: how each is written, and whether what stands beside it makes it something else.

``3`` is a number in "3 apples" and none in "3 + 4", "3:4", "3!", "at least 3", "|3|", "3x", "March 3" or "5k": there it is a
part of an expression, a bound, a date, or could mean several things.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d\d)+,\d{3}|\d{1,3}(?:_\d{3})+|\d+)"  # 1,234,567; 12,34,567; 1_234_567; 1234567
DIGITS = rf"(?:{WHOLE}(?:\.\d+)?|\.\d+)"
SPACED = r"\d{1,3}(?:[ ]\d{3})+(?!\d)(?:\.\d+)?"  # 1 234 567
SCALES = {
    **dict.fromkeys(("hundred", "hundreds"), 100),
    **dict.fromkeys(("thousand", "thousands"), 10**3),
    **dict.fromkeys(("lakh", "lakhs", "lac", "lacs"), 10**5),
    **dict.fromkeys(("million", "millions"), 10**6),
    **dict.fromkeys(("crore", "crores"), 10**7),
    **dict.fromkeys(("billion", "billions"), 10**9),
    **dict.fromkeys(("trillion", "trillions"), 10**12),
    **dict.fromkeys(("dozen", "dozens"), 12),
}
PARTS = {"thirds": 3, "fourths": 4, "fifths": 5, "sixths": 6, "sevenths": 7, "eighths": 8, "ninths": 9, "tenths": 10}
PARTS |= {"hundredths": 100, "thousandths": 1000, "millionths": 10**6}
ADDED = {"a half": "1/2", "one half": "1/2", "a third": "1/3", "one third": "1/3", "two thirds": "2/3"}
ADDED |= {"a quarter": "1/4", "one quarter": "1/4", "three quarters": "3/4", "a fourth": "1/4", "three fourths": "3/4"}


def _words(*words: str) -> str:
    return "|".join(re.escape(word).replace(r"\ ", r"[\s-]+") for word in words)


NUMERAL = re.compile(
    rf"""(?<![\w.]) (?<![A-Za-z]\^) (?<![A-Za-z]\^[+-]) (?<![A-Za-z]-)           # not a part of a word or of a unit: m^2
    (?: (?P<whole>{DIGITS})\s+(?:and\s+)?(?P<over>\d+)\s*/\s*(?P<under>\d+)      # 1 3/4
      | (?P<top>{DIGITS})\s*/\s*(?P<bottom>{DIGITS})                             # 3/4
      | 10\s*\^\s*(?P<power>[+-]?\d+)                                            # 10^5
      | (?P<mantissa>{DIGITS})(?:e|\s*[*x]\s*10\s*\^\s*)(?P<exponent>[+-]?\d+)   # 1.5e3, 1.5 * 10^3
      | (?P<spaced>{SPACED})                                                     # 1 234
      | (?P<plain>{DIGITS}) )
    (?:\s+and\s+(?P<added>{_words(*ADDED)})\b)?                                  # 2 and a half
    (?P<scales>(?:[\s-]+(?:{_words(*SCALES, *PARTS)})\b)*)                       # 2 million, 3 dozen, 7 tenths""",
    re.ASCII | re.VERBOSE | re.IGNORECASE,
)

# --- What stands beside a number --------------------------------------------------------------------------------------

MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)\b"
MONTH += r"|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?"
FUNCTION = r"(?:sin|cos|tan|log|ln|exp|sqrt|root|mod|pi)"
FEWER = r"(?:more|less|fewer|greater|higher|lower|larger|smaller)"

# Behind a number.
GOES_ON = re.compile(
    rf"""[.,]?\d | \s?! | [_₀-₉‰|(⌋⌉‖] | [\u0300-\u036f] | x[\da-f]+\b   # a longer number, 101_2, 5!, |5|, 2(3), 0xF
    | \s*(?:[\^÷±√π∞<>≤≥≠\\] | \*\s*[\w(.\\] | [/~]\s*-?[\d(] | /\s*[xyzn]\b | x\s*\d)   # 3 * 4, 3 / x
    | :\d | \s+:\s*\d | :\s+[\d.,]+(?![\d.,]|\s+[a-z]{{2}})                      # 3:4, but not "7: 3 red ones"
    | \s*\+(?!/) | ['"′’″]\s*\d | \)\s*[\^(!*_₀-₉]                              # 5+, 5'6", (2)(3)
    | \s*[-–—]\s*(?:[\d(.\\-] | [A-Za-z]\b | [.,;)]*\s*$)                        # 5-6, 5 - x, 5-
    | \s+(?:squared|cubed|factorial|choose|modulo|plus|minus|divided|multiplied|times\s+[\d(]|over\s+\d|to\s+the\s+power)\b
    | (?:st|nd|rd|th)\s+(?:root|power)\b | \s*{FUNCTION}\b | \s+\(?(?:repeating|recurring)\b
    | \s+or\s+{FEWER}\b | \s+and\s+(?:up|more|above|over|below|under)\b
    | \s*\(?\s*(?:in\s+)?(?:base[\s-]*\w|binary|octal|hexadecimal)
    | \s*(?:bn|mn|mil|mln|tn|thou)\b                                             # could be several things""",
    re.ASCII | re.VERBOSE | re.IGNORECASE,
)
DATED = re.compile(rf"(?:st|nd|rd|th)?(?:\s+of)?\s+(?:{MONTH})")
WORD = re.compile(r"[A-Za-z]\w*\(?", re.ASCII)
UNIT_LETTERS = set("mgshlLAVWNJCFdctp")  # 5m, 5L; any other single letter makes a product (5x) or could be several things (5k)
UNIT_POWER = re.compile(r"(?:[a-z]?m|in|ft|yd|mi)[23]")
LONE_LETTER = re.compile(r"\s+[kKMBbxyznei](?!\w|['’]|\.\w)")

# Before a number and its sign.
PART_OF_EXPRESSION = re.compile(
    rf"""(?:[*÷/^√|<>≤≥≠±⌊⌈‖] | \\\w* | \w\( | \)\s*\( )\s*$ | \)$
    | \b{FUNCTION}(?:_\w+)?\s*\(?\s*$
    | \b(?:half|third|quarter|twice|double|triple|square|cube|sum|product|difference)(?:\s+of)?\s*$
    | \b(?:(?:root|logarithm|absolute\s+value|magnitude|factorial)\s+of | as\s+\w+\s+as)\s*$
    | \b(?:binary|octal|hex(?:adecimal)?)\s*$
    | \b(?:at\s+(?:least|most) | {FEWER}\s+than | up\s+to | over | under | above | below | between | beyond | exceed(?:s|ing)?
       | (?:min|max)(?:imum)?(?:\s+of)? | within)\s*$""",
    re.ASCII | re.VERBOSE | re.IGNORECASE,
)
AFTER_MONTH = re.compile(rf"\b(?:{MONTH})\s*$")
SIGN = re.compile(r"(?:[+-]|(?<![\w–])–(?!\s)|\b(?:minus|negative|plus|positive))\s*$", re.IGNORECASE)
NEGATIVE = ("-", "–", "minus", "negative")
OPERAND = re.compile(r"(?:[\d)\]|!%+*/^±-]|(?<![A-Za-z])[A-Zb-z])\s*$", re.ASCII)  # what makes a minus behind it an operator
DASH = re.compile(r"[–—]\s*$")


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number in a text.

    Attributes:
        start, end: of its digits with what belongs to them (fraction, power of ten, scale word), without the sign.
        value: with the sign; None where it is a part of something else, a division by zero, or what no float can hold.
        fraction: whether it is written as one, so that "of 20" behind it is a product.
    """

    start: int
    end: int
    value: float | None
    fraction: bool


def numerals(text: str) -> list[Numeral]:
    """All numbers of a plain text (see ``markup.plain_text``), in order."""
    return [_numeral(text, found) for found in NUMERAL.finditer(text)]


def _numeral(text: str, found: re.Match[str]) -> Numeral:
    size = _size({name: part for name, part in found.groupdict().items() if part})
    sign = _sign(text[: found.start()])
    value = None if size is None or sign is None or _goes_on(text, found.end()) else sign * size
    return Numeral(found.start(), found.end(), value, found["bottom"] is not None)


def _sign(before: str) -> float | None:
    """1.0 or −1.0 by what stands before a number; None if that makes the number a part of something else."""
    sign = 1.0
    found = SIGN.search(before)
    if found:
        before = before[: found.start()]
        sign = -1.0 if found[0].strip().lower() in NEGATIVE else 1.0
        if OPERAND.search(before):
            return None
    elif DASH.search(before):  # a dash with a space behind it: a minus, or none
        return None
    return None if PART_OF_EXPRESSION.search(before) or AFTER_MONTH.search(before) else sign


def _goes_on(text: str, end: int) -> bool:
    """Whether what stands behind a number makes it a part of something else."""
    if any(pattern.match(text, end) for pattern in (GOES_ON, DATED, LONE_LETTER)):
        return True
    word = WORD.match(text, end)
    if not word or UNIT_POWER.fullmatch(word[0]):
        return False
    if len(word[0]) == 1:
        return word[0] not in UNIT_LETTERS
    return not word[0].isalpha() or set(word[0]) <= set("abcnxyz")


def _size(parts: dict[str, str]) -> float | None:
    """The number that the groups of ``NUMERAL`` spell, without its sign."""
    added, scales = parts.pop("added", ""), re.split(r"[\s-]+", parts.pop("scales", "").lower().strip(" -"))
    parts = {name: re.sub(r"[,_ ]", "", part) for name, part in parts.items()}
    try:
        value = Decimal(parts["plain"]) if "plain" in parts else Decimal(_value(parts))
        if added:
            value += Decimal(float(Fraction(ADDED[" ".join(re.split(r"[\s-]+", added.lower()))])))
        for scale in filter(None, scales):
            value = value / PARTS[scale] if scale in PARTS else value * SCALES[scale]
        size = float(value)
    except (ZeroDivisionError, OverflowError):
        return None
    return size if math.isfinite(size) else None


def _value(parts: dict[str, str]) -> float:
    if "under" in parts:
        return float(parts["whole"]) + float(parts["over"]) / float(parts["under"])
    if "bottom" in parts:
        return float(parts["top"]) / float(parts["bottom"])
    if "power" in parts:
        return float(f"1e{parts['power']}")
    if "exponent" in parts:
        return float(f"{parts['mantissa']}e{parts['exponent']}")
    return float(parts["spaced"])


# --- Numbers by themselves --------------------------------------------------------------------------------------------


def literal(text: str) -> float | None:
    """The number that a program returned: all of the text is one, or there is none. ``True`` is none, ``1/3`` is one."""
    try:
        value = float(Fraction(text)) if re.fullmatch(r"-?\d+/\d+", text.strip(), re.ASCII) else float(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def as_text(value: float) -> str:
    """A number without a needless ``.0``."""
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)
