"""A safetensors file that is the same bytes for the same content."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch

from raft_core.files import replacing


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Path:
    """Write tensors and metadata, whole or not at all; returns ``path``.

    The library writes several entries of metadata in random order; here they are put into its header by their names.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    (size,) = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8 : 8 + size])
    header = json.dumps({"__metadata__": dict(sorted(metadata.items())), **entries}).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8 bytes
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        file.write(memoryview(data)[8 + size :])
    return path
