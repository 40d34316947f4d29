"""Final answers: which number or letter a text states in the end, and whether it is the right one.

Reading is strict about what an answer is: an expression that is left to work out (``3 * 4``, ``2^3``, ``√2``, ``3:4``) is no
number, and a text without a marker states no answer. It is generous about how a number is written.
"""

from __future__ import annotations

import re

from raft_text.reasoning.markup import plain_text
from raft_text.reasoning.numbers import number
from raft_text.reasoning.stated import final

TRIGGER = "Therefore, the answer is:"
TOLERANCE = 1e-2
PARTIAL = 0.1
LETTERS = "ABCDE"


def extract_number(text: str) -> float | None:
    """The number of a text's final answer."""
    stated = final(text)
    return None if stated is None else number(stated)


def same_number(value: float, reference: float, tolerance: float = TOLERANCE) -> bool:
    """Whether two numbers are at most ``tolerance`` apart, absolutely.

    Mind references smaller than the tolerance: with ReFT's 0.01 an answer of 0 is right for a reference of 0.005.

    Source: ReFT (2401.08967), released code, where 0.01 is the tolerance of every numeric data set.
    """
    return abs(value - reference) <= tolerance


# --- Multiple choice --------------------------------------------------------------------------------------------------

CHOICE = re.compile(
    r"[^\w\\]*(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|letter|answer)\b(?:\s+is)?[^\w\\]*)?([A-Z])(?![\w\\])", re.I
)


def choice(text: str, letters: str = LETTERS) -> str | None:
    """The letter that a short text opens with, in upper case: ``C``, ``(c)``, ``option C``, ``C. 12 apples``, ``\\text{C}``.

    A letter that reads as the article of a sentence ("a dog") or as an abbreviation ("e.g.") is none.
    """
    text = plain_text(text).strip()
    found = CHOICE.match(text)
    if not found or found[1].upper() not in letters:
        return None
    rest = text[found.end() :]
    abbreviation = re.match(r"[.'’-]\w", rest)
    article = found[1] in "aA" and re.match(r"\s+[^\W\d]", rest)
    return None if abbreviation or article else found[1].upper()


def extract_choice(text: str, letters: str = LETTERS) -> str | None:
    """The letter of a text's final answer."""
    stated = final(text)
    return None if stated is None else choice(stated, letters)
