"""What a user sets about a pipeline of diffusers: how it is adapted, sampled, trained, and fitted into memory.

These dataclasses are the configuration's schema, and their docstrings its help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from raft_core.errors import ConfigError, nearest
from raft_diffusion.options import LARGEST_RANK, LARGEST_SIDE, SCHEDULERS
from raft_diffusion.process.noise import TimeDraw

Preset = Literal["8gb", "12gb", "24gb", "80gb"]


@dataclass(frozen=True)
class TransformerLora:
    """Low-rank adapters on the denoiser; everything else stays frozen.

    Args:
        rank: of each update, ≥ 1.
        alpha: scale of the update is alpha / rank; null = the rank, so the scale is 1.
        targets: ends of the names of the linear layers that get an adapter, such as attn.to_q; null = the projections of every
            attention.
        seed: of the adapters' initial values.
        init: a LoRA to go on training: a .safetensors file of any trainer that the pipeline reads, or a folder with one. Its
            layers, ranks, alphas and values are taken over; rank, alpha and targets are then not set.
        before: what a run that goes on from init is compared with, and held to: init, that LoRA as it was read, or base, the
            model without it.
    """

    rank: int = 16
    alpha: float | None = None
    targets: Sequence[str] | None = None
    seed: int = 0
    init: str | None = None
    before: Literal["init", "base"] = "init"

    def __post_init__(self) -> None:
        mistakes = []
        if self.rank < 1:
            mistakes.append(f"lora.rank is {self.rank}, but at least 1 is needed; for full fine-tuning set lora to null")
        if self.rank > LARGEST_RANK:
            mistakes.append(f"lora.rank is {self.rank}, but at most {LARGEST_RANK} is possible")
        if self.alpha is not None and self.alpha <= 0:
            mistakes.append(f"lora.alpha is {self.alpha}, but must be positive")
        if self.targets is not None and not self.targets:
            mistakes.append("lora.targets is empty: nothing would be trained; null adapts every attention")
        if self.before == "base" and self.init is None:
            mistakes.append("lora.before is 'base', but without lora.init a run begins at the base anyway")
        if self.targets is not None:
            object.__setattr__(self, "targets", tuple(self.targets))  # lists of YAML, so that equal settings are equal
        mistakes += [
            f"lora.{name} is {getattr(self, name)!r}, but lora.init brings its own: leave lora.{name} out"
            for name in ("rank", "alpha", "targets")
            if self.init is not None and getattr(self, name) != type(self).__dataclass_fields__[name].default
        ]
        if mistakes:
            raise ConfigError(mistakes)

    @property
    def effective_alpha(self) -> float:
        return float(self.rank if self.alpha is None else self.alpha)


@dataclass(frozen=True)
class StochasticSteps:
    """Steps with noise of their own, so that each has a log-probability; for flow models. Without noise a step is Euler's.

    Args:
        kind: flow_grpo, dance or cps; what the deviation of a step is, and where its mean.
        noise: a of flow_grpo, η of dance, share of the circle's quarter of cps; > 0.
        first: of the steps with noise, counted from 0.
        count: how many of them there are; null = all to the last but one, for the last has no noise left.
    """

    kind: Literal["flow_grpo", "dance", "cps"] = "flow_grpo"
    noise: float = 0.7
    first: int = 0
    count: int | None = None

    def __post_init__(self) -> None:
        mistakes = []
        if self.noise <= 0:
            mistakes.append(f"sampling.stochastic.noise is {self.noise}, but must be positive; null draws without noise")
        if self.kind == "cps" and self.noise > 1:
            mistakes.append(f"sampling.stochastic.noise is {self.noise}, but with kind cps at most 1 is a share")
        if self.first < 0:
            mistakes.append(f"sampling.stochastic.first is {self.first}, but steps are counted from 0")
        if self.count is not None and self.count < 1:
            mistakes.append(f"sampling.stochastic.count is {self.count}, but at least one step needs noise")
        if mistakes:
            raise ConfigError(mistakes)

    def window(self, steps: int) -> range:
        """The steps with noise, of so many."""
        last = steps - 1 if self.count is None else min(self.first + self.count, steps - 1)
        return range(self.first, max(self.first, last))


@dataclass(frozen=True)
class PipelineSampling:
    """How pictures are drawn: by the pipeline itself, with these arguments.

    Args:
        steps: denoising steps per picture.
        guidance_scale: the pipeline's argument of this name: classifier-free guidance, or the scale that a guidance-distilled
            network is told; null = the pipeline's default.
        true_cfg_scale: of pipelines that have it beside guidance_scale (Flux, Qwen-Image): classifier-free guidance proper; at
            1 it is off.
        negative_prompt: what guidance pushes away from.
        width: of the picture in pixels; null = the pipeline's default.
        height: of the picture in pixels; null = the pipeline's default.
        batch_size: pictures denoised together.
        scheduler: a class of diffusers that can draw with a flow model, or dpm++, unipc, euler, heun; null = the model's own.
        options: further arguments of the scheduler.
        arguments: further arguments of the pipeline's call, such as max_sequence_length.
        stochastic: steps with noise, for samples that are drawn with a trace; null = such samples cannot be drawn.
    """

    steps: int = 28
    guidance_scale: float | None = None
    true_cfg_scale: float = 1.0
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    batch_size: int = 4
    scheduler: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    stochastic: StochasticSteps | None = None

    def __post_init__(self) -> None:
        mistakes = [
            f"sampling.{name} is {value}, but at least 1 is needed"
            for name in ("steps", "batch_size", "width", "height")
            if (value := getattr(self, name)) is not None and value < 1
        ]
        mistakes += [
            f"sampling.{name} is {value}, but at most {LARGEST_SIDE} pixels are possible"
            for name in ("width", "height")
            if (value := getattr(self, name)) is not None and value > LARGEST_SIDE
        ]
        mistakes += [
            f"sampling.{name} is {value}, but must not be negative"
            for name in ("guidance_scale", "true_cfg_scale")
            if (value := getattr(self, name)) is not None and value < 0
        ]
        if self.scheduler is not None and self.scheduler not in FLOW_SCHEDULERS and not self.scheduler.endswith("Scheduler"):
            mistakes.append(f"sampling.scheduler {self.scheduler!r} is not known{nearest(self.scheduler, FLOW_SCHEDULERS)}")
        mistakes += [
            f"sampling.arguments: {name} is set by {place}" for name, place in _SET_ELSEWHERE.items() if name in self.arguments
        ]
        if self.stochastic is not None and not self.stochastic.window(self.steps):
            mistakes.append(
                f"sampling.stochastic begins at step {self.stochastic.first}, but of {self.steps} steps only the first "
                f"{self.steps - 1} can have noise"
            )
        if mistakes:
            raise ConfigError(mistakes)

    @property
    def scheduler_class(self) -> str | None:
        """The class of diffusers that the scheduler's name stands for; None = the model's own."""
        return FLOW_SCHEDULERS.get(self.scheduler, self.scheduler) if self.scheduler is not None else None

    @property
    def guided(self) -> bool:
        """Whether a negative prompt may say something: pipelines differ in where guidance begins and in their defaults."""
        return self.true_cfg_scale > 1 or self.guidance_scale is None or self.guidance_scale > 0


#: Short names of schedulers that can draw with a flow model.
FLOW_SCHEDULERS: Mapping[str, str] = MappingProxyType(
    {
        "euler": "FlowMatchEulerDiscreteScheduler",
        "heun": "FlowMatchHeunDiscreteScheduler",
        "dpm++": SCHEDULERS["dpm++"],
        "unipc": SCHEDULERS["unipc"],
    }
)
_SET_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "num_inference_steps": "sampling.steps",
        "guidance_scale": "sampling.guidance_scale",
        "true_cfg_scale": "sampling.true_cfg_scale",
        "negative_prompt": "sampling.negative_prompt",
        "width": "sampling.width",
        "height": "sampling.height",
        "prompt": "the prompts",
        "generator": "the run's seed",
        "latents": "the run's seed",
        "output_type": "the toolkit",
        "return_dict": "the toolkit",
        "num_images_per_prompt": "k",
        "num_frames": "the toolkit: one frame is a picture",
    }
)


@dataclass(frozen=True)
class PipelineLoss:
    """What is minimised on a kept sample: the error of the network's prediction at a random time and noise.

    Args:
        times: how a flow's time σ, the share of noise, is drawn: uniform; logit_normal, which prefers the middle; inference,
            one of those at which sampling evaluates the network. Diffusion models draw uniformly from their timesteps.
        shift: of uniform and logit_normal times towards noise; null = the model's static shift, as diffusers' scripts have it.
        logit_mean: of logit_normal.
        logit_std: of logit_normal, > 0.
        weighting: of a flow's squared error: none; sigma_sqrt = 1/σ²; cosmap = 2/(π(1 − 2σ + 2σ²)); clean = σ², the error of
            the clean latents.
        caption_dropout: chance that a sample is trained without its prompt, which keeps guidance working.
        guided: train the guided prediction as it is sampled instead of the plain conditional one.
    """

    times: TimeDraw = "uniform"
    shift: float | None = None
    logit_mean: float = 0.0
    logit_std: float = 1.0
    weighting: Literal["none", "sigma_sqrt", "cosmap", "clean"] = "none"
    caption_dropout: float = 0.0
    guided: bool = False

    def __post_init__(self) -> None:
        mistakes = []
        if self.shift is not None and self.shift <= 0:
            mistakes.append(f"loss.shift is {self.shift}, but must be positive")
        if self.logit_std <= 0:
            mistakes.append(f"loss.logit_std is {self.logit_std}, but must be positive")
        if not 0 <= self.caption_dropout < 1:
            mistakes.append(f"loss.caption_dropout is {self.caption_dropout}, but must be in [0, 1)")
        if mistakes:
            raise ConfigError(mistakes)


@dataclass(frozen=True)
class PipelineMemory:
    """How the model is fitted into memory; the pictures stay the same up to rounding, unless weights are quantised.

    Args:
        preset: 8gb, 12gb, 24gb or 80gb of GPU memory: sets what is not set below. 80gb keeps everything on the device. 24gb
            offloads what a phase does not need, checkpoints gradients, decodes pictures one by one, and frees the text
            encoders. 12gb also quantises the frozen denoiser and the text encoders to 4 bits. 8gb decodes in tiles besides, and
            moves the denoiser to the device a group of blocks at a time.
        offload: keep on the device only what a phase needs.
        gradient_checkpointing: forget activations and compute them again in the backward pass.
        vae_slicing: decode pictures one by one.
        vae_tiling: decode large pictures in overlapping tiles.
        vae_float32: keep the VAE in float32 where the other weights are in half precision.
        quantization: of the frozen weights of denoiser and text encoders: nf4 or int8 by bitsandbytes (CUDA), int8wo by
            torchao; none = as they are. Needs a LoRA.
        text_encoders: keep, or free: they are loaded to encode prompts that are new, and dropped.
        prompt_cache: a folder in which embeddings are kept by content from run to run; null = in memory alone.
        group_offload: move the denoiser's blocks to the device one group at a time, by diffusers' own hooks.
    """

    preset: Preset | None = None
    offload: bool | None = None
    gradient_checkpointing: bool | None = None
    vae_slicing: bool | None = None
    vae_tiling: bool | None = None
    vae_float32: bool | None = None
    quantization: Literal["none", "nf4", "int8", "int8wo"] | None = None
    text_encoders: Literal["keep", "free"] | None = None
    prompt_cache: str | None = None
    group_offload: bool | None = None

    @property
    def resolved(self) -> PipelineMemory:
        """The same with every field set: its own value, else the preset's, else the default."""
        chosen = {**_DEFAULT_MEMORY, **(_PRESETS[self.preset] if self.preset else {})}
        own = {name: value for name in chosen if (value := getattr(self, name)) is not None}
        return replace(self, **(chosen | own))


_DEFAULT_MEMORY: Mapping[str, Any] = MappingProxyType(
    {
        "offload": True,
        "gradient_checkpointing": False,
        "vae_slicing": False,
        "vae_tiling": False,
        "vae_float32": False,
        "quantization": "none",
        "text_encoders": "keep",
        "group_offload": False,
    }
)
_24GB: Mapping[str, Any] = MappingProxyType(
    {"offload": True, "gradient_checkpointing": True, "vae_slicing": True, "text_encoders": "free"}
)
_PRESETS: Mapping[Preset, Mapping[str, Any]] = MappingProxyType(
    {
        "80gb": MappingProxyType({"offload": False}),
        "24gb": _24GB,
        "12gb": MappingProxyType({**_24GB, "quantization": "nf4"}),
        "8gb": MappingProxyType({**_24GB, "quantization": "nf4", "vae_tiling": True, "group_offload": True}),
    }
)
