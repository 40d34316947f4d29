"""What image rewards share: the pictures of a batch as 8-bit RGB, and values kept for as long as a picture lives."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from raft_core.errors import DataError, RewardError
from raft_core.media.picture import opaque, upright
from raft_core.rewards.scoring import PartlyScored, checked
from raft_core.types import Sample

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

R = TypeVar("R")
T = TypeVar("T")


def pictures(samples: Sequence[Sample]) -> list[Image]:
    """The outputs of rendered image samples, each as ``rgb`` makes it.

    Raises:
        RewardError: an output that is no picture, or none that can be scored.
    """
    return [rgb(sample.output) for sample in samples]


def bad_pictures_unscored(
    call: Callable[[R, Sequence[Sample]], Sequence[float] | np.ndarray],
) -> Callable[[R, Sequence[Sample]], np.ndarray]:
    """A reward's ``__call__`` that sees usable pictures only and leaves the other samples unscored.

    One damaged picture must not cost the whole batch its scores: the others' are carried by ``PartlyScored``, with the first
    error, so that the report can say what is wrong. Where none is usable that error is raised.
    """

    @functools.wraps(call)
    def guarded(self: R, samples: Sequence[Sample]) -> np.ndarray:
        usable, errors = [], []
        for index, sample in enumerate(samples):
            try:
                usable.append((index, sample.with_output(rgb(sample.output))))
            except RewardError as error:
                errors.append(error)
        if errors and not usable:
            raise errors[0]
        scores, reason = np.full(len(samples), np.nan), str(errors[0]) if errors else ""
        if usable:
            try:
                found = call(self, [sample for _, sample in usable])
            except PartlyScored as partly:
                found, reason = partly.values, reason or partly.reason
            scores[[index for index, _ in usable]] = checked(found, len(usable))
        if reason:
            raise PartlyScored(scores, reason)
        return scores

    return guarded


def rgb(picture: object) -> Image:
    """The picture as upright 8-bit RGB: itself if it is that already, else a conversion that is kept for as long as it lives.

    ``opaque`` says what is converted how: what is transparent lies on white, where the models' own code shows what it hides.

    Raises:
        RewardError: no PIL image, one without pixels, a damaged file, or floating-point pixels, whose range nobody knows.
    """
    from PIL.Image import Image

    if not isinstance(picture, Image):
        raise RewardError(
            f"image rewards score PIL images, but a sample holds {type(picture).__name__}: "
            "render the samples first, and use an image policy"
        )
    if not (picture.width and picture.height):
        raise RewardError(f"a picture of {picture.width}×{picture.height} pixels has nothing to score")
    try:
        picture.load()  # files are read late
    except (OSError, SyntaxError, ValueError) as error:
        raise RewardError(f"a picture cannot be read: {error}") from error
    if picture in _converted:
        return _converted[picture]
    turned = upright(picture)
    if turned is picture and picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture not in _converted:
        try:
            _converted[picture] = opaque(turned)
        except DataError as error:
            raise RewardError(str(error)) from error
    return _converted[picture]


class ByIdentity(Generic[T]):
    """One value per object, forgotten with the object: a cache that cannot outgrow, or outlive, what it describes.

    For objects without a hash, as PIL images are. An object that is changed in place keeps its value.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[object], T]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return id(key) in self._entries

    def __getitem__(self, key: object) -> T:
        return self._entries[id(key)][1]

    def __setitem__(self, key: object, value: T) -> None:
        entries, address = self._entries, id(key)
        # The callback runs before the address can be given to another object, so an entry never speaks for a stranger.
        entries[address] = (weakref.ref(key, lambda _: entries.pop(address, None)), value)


def stacked(images: Sequence[Image], preprocess: Callable[[Image], torch.Tensor]) -> torch.Tensor:
    """[B, 3, H, W] of at least one picture, several preprocessed at once.

    Decoding and resizing leave the GIL, and would otherwise keep the accelerator waiting.
    """
    import torch

    with ThreadPoolExecutor(max_workers=min(8, len(images))) as pool:
        return torch.stack(list(pool.map(preprocess, images)))


_converted: ByIdentity[Image] = ByIdentity()
