"""What image rewards share: the pictures of a batch, and values kept for as long as a picture lives."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from raft_core.errors import RewardError
from raft_core.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


def pictures(samples: Sequence[Sample]) -> list[Image]:
    """The outputs of rendered image samples.

    Raises:
        RewardError: an output that is no PIL image.
    """
    from PIL.Image import Image

    for sample in samples:
        if not isinstance(sample.output, Image):
            raise RewardError(
                f"image rewards score PIL images, but a sample holds {type(sample.output).__name__}: "
                "render the samples first, and use an image policy"
            )
    return [sample.output for sample in samples]


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
