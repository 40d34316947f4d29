"""Which of diffusers' schedulers can draw with a model, and one of them, fresh, on the model's noise schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from raft_core.errors import ModelError, RaftError, nearest
from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.options import SCHEDULERS, Sampling
from raft_diffusion.process.noise import VariancePreserving

PREDICTIONS = ("epsilon", "v_prediction", "sample")

#: Schedulers that take no generator for the noise they draw.
OWN_NOISE = frozenset({"DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler"})

#: Arguments that say what the network was trained on. Were the sampler told otherwise, pictures would be drawn by another
#: schedule than they are trained by.
MODELS_OWN = frozenset({"prediction_type", "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"})


def model_mistakes(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the schedule that a model was trained by, told from its scheduler's configuration."""
    name, prediction = config.get("_class_name", "its scheduler"), config.get("prediction_type", "epsilon")
    if config.get("beta_schedule") is None and config.get("trained_betas") is None:
        return [
            f"model: its scheduler, {name}, has no noise schedule of diffusion (no beta_schedule): models trained by flow "
            "matching or by EDM are not supported"
        ]
    if prediction not in PREDICTIONS:
        return [f"model: it predicts {prediction!r}, but only {', '.join(PREDICTIONS)} can be trained"]
    return []


def noise_process(config: Any, device: torch.device) -> VariancePreserving:
    """The noise process that a Stable Diffusion was trained by, whichever scheduler its pipeline came with.

    Raises:
        ModelError: the model was trained by another kind of schedule.
    """
    from diffusers import DDPMScheduler

    if found := model_mistakes(config):
        raise ModelError("; ".join(found))
    scheduler: Any = DDPMScheduler.from_config(config)
    return VariancePreserving(scheduler.alphas_cumprod.float().to(device), scheduler.config.prediction_type)


def mistakes(sampling: Sampling, config: Mapping[str, Any] | None) -> list[str]:
    """What is wrong with the scheduler that is asked for, and with the model's own.

    Args:
        sampling: what is asked for.
        config: the model's scheduler configuration; None when it is not known yet.
    """
    found = [] if config is None else model_mistakes(config) + _step_mistakes(sampling, config)
    usual = sampling.scheduler_class in SCHEDULERS.values() and not sampling.options
    if found or usual or (config is None and sampling.scheduler_class is None):
        return found  # without the import of diffusers: the usual ones go with every model
    try:
        if config is None:
            scheduler_class(str(sampling.scheduler_class), sampling)
        else:
            make_scheduler(config, sampling)
    except RaftError as error:
        return [str(error)]
    return []


def _step_mistakes(sampling: Sampling, config: Mapping[str, Any]) -> list[str]:
    timesteps = config.get("num_train_timesteps", 1000)
    return (
        [f"sampling.steps is {sampling.steps}, but the model has {timesteps} timesteps"] if sampling.steps > timesteps else []
    )


def scheduler_class(name: str, sampling: Sampling) -> Any:
    """The class of diffusers that draws by a noise schedule like Stable Diffusion's.

    Raises:
        ModelError: diffusers has no such scheduler, it cannot draw with these models, or it does not take one of the options.
    """
    ensure_importable()
    import diffusers

    cls = getattr(diffusers, name, None)
    if not inspect.isclass(cls):
        known = [known for known in dir(diffusers) if known.endswith("Scheduler")]
        raise ModelError(f"sampling.scheduler: diffusers has no {name!r}{nearest(name, known)}")
    if name in OWN_NOISE:
        raise ModelError(
            f"sampling.scheduler: {name} draws noise of its own, so that a picture would depend on its batch; "
            "use dpm++ with options {algorithm_type: sde-dpmsolver++}"
        )
    accepted = inspect.signature(cls).parameters
    if not _draws_by_betas(cls):
        raise ModelError(
            f"sampling.scheduler: {name} is for another kind of model (flow matching, consistency, inversion …); Stable "
            f"Diffusion is drawn by {', '.join(SCHEDULERS)} and their kin"
        )
    for option in sampling.options:
        if option in MODELS_OWN:
            raise ModelError(
                f"sampling.options: {option} belongs to the model, which is trained by it too; set it in the model's "
                "scheduler/scheduler_config.json"
            )
        if option not in accepted:
            raise ModelError(f"sampling.options: {name} takes no {option!r}{nearest(option, accepted)}")
    return cls


def _draws_by_betas(cls: Any) -> bool:
    """Whether a scheduler takes a Stable Diffusion's noise schedule and prediction, and needs nothing else per step."""
    accepted = inspect.signature(cls).parameters
    step = inspect.signature(cls.step).parameters if hasattr(cls, "step") else {}
    needed = {name for name, value in step.items() if value.default is inspect.Parameter.empty}
    return (
        {"beta_start", "beta_schedule", "prediction_type"} <= set(accepted)
        and needed == {"self", "model_output", "timestep", "sample"}
        and "Inverse" not in cls.__name__
        and not cls.__name__.startswith("CogVideo")  # another noise schedule by the same arguments
    )


def make_scheduler(config: Any, sampling: Sampling) -> Any:
    """A fresh scheduler on the model's noise schedule.

    Raises:
        ModelError: diffusers has no such scheduler, or it does not take one of the options or as many steps.
    """
    name = sampling.scheduler_class or config["_class_name"]
    cls = scheduler_class(name, sampling)
    try:
        scheduler = cls.from_config(config, **sampling.options)
    except Exception as error:  # its constructor's, of whatever kind: the model's file and the user's options go into it
        raise ModelError(f"sampling.scheduler: {name} cannot be made with these options: {error}") from error
    try:
        scheduler.set_timesteps(sampling.steps)
    except Exception as error:  # as above
        raise ModelError(f"sampling.steps: {name} cannot do {sampling.steps} steps: {error}") from error
    return scheduler
