"""Fine-tuning from scratch until the accuracy is where it should be: a checkpoint a minute, the same steps after a resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raft_core.machine.files import replacing

SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Args:
        steps: optimiser updates at most.
        cycle: steps after which the learning rate begins anew.
        lr: peak learning rate, after a linear warm-up; falls as a cosine in every cycle.
        warmup: steps.
        decay: of the averaged weights, which are what is measured and kept; ramps up over the first steps.
        check_every: steps between two measurements.
        enough: training ends when a measurement reaches this.
    """

    steps: int
    cycle: int
    lr: float = 3e-3
    warmup: int = 100
    decay: float = 0.99
    check_every: int = 50
    enough: float = math.inf

    def rate(self, step: int) -> float:
        place = step % self.cycle
        if place < self.warmup:
            return self.lr * (place + 1) / self.warmup
        progress = (place - self.warmup) / max(1, self.cycle - self.warmup)
        return self.lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


class _State:
    """What a checkpoint holds."""

    def __init__(self, model: Any, schedule: Schedule):
        self.model = model
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=schedule.lr, betas=(0.9, 0.98), weight_decay=0.05)
        self.averaged = [p.detach().clone() for p in self.parameters]
        self.step, self.spent_s, self.reached = 0, 0.0, -math.inf

    def load(self, path: Path) -> None:
        kept = torch.load(path, weights_only=True)
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.averaged, self.step = kept["averaged"], kept["step"]
        self.spent_s, self.reached = kept["spent_s"], kept["reached"]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "averaged": self.averaged}
        with replacing(path) as partial:
            torch.save(kept | {"step": self.step, "spent_s": self.spent_s, "reached": self.reached}, partial)

    def swap(self) -> None:
        """Exchange the trained weights and the averaged ones."""
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.averaged, strict=True):
                trained = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(trained)


def train(
    model: Any, loss: Callable[[int], torch.Tensor], measure: Callable[[], float], schedule: Schedule, checkpoint: Path
) -> tuple[int, float]:
    """Minimise ``loss`` by AdamW, from the checkpoint if there is one, until ``measure`` is enough or the steps are over.

    Args:
        model: trained in place; ends with the averaged weights.
        loss: of a step; it draws whatever it draws from that number, so a resumed training takes the same steps.
        measure: of the model with the averaged weights.
        schedule: how long and how fast.
        checkpoint: file of the training's state.

    Returns:
        Steps, and seconds of training over all resumes.
    """
    state = _State(model, schedule)
    if checkpoint.exists():
        state.load(checkpoint)
    shown, saved = math.nan, time.perf_counter()
    while state.step < schedule.steps and state.reached < schedule.enough:
        started = time.perf_counter()
        value = _update(state, loss, schedule)
        shown = value if math.isnan(shown) else 0.95 * shown + 0.05 * value
        if state.step % schedule.check_every == 0 or state.step == schedule.steps:
            state.reached = _measured(state, measure)
            print(
                f"  step {state.step}/{schedule.steps}  loss {shown:.4f}  right {state.reached:.1%}  {state.spent_s:.0f} s",
                flush=True,
            )
        state.spent_s += time.perf_counter() - started
        if time.perf_counter() - saved > SAVE_EVERY_S:
            state.save(checkpoint)
            saved = time.perf_counter()
    state.save(checkpoint)
    state.swap()
    model.eval()
    return state.step, state.spent_s


def _update(state: _State, loss: Callable[[int], torch.Tensor], schedule: Schedule) -> float:
    state.model.train()
    for group in state.optimizer.param_groups:
        group["lr"] = schedule.rate(state.step)
    state.optimizer.zero_grad(set_to_none=True)
    value = loss(state.step)
    value.backward()
    torch.nn.utils.clip_grad_norm_(state.parameters, 1.0)
    state.optimizer.step()
    decay = min(schedule.decay, (1 + state.step) / (10 + state.step))
    torch._foreach_lerp_(state.averaged, [p.detach() for p in state.parameters], 1 - decay)
    state.step += 1
    return value.item()


def _measured(state: _State, measure: Callable[[], float]) -> float:
    state.swap()
    state.model.eval()
    try:
        return measure()
    finally:
        state.swap()
