"""Safetensors files: written as the same bytes for the same content, and looked into without loading a tensor."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.machine.files import replacing
from raft_core.reading.files import open_regular
from raft_core.reading.json_data import parse_json

#: Kinds of numbers by their names in the format.
_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
LARGEST_HEADER = 100_000_000  # bytes, the format's own limit


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Path:
    """Write tensors and metadata, whole or not at all; returns ``path``.

    The library writes several entries of metadata in random order, and holds all tensors a second time while it writes; here
    metadata stand in the header by their names, and tensors, each kind of number by itself, go to the file one by one.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.

    Source: the format of safetensors, https://github.com/huggingface/safetensors#format.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), str(tensors[name].dtype), name))
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in order:
        tensor, start = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8 bytes
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        for name in order:
            file.write(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return path


def header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: names, shapes, dtypes, and ``__metadata__``.

    Raises:
        ModelError: the file is no safetensors file.
    """
    try:
        with open_regular(path) as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > LARGEST_HEADER:
                raise ValueError(f"its header would be larger than {LARGEST_HEADER // 10**6} MB")
            entries = parse_json(file.read(size))
    except (OSError, ValueError, struct.error) as error:
        raise ModelError(f"{path} is no safetensors file: {error}") from error
    if not isinstance(entries, dict):
        raise ModelError(f"{path} is no safetensors file: its header is no JSON object")
    return entries


def check_whole(path: Path) -> None:
    """Compare a safetensors file's length with what its header promises; reads no tensor.

    Raises:
        ModelError: it is no safetensors file, or a part of one.
    """
    from safetensors import SafetensorError, safe_open

    header(path)  # says more of a file that is none
    try:
        with safe_open(path, "numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is damaged, perhaps not downloaded or copied to its end: {error}") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        ModelError: it cannot be read; names the file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} could not be read: {error}") from error
