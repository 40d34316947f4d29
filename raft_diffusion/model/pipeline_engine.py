"""A loaded pipeline of any family: sampled and decoded by its own call, trained by its network's calls made again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.models.reference import CopyReference
from raft_core.models.residency import Residency
from raft_diffusion.model import pipelines, recording
from raft_diffusion.model.lora import AdapterReference, trainable
from raft_diffusion.model.pipeline_calls import FIXED, PROBE, PipelineCalls, Wish
from raft_diffusion.model.pipelines import Description
from raft_diffusion.model.quantization import quantization_configs
from raft_diffusion.model.text_encoders import TextEncoders
from raft_diffusion.model.texts import PromptMemory, identity_of
from raft_diffusion.model.transformer_lora import add_adapter, put_adapter
from raft_diffusion.pipeline_options import PipelineLoss, PipelineMemory, PipelineSampling, TransformerLora
from raft_diffusion.process.flow_schedulers import carried_settings, make_flow_scheduler, process_of
from raft_diffusion.process.noise import RectifiedFlow


class PipelineEngine:
    """What exists only once the weights are loaded.

    Attributes:
        pipe: the diffusers pipeline.
        description: its configuration files.
        device: where networks work.
        dtype: of the frozen weights.
        networks: the denoiser by its name in the pipeline.
        parameters: trained parameters by stable name, float32.
        reference: enters a context in which the denoiser is the frozen start.
        place: enters a context in which the named networks are on the device.
        calls: the pipeline's and the network's.
        process: the noise process that the model was trained by.
    """

    def __init__(
        self,
        description: Description,
        lora: TransformerLora | None,
        sampling: PipelineSampling,
        loss: PipelineLoss,
        memory: PipelineMemory,
        device: torch.device,
        dtype: torch.dtype,
        variant: str | None = None,
    ):
        """Load the pipeline, adapt it, and learn how it calls its network.

        Raises:
            ModelError: it cannot be loaded, adapted, or called again.
        """
        self.description = description
        self.device = device
        self.dtype = dtype
        self._sampling = sampling
        self._memory = memory = memory.resolved
        self._variant = variant
        self._quantization = quantization_configs(memory.quantization or "none", description, dtype)
        frees = memory.text_encoders == "free"
        without = description.text_encoders if frees else ()
        pipe = pipelines.load_pipeline(description, dtype, variant, without=without, quantization=self._quantization)
        self.pipe = _working_on(pipe, device)
        self._own_scheduler = dict(pipe.scheduler.config)
        pipe.scheduler = make_flow_scheduler(pipe.scheduler.config, sampling)
        self.networks = {description.denoiser: getattr(pipe, description.denoiser)}
        self.parameters = self._adapt(lora)
        self._fit(memory)
        starts_at_base = lora is not None and (lora.init is None or lora.before == "base")
        self.reference = AdapterReference(self.networks) if starts_at_base else CopyReference(self.parameters)
        self.place = self._residency(memory)
        folder = Path(memory.prompt_cache).expanduser() if memory.prompt_cache else None
        read_by = [description.folder / name for name in (*description.text_encoders, *description.tokenizers)]
        identity = f"{description.pipeline} {dtype} {memory.quantization} {identity_of(read_by)}" if folder else ""
        loaders = {name: functools.partial(self._encoder, name) for name in description.text_encoders}
        self._text_encoders = TextEncoders(pipe, loaders, None if frees else self.place, device)
        self.texts = PromptMemory(pipe, self._text_encoders, device, folder, identity)
        self._sigmas: dict[tuple[int | None, int | None], torch.Tensor] = {}
        placed = functools.partial(self.place, description.denoiser)
        self.calls = PipelineCalls(pipe, self.denoiser, sampling, placed, self._text_encoders.holding)
        self.process = process_of(pipe.scheduler.config, loss, self.sampling_sigmas, device)

    # ------------------------------------------------------------------ building

    @property
    def denoiser(self) -> Any:
        return self.networks[self.description.denoiser]

    def _adapt(self, lora: TransformerLora | None) -> dict[str, torch.nn.Parameter]:
        for module in (*self.networks.values(), self.pipe.vae, *self._encoders_there()):
            module.requires_grad_(False)
            module.eval()
        if lora is None:
            self.denoiser.requires_grad_(True)
            for parameter in self.denoiser.parameters():
                parameter.data = parameter.data.float()
        elif lora.init is None:
            add_adapter(self.denoiser, lora)
        else:
            put_adapter(self.pipe, self.networks, lora.init)
        return trainable(self.networks)

    def _encoders_there(self) -> list[Any]:
        return [module for name in self.description.text_encoders if (module := getattr(self.pipe, name)) is not None]

    def _fit(self, memory: PipelineMemory) -> None:
        if memory.vae_float32:
            self.pipe.vae.to(torch.float32)
        if memory.gradient_checkpointing:
            self.denoiser.enable_gradient_checkpointing()
        for wanted, method in ((memory.vae_slicing, "enable_slicing"), (memory.vae_tiling, "enable_tiling")):
            if wanted and hasattr(self.pipe.vae, method):
                getattr(self.pipe.vae, method)()

    def _residency(self, memory: PipelineMemory) -> Residency:
        modules = {name: module for name in self.description.configs if (module := getattr(self.pipe, name)) is not None}
        quantized = self._quantization.keys() if self._quantization else set()
        movable = {name: module for name, module in modules.items() if name not in quantized}
        if memory.group_offload and self.device.type == "cuda":
            from diffusers.hooks import apply_group_offloading

            denoiser = self.description.denoiser
            apply_group_offloading(
                self.denoiser, self.device, torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1
            )
            movable.pop(denoiser, None)
        for name in modules.keys() & quantized if not self._by_bitsandbytes else ():
            modules[name].to(self.device)  # and not back and forth
        return Residency(movable, self.parameters.values(), self.device, offload=bool(memory.offload))

    def _encoder(self, name: str) -> Any:
        module = pipelines.load_network(self.description, name, self.dtype, self._variant, self._quantization)
        return module if self._by_bitsandbytes else module.to(self.device)

    @property
    def _by_bitsandbytes(self) -> bool:
        """Whether networks are put on the device as they are loaded, and cannot be moved."""
        return self._memory.quantization in ("nf4", "int8")

    # ------------------------------------------------------------------ calls of the pipeline

    @torch.no_grad()
    def draw(
        self, wishes: Sequence[Wish], seeds: Sequence[int], on_step: Callable[[int, int], None] | None = None
    ) -> list[torch.Tensor]:
        """Final latents of each picture, float32 on the CPU, as the pipeline keeps them."""
        found: dict[int, torch.Tensor] = {}
        for places in self.calls.groups(wishes, guided=True):
            run = self.calls.run([wishes[place] for place in places], [seeds[place] for place in places])
            told = _counting(on_step, self._sampling.steps)
            latents = recording.final_latents(self.pipe, run, told)
            found |= dict(zip(places, latents.float().cpu(), strict=True))
        return [found[place] for place in range(len(wishes))]

    def sampling_sigmas(self, wish: Wish | None = None) -> torch.Tensor:
        """[S + 1] float32 shares of noise of a flow's sampling, the last one 0, by the pipeline's own schedule."""
        wish = wish or Wish(PROBE, "", self._sampling.width, self._sampling.height)
        size = wish.width, wish.height
        if size not in self._sigmas:
            self.calls.initial([wish], [0])
            self._sigmas[size] = self._checked_sigmas()
        return self._sigmas[size]

    def _checked_sigmas(self) -> torch.Tensor:
        sigmas = self.pipe.scheduler.sigmas.float().cpu()
        if len(sigmas) != self._sampling.steps + 1 or not bool((sigmas.diff() < 0).all()):
            raise ModelError(
                f"sampling.scheduler: {type(self.pipe.scheduler).__name__} does not step once for each of its times; use euler"
            )
        return sigmas

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, wishes: Sequence[Wish]) -> list[Any]:
        """RGB pictures of latents [B, …] of one size; None where a pixel is not finite."""
        stand_ins = [Wish(PROBE, "", wishes[0].width, wishes[0].height)] * len(wishes)
        guided = self.calls.guided.parts == 1
        with self.place("vae"):
            self.calls.prepare(stand_ins, guided=guided)
            run = self.calls.run(stand_ins, [0] * len(wishes), guided=guided, output="pil")
            learnt = self.calls.guided if guided else self.calls.plain
            made, finite = recording.decoded(self.pipe, self.denoiser, run, learnt.zeros, latents.to(self.device))
        pictures = made[0]
        pictures = [each[0] if isinstance(each, (list, tuple)) else each for each in pictures]  # of a video its one frame
        return [picture.convert("RGB") if good else None for picture, good in zip(pictures, finite.tolist(), strict=True)]

    # ------------------------------------------------------------------ facts

    @property
    def is_flow(self) -> bool:
        return isinstance(self.process, RectifiedFlow)

    def describe(self) -> dict[str, Any]:
        """Plain facts that are known once the weights are there."""
        return {
            "pipeline": self.description.pipeline,
            "prediction": self.process.prediction,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "parameters": sum(parameter.numel() for parameter in self.denoiser.parameters()),
            "trained_parameters": sum(parameter.numel() for parameter in self.parameters.values()),
            "evaluations_per_step": self.calls.guided.parts,
            "network": self.description.denoiser,
            "loads_lora": hasattr(type(self.pipe), "load_lora_weights"),
            "video": "num_frames" in self.calls.accepted,
            "call": {name: value for name, value in FIXED.items() if name in self.calls.accepted},
            "carried": dict(carried_settings(self._own_scheduler, self._sampling)),
        }

    @property
    def overflow_words(self) -> str:
        """Why a picture has pixels that are not finite, and what may help."""
        words = "pixels are not finite"
        if self.pipe.vae.dtype == torch.float32:
            return words
        dtype = str(self.pipe.vae.dtype).removeprefix("torch.")
        return f"{words}: where the latents are, the VAE overflows in {dtype}, set policy.memory.vae_float32"


def _working_on(pipe: Any, device: torch.device) -> Any:
    """The same pipeline, which takes ``device`` for the place of work wherever its networks happen to be."""
    cls = type(pipe)
    pipe.__class__ = type(cls.__name__, (cls,), {"_execution_device": property(lambda _: device), "__module__": cls.__module__})
    return pipe


def _counting(on_step: Callable[[int, int], None] | None, steps: int) -> Callable[[int], None] | None:
    return None if on_step is None else lambda done: on_step(done, steps)
