"""Whether plain data has the shape that is expected of it, told in words before anything reads it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from raft_core.reading.files import Unreadable, excerpt

#: A type or several, ``[shape]`` for a list, ``{"key": shape}`` for an object, of which keys may be missing and others there.
Shape = Any
NUMBER = (int, float, type(None))  # null stands for NaN in strict JSON
_WORDS: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    type(None): "null",
}


@contextlib.contextmanager
def taken_apart(what: str) -> Iterator[None]:
    """Inside, data from outside is taken apart, and whatever goes wrong with that is the fault of the data.

    For code that reads alone: an error of this program's own would be told as one of the data.

    Args:
        what: is damaged.

    Raises:
        Unreadable: something went wrong.
    """
    try:
        yield
    except Unreadable:
        raise
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        words = f"has no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise Unreadable(f"{what} is damaged ({excerpt(words, 160)})") from error


def require_shape(value: Any, shape: Shape, where: str, needs: Iterable[str] = ()) -> Any:
    """The value, if it has this shape.

    Args:
        where: what the value is called, such as ``status``; "" for the whole.
        needs: keys that must be there.

    Raises:
        Unreadable: it has another one; names where.
    """
    if isinstance(shape, Mapping):
        require_shape(value, dict, where)
        for key in needs:
            if key not in value:
                raise Unreadable(f"{f'{where} has' if where else 'it has'} no {key!r}")
        for key, inner in shape.items():
            if key in value:
                require_shape(value[key], inner, f"{where}.{key}" if where else key)
    elif isinstance(shape, list):
        require_shape(value, list, where)
        for number, item in enumerate(value):
            require_shape(item, shape[0], f"{where}[{number}]")
    elif shape is not object and not _is_a(value, shape):
        kinds: tuple[type, ...] = shape if isinstance(shape, tuple) else (shape,)
        expected = " or ".join(dict.fromkeys(_WORDS.get(kind, kind.__name__) for kind in kinds))
        raise Unreadable(f"{where or 'it'} is {excerpt(repr(value), 60)}, but must be {expected}")
    return value


def _is_a(value: Any, shape: type | tuple[type, ...]) -> bool:
    kinds = shape if isinstance(shape, tuple) else (shape,)
    if isinstance(value, bool):  # which Python counts among the whole numbers
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def whole_number(value: Any) -> int | None:
    """A whole number as tables write it: 5, "5", 5.0 (a column with blanks); None for a blank, ``null`` or NaN.

    Raises:
        Unreadable: it is none.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) < 40:
        try:
            return whole_number(int(value))
        except ValueError:
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if number.is_integer():
                return int(number)
    raise Unreadable(f"{excerpt(repr(value), 40)} is no whole number")
