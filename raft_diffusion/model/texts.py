"""Prompts of any pipeline, encoded once: by text in memory, and by content on disk.

A pipeline's ``encode_prompt`` is replaced by one that remembers. Each text is encoded by itself, so that an embedding depends
on nothing but its text: not on the batch, nor on another prompt's length. The text encoders are needed for texts that are new,
and for nothing else; they may be given back as soon as all are known.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_diffusion.model.weights_file import check_whole, header, read_tensors, write_tensors

#: Rows kept in memory at most; one of T5-XXL at 512 tokens in bf16 has 4 MB.
CACHE_SIZE = 1024

Row = tuple[Any, ...]  # what encode_prompt returns for one text: tensors, lists of tensors, None


class PromptMemory:
    """``encode_prompt`` of a pipeline, with a memory.

    Args:
        pipe: the pipeline; its own ``encode_prompt`` is hidden by this object.
        placed: enters a context in which the text encoders are there and on the device.
        device: where the pipeline works.
        folder: where rows are kept on disk; None = nowhere.
        identity: says which text encoders these are, by content; rows of others are not taken.
    """

    def __init__(
        self,
        pipe: Any,
        placed: Callable[[], AbstractContextManager[None]],
        device: torch.device,
        folder: Path | None = None,
        identity: str = "",
    ):
        self._encode = pipe.encode_prompt
        self._signature = inspect.signature(self._encode)
        self._placed = placed
        self._device = device
        self._folder = folder
        self._identity = identity
        self._rows: OrderedDict[str, Row] = OrderedDict()
        pipe.encode_prompt = self

    def __call__(self, *args: Any, **kwargs: Any) -> Row:
        """What the pipeline's own would return for these prompts, on the device.

        Raises:
            ModelError: the prompts' embeddings have different shapes, so that they are no batch.
        """
        given = dict(self._signature.bind(*args, **kwargs).arguments)
        count = len(given["prompt"])
        texts = [name for name, value in given.items() if _is_texts(name, value, count)]
        rows = [self._row({**given, **{name: [given[name][place]] for name in texts}}) for place in range(count)]
        return tuple(_to(_joined(column), self._device) for column in zip(*rows, strict=True))

    def _row(self, given: Mapping[str, Any]) -> Row:
        said = {name: value for name, value in given.items() if name != "device" and value is not None}
        key = hashlib.sha256(json.dumps([self._identity, said], sort_keys=True, default=str).encode()).hexdigest()
        row = self._rows.get(key) or self._read(key)
        if row is None:
            with torch.no_grad(), self._placed():
                encoded = self._encode(**{name: list(v) if isinstance(v, list) else v for name, v in given.items()})
            row = tuple(_to(item, torch.device("cpu")) for item in encoded)
            self._write(key, row)
        self._rows[key] = row
        self._rows.move_to_end(key)
        while len(self._rows) > CACHE_SIZE:
            self._rows.popitem(last=False)
        return row

    def _read(self, key: str) -> Row | None:
        file = self._folder / f"{key}.safetensors" if self._folder else None
        if file is None or not file.is_file():
            return None
        try:
            check_whole(file)
            forms = json.loads(header(file)["__metadata__"]["forms"])
        except (ModelError, KeyError, ValueError):
            return None  # a file that was cut short or is no row: the text is encoded anew, and the file replaced
        tensors = read_tensors(file)
        return tuple(_unpacked(form, place, tensors) for place, form in enumerate(forms))

    def _write(self, key: str, row: Row) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        forms = [None if item is None else len(item) if isinstance(item, (list, tuple)) else "tensor" for item in row]
        tensors = {
            f"{place}.{index}": tensor
            for place, item in enumerate(row)
            if item is not None
            for index, tensor in enumerate(item if isinstance(item, (list, tuple)) else [item])
        }
        write_tensors(self._folder / f"{key}.safetensors", tensors, {"forms": json.dumps(forms)})


def _is_texts(name: str, value: Any, count: int) -> bool:
    """Whether an argument holds a text for each sample."""
    texts = isinstance(value, (list, tuple)) and len(value) == count and all(isinstance(item, str) for item in value)
    return "prompt" in name and texts


def _unpacked(form: Any, place: int, tensors: Mapping[str, torch.Tensor]) -> Any:
    if form is None:
        return None
    return tensors[f"{place}.0"] if form == "tensor" else [tensors[f"{place}.{index}"] for index in range(form)]


def _to(item: Any, device: torch.device) -> Any:
    if isinstance(item, torch.Tensor):
        return item.to(device)
    return [_to(each, device) for each in item] if isinstance(item, (list, tuple)) else item


def _joined(column: Sequence[Any]) -> Any:
    """One output of several rows: samples behind each other, and what is no sample's, such as position ids, once."""
    first = column[0]
    if first is None:
        return None
    if isinstance(first, list):
        return [each for item in column for each in item]
    if len({tuple(item.shape) for item in column}) != 1:
        raise ModelError("prompts whose embeddings have different shapes were put into one batch")
    return torch.cat(list(column)) if len(first) == 1 else first


def identity_of(folders: Sequence[Path]) -> str:
    """Text encoders and tokenizers by content: their small files whole, of large ones the header and sixteen pieces."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            size = file.stat().st_size
            digest.update(f"{folder.name}/{file.relative_to(folder)}:{size}".encode())
            with file.open("rb") as content:
                for place in range(0, size, max(size // 16, 1 << 20)):
                    content.seek(place)
                    digest.update(content.read(1 << 16 if size > 1 << 24 else 1 << 20))
    return digest.hexdigest()
