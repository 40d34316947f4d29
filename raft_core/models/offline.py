"""What could not be fetched because there is no network, told in words."""

from __future__ import annotations

from collections.abc import Iterator


def reason(error: BaseException, name: str) -> str:
    """Why something on the Hub could not be had: where the cause is a missing network, that and the remedy.

    The libraries above the Hub's client tell this as "no such file in the repository".
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if not any(isinstance(cause, (LocalEntryNotFoundError, OfflineModeIsEnabled)) for cause in causes(error)):
        return str(error)
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "there is no network"
    return (
        f"it is not in the cache ({constants.HF_HUB_CACHE}) and {why}: download it elsewhere (hf download {name} "
        "--local-dir FOLDER) and give the folder, or copy that machine's cache"
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, or while handling, back to the first."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__context__, cause.__cause__]
