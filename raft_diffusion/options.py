"""What a user sets about a Stable Diffusion: how it is adapted, sampled, trained, and fitted into memory.

These dataclasses are the configuration's schema, and their docstrings its help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from raft_core.errors import ConfigError, nearest

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut")
LARGEST_RANK = 4096  # of no layer of a Stable Diffusion could an update have more
LARGEST_SIDE = 16_384  # pixels

#: Short names of the usual schedulers; any class of ``diffusers`` can be named too.
SCHEDULERS: Mapping[str, str] = MappingProxyType(
    {
        "ddim": "DDIMScheduler",
        "ddpm": "DDPMScheduler",
        "dpm++": "DPMSolverMultistepScheduler",
        "euler": "EulerDiscreteScheduler",
        "euler_a": "EulerAncestralDiscreteScheduler",
        "heun": "HeunDiscreteScheduler",
        "lcm": "LCMScheduler",
        "pndm": "PNDMScheduler",
        "unipc": "UniPCMultistepScheduler",
    }
)


def _refuse(mistakes: Sequence[str]) -> None:
    if mistakes:
        raise ConfigError(mistakes)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on the U-Net, and on the text encoders if wished; everything else stays frozen.

    Args:
        rank: of each update, ≥ 1. More rank, more capacity and larger files.
        alpha: scale of the update is alpha / rank; null = the rank, so the scale is 1.
        targets: names of the U-Net's linear layers that get an adapter.
        conv: also adapt the convolutions of the residual blocks. Worth it when shapes have to change, not only style.
        text_encoder: also adapt attention in the text encoders. Embeddings are then computed anew at every step.
        seed: of the adapters' initial values.
        init: a LoRA to go on training: a .safetensors file of any trainer that diffusers reads, or a folder with one. Its
            layers, ranks, alphas and values are taken over; rank, alpha, targets, conv and text_encoder are then not set.
        before: what a run that goes on from init is compared with, and held to: init, that LoRA as it was read, or base, the
            model without it.
    """

    rank: int = 4
    alpha: float | None = None
    targets: Sequence[str] = ATTENTION
    conv: bool = False
    text_encoder: bool = False
    seed: int = 0
    init: str | None = None
    before: Literal["init", "base"] = "init"

    def __post_init__(self) -> None:
        mistakes = []
        if self.rank < 1:
            mistakes.append(f"lora.rank is {self.rank}, but at least 1 is needed; for full fine-tuning set lora to null")
        if self.rank > LARGEST_RANK:
            mistakes.append(f"lora.rank is {self.rank}, but at most {LARGEST_RANK} is possible; usual are 4 to 128")
        if self.alpha is not None and self.alpha <= 0:
            mistakes.append(f"lora.alpha is {self.alpha}, but must be positive")
        if not self.targets and not self.conv:
            mistakes.append("lora.targets is empty and lora.conv is off: nothing would be trained")
        if self.before == "base" and self.init is None:
            mistakes.append("lora.before is 'base', but without lora.init a run begins at the base anyway")
        object.__setattr__(self, "targets", tuple(self.targets))  # lists of YAML and JSON, so that equal settings are equal
        mistakes += [
            f"lora.{name} is {getattr(self, name)!r}, but lora.init brings its own: leave lora.{name} out, or give lora "
            "as a whole, {init: FILE}"
            for name in ("rank", "alpha", "targets", "conv", "text_encoder")
            if self.init is not None and getattr(self, name) != type(self).__dataclass_fields__[name].default
        ]
        _refuse(mistakes)

    @property
    def scale(self) -> float:
        """What the low-rank product is multiplied by."""
        return self.effective_alpha / self.rank

    @property
    def effective_alpha(self) -> float:
        return float(self.rank if self.alpha is None else self.alpha)

    @property
    def unet_targets(self) -> list[str]:
        return [*self.targets, *(CONVOLUTIONS if self.conv else ())]


@dataclass(frozen=True)
class MergedLora:
    """A LoRA that becomes part of the model.

    Args:
        file: a .safetensors file of any trainer that diffusers reads, or a folder with one.
        weight: how strongly it acts; 1 = as it was trained.
    """

    file: str
    weight: float = 1.0


@dataclass(frozen=True)
class Embedding:
    """A textual inversion: a word of one's own for the text encoders.

    Args:
        file: a .safetensors file, in diffusers' or A1111's layout; for SDXL with a vector for each text encoder.
        token: the word by which prompts call it, such as <my-cat>.
    """

    file: str
    token: str

    def __post_init__(self) -> None:
        if not self.token.strip() or any(letter.isspace() for letter in self.token):
            _refuse([f"token is {self.token!r}, but must be one word"])


