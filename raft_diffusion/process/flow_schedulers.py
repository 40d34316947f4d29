"""The scheduler that a pipeline draws with, and the noise process that its model was trained by, by its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from raft_core.errors import ModelError, nearest
from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.pipeline_options import FLOW_SCHEDULERS, PipelineLoss, PipelineSampling
from raft_diffusion.process.noise import NoiseProcess, RectifiedFlow
from raft_diffusion.process.schedulers import MODELS_OWN, PREDICTIONS, noise_process

#: Belong to the model, which was trained by them.
_FLOWS_OWN = MODELS_OWN | {"use_flow_sigmas"}


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a scheduler's configuration is that of a flow: its class says so, or what it is told to predict."""
    return str(config.get("_class_name", "")).startswith("FlowMatch") or config.get("prediction_type") == "flow_prediction"


def mistakes(sampling: PipelineSampling, config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the scheduler that is asked for, and with the model's own, told from its configuration."""
    if not is_flow(config) and config.get("prediction_type", "epsilon") not in PREDICTIONS:
        return [
            f"model: it predicts {config.get('prediction_type')!r}, but only a flow or {', '.join(PREDICTIONS)} can be trained"
        ]
    if not is_flow(config) and config.get("beta_schedule") is None and config.get("trained_betas") is None:
        name = config.get("_class_name", "its scheduler")
        return [f"model: its scheduler, {name}, belongs to neither a flow nor a diffusion: it has no noise schedule"]
    if not is_flow(config) and sampling.stochastic is not None:
        return ["sampling.stochastic: this model is no flow; leave it out"]
    if sampling.scheduler is None and not sampling.options:
        return []
    try:
        make_flow_scheduler(config, sampling)
    except ModelError as error:
        return [str(error)]
    return []


def make_flow_scheduler(config: Mapping[str, Any], sampling: PipelineSampling) -> Any:
    """A fresh scheduler on the model's own process.

    Raises:
        ModelError: diffusers has no such scheduler, or it cannot draw with this model.
    """
    ensure_importable()
    import diffusers

    name = sampling.scheduler_class or str(config["_class_name"])
    cls: Any = getattr(diffusers, name, None)
    if not inspect.isclass(cls):
        known = [*FLOW_SCHEDULERS, *(known for known in dir(diffusers) if known.endswith("Scheduler"))]
        raise ModelError(f"sampling.scheduler: diffusers has no {name!r}{nearest(name, known)}")
    accepted = inspect.signature(cls).parameters
    for option in sampling.options:
        if option in _FLOWS_OWN:
            raise ModelError(f"sampling.options: {option} belongs to the model, which was trained by it")
        if option not in accepted:
            raise ModelError(f"sampling.options: {name} takes no {option!r}{nearest(option, accepted)}")
    made: Any = cls
    try:
        return made.from_config(dict(config), **carried_settings(config, sampling), **sampling.options)
    except Exception as error:  # its constructor's, of whatever kind: the model's file and the user's options go into it
        raise ModelError(f"sampling.scheduler: {name} cannot be made with these options: {error}") from error


def carried_settings(config: Mapping[str, Any], sampling: PipelineSampling) -> dict[str, Any]:
    """What another scheduler than the model's has to be told, so that it draws with this flow.

    Raises:
        ModelError: it does not know flows.
    """
    import diffusers

    name = sampling.scheduler_class
    if name is None or name == config["_class_name"] or not is_flow(config):
        return {}
    shift = config.get("shift", config.get("flow_shift", 1.0))
    if name.startswith("FlowMatch"):
        return {"shift": shift}
    if "use_flow_sigmas" not in inspect.signature(getattr(diffusers, name)).parameters:
        raise ModelError(f"sampling.scheduler: {name} does not know flows; this model is drawn by {', '.join(FLOW_SCHEDULERS)}")
    return {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}


def process_of(
    config: Mapping[str, Any], loss: PipelineLoss, sigmas: Callable[[], torch.Tensor], device: torch.device | None = None
) -> NoiseProcess:
    """The noise process that the model was trained by.

    Args:
        config: of its scheduler.
        loss: how times are drawn.
        sigmas: gives those of a sampling, the last one 0.
        device: where latents are.
    """
    if not is_flow(config):
        return noise_process(config, device or torch.device("cpu"))
    shift = loss.shift
    if shift is None:  # as diffusers' scripts have it: a dynamic shift is of sampling alone
        shift = 1.0 if config.get("use_dynamic_shifting") else float(config.get("shift", config.get("flow_shift", 1.0)))
    return RectifiedFlow(
        loss.times,
        shift,
        loss.logit_mean,
        loss.logit_std,
        lambda: sigmas()[:-1],
        float(config.get("num_train_timesteps", 1000)),
    )
