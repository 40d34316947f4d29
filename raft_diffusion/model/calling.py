"""How a pipeline calls its network, and the same call made again with other latents at another time.

The latents stand in one argument, in some form; the time stands in another, as a linear function of the scheduler's timestep
(t, t/1000, 1 − t/1000 …); and what the scheduler is given is a combination of the network's answers: a sign, or a guided sum,
perhaps scaled back to the conditional part's norm. Which it is for a pipeline is learnt from it (``learning``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from raft_diffusion.model.recording import Call
from raft_diffusion.process.denoise import broadcast

Place = tuple[int | str, ...]  # "args" or "kwargs", then keys and indices


@dataclass(frozen=True)
class Slot:
    """Where one evaluation takes the latents, and in which form.

    Attributes:
        place: of the argument.
        copies: how often the batch stands in it, one behind the other: 2 where both parts of guidance are one evaluation.
        axis: an axis of length 1 that is put in, in the batch's counting; None = as they are.
        listed: whether it is a list of samples.
    """

    place: Place
    copies: int
    axis: int | None
    listed: bool

    def filled(self, x: torch.Tensor, like: Any) -> Any:
        """The latents [B, …] in this form, in the precision of the recorded argument."""
        value = torch.cat([x] * self.copies) if self.copies > 1 else x
        if self.axis is not None:
            value = value.unsqueeze(self.axis)
        value = value.to((like[0] if self.listed else like).dtype)
        return list(value.unbind(0)) if self.listed else value


@dataclass(frozen=True)
class Mixture:
    """How the parts p₀ (and p₁) of what the network answered become the scheduler's prediction: base + scale · (p − other).

    Attributes:
        base: the part that the sum begins with.
        towards: p, the conditional part; None = there is one part, and no sum.
        scale: of guidance.
        norm_of: the part to whose norm along the last axis the sum is scaled; None = it is not.
        sign: of the whole.
    """

    base: int = 0
    towards: int | None = None
    scale: float = 1.0
    norm_of: int | None = None
    sign: float = 1.0

    def __call__(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        mixed = parts[self.base]
        if self.towards is not None:
            mixed = mixed + self.scale * (parts[self.towards] - parts[1 - self.towards])
        if self.norm_of is not None:
            norms = [value.norm(dim=-1, keepdim=True) for value in (parts[self.norm_of], mixed)]
            mixed = mixed * (norms[0] / norms[1])
        return mixed if self.sign == 1 else self.sign * mixed


@dataclass(frozen=True)
class Time:
    """What a network is told instead of the scheduler's timestep t: factor · t + offset, rounded as its pipeline rounds it.

    Attributes:
        form: in which order it is computed; what is exact in float32 differs in half precision.
        factor: of form line.
        offset: of form line.
    """

    form: Literal["same", "divided", "rounded, divided", "reversed, divided", "divided, reversed", "line"]
    factor: float = 1.0
    offset: float = 0.0

    def __call__(self, timestep: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Of timesteps [B], in the precision of the network's argument."""
        if self.form == "same":
            return timestep.to(dtype)
        t = timestep.float()
        if self.form == "divided":
            return (t / 1000).to(dtype)
        if self.form == "rounded, divided":
            return t.to(dtype) / 1000
        if self.form == "reversed, divided":
            return ((1000 - t) / 1000).to(dtype)
        if self.form == "divided, reversed":
            return (1 - t / 1000).to(dtype)
        return (self.factor * t + self.offset).to(dtype)


