"""Answers that are formulas (tuples, sets, intervals, expressions, equations), compared by algebra.

The grammar is that of latex2sympy2_extended, the comparison Math-Verify's; both run in the sandbox, with its limits: a tower of
powers costs a process that is killed, and no text is ever evaluated as code.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from raft_core.errors import MissingDependency
from raft_text.reasoning.markup import LONGEST, SPECIAL, SUPERSCRIPTS
from raft_text.reasoning.numbers import number
from raft_text.reasoning.sandbox import Sandbox

Verdict = Literal["same", "different", "unreadable", "failed"]

IMPORTS = ("math_verify", "latex2sympy2_extended", "sympy", "antlr4", "re")
PROGRAM = """
import re
from latex2sympy2_extended import NormalizationConfig, latex2sympy
from math_verify import verify

def read(text):
    config = NormalizationConfig(basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="none")
    return latex2sympy(text, is_real=not re.search(r"(?<![A-Za-z])i(?![A-Za-z])", text), normalization_config=config)

def solution():
    reference = read({reference!r})
    try:
        answer = read({answer!r})
    except Exception:
        return "unreadable"
    return "same" if verify(reference, answer, timeout_seconds=None) else "different"
"""
SAID: dict[str, Verdict] = {"same": "same", "different": "different", "unreadable": "unreadable"}
REMEMBERED = 1 << 16  # comparisons
RELATIVE = 1e-5  # how far apart two decimals may be; whole numbers may not

INLINE = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]|\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$", re.DOTALL)
JOINED = re.compile(r"\s*(?:,|;|,?\s*\b(?:and|or)\b)\s*", re.IGNORECASE)
LISTED = re.compile(r"\s*(?:\\text\s*\{\s*(?:and|or)\s*\}|,?\s(?:and|or)\s)\s*")
REPEATING = re.compile(r"(\d+)\.(\d*)(?:\\(?:overline|bar|dot)\s*\{(\d+)\}|\((\d+)\))", re.ASCII)
NAMED = re.compile(r"(?<![\\A-Za-z])(pi|theta|infinity|infty|inf|oo|sin|cos|tan|log|ln)(?![A-Za-z])")
SPELLED = {"infinity": "infty", "inf": "infty", "oo": "infty"}
COMMANDS = {
    "×": "times",
    "·": "cdot",
    "÷": "div",
    "±": "pm",
    "π": "pi",
    "∞": "infty",
    "∅": "emptyset",
    r"\varnothing": "emptyset",
}
COMMANDS |= {"≤": "le", "<=": "le", "≥": "ge", ">=": "ge", "≠": "ne", "!=": "ne", "∪": "cup", "∩": "cap", "∈": "in"}
SIGNS = {sign: rf"\{name} " for sign, name in COMMANDS.items()} | {"−": "-", "**": "^", "°": r"^\circ"}
SIGNS |= dict.fromkeys((r"\(", r"\)", r"\[", r"\]"), " ")
SIGN = re.compile("|".join(map(re.escape, sorted(SIGNS, key=len, reverse=True))))
ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\w+))")


def formula(stated: str) -> str | None:
    """The formula of a stated answer in LaTeX, without what is around it; None where nothing is left.

    Of a sentence the part between dollar signs counts, several of them with ``and``, ``or`` or a comma between as a list.
    Formulas in plain characters are translated: ``√2``, ``pi``, ``x**2``, ``<=``, ``0.(3)``.
    """
    text = _between_dollars(SPECIAL.sub(" ", stated[:LONGEST]).replace("`", ""))
    text = re.sub(r"\*\*(?=\S)(.+?)(?<=\S)\*\*(?!\w)", r"\1", text)
    text = LISTED.sub(", ", text)
    text = ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2]}}}", text)
    text = REPEATING.sub(lambda found: _exact(found[1], found[2], found[3] or found[4]), text)
    text = SIGN.sub(lambda found: SIGNS[found[0]], text)
    text = NAMED.sub(lambda found: rf"\{SPELLED.get(found[1], found[1])} ", text)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda found: f"^{{{found[0].translate(SUPERSCRIPTS)}}}", text)
    return " ".join(text.split()).strip(" .,;:") or None


def _between_dollars(text: str) -> str:
    found = list(INLINE.finditer(text))
    if not found or re.search(
        r"[\d\\(\[{=]", text[: found[0].start()]
    ):  # "x = $3$", "3$\sqrt{2}$": what is before belongs to it
        return re.sub(r"(?<!\\)\$", " ", text)
    parts, end = [], found[0].start()
    for each in found:
        if parts and not JOINED.fullmatch(text[end : each.start()]):
            break
        parts.append(next(filter(None, each.groups())))
        end = each.end()
    return ", ".join(parts)


def _exact(whole: str, start: str, period: str) -> str:
    """A repeating decimal as a fraction."""
    value = Fraction(int(whole + start + period) - int(whole + start), 10 ** len(start) * (10 ** len(period) - 1))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


class Algebra:
    """Says whether two formulas are the same.

    Args:
        sandbox: its limits and workers are those of the comparisons.
    """

    def __init__(self, sandbox: Sandbox | None = None):
        given = sandbox or Sandbox()
        self.sandbox = Sandbox(given.limits, IMPORTS, given.workers)
        self._known: dict[tuple[object, object], Verdict] = {}

    @staticmethod
    def missing() -> list[str]:
        """What is not there and needed, in words."""
        problems = []
        if importlib.util.find_spec("math_verify") is None:
            problems.append(str(MissingDependency("math-verify", "symbolic", "comparing symbolic answers")))
        if Sandbox.unsupported():
            problems.append(f"symbolic answers are compared in the sandbox for programs: {Sandbox.unsupported()}")
        return problems

    def compare(self, pairs: Sequence[tuple[object, object]]) -> list[Verdict]:
        """Of each (answer, reference) whether they are the same formula.

        An answer is ``unreadable`` when it is None, is no formula, or takes more time or memory than the sandbox allows;
        ``failed`` is no fault of the answer: the sandbox broke down, or the reference is no formula.
        """
        verdicts: dict[tuple[object, object], Verdict | None]
        verdicts = {pair: self._known.get(pair) or _at_sight(*pair) for pair in pairs}
        left = [(str(one), str(other)) for (one, other), verdict in verdicts.items() if verdict is None]
        programs = [PROGRAM.format(answer=_in_digits(one), reference=_in_digits(other)) for one, other in left]
        for pair, outcome in zip(left, self.sandbox.run(programs) if programs else [], strict=True):
            said: dict[str, Verdict] = {"answer": SAID.get(outcome.text, "failed"), "failed": "failed", "error": "failed"}
            verdicts[pair] = said.get(outcome.status, "unreadable")
        if len(self._known) > REMEMBERED:
            self._known.clear()
        self._known |= {pair: verdict for pair, verdict in verdicts.items() if verdict and verdict != "failed"}
        return [verdicts[pair] or "failed" for pair in pairs]


def _at_sight(answer: object, reference: object) -> Verdict | None:
    """The verdict on equal texts, on two plain numbers and where an answer is missing; None where algebra is needed."""
    if not (isinstance(answer, str) and isinstance(reference, str)):
        return "unreadable"
    if "".join(answer.split()).casefold() == "".join(reference.split()).casefold():
        return "same"
    if "=" in answer + reference:  # y = 3 is a line and not the number 3
        return None
    one, other = number(answer), number(reference)
    if one is None or other is None:
        return None
    whole = one == int(one) and other == int(other)
    return "same" if math.isclose(one, other, rel_tol=0 if whole else RELATIVE) else "different"


def _in_digits(text: str) -> str:
    """A number with words in it (``2 million``, ``5 apples``) in digits, anything else as it is."""
    value = number(text) if re.search(r"[A-Za-z]{2}", re.sub(r"\\[A-Za-z]+", "", text)) and "=" not in text else None
    return text if value is None else format(Decimal(repr(value)), "f")
