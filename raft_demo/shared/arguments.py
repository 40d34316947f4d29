"""Whether a page's handler is given what its signature says. A request need not come from the page that shows the handler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from raft_core.errors import DataError
from raft_core.reading.files import excerpt

STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)
LONGEST = 100_000  # characters of a text, before anything looks at it


def require_types(call: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Compare what a call is given with the annotations of its parameters; nothing (None) may stand in any place.

    Raises:
        DataError: it is something else; names the parameter.
    """
    try:
        given = inspect.signature(call).bind(*arguments, **named).arguments
    except TypeError as error:
        raise DataError(f"this was asked with other values than it takes: {error}") from None
    for name, value in given.items():
        require_type(_hints(call).get(name, Any), name, value)


def require_type(kind: Any, name: str, value: Any) -> None:
    """Compare a value with an annotation.

    Raises:
        DataError: it is of another type, or a text longer than any.
    """
    if value is None or kind is Any:
        return
    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise DataError(
            f"{name} is {excerpt(repr(value), 60)}, which cannot be used: {reason[0].lower()}{reason[1:]}"
        ) from None
    if isinstance(value, str) and len(value) > LONGEST:
        raise DataError(f"{name} has {len(value)} characters; give at most {LONGEST}")


@cache
def _hints(call: Callable[..., Any]) -> dict[str, Any]:
    return get_type_hints(call)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=STRICT)
