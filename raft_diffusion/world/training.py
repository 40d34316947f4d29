"""The one training loop of the world's parts: a fixed number of steps, a checkpoint a minute, the same bits after a resume."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

SAVE_EVERY_S = 60.0


def warmup_cosine(step: int, steps: int, warmup: int, floor: float = 0.02) -> float:
    """Learning-rate factor in 0..1: linear warm-up, then a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * progress))))


def warmup_hold_decay(step: int, steps: int, warmup: int, decay: float = 0.3, floor: float = 0.02) -> float:
    """Learning-rate factor in 0..1: linear warm-up, constant, then a cosine down to `floor` over the last share `decay`.

    Unlike a cosine over the whole run, `steps` may still be changed while the rate is constant.

    Source: Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training durations".
    """
    start = round(steps * (1 - decay))
    return (step + 1) / warmup if step < warmup else warmup_cosine(max(0, step - start), max(1, steps - start), 0, floor)


def train(
    model: nn.Module,
    loss: Callable[[int, torch.Generator], torch.Tensor],
    *,
    steps: int,
    lr: float,
    seed: int,
    checkpoint: Path,
    weight_decay: float = 0.01,
    ema_decay: float = 0.0,
    schedule: Callable[[int, int, int], float] = warmup_cosine,
    publish: Callable[[int], None] | None = None,
) -> float:
    """Minimises `loss` by AdamW, from the newest checkpoint if there is one.

    Every step draws from its own generator, seeded by (seed, step): a resumed run takes the same steps. SIGTERM and SIGINT
    end it after the step at hand, with a checkpoint.

    Args:
        model: is trained in place; ends with the averaged weights if `ema_decay` is set.
        loss: of (step, generator), scalar.
        steps: optimiser updates.
        lr: peak learning rate.
        seed: of the batches.
        checkpoint: file of the run's state.
        weight_decay: AdamW's.
        ema_decay: of the averaged weights, 0 for none; ramps up over the first steps.
        schedule: of (step, steps, warm-up steps), factor of the learning rate.
        publish: called with the step after a quarter, a half and three quarters, with the averaged weights in the model.

    Returns:
        Seconds of training, over all resumes.

    Raises:
        SystemExit: it was asked to end before its last step.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    averaged = [p.detach().clone() for p in parameters]
    first, spent_s = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        averaged, first, spent_s = state["averaged"], state["step"], state["spent_s"]
    started = saved = time.perf_counter()
    model.train()
    shown = 0.0
    asked_to_end = _ask_to_end()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(step, steps, min(200, steps // 10))
        optimizer.zero_grad(set_to_none=True)
        value = loss(step, torch.Generator().manual_seed(seed * 1_000_003 + step))
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(averaged, [p.detach() for p in parameters], 1 - decay)
        shown = value.item() if step == first else 0.98 * shown + 0.02 * value.item()
        now = time.perf_counter()
        if (step + 1) % 50 == 0:
            print(f"  step {step + 1}/{steps}  loss {shown:.4f}  {spent_s + now - started:.0f} s", flush=True)
        if now - saved > SAVE_EVERY_S or step + 1 == steps or asked_to_end():
            saved = now
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "averaged": averaged}
            _save(state | {"step": step + 1, "spent_s": spent_s + now - started}, checkpoint)
        if asked_to_end() and step + 1 < steps:
            raise SystemExit(f"ended after step {step + 1}; the same command goes on from there")
        if publish and step + 1 in (steps // 4, steps // 2, 3 * steps // 4):
            _with_weights(parameters, averaged, lambda at=step + 1: publish(at))
    if ema_decay:
        for parameter, average in zip(parameters, averaged, strict=True):
            parameter.data.copy_(average)
    model.eval()
    return spent_s + time.perf_counter() - started


def _ask_to_end() -> Callable[[], bool]:
    """Whether SIGTERM or SIGINT came since this call; a second one ends the process at once."""
    seen: list[int] = []

    def note(number, _frame):
        seen.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return lambda: bool(seen)


def _save(state, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _with_weights(parameters, weights, call):
    """Calls with other weights in place, and puts the trained ones back."""
    kept = [p.detach().clone() for p in parameters]
    for parameter, weight in zip(parameters, weights, strict=True):
        parameter.data.copy_(weight)
    call()
    for parameter, weight in zip(parameters, kept, strict=True):
        parameter.data.copy_(weight)
