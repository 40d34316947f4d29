"""Final answers: where a text states its answer, which number or letter that is, and whether it is the right one.

Reading is strict about what an answer is: an expression that is left to work out (``3 * 4``, ``2^3``, ``√2``, ``3:4``) is no
number, and a text without a marker states no answer. It is generous about how a number is written.
"""

from __future__ import annotations

import math
import re
import unicodedata
from fractions import Fraction

TRIGGER = "Therefore, the answer is:"
TOLERANCE = 1e-2
PARTIAL = 0.1
LETTERS = "ABCDE"
LONGEST = 1000  # characters of a stated answer that are read: a model that runs wild writes lines without end

MARKER = re.compile(r"(?P<boxed>\\(?:boxed|fbox)\b)|####|\banswer\s+is\b\s*:?|\banswer\s*:", re.IGNORECASE)


def final(text: str) -> str | None:
    """The piece of a text that states its answer, or None.

    That is what follows the last of ReFT's "Therefore, the answer is:" (or any "answer is", "answer:"), GSM8K's ``####`` and
    LaTeX's ``\\boxed{…}``: the content of the braces, else the rest of the line, else the next line that is not blank. An
    answer that is cut off inside of its braces is none.
    """
    markers = list(MARKER.finditer(text))
    if not markers:
        return None
    rest = text[markers[-1].end() :]
    if markers[-1]["boxed"]:
        return _braced(rest)
    lines = [line.strip() for line in rest.splitlines() if line.strip("* \t")]
    return lines[0] if lines else None


def _braced(text: str) -> str | None:
    """Content of the braces that a text begins with; without braces its first character, as TeX reads it."""
    text = text.lstrip()
    if not text.startswith("{"):
        return text[:1] or None
    depth = 0
    for position, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[1:position]
    return None


# --- Numbers ----------------------------------------------------------------------------------------------------------

DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)"
NUMBER = re.compile(
    rf"""(?<![\w.,^/*√+-]) (?<!\w\()            # not a part of a word, of a number, of an expression
    (?P<sign>[+-]?)\s?
    (?: (?P<whole>{DIGITS})\s+(?:and\s+)?(?P<over>\d+)\s*/\s*(?P<under>\d+)      # 1 3/4
      | (?P<top>{DIGITS})\s*/\s*(?P<bottom>{DIGITS})                             # 3/4
      | 10\s*\^\s*(?P<power>[+-]?\d+)                                            # 10^5
      | (?P<mantissa>{DIGITS})(?:e|\s*[*x]\s*10\s*\^\s*)(?P<exponent>[+-]?\d+)   # 1.5e3, 1.5 * 10^3
      | (?P<plain>{DIGITS}) )""",
    re.ASCII | re.VERBOSE | re.IGNORECASE,
)
# What after a number says that it is only the beginning of a longer number, or of an expression.
GOES_ON = re.compile(r"[.,]?\d|\s*(?:\^|[*+]\s*[\w(.]|[/:-]\s*[\d(.]|x\s*\d|\\|[√π])", re.ASCII | re.IGNORECASE)

WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname)\s*\{([^{}]*)\}")
FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([+-]?[\d.,]+)\s*\}|(\d))\s*(?:\{\s*([\d.,]+)\s*\}|(\d))", re.ASCII)
GROUPS = re.compile(r"(?<=\d)(?:\{,\}|\\,|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
CURRENCY = re.compile(r"(-?)\s*(?:\b(?:US|CA|AU|NZ|HK))?(?:\\?\$|[€£¥₹])\s*(-?)")
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
REPLACED = {
    **dict.fromkeys("−﹣－", "-"),
    **dict.fromkeys(("\\times", "\\cdot", "×", "·"), "*"),
    **dict.fromkeys(("\\approx", "\\simeq", "≈", "\\equiv"), "="),
    **dict.fromkeys(("\\left", "\\right", "\\displaystyle", "\\!", "**", "`"), ""),
    **dict.fromkeys(("\\(", "\\)", "\\[", "\\]", "\\,", "\\;", "\\:", "\\ ", "\\quad", "~"), " "),
    "^{\\circ}": " degrees",
    "^\\circ": " degrees",
    "\\%": "%",
    "⁄": "/",
}
LITERAL = re.compile("|".join(re.escape(each) for each in sorted(REPLACED, key=len, reverse=True)))


def plain_text(text: str) -> str:
    """A formula or a line of Markdown as characters that ``NUMBER`` knows: LaTeX, typographic signs and currency removed."""
    text = GROUPS.sub("", text[:LONGEST])
    text = CURRENCY.sub(r" \1\2", text)
    text = re.sub(r"\brs\s*\.", " ", text, flags=re.IGNORECASE)
    while (unwrapped := WRAPPER.sub(r" \1 ", text)) != text:
        text = unwrapped
    text = LITERAL.sub(lambda found: REPLACED[found[0]], text)
    text = FRACTION.sub(lambda found: f" {found[1] or found[2]}/{found[3] or found[4]}", text)
    text = re.sub(r"\^\s*\{([^{}]*)\}", r"^\1", text)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda found: "^" + found[0].translate(SUPERSCRIPTS), text)
    return "".join(_vulgar(character) for character in text)


def _vulgar(character: str) -> str:
    """``½`` as `` 1/2``, everything else as it is."""
    if unicodedata.decomposition(character).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", character).replace("⁄", "/")
    return character


def number(text: str) -> float | None:
    """The number that a short text states: its first one, or the first one after its last ``=`` or ``≈``.

    Read are thousands separators (``1,234``, ``1{,}234``, thin spaces), decimals, fractions and mixed numbers (``3/4``,
    ``1 3/4``, ``½``, ``\\frac{3}{4}``), scientific notation (``1.5e3``, ``1.5 × 10^3``), signs, currency before and units
    after, LaTeX and Markdown around. A per-cent sign is a unit: ``25%`` is 25. A comma between digits that is no thousands
    separator (``12,34``) could be anything, and is no number.

    Returns:
        None where there is no number, an expression in its place, a division by zero, or what no float can hold.
    """
    text = plain_text(text)
    before, _, after = text.rpartition("=")
    text = after if re.search(r"\d", after, re.ASCII) else before
    found = NUMBER.search(text)
    if not found or "\\" in text[: found.end()] or GOES_ON.match(text, found.end()):
        return None
    try:
        value = _value({name: part.replace(",", "") for name, part in found.groupdict().items() if part})
    except (ZeroDivisionError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _value(parts: dict[str, str]) -> float:
    sign = -1.0 if parts.get("sign") == "-" else 1.0
    if "under" in parts:
        return sign * (float(parts["whole"]) + float(parts["over"]) / float(parts["under"]))
    if "bottom" in parts:
        return sign * float(parts["top"]) / float(parts["bottom"])
    if "power" in parts:
        return sign * float(f"1e{parts['power']}")
    if "exponent" in parts:
        return sign * float(f"{parts['mantissa']}e{parts['exponent']}")
    return sign * float(parts["plain"])


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
