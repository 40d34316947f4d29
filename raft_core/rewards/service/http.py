"""What asking anything over HTTP has in common: which statuses pass, how long a body may take, what a server asks to wait."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504})  # worth another attempt
LONGEST_WAIT_S = 60.0
LARGEST_BYTES = 4_000_000


def body_of(response: httpx.Response, deadline: float) -> bytes:
    """The body of a streamed response. httpx limits the time between two bytes only; a trickle would hold a thread for ever.

    Args:
        deadline: by ``time.monotonic``.

    Raises:
        ReadTimeout: it takes longer.
        RemoteProtocolError: it is larger than any answer.
    """
    import httpx

    content = b""
    for chunk in response.iter_bytes():
        content += chunk
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the body came too slowly", request=response.request)
        if len(content) > LARGEST_BYTES:
            raise httpx.RemoteProtocolError("the body is larger than any answer", request=response.request)
    return content


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait; the form with a date is rare, and clocks differ."""
    text = response.headers.get("retry-after", "")
    return float(text) if re.fullmatch(r"\d{1,9}", text) else None