@dataclass(frozen=True)
class Addons:
    """What is put into the model before it is trained. It stays as it is, and whoever uses what was trained needs it too.

    Args:
        vae: another autoencoder: a folder, ORGANISATION/NAME on the Hub, or a .safetensors file; null = the model's own.
        loras: LoRAs that are merged into the weights, each {file, weight}; what is trained comes on top.
        embeddings: textual inversions, each {file, token}.
    """

    vae: str | None = None
    loras: Sequence[MergedLora] = ()
    embeddings: Sequence[Embedding] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "loras", tuple(self.loras))
        object.__setattr__(self, "embeddings", tuple(self.embeddings))
        tokens = [embedding.token for embedding in self.embeddings]
        if twice := sorted({token for token in tokens if tokens.count(token) > 1}):
            _refuse([f"addons.embeddings names {twice[0]} twice"])


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn.

    Args:
        scheduler: a class of diffusers, or ddim, ddpm, dpm++, euler, euler_a, heun, lcm, pndm, unipc; null = the model's own.
        steps: denoising steps per picture.
        guidance_scale: classifier-free guidance; at 1 or below the unconditional pass is skipped.
        guidance_rescale: pull of the guided prediction's deviation towards the conditional one's, in [0, 1].
        negative_prompt: what guidance pushes away from.
        width: of the picture in pixels; null = what the model was trained at.
        height: of the picture in pixels; null = what the model was trained at.
        eta: share of fresh noise per DDIM step, 0 = deterministic; needs scheduler ddim. Traced sampling needs it above 0.
        batch_size: pictures denoised together.
        options: further arguments of the scheduler, such as use_karras_sigmas.
    """

    scheduler: str | None = "dpm++"
    steps: int = 25
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.0
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    eta: float = 0.0
    batch_size: int = 8
    options: Mapping[str, Any] = field(default_factory=dict)

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
            f"sampling.{name} is {value}, but must be in [0, 1]"
            for name in ("guidance_rescale", "eta")
            if not 0 <= (value := getattr(self, name)) <= 1
        ]
        if self.guidance_scale < 0:
            mistakes.append(f"sampling.guidance_scale is {self.guidance_scale}, but must not be negative")
        if self.eta > 0 and self.scheduler_class != "DDIMScheduler":
            mistakes.append(f"sampling.eta is {self.eta}, but only scheduler ddim knows eta; this one is {self.scheduler!r}")
        if self.scheduler is not None and self.scheduler not in SCHEDULERS and not self.scheduler.endswith("Scheduler"):
            mistakes.append(f"sampling.scheduler {self.scheduler!r} is not known{nearest(self.scheduler, SCHEDULERS)}")
        _refuse(mistakes)

    @property
    def scheduler_class(self) -> str | None:
        """The class of diffusers that the scheduler's name stands for; None = the model's own."""
        return SCHEDULERS.get(self.scheduler, self.scheduler) if self.scheduler is not None else None

    @property
    def guided(self) -> bool:
        return self.guidance_scale > 1


@dataclass(frozen=True)
class DenoisingLoss:
    """What is minimised on a kept sample: the error of the network's prediction at a random timestep and noise.

    Args:
        min_snr_gamma: cap of the signal-to-noise weight, usually 5; null = every timestep counts alike.
        noise_offset: deviation of an extra constant per channel in the noise; lets brightness change.
        caption_dropout: chance that a sample is trained without its prompt, which keeps guidance working.
        guided_scale: train the guided prediction at this guidance scale instead of the plain conditional one. Set it to the
            sampling's scale when samples are drawn with guidance over many rounds: training the plain prediction on
            guided samples and guiding again over-saturates them round after round.
    """

    min_snr_gamma: float | None = None
    noise_offset: float = 0.0
    caption_dropout: float = 0.0
    guided_scale: float | None = None

    def __post_init__(self) -> None:
        mistakes = []
        if self.min_snr_gamma is not None and self.min_snr_gamma <= 0:
            mistakes.append(f"loss.min_snr_gamma is {self.min_snr_gamma}, but must be positive, or null for no weighting")
        if self.noise_offset < 0:
            mistakes.append(f"loss.noise_offset is {self.noise_offset}, but must not be negative")
        if not 0 <= self.caption_dropout < 1:
            mistakes.append(f"loss.caption_dropout is {self.caption_dropout}, but must be in [0, 1)")
        if self.guided_scale is not None and self.guided_scale <= 1:
            mistakes.append(f"loss.guided_scale is {self.guided_scale}, but guidance begins above 1; null trains without")
        _refuse(mistakes)


@dataclass(frozen=True)
class Memory:
    """How the model is fitted into memory; the pictures stay the same up to rounding.

    Args:
        offload: on CUDA, keep on the device only what a phase needs: U-Net to sample and train, VAE to render.
        attention: sdpa (PyTorch's own) or xformers (CUDA only).
        gradient_checkpointing: forget activations and compute them again in the backward pass: less memory, a third more time.
        vae_slicing: decode pictures one by one.
        vae_tiling: decode large pictures in overlapping tiles.
        vae_float32: keep the VAE in float32 where the other frozen weights are in half precision, in which some overflow.
            SDXL's is kept so by itself wherever its configuration says force_upcast.
    """

    offload: bool = True
    attention: Literal["sdpa", "xformers"] = "sdpa"
    gradient_checkpointing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    vae_float32: bool = False
