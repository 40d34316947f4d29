"""How a pipeline calls its network: learnt from two recorded steps, and proven by making the recorded calls again.

Between the steps only two things may change: the latents x and the time. The rest of the arguments says what is drawn. So the
argument that equals the scheduler's x holds the latents, an argument of equal numbers that changes holds the time, and the
prediction that the scheduler was given tells how the network's answers are combined.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_diffusion.model.calling import Calling, Mixture, Place, Slot, Time, arguments, name_of, parts_of, value_at
from raft_diffusion.model.recording import Call, Step

#: The times that pipelines pass: what is passed is compared with these to the last digit.
_USUAL_TIMES = (
    Time("same"),
    Time("divided"),
    Time("rounded, divided"),
    Time("reversed, divided"),
    Time("divided, reversed"),
)
_TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}


def learn(steps: Sequence[Step], scales: Sequence[float]) -> Calling:
    """How the pipeline calls its network, from two steps of at least two samples.

    Args:
        steps: two, recorded with the network at work.
        scales: guidance scales that may have been in force.

    Raises:
        ModelError: the calls have a form that cannot be made again; says which.
    """
    first, second = steps
    if not first.calls:
        raise ModelError("its pipeline took a step without evaluating the network")
    if len(first.calls) != len(second.calls):
        raise ModelError(
            f"its pipeline evaluates the network {len(first.calls)} times in the first step and {len(second.calls)} times in "
            "the second"
        )
    slots = tuple(_find_slot(call, first.x) for call in first.calls)
    times, time = _find_times(steps, slots)
    mixture = _find_mixture(first, slots, scales)
    out = first.calls[0].out[0]
    given = value_at(first.calls[0], slots[0].place)
    shapes = [tuple((torch.stack(list(value)) if isinstance(value, (list, tuple)) else value).shape) for value in (out, given)]
    if len(shapes[0]) != len(shapes[1]) or any(ours % theirs for ours, theirs in zip(*shapes, strict=True)):
        raise ModelError(f"the network answers latents of shape {shapes[1]} by shape {shapes[0]}")
    growth = tuple(ours // theirs for ours, theirs in zip(*shapes, strict=True))
    return Calling(slots, times, time, mixture, growth)


def require_replay(calling: Calling, network: Any, steps: Sequence[Step]) -> None:
    """Make the recorded calls again, and compare.

    Raises:
        ModelError: the prediction is another one; says by how much.
    """
    for number, step in enumerate(steps, start=1):
        timestep = step.t.expand(len(step.x)).to(step.x.device)
        found = calling.predict(network, step.calls, step.x, timestep)
        wanted = step.prediction.float()
        if found.shape != wanted.shape:
            raise ModelError(f"the prediction has shape {tuple(found.shape)}, but its pipeline's has {tuple(wanted.shape)}")
        off = float((found - wanted).abs().max()) / max(float(wanted.abs().max()), 1e-12)
        tolerance = max(_TOLERANCE.get(call_dtype(call, slot), 1e-5) for call, slot in _paired(step, calling))
        if not off <= tolerance:
            raise ModelError(
                f"the network's call of step {number}, made again, differs from its pipeline's by {off:.2g} of the largest "
                f"value, and {tolerance:g} may be rounding"
            )


def call_dtype(call: Call, slot: Slot) -> torch.dtype:
    """Of the latents that the network is given."""
    given = value_at(call, slot.place)
    return (given[0] if slot.listed else given).dtype


def _paired(step: Step, calling: Calling) -> Iterator[tuple[Call, Slot]]:
    return zip(step.calls, calling.slots, strict=True)


def _find_slot(call: Call, x: torch.Tensor) -> Slot:
    found = [slot for place, value in arguments(call) if (slot := _as_slot(place, value, x))]
    if len(found) == 1:
        return found[0]
    if not found:
        shapes = {name_of(place): tuple(value.shape) for place, value in arguments(call) if isinstance(value, torch.Tensor)}
        raise ModelError(
            f"no argument of the network holds the scheduler's latents {tuple(x.shape)} (there are {shapes}): its pipeline "
            "scales them or puts something beside them, as models that edit pictures do"
        )
    raise ModelError(
        f"{len(found)} arguments of the network hold the latents: {', '.join(name_of(slot.place) for slot in found)}"
    )


def _as_slot(place: Place, value: Any, x: torch.Tensor) -> Slot | None:
    listed = not isinstance(value, torch.Tensor)
    if listed and (len({item.shape for item in value}) != 1):
        return None
    tensor = torch.stack(list(value)) if listed else value
    for copies in (1, 2):
        whole = torch.cat([x] * copies)
        axes = [axis for axis in range(1, tensor.ndim) if tensor.shape[axis] == 1] if tensor.ndim == x.ndim + 1 else [None]
        for axis in axes:
            shaped = whole if axis is None else whole.unsqueeze(axis)
            if shaped.shape == tensor.shape and torch.equal(shaped.to(tensor.dtype), tensor):
                return Slot(place, copies, axis, listed)
    return None


def _find_times(steps: Sequence[Step], slots: Sequence[Slot]) -> tuple[tuple[Place, ...], Time]:
    t = [float(step.t) for step in steps]
    if t[0] == t[1]:
        raise ModelError("its scheduler gave the first two steps the same timestep")
    places, maps = [], []
    for first, second, slot in zip(steps[0].calls, steps[1].calls, slots, strict=True):
        later = dict(arguments(second))
        changed = [
            (place, value) for place, value in arguments(first) if place != slot.place and not _same(value, later.get(place))
        ]
        if len(changed) != 1:
            names = ", ".join(name_of(place) for place, _ in changed) or "none"
            raise ModelError(f"one argument of the network should tell the time, but between two steps there changed: {names}")
        place, value = changed[0]
        passed = [_single(value, place), _single(later[place], place)]
        places.append(place)
        maps.append(_time_of([step.t for step in steps], passed, value.dtype))
    if len(set(maps)) != 1:
        raise ModelError(f"its pipeline tells the evaluations of one step different times ({maps})")
    return tuple(places), maps[0]


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(value, other)
    return other is not None and len(value) == len(other) and all(map(torch.equal, value, other))


def _single(value: Any, place: Place) -> float:
    """The number that all elements of a time are."""
    if not isinstance(value, torch.Tensor) or value.unique().numel() != 1:
        raise ModelError(f"{name_of(place)} changes from step to step, but is no single time")
    return float(value.flatten()[0])


def _time_of(t: Sequence[torch.Tensor], passed: Sequence[float], dtype: torch.dtype) -> Time:
    for usual in _USUAL_TIMES:
        if all(float(usual(step.reshape(1), dtype)) == value for step, value in zip(t, passed, strict=True)):
            return usual
    first, second = (float(step) for step in t)
    factor = (passed[1] - passed[0]) / (second - first)
    return Time("line", factor, passed[0] - factor * first)


def _find_mixture(step: Step, slots: Sequence[Slot], scales: Sequence[float]) -> Mixture:
    parts = [part for call, slot in zip(step.calls, slots, strict=True) for part in parts_of(call.out, slot, step.x)]
    wanted = step.prediction.float()
    if any(part.shape != wanted.shape for part in parts):
        raise ModelError(f"the network's answers {[tuple(part.shape) for part in parts]} do not have the latents' shape")
    found = [mixture for mixture in _candidates(len(parts), scales) if _error(mixture(parts), wanted) < 1e-2]
    if not found:
        raise ModelError(
            f"its pipeline combines {len(parts)} predictions in a way that is no guidance known here (at guidance scale "
            f"{', '.join(f'{scale:g}' for scale in scales) or 'none'})"
        )
    return min(found, key=lambda mixture: _error(mixture(parts), wanted))


def _candidates(parts: int, scales: Sequence[float]) -> Iterator[Mixture]:
    if parts == 1:
        yield from (Mixture(sign=sign) for sign in (1.0, -1.0))
    if parts != 2:
        return
    for scale, sign, towards in itertools.product(scales, (1.0, -1.0), (0, 1)):
        for base in (1 - towards, towards):  # most begin at the unconditional part, some at the conditional one
            yield Mixture(base, towards, scale, None, sign)
            yield Mixture(base, towards, scale, towards, sign)


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-12))
