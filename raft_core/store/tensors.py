"""The tensors of samples in a safetensors file that proves itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from raft_core.machine.files import plain_json, replacing
from raft_core.media.medium import medium_of
from raft_core.reading.files import Unreadable, excerpt
from raft_core.reading.json_data import parse_json
from raft_core.reading.shapes import require_shape, taken_apart
from raft_core.types import Request, Sample

if TYPE_CHECKING:
    import torch


class UnusableError(Exception):
    """Stored samples that cannot be used, and why, in words; the caller makes them again."""


def identity(request: Request) -> list[Any]:
    """What makes two requests the same sample, as plain data."""
    return [request.prompt.id, request.index, request.seed]


def normalised(samples: Sequence[Sample]) -> list[Sample]:
    """The samples as they will be when they are read back, so that a resumed run sees nothing that the first did not.

    Tensors own their memory and are contiguous on the CPU, facts are plain JSON, pictures are RGB.
    """
    return [
        Sample(
            request=sample.request,
            output=None if sample.output is None else medium_of(sample.output).normalised(sample.output),
            tensors={name: sample.tensors[name].detach().cpu().contiguous().clone() for name in sorted(sample.tensors)},
            meta=json.loads(plain_json(sample.meta)),
        )
        for sample in samples
    ]


def save_tensors(path: Path, samples: Sequence[Sample], facts: Mapping[str, Any]) -> None:
    """Write the tensors, requests and facts of samples in one atomic file.

    A tensor that all samples have in one shape and dtype is one entry [N, …]; any other has an entry ``name/row`` per sample.
    """
    from safetensors.torch import save_file

    tensors = _stacked(samples)
    header = json.dumps({"facts": dict(facts), "samples": [[*identity(s.request), dict(s.meta)] for s in samples]})
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"raft": json.dumps([hexdigest(tensors.items(), header), header])})


def load_tensors(path: Path, requests: Sequence[Request], facts: Mapping[str, Any]) -> list[Sample]:
    """The samples of these requests, not rendered.

    Raises:
        UnusableError: the file is damaged, or holds samples of other requests or with other facts.
    """
    tensors, stored = read_checked(path)
    rows = stored["samples"]
    if stored["facts"] != facts:
        raise UnusableError(f"{path.name} was made by another policy or in another round")
    if [row[:3] for row in rows] != [identity(request) for request in requests]:
        raise UnusableError(f"{path.name} answers other prompts or seeds")
    try:
        with taken_apart(path.name):
            kept = _unstacked(tensors, len(rows))
            return [Sample(r, tensors=t, meta=row[3]) for r, t, row in zip(requests, kept, rows, strict=True)]
    except Unreadable as error:
        raise UnusableError(str(error)) from error


def read_tensors(path: Path) -> list[dict[str, torch.Tensor]]:
    """The tensors of each sample in a file, whatever they answer.

    Raises:
        UnusableError: the file is damaged.
    """
    tensors, stored = read_checked(path)
    try:
        with taken_apart(path.name):
            return _unstacked(tensors, len(stored["samples"]))
    except Unreadable as error:
        raise UnusableError(str(error)) from error


def read_checked(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors, header) of a file that ``save_tensors`` wrote.

    Raises:
        UnusableError: the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            digest, header = parse_json((file.metadata() or {})["raft"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            if not isinstance(header, str):
                raise Unreadable("it has no header")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UnusableError(f"{path.name} is damaged ({excerpt(error, 200)})") from error
    if digest != hexdigest(tensors.items(), header):
        raise UnusableError(f"{path.name} is damaged (its checksum does not hold)")
    try:
        return tensors, require_shape(parse_json(header), {"facts": dict, "samples": [list]}, "", ("facts", "samples"))
    except Unreadable as error:
        raise UnusableError(f"{path.name} is damaged ({error})") from error


def _stacked(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    import torch

    entries: dict[str, torch.Tensor] = {}
    for name in sorted({name for sample in samples for name in sample.tensors}):
        if "/" in name:
            raise ValueError(f"a policy named a sample's tensor {name!r}; the name must not hold a slash")
        rows = [(i, sample.tensors[name]) for i, sample in enumerate(samples) if name in sample.tensors]
        kinds = {(tensor.shape, tensor.dtype) for _, tensor in rows}
        if len(kinds) == 1 and len(rows) == len(samples):
            entries[name] = torch.stack([tensor for _, tensor in rows])
        else:
            entries |= {f"{name}/{i}": tensor.contiguous() for i, tensor in rows}
    return entries


def _unstacked(entries: Mapping[str, torch.Tensor], n: int) -> list[dict[str, torch.Tensor]]:
    rows: list[dict[str, torch.Tensor]] = [{} for _ in range(n)]
    for entry, tensor in entries.items():
        name, slash, row = entry.rpartition("/")
        if slash:
            rows[int(row)][name] = tensor.clone()
        else:
            for i, values in enumerate(tensor):
                rows[i][entry] = values.clone()
    return [dict(sorted(row.items())) for row in rows]


def hexdigest(named: Iterable[tuple[str, torch.Tensor]], text: str = "") -> str:
    """SHA-256 over text and over the names, dtypes, shapes and bytes of tensors in the order of their names."""
    import torch

    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(named, key=lambda item: item[0]):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"\x1f{name}\x1f{flat.dtype}\x1f{list(tensor.shape)}\x1f".encode())
        data: Any = flat.view(torch.uint8).numpy()
        digest.update(data)
    return digest.hexdigest()
