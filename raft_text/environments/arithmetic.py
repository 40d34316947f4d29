"""Arithmetic without ``eval``: the four operations, powers and parentheses, exact where that is short."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

#: Characters of an expression, digits of a number on the way, and of an exponent: nobody waits for 9^9^9.
LONGEST, MOST_BITS, LARGEST_POWER = 200, 2_000, 64
_OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "^": "**", ",": "", "$": ""})


def calculated(expression: str) -> str | None:
    """The value of an arithmetic expression as text, or None where it has none.

    ``48 / 2`` is 24, ``1 / 3`` is 0.333333, ``2^10`` is 1024; a per-cent sign divides by 100, and commas separate thousands.
    """
    text = expression.translate(_SIGNS).replace("%", "/100").strip()
    if not text or len(text) > LONGEST:
        return None
    try:
        value = _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, TypeError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.6g}" if abs(value) < 10**15 else None


def _value(node: ast.AST) -> Fraction:
    """
    Raises:
        TypeError: something else than arithmetic.
        ValueError: numbers that grow too large.
    """
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))  # the decimal that was written, and not the nearest float
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if not isinstance(node, ast.BinOp):
        raise TypeError("no arithmetic")
    left, right = _value(node.left), _value(node.right)
    if isinstance(node.op, ast.Pow):
        if right.denominator != 1 or abs(right) > LARGEST_POWER:
            raise ValueError("a power that is not small and whole")
        found = left ** int(right)
    else:
        found = _OPERATIONS[type(node.op)](left, right) if type(node.op) in _OPERATIONS else None
    if found is None or max(Fraction(found).numerator.bit_length(), Fraction(found).denominator.bit_length()) > MOST_BITS:
        raise ValueError("no arithmetic, or a number too large")
    return Fraction(found)
