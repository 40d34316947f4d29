"""A loaded pipeline, ready to work: its networks placed, adapted, and wrapped for sampling, training and decoding."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Literal

import torch

from raft_core.errors import DeviceError
from raft_core.models.reference import CopyReference
from raft_core.models.residency import Residency
from raft_core.types import Sample
from raft_diffusion.model import addons as additions
from raft_diffusion.model.backbone import Guidance, Predictor
from raft_diffusion.model.encoding import Condition, PromptEncoder
from raft_diffusion.model.folders import is_xl_unet
from raft_diffusion.model.loading import load_pipeline
from raft_diffusion.model.lora import AdapterReference, add_adapters, folded, put_adapters, trainable
from raft_diffusion.model.lora_file import ADAPTED, locate_lora
from raft_diffusion.options import Addons, Lora, Memory
from raft_diffusion.process.resolution import pixels_per_latent
from raft_diffusion.process.schedulers import noise_process


class Engine:
    """What exists only once the weights are loaded.

    Attributes:
        pipe: the diffusers pipeline.
        device: where networks work.
        dtype: of the frozen weights.
        networks: the U-Net and the text encoders by name; what is trained is among them.
        parameters: trained parameters by stable name, float32.
        reference: enters a context in which the networks are the frozen start.
        place: enters a context in which the named networks are on the device.
        encode: prompts to conditions.
        words: of each text encoder's vocabulary, without those that were added.
        process: the noise process that the model was trained by.
    """

    def __init__(
        self,
        pipe: Any,
        lora: Lora | None,
        memory: Memory,
        device: torch.device,
        dtype: torch.dtype,
        addons: Addons = Addons(),  # noqa: B008 - frozen
    ):
        self.pipe = pipe
        self.device = device
        self.dtype = dtype
        self.networks = {name: module for name in ADAPTED if (module := getattr(pipe, name, None)) is not None}
        self.words = {
            name: module.get_input_embeddings().num_embeddings for name, module in self.networks.items() if name != "unet"
        }
        additions.put_into(pipe, addons, self.networks, dtype)
        self.parameters = self._adapt(lora)
        self.trains_text = any(not name.startswith("unet.") for name in self.parameters)
        self._fit(memory)
        starts_at_base = lora is not None and (lora.init is None or lora.before == "base")
        self.reference = AdapterReference(self.networks) if starts_at_base else CopyReference(self.parameters)
        modules = {**self.networks, "vae": pipe.vae}
        self.place = Residency(modules, self.parameters.values(), device, offload=memory.offload)
        self.encode = PromptEncoder(pipe, lambda: self.place("text_encoder", "text_encoder_2"), device)
        self.process = noise_process(pipe.scheduler.config, device)
        self.pixels_per_latent = pixels_per_latent(pipe.vae.config)

    @classmethod
    def load(
        cls,
        model: str,
        lora: Lora | None,
        memory: Memory,
        device: torch.device,
        dtype: torch.dtype,
        variant: str | None,
        addons: Addons = Addons(),  # noqa: B008 - frozen
    ) -> Engine:
        """Load the pipeline and build the engine on it.

        Raises:
            ModelError: the model cannot be loaded or adapted.
        """
        return cls(load_pipeline(model, dtype, variant=variant), lora, memory, device, dtype, addons)

    def _adapt(self, lora: Lora | None) -> dict[str, torch.nn.Parameter]:
        for module in (*self.networks.values(), self.pipe.vae):
            module.requires_grad_(False)
            module.eval()
        self._folds = False
        if lora is None:
            self.networks["unet"].requires_grad_(True)
            for parameter in self.networks["unet"].parameters():
                parameter.data = parameter.data.float()
        else:
            self._folds = self.dtype == torch.float32
            if lora.init is None:
                add_adapters(self.networks, lora)
            else:
                put_adapters(self.networks, additions.read_fitting(locate_lora(lora.init), self.networks))
        return trainable(self.networks)

    def _fit(self, memory: Memory) -> None:
        # As diffusers has it: SDXL's pipelines obey the VAE's force_upcast in float16, the others do not know it.
        upcast = self.pipe.vae.config.force_upcast and self.encodes_size and self.dtype == torch.float16
        if upcast or memory.vae_float32:
            self.pipe.vae.to(torch.float32)
        for module in (self.networks["unet"], self.pipe.vae):
            module.to(
                memory_format=torch.channels_last
            )  # a tenth to a fifth faster on CPUs, and GPUs like it in half precision
        if memory.gradient_checkpointing:
            self.networks["unet"].enable_gradient_checkpointing()
        if memory.attention == "xformers":
            _use_xformers(self.networks["unet"])
        if memory.vae_slicing:
            self.pipe.vae.enable_slicing()
        if memory.vae_tiling:
            self.pipe.vae.enable_tiling()

    @property
    def encodes_size(self) -> bool:
        """Whether the U-Net is told the picture's size, as SDXL's is."""
        return is_xl_unet(self.networks["unet"].config)

    @property
    def family(self) -> Literal["sd1", "sd2", "sdxl"]:
        """SDXL is told the picture's size; SD 2.x reads OpenCLIP's text states, which are wider than SD 1.x's."""
        if self.encodes_size:
            return "sdxl"
        return "sd2" if self.networks["unet"].config.cross_attention_dim >= 1024 else "sd1"

    def latent_shape(self, width: int | None, height: int | None) -> tuple[int, int, int]:
        """(C, h, w) of a picture of so many pixels, by default of the size that the model was trained at."""
        config = self.networks["unet"].config
        size = config.sample_size
        rows, columns = size if isinstance(size, (list, tuple)) else (size, size)
        return (
            config.in_channels,
            height // self.pixels_per_latent if height else rows,
            width // self.pixels_per_latent if width else columns,
        )

    @property
    def embeds_guidance(self) -> bool:
        """Whether the U-Net is told the guidance scale, as latent consistency models are; then it takes one pass, not two."""
        return self.networks["unet"].config.time_cond_proj_dim is not None

    def predictor(self, latent_shape: Sequence[int], guidance_scale: float) -> Predictor:
        """The U-Net for latents of this shape (…, h, w); the scale is for one that is told it."""
        time_ids = embedded = None
        if self.encodes_size:
            height, width = (side * self.pixels_per_latent for side in latent_shape[-2:])
            time_ids = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=self.device)
        if self.embeds_guidance:
            width = self.networks["unet"].config.time_cond_proj_dim
            embedded = self.pipe.get_guidance_scale_embedding(torch.tensor([guidance_scale - 1.0]), width).to(self.device)
        return Predictor(self.networks["unet"], self.dtype, time_ids, embedded)

    def guidance(self, scale: float, rescale: float) -> Guidance:
        """Classifier-free guidance at this scale; none for a U-Net that is told the scale."""
        return Guidance(1.0 if self.embeds_guidance else scale, rescale)

    def drawing(self, *, trace: bool, reference: bool) -> contextlib.AbstractContextManager[None]:
        """The fastest weights to draw with; traced steps are drawn as they are trained, to be replayed to the last digit."""
        return folded(self.networks["unet"]) if self._folds and not (trace or reference) else contextlib.nullcontext()

    def conditions(self, texts: Sequence[str], *, negative: bool = False, reference: bool = False) -> Condition:
        """[B] conditions of prompts, on the device; with gradient while the text encoders learn."""
        learning = self.trains_text and not reference
        version = "reference" if self.trains_text and reference else "base"
        return self.encode(texts, negative=negative, version=version, keep=not learning)

    def describe(self) -> dict[str, Any]:
        """Plain facts that are known once the weights are there."""
        return {
            "pipeline": type(self.pipe).__name__,
            "prediction": self.process.prediction,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "parameters": sum(parameter.numel() for module in self.networks.values() for parameter in module.parameters()),
            "trained_parameters": sum(parameter.numel() for parameter in self.parameters.values()),
        }

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> list[Any]:
        """RGB pictures of latents [B, C, h, w]; None where a pixel is not finite."""
        vae = self.pipe.vae
        with self.place("vae"):
            scaled = latents.to(self.device, torch.float32) / vae.config.scaling_factor
            if getattr(vae.config, "latents_mean", None) is not None and vae.config.latents_std is not None:
                mean, std = (
                    scaled.new_tensor(values).view(1, -1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
                )
                scaled = scaled * std + mean
            pixels = vae.decode(scaled.to(vae.dtype), return_dict=False)[0].float()
            finite = pixels.isfinite().flatten(1).all(dim=1)
            postprocess = self.pipe.image_processor.postprocess
            pictures = iter(postprocess(pixels[finite], output_type="pil") if bool(finite.any()) else [])
            return [next(pictures) if good else None for good in finite.tolist()]

    @property
    def overflow_words(self) -> str:
        """Why a picture has pixels that are not finite though its latents are, and what may help."""
        dtype = self.pipe.vae.dtype
        words = "pixels are not finite, though the latents are"
        if dtype == torch.float32:
            return words
        return f"{words}: the VAE overflows in {str(dtype).removeprefix('torch.')}, set policy.memory.vae_float32"


def _use_xformers(unet: Any) -> None:
    try:
        unet.enable_xformers_memory_efficient_attention()
    except Exception as error:  # a broken installation fails in many ways: on import, without kernels, on a trial run
        raise DeviceError(
            f"memory.attention is xformers, which is installed but does not work here ({type(error).__name__}: {error}): "
            "install the version that was built for this torch and CUDA, or use sdpa"
        ) from error


def stacked_latents(samples: Sequence[Sample]) -> torch.Tensor:
    """[B, C, h, w] of samples that were drawn at one size."""
    return torch.stack([sample.tensors["latents"] for sample in samples])
