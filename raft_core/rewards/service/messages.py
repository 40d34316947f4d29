"""Samples and scores as JSON, for a reward in another process or on another machine. Nothing that arrives is executed.

Asked: ``{"samples": [{"prompt": "…", "meta": {…}, "index": 0, "seed": 1, "image": "<base64 PNG>"}, …]}``, with ``"text"`` in
place of ``"image"`` for text. Only ``prompt`` and the output are needed. Answered: ``{"scores": [1.5, null, …]}``, one number
per sample in the same order, null = not scored, and in ``"error"`` why the first of these is not.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raft_core.errors import DataError
from raft_core.media.medium import medium_of
from raft_core.media.picture import open_picture, picture_size
from raft_core.reading.files import Unreadable, excerpt
from raft_core.reading.json_data import parse_json
from raft_core.types import Prompt, Request, Sample

LONGEST_REASON = 300  # characters of what the other side says of a failure


class WireError(Exception):
    """What arrived is not what was agreed on; says what, in words."""


def asked(samples: Sequence[Sample]) -> dict[str, Any]:
    """A request for the scores of rendered samples.

    Raises:
        TypeError: a sample without an output, or with one that is neither text nor a picture.
    """
    return {"samples": [_outgoing(sample) for sample in samples]}


def _outgoing(sample: Sample) -> dict[str, Any]:
    from raft_core.machine.files import plain_json

    facts = {
        "prompt": sample.prompt.text,
        "meta": json.loads(plain_json(sample.prompt.meta)),
        "index": sample.request.index,
        "seed": sample.seed,
    }
    medium = medium_of(sample.output)
    return {**facts, medium.modality: medium.to_message(sample.output)}


def received(body: Any, most: int | None = None, most_pixels: int | None = None) -> tuple[list[Sample], list[str | None]]:
    """(samples, what is wrong with the picture of each or None) of a request. A bad picture costs its own sample only.

    Args:
        body: parsed JSON.
        most: samples.
        most_pixels: of all pictures together; nothing is decoded before they are counted.

    Raises:
        WireError: no such request, or a larger one.
    """
    items = body.get("samples") if isinstance(body, dict) else None
    if not isinstance(items, list):
        raise WireError('the body must be an object with a list under "samples"')
    if most is not None and len(items) > most:
        raise WireError(f"{len(items)} samples at once are too many: send at most {most}")
    asked = [_checked(item, f"samples[{number}]") for number, item in enumerate(items)]
    if most_pixels is not None and (pixels := sum(map(_pixels, items))) > most_pixels:
        raise WireError(
            f"pictures of {pixels / 1e6:.1f} million pixels at once are too many: send at most {most_pixels / 1e6:g} million"
        )
    pairs = [_incoming(item, request, f"samples[{n}]") for n, (item, request) in enumerate(zip(items, asked, strict=True))]
    return [sample for sample, _ in pairs], [error for _, error in pairs]


def _checked(item: Any, where: str) -> Request:
    """What an item asks for; its output is looked at later.

    Raises:
        WireError: it is none.
    """
    if not isinstance(item, dict):
        raise WireError(f"{where} must be an object")
    prompt, meta = item.get("prompt", ""), item.get("meta", {})
    index, seed = item.get("index", 0), item.get("seed", 0)
    if not isinstance(prompt, str) or not isinstance(meta, dict):
        raise WireError(f'{where}: "prompt" must be a string and "meta" an object')
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in (index, seed)):
        raise WireError(f'{where}: "index" and "seed" must be whole numbers')
    if ("text" in item) == ("image" in item):
        raise WireError(f'{where} must have either "text" or "image"')
    if not isinstance(item.get("text", item.get("image")), str):
        raise WireError(f'{where}: "text" must be a string, "image" a base64 string')
    return Request(Prompt(prompt, meta), index, seed)


def _pixels(item: Mapping[str, Any]) -> int:
    """Of an item's picture, by its header; 0 for a text, and for what will be refused when it is opened."""
    if "image" not in item:
        return 0
    try:
        width, height = picture_size(base64.b64decode(item["image"], validate=True))
    except ValueError:  # not base64, or ``Unreadable``
        return 0
    return width * height


def _incoming(item: Mapping[str, Any], request: Request, where: str) -> tuple[Sample, str | None]:
    if "text" in item:
        return Sample(request, output=item["text"]), None
    try:
        return Sample(request, output=open_picture(base64.b64decode(item["image"], validate=True), where)), None
    except ValueError:
        return Sample(request), f"{where}: the image is not base64"
    except DataError as error:
        return Sample(request), str(error)


def answer(values: Sequence[float] | np.ndarray, error: str = "") -> dict[str, Any]:
    """The reply to a request."""
    scores = [float(value) if np.isfinite(value) else None for value in values]
    return {"scores": scores, **({"error": error} if error else {})}


def answered(body: Any, n: int) -> tuple[np.ndarray, str]:
    """([n] scores with NaN = not scored, why the first of those is not or "") of a reply.

    Raises:
        WireError: no such reply, or not n numbers.
    """
    scores = body.get("scores") if isinstance(body, dict) else None
    if isinstance(scores, (int, float)):
        raise WireError(f'"scores" is a single number for {n} samples; it must be a list of one number each')
    if not isinstance(scores, list):
        raise WireError('the reply must be an object with a list under "scores"')
    if len(scores) != n:
        raise WireError(f'"scores" has {len(scores)} entries for {n} samples; it must have one for each')
    for number, value in enumerate(scores):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise WireError(f"scores[{number}] is {excerpt(value, 40)!r}, but must be a number or null")
    try:
        values = np.array([np.nan if value is None else float(value) for value in scores], dtype=np.float64)
    except OverflowError:
        raise WireError("a score is a whole number larger than any float") from None
    values[~np.isfinite(values)] = np.nan
    error = body.get("error", "")
    return values, excerpt(error, LONGEST_REASON) if isinstance(error, str) else ""


def parsed(content: bytes) -> Any:
    """JSON.

    Raises:
        WireError: it is none.
    """
    try:
        return parse_json(content)
    except Unreadable as error:
        raise WireError(str(error)) from None


def plain(body: Mapping[str, Any]) -> bytes:
    """Strict JSON in UTF-8."""
    return json.dumps(body, allow_nan=False).encode()
