"""What a prompt's row asks of its pictures: a size, and what guidance pushes away from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from raft_core.errors import DataError
from raft_core.reading.files import Unreadable, excerpt
from raft_core.reading.shapes import whole_number
from raft_core.types import Prompt
from raft_diffusion.options import LARGEST_SIDE
from raft_diffusion.process.resolution import pixels_per_latent

T = TypeVar("T", bound=Hashable)


class Configured(Protocol):
    """What is drawn where a prompt's row does not say: the sampling settings of a policy."""

    @property
    def negative_prompt(self) -> str: ...

    @property
    def width(self) -> int | None: ...

    @property
    def height(self) -> int | None: ...

    @property
    def guided(self) -> bool: ...


def negative_of(prompt: Prompt, sampling: Configured) -> str:
    """What guidance pushes a prompt's pictures away from: its own, or else the configured one."""
    return prompt.meta.get("negative_prompt") or sampling.negative_prompt


def size_of(prompt: Prompt, sampling: Configured) -> tuple[int | None, int | None]:
    """(width, height) of a prompt's pictures in pixels: its own, or else the configured ones; None = the model's.

    Raises:
        DataError: a size that is none.
    """
    width, height = (_side(prompt, name) for name in ("width", "height"))
    return (sampling.width if width is None else width, sampling.height if height is None else height)


def _side(prompt: Prompt, name: str) -> int | None:
    try:
        side = whole_number(prompt.meta.get(name))
    except Unreadable as error:
        raise DataError(f"the prompt {excerpt(prompt.text, 40)!r} asks for a {name} that is none: {error}") from None
    if side is not None and not 1 <= side <= LARGEST_SIDE:
        raise DataError(f"the prompt {excerpt(prompt.text, 40)!r} asks for a {name} of {side}; give 1 to {LARGEST_SIDE} pixels")
    return side


def mistakes(
    train: Sequence[Prompt], held_out: Sequence[Prompt], sampling: Configured, vae: Mapping[str, Any], unet: Mapping[str, Any]
) -> list[str]:
    """Why prompts cannot be drawn as their rows ask, in words.

    Args:
        vae: configuration of the VAE; empty when it is not known yet.
        unet: the same of the U-Net; empty likewise.
    """
    found = []
    try:
        sizes = {prompt: size_of(prompt, sampling) for prompt in (*train, *held_out)}
    except DataError as error:
        return [str(error)]
    if vae and unet:
        step = pixels_per_latent(vae)
        odd = [prompt for prompt, size in sizes.items() if any(side is not None and side % step for side in size)]
        if odd:
            width, height = sizes[odd[0]]
            found.append(
                f"the prompt {excerpt(odd[0].text, 40)!r} asks for {width}×{height} pixels, but this model draws multiples of "
                f"{step} only ({len(odd)} such prompts)"
            )
    if len(different := {sizes[prompt] for prompt in train}) > 1:
        found.append(
            f"the training prompts ask for pictures of {len(different)} sizes, but a run trains on one size: leave the columns "
            "width and height out, or make a run of each size (raft generate draws them all)"
        )
    negative = [prompt for prompt in sizes if prompt.meta.get("negative_prompt")]
    if negative and not sampling.guided:
        found.append(
            f"{len(negative)} prompts have a negative prompt, but without guidance it says nothing: set "
            "sampling.guidance_scale above 1, or leave the column out"
        )
    return found


def grouped(keys: Sequence[T]) -> dict[T, list[int]]:
    """Places of each key, in the order of their first."""
    found: dict[T, list[int]] = {}
    for place, key in enumerate(keys):
        found.setdefault(key, []).append(place)
    return found
