"""Samples and scores as JSON, for a reward in another process or on another machine. Nothing that arrives is executed.

Asked: ``{"samples": [{"prompt": "…", "meta": {…}, "index": 0, "seed": 1, "image": "<base64 PNG>"}, …]}``, with ``"text"`` in
place of ``"image"`` for text. Only ``prompt`` and the output are needed. Answered: ``{"scores": [1.5, null, …]}``, one number
per sample in the same order, null = not scored, and in ``"error"`` why the first of these is not.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raft_core.errors import DataError, RaftError
from raft_core.types import Prompt, Request, Sample

LARGEST_PICTURE = 64_000_000  # pixels


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
    from raft_core.store.tensors import to_png

    facts = {
        "prompt": sample.prompt.text,
        "meta": json.loads(plain_json(sample.prompt.meta)),
        "index": sample.request.index,
        "seed": sample.seed,
    }
    output = sample.output
    if isinstance(output, str):
        return {**facts, "text": output}
    if not hasattr(output, "save"):
        raise TypeError(f"a sample holds {type(output).__name__}, neither text nor a picture: render it first")
    return {**facts, "image": base64.b64encode(to_png(output)).decode("ascii")}


def received(body: Any, most: int | None = None) -> tuple[list[Sample], list[str | None]]:
    """(samples, what is wrong with the picture of each or None) of a request. A bad picture costs its own sample only.

    Args:
        body: parsed JSON.
        most: samples.

    Raises:
        WireError: no such request.
    """
    items = body.get("samples") if isinstance(body, dict) else None
    if not isinstance(items, list):
        raise WireError('the body must be an object with a list under "samples"')
    if most is not None and len(items) > most:
        raise WireError(f"{len(items)} samples at once are too many: send at most {most}")
    pairs = [_incoming(item, number) for number, item in enumerate(items)]
    return [sample for sample, _ in pairs], [error for _, error in pairs]


def _incoming(item: Any, number: int) -> tuple[Sample, str | None]:
    where = f"samples[{number}]"
    if not isinstance(item, dict):
        raise WireError(f"{where} must be an object")
    prompt, meta = item.get("prompt", ""), item.get("meta", {})
    index, seed = item.get("index", 0), item.get("seed", 0)
    if not isinstance(prompt, str) or not isinstance(meta, dict):
        raise WireError(f'{where}: "prompt" must be a string and "meta" an object')
    if not all(isinstance(value, int) for value in (index, seed)):
        raise WireError(f'{where}: "index" and "seed" must be whole numbers')
    if ("text" in item) == ("image" in item):
        raise WireError(f'{where} must have either "text" or "image"')
    output = item.get("text", item.get("image"))
    if not isinstance(output, str):
        raise WireError(f'{where}: "text" must be a string, "image" a base64 string')
    request = Request(Prompt(prompt, meta), index, seed)
    if "text" in item:
        return Sample(request, output=output), None
    try:
        return Sample(request, output=picture(base64.b64decode(output, validate=True), where)), None
    except (binascii.Error, ValueError):
        return Sample(request), f"{where}: the image is not base64"
    except RaftError as error:
        return Sample(request), str(error)


def picture(data: bytes, name: str, most: int = LARGEST_PICTURE) -> Any:
    """Encoded bytes as an RGB picture.

    Raises:
        DataError: no picture, a damaged one, one without a pixel, or one of more than ``most`` pixels.
    """
    import io
    import warnings

    from PIL import Image

    from raft_core.preferences.preference import decoded, unreadable

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size  # the pixels are not decoded yet
    except Exception as error:  # noqa: BLE001 - decoders raise whatever a damaged file makes them trip over
        raise DataError(f"{name} is no readable picture ({unreadable(data, error)})") from None
    if width * height > most:
        raise DataError(f"{name} has {width}×{height} pixels, more than {most / 1e6:g} million: make it smaller")
    try:
        return decoded(data, name)
    except RaftError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise DataError(f"{name} is no readable picture ({type(error).__name__}: {error})") from None


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
            raise WireError(f"scores[{number}] is {str(value)[:40]!r}, but must be a number or null")
    try:
        values = np.array([np.nan if value is None else float(value) for value in scores], dtype=np.float64)
    except OverflowError:
        raise WireError("a score is a whole number larger than any float") from None
    values[~np.isfinite(values)] = np.nan
    error = body.get("error", "")
    return values, error if isinstance(error, str) else ""


def parsed(content: bytes) -> Any:
    """JSON.

    Raises:
        WireError: it is none.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        text = " ".join(content[:400].decode("utf-8", "replace").split())
        raise WireError(f"it is not JSON: {text if len(text) <= 120 else text[:119] + '…'!r}") from None


def plain(body: Mapping[str, Any]) -> bytes:
    """Strict JSON in UTF-8."""
    return json.dumps(body, allow_nan=False).encode()
