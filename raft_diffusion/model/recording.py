"""A pipeline of diffusers, watched while it works: how it calls its network, and what it hands to its scheduler.

Everything goes through the pipeline's own ``__call__``, so that shifts, packing, position ids and guidance are its own. Its
network or its scheduler's ``step`` is wrapped, or replaced, for as long as a call takes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from raft_core.models.quiet import quiet

Answer = Callable[[tuple[Any, ...], Mapping[str, Any]], Any]


@dataclass(frozen=True, eq=False)
class Call:
    """One evaluation of the network.

    Attributes:
        args: positional arguments.
        kwargs: arguments by name.
        out: what it returned; None where it was not evaluated.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any = None


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a pipeline's denoising loop.

    Attributes:
        calls: evaluations of the network since the step before.
        prediction: [B, …] what the scheduler was given, guidance included.
        t: the scheduler's timestep.
        x: [B, …] the latents before the step, as the pipeline keeps them (packed, where it packs them).
    """

    calls: tuple[Call, ...]
    prediction: torch.Tensor
    t: torch.Tensor
    x: torch.Tensor


class _EnoughError(Exception):
    """Ends a pipeline's call once all that was wanted of it is known."""


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, an object's own attribute hides what its class says."""
    before = vars(owner).get(name)
    object.__setattr__(owner, name, value)
    try:
        yield
    finally:
        if before is None:
            object.__delattr__(owner, name)
        else:
            object.__setattr__(owner, name, before)


def record(pipe: Any, network: Any, run: Callable[[], Any], steps: int) -> list[Step]:
    """The first steps of ``run``, a call of the pipeline that is ended after them.

    Args:
        pipe: the pipeline.
        network: its denoiser, evaluated as usual.
        run: calls the pipeline.
        steps: how many to keep; fewer where the pipeline takes fewer.
    """
    kept: list[Step] = []
    calls: list[Call] = []
    forward, step = network.forward, pipe.scheduler.step

    def watched(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        calls.append(Call(args, dict(kwargs), out))
        return out

    def noted(prediction: torch.Tensor, t: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        kept.append(Step(tuple(calls), prediction, torch.as_tensor(t), x))
        calls.clear()
        if len(kept) == steps:
            raise _EnoughError
        return step(prediction, t, x, *args, **kwargs)

    with _replaced(network, "forward", watched), _replaced(pipe.scheduler, "step", noted), _ended():
        run()
    return kept


def encode_only(network: Any, run: Callable[[], Any]) -> None:
    """Have a call of the pipeline encode its prompts, and end it before the network is evaluated."""

    def refused(*_args: Any, **_kwargs: Any) -> Any:
        raise _EnoughError

    with _replaced(network, "forward", refused), _ended():
        run()


def first_calls(pipe: Any, network: Any, run: Callable[[], Any], answer: Answer) -> Step:
    """The first step of ``run`` without an evaluation: what the network would be asked, and the initial latents.

    Args:
        pipe: the pipeline.
        network: its denoiser, which is not evaluated.
        run: calls the pipeline.
        answer: what the pipeline is told instead of a prediction.
    """
    kept: list[Step] = []
    calls: list[Call] = []

    def asked(*args: Any, **kwargs: Any) -> Any:
        calls.append(Call(args, dict(kwargs)))
        return answer(args, kwargs)

    def noted(prediction: torch.Tensor, t: Any, x: torch.Tensor, *_args: Any, **_kwargs: Any) -> Any:
        kept.append(Step(tuple(calls), prediction, torch.as_tensor(t), x))
        raise _EnoughError

    with _replaced(network, "forward", asked), _replaced(pipe.scheduler, "step", noted), _ended():
        run()
    return kept[0]


def final_latents(pipe: Any, run: Callable[[], Any], on_step: Callable[[int], None] | None = None) -> torch.Tensor:
    """[B, …] the latents that a call of the pipeline ends with, before they are unpacked or scaled for its decoder.

    Args:
        pipe: the pipeline.
        run: calls it, with ``output_type="latent"``.
        on_step: told how many steps are done.
    """
    last: list[torch.Tensor] = []
    done = 0
    step = pipe.scheduler.step

    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        out = step(*args, **kwargs)
        last[:] = [out[0]]
        done += 1
        if on_step is not None:
            on_step(done)
        return out

    with _replaced(pipe.scheduler, "step", watched), quiet():
        run()
    return last[0]


def decoded(pipe: Any, network: Any, run: Callable[[], Any], answer: Answer, latents: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """(what a call of the pipeline returns when its loop has ended with these latents, [B] whether their pixels are finite).

    Pixels that are not finite are shown as 0, so that the others can be had.

    Args:
        pipe: the pipeline.
        network: its denoiser, which is not evaluated.
        run: calls the pipeline.
        answer: what the pipeline is told instead of a prediction.
        latents: [B, …] as ``final_latents`` gives them.
    """
    finite = torch.ones(len(latents), dtype=torch.bool)
    decode = pipe.vae.decode

    def checked(z: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        out = decode(z, *args, **kwargs)
        pixels = out[0]
        finite[:] = pixels.isfinite().flatten(1).all(dim=1).cpu()
        pixels.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        return out

    def given(_prediction: Any, _t: Any, x: torch.Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return (latents.to(x.device, x.dtype),)

    stubs = (
        _replaced(network, "forward", lambda *args, **kwargs: answer(args, kwargs)),
        _replaced(pipe.vae, "decode", checked),
    )
    with stubs[0], stubs[1], _replaced(pipe.scheduler, "step", given), quiet():
        return run(), finite


@contextlib.contextmanager
def _ended() -> Iterator[None]:
    """Inside, a pipeline may be stopped by ``_EnoughError``; it is silent."""
    with contextlib.suppress(_EnoughError), quiet():
        yield
