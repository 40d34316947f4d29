"""Names under which this machine is asked. A page elsewhere may have its own name lead here, and then asks a local server."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from functools import cache


def is_own_host(header: str | None, allowed: Collection[str] = ()) -> bool:
    """Whether a ``Host`` header names this machine: by an address, as localhost, by its own name, or as allowed.

    An address is no name that anybody could have lead elsewhere, so any will do.

    Args:
        allowed: further names; ``*.example.org`` stands for all that end so.

    Source: the attack is DNS rebinding (Jackson et al. 2007).
    """
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\s/@]+)(:[0-9]{1,5})?", header or "")
    if found is None:
        return False
    name = found[1].strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name in _own_names():
        return True
    for each in (pattern.lower().rstrip(".") for pattern in allowed):
        if name == each or (each.startswith("*.") and name.endswith(each[1:])):
            return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@cache
def _own_names() -> frozenset[str]:
    name = socket.gethostname().lower()
    return frozenset({name, name.partition(".")[0], f"{name.partition('.')[0]}.local"} - {""})