@dataclass(frozen=True)
class Calling:
    """All that was learnt.

    Attributes:
        slots: of the latents, one for each evaluation of a step.
        times: places of the time, one for each evaluation.
        time: what is passed there.
        mixture: of the parts.
        growth: length of each axis of an answer, in lengths of the same axis of the latents in their form.
    """

    slots: tuple[Slot, ...]
    times: tuple[Place, ...]
    time: Time
    mixture: Mixture
    growth: tuple[int, ...]

    @property
    def parts(self) -> int:
        """Predictions that one guided prediction is made of."""
        return sum(slot.copies for slot in self.slots)

    def predict(self, network: Any, calls: Sequence[Call], x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """[B, …] float32 what the scheduler would be given at x and the scheduler's timesteps.

        Args:
            network: the denoiser.
            calls: of a step with the same prompts, sizes and B, from which all other arguments are taken.
            x: [B, …] latents as the pipeline keeps them.
            timestep: [B] as the scheduler counts.
        """
        parts: list[torch.Tensor] = []
        for call, slot, place in zip(calls, self.slots, self.times, strict=True):
            put: dict[Place, Any] = {
                slot.place: slot.filled(x, value_at(call, slot.place)),
                place: _as_time(self.time, timestep, slot.copies, value_at(call, place)),
            }
            args, kwargs = (_with(value, (name,), put) for name, value in (("args", call.args), ("kwargs", call.kwargs)))
            parts += parts_of(network(*args, **kwargs), slot, x)
        return self.mixture(parts)

    def zeros(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """An answer of zeros in the network's form, to arguments that the network is not asked."""
        given = value_at(Call(args, kwargs), self.slots[0].place)
        like = torch.stack(given) if self.slots[0].listed else given
        zeros = like.new_zeros([size * times for size, times in zip(like.shape, self.growth, strict=True)])
        return (list(zeros.unbind(0)) if self.slots[0].listed else zeros,)


def _leaves(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """Tensors, and lists of tensors, inside arguments."""
    if isinstance(value, torch.Tensor):
        yield place, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*place, key))
    elif isinstance(value, (list, tuple)):
        if value and all(isinstance(item, torch.Tensor) for item in value):
            yield place, value
        else:
            for index, item in enumerate(value):
                yield from _leaves(item, (*place, index))


def arguments(call: Call) -> Iterator[tuple[Place, Any]]:
    """(place, tensor or list of tensors) of a call."""
    for index, value in enumerate(call.args):
        yield from _leaves(value, ("args", index))
    yield from _leaves(call.kwargs, ("kwargs",))


def value_at(call: Call, place: Place) -> Any:
    """Value of an argument by its place."""
    value: Any = call.args if place[0] == "args" else call.kwargs
    for key in place[1:]:
        value = value[key]
    return value


def _with(value: Any, place: Place, put: Mapping[Place, Any]) -> Any:
    """The same arguments with those of ``put`` in their places."""
    if place in put:
        return put[place]
    if not any(other[: len(place)] == place for other in put):
        return value
    if isinstance(value, Mapping):
        return {key: _with(item, (*place, key), put) for key, item in value.items()}
    return type(value)(_with(item, (*place, index), put) for index, item in enumerate(value))


def name_of(place: Place) -> str:
    """An argument in words."""
    return "argument " + ".".join(str(part) for part in place[1:])


def _as_time(time: Time, timestep: torch.Tensor, copies: int, like: torch.Tensor) -> torch.Tensor:
    """[copies · B, …] the time in the form of the recorded argument, one for each sample."""
    value = torch.cat([time(timestep, like.dtype)] * copies).to(like.device)
    return broadcast(value, like).expand(-1, *like.shape[1:]) if like.ndim > 1 else value


def parts_of(out: Any, slot: Slot, x: torch.Tensor) -> list[torch.Tensor]:
    """The predictions [B, …] float32, in the latents' shape, in one answer."""
    value = out[0]
    value = torch.stack(list(value)) if isinstance(value, (list, tuple)) else value
    if slot.axis is not None:
        value = value.squeeze(slot.axis)
    for axis in range(1, x.ndim):  # a variance beside the prediction, tokens of something else behind the picture's
        if value.shape[axis] > x.shape[axis]:
            value = value.narrow(axis, 0, x.shape[axis])
    return list(value.float().chunk(slot.copies))
