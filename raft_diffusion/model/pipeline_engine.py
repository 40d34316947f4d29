"""A loaded pipeline of any family: sampled and decoded by its own call, trained by its network's calls made again."""

from __future__ import annotations

import contextlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.models.reference import CopyReference
from raft_core.models.residency import Residency
from raft_core.rng import torch_rng
from raft_diffusion.model import calling, pipelines, recording
from raft_diffusion.model.calling import Calling
from raft_diffusion.model.lora import AdapterReference, trainable
from raft_diffusion.model.pipelines import Description
from raft_diffusion.model.quantization import quantization_configs
from raft_diffusion.model.recording import Step
from raft_diffusion.model.texts import PromptMemory, identity_of
from raft_diffusion.model.transformer_lora import add_adapter, put_adapter
from raft_diffusion.pipeline_options import PipelineLoss, PipelineMemory, PipelineSampling, TransformerLora
from raft_diffusion.process.flow_schedulers import carried_settings, make_flow_scheduler, process_of
from raft_diffusion.process.noise import RectifiedFlow

#: Calls kept at most, each with the embeddings of a batch.
CALLS_KEPT = 16
PROBE = "a picture"
#: Arguments that every call has, where the pipeline takes them: a picture of the size that is asked for.
_FIXED = {"num_frames": 1, "use_resolution_binning": False}


@dataclass(frozen=True)
class Wish:
    """What one picture is asked to be: all that a call depends on besides the noise.

    Attributes:
        prompt: the text.
        negative: what guidance pushes away from.
        width: in pixels; None = the pipeline's default.
        height: the same.
    """

    prompt: str
    negative: str = ""
    width: int | None = None
    height: int | None = None


Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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
        self._frees = memory.text_encoders == "free"
        self._held = 0
        without = description.text_encoders if self._frees else ()
        pipe = pipelines.load_pipeline(description, dtype, variant, without=without, quantization=self._quantization)
        self.pipe = _working_on(pipe, device)
        self._accepted = inspect.signature(type(pipe).__call__).parameters
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
        self.texts = PromptMemory(pipe, self._text_encoders, device, folder, identity)
        self._calls: OrderedDict[tuple[Any, ...], Step] = OrderedDict()
        self._shapes: dict[tuple[Wish, bool], Any] = {}
        self._sigmas: dict[tuple[int | None, int | None], torch.Tensor] = {}
        self._off: Mapping[str, float] = {}
        self._learn()
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

    @contextlib.contextmanager
    def _text_encoders(self) -> Iterator[None]:
        """Inside, the text encoders are there and on the device; loaded for it where they are not kept."""
        names = self.description.text_encoders
        if not self._frees:
            with self.place(*names):
                yield
            return
        with self._holding():
            for name in names:
                if getattr(self.pipe, name) is None:
                    setattr(self.pipe, name, self._encoder(name))
            yield

    def _encoder(self, name: str) -> Any:
        module = pipelines.load_network(self.description, name, self.dtype, self._variant, self._quantization)
        return (module if self._by_bitsandbytes else module.to(self.device)).eval()

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        """Inside, text encoders that have been loaded stay; after the outermost of these they are dropped."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._held == 0 and self._frees and self._encoders_there():
                for name in self.description.text_encoders:
                    setattr(self.pipe, name, None)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    @property
    def _by_bitsandbytes(self) -> bool:
        """Whether networks are put on the device as they are loaded, and cannot be moved."""
        return self._memory.quantization in ("nf4", "int8")

    def _learn(self) -> None:
        """Record two steps with guidance and without, and prove that they can be made again.

        Raises:
            ModelError: they cannot; says what differs.
        """
        sampling, name = self._sampling, self.description.pipeline
        scales = {sampling.true_cfg_scale, self.guidance_scale or 0.0} - {0.0}
        try:
            self.guided_calling = self._learnt(True, sorted(scales))
            if self.guided_calling.parts == 1:
                self.plain_calling = self.guided_calling
                return
            for scale in (1.0, 0.0):  # guidance ends at 1 for most, at 0 for those that count from there
                self._off = {"guidance_scale": scale}
                self.plain_calling = self._learnt(False, [scale])
                if self.plain_calling.parts == 1:
                    return
        except ModelError as error:
            raise ModelError(f"model: {self.description.folder} is a {name}, which cannot be trained here: {error}") from error
        raise ModelError(
            f"model: {name} takes several predictions per step even without guidance, which cannot be trained here"
        )

    @torch.no_grad()
    def _learnt(self, guided: bool, scales: Sequence[float]) -> Calling:
        wishes = [Wish(PROBE, "", self._sampling.width, self._sampling.height)] * 2
        run = self._run(wishes, [0, 1], guided=guided)
        recording.encode_only(self.denoiser, run)  # so that text encoders and denoiser are not on the device together
        with self.place(self.description.denoiser):
            steps = recording.record(self.pipe, self.denoiser, run, 2)
            if len(steps) < 2:
                raise ModelError("its pipeline took fewer than two steps; set sampling.steps to at least 2")
            found = calling.learn(steps, scales)
            calling.require_replay(found, self.denoiser, steps)
        return found

    # ------------------------------------------------------------------ calls of the pipeline

    @property
    def guidance_scale(self) -> float | None:
        """The pipeline's argument, or its default; None where it takes none or has none."""
        default = getattr(self._accepted.get("guidance_scale"), "default", None)
        return self._sampling.guidance_scale if self._sampling.guidance_scale is not None else default

    @property
    def embeds_guidance(self) -> bool:
        """Whether the network is told the guidance scale."""
        return bool(self.denoiser.config.get("guidance_embeds", False))

    def _guidance(self, guided: bool) -> dict[str, Any]:
        """Arguments by which the pipeline guides, or does not; a scale that the network is told stays what it is."""
        found: dict[str, Any] = {}
        two = "true_cfg_scale" in self._accepted
        if two:
            found["true_cfg_scale"] = self._sampling.true_cfg_scale if guided else 1.0
        if "guidance_scale" in self._accepted and self._sampling.guidance_scale is not None:
            found["guidance_scale"] = self._sampling.guidance_scale
        if not guided and not two and not self.embeds_guidance:
            found |= self._off
        return found

    def _run(
        self, wishes: Sequence[Wish], seeds: Sequence[int], *, guided: bool = True, output: str = "latent"
    ) -> Callable[[], Any]:
        """A call of the pipeline for pictures of one size."""
        sampling = self._sampling
        size = {name: value for name in ("width", "height") if (value := getattr(wishes[0], name)) is not None}
        offered: dict[str, Any] = {"negative_prompt": [wish.negative for wish in wishes], **_FIXED}
        if not guided or ("true_cfg_scale" in self._accepted and sampling.true_cfg_scale <= 1):
            del offered["negative_prompt"]
        return lambda: self.pipe(
            prompt=[wish.prompt for wish in wishes],
            num_inference_steps=sampling.steps,
            generator=[torch_rng(seed) for seed in seeds],
            output_type=output,
            return_dict=False,
            **self._guidance(guided),
            **size,
            **{name: value for name, value in offered.items() if name in self._accepted},
            **sampling.arguments,
        )

    def calls(self, wishes: Sequence[Wish], *, guided: bool) -> Step:
        """The calls of the network in a step for these pictures, without an evaluation; of equal shapes."""
        key = (tuple(wishes), guided)
        if key not in self._calls:
            learnt = self.guided_calling if guided else self.plain_calling
            run = self._run(wishes, [0] * len(wishes), guided=guided)
            self._calls[key] = recording.first_calls(self.pipe, self.denoiser, run, learnt.zeros)
        self._calls.move_to_end(key)
        while len(self._calls) > CALLS_KEPT:
            self._calls.popitem(last=False)
        return self._calls[key]

    def prepare(self, wishes: Sequence[Wish], *, guided: bool) -> None:
        """Encode what is new among the prompts, while the text encoders are there once."""
        new = [wish for wish in dict.fromkeys(wishes) if (wish, guided) not in self._shapes]
        if not new:
            return
        with torch.no_grad(), self._holding():
            for wish in new:
                step = self.calls([wish], guided=guided)
                self._shapes[wish, guided] = _shapes_of(step)

    def groups(self, wishes: Sequence[Wish], *, guided: bool) -> list[list[int]]:
        """Places of pictures that make a batch: those whose calls have equal shapes. Nothing is padded to another's length."""
        self.prepare(wishes, guided=guided)
        found: dict[Any, list[int]] = {}
        for place, wish in enumerate(wishes):
            found.setdefault(self._shapes[wish, guided], []).append(place)
        return list(found.values())

    def predictor(self, wishes: Sequence[Wish], *, guided: bool) -> Predict:
        """(x [B, …], the scheduler's timesteps [B]) → what the scheduler would be given, [B, …] float32."""
        groups = self.groups(wishes, guided=guided)
        learnt = self.guided_calling if guided else self.plain_calling
        with torch.no_grad():
            steps = [self.calls([wishes[place] for place in places], guided=guided) for places in groups]

        def predict(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            if len(groups) == 1:
                return learnt.predict(self.denoiser, steps[0].calls, x, timestep)
            rows: dict[int, torch.Tensor] = {}
            for places, step in zip(groups, steps, strict=True):
                part = torch.tensor(places, device=x.device)
                rows |= dict(zip(places, learnt.predict(self.denoiser, step.calls, x[part], timestep[part]), strict=True))
            return torch.stack([rows[place] for place in range(len(wishes))])

        return predict

    @torch.no_grad()
    def draw(
        self, wishes: Sequence[Wish], seeds: Sequence[int], on_step: Callable[[int, int], None] | None = None
    ) -> list[torch.Tensor]:
        """Final latents of each picture, float32 on the CPU, as the pipeline keeps them."""
        found: dict[int, torch.Tensor] = {}
        for places in self.groups(wishes, guided=True):
            run = self._run([wishes[place] for place in places], [seeds[place] for place in places])
            told = _counting(on_step, self._sampling.steps)
            latents = recording.final_latents(self.pipe, run, told)
            found |= dict(zip(places, latents.float().cpu(), strict=True))
        return [found[place] for place in range(len(wishes))]

    @torch.no_grad()
    def initial(self, wishes: Sequence[Wish], seeds: Sequence[int]) -> torch.Tensor:
        """[B, …] the noise from which the pipeline begins, in its own precision, of pictures of one size."""
        run = self._run(wishes, seeds)
        return recording.first_calls(self.pipe, self.denoiser, run, self.guided_calling.zeros).x

    def sampling_sigmas(self, wish: Wish | None = None) -> torch.Tensor:
        """[S + 1] float32 shares of noise of a flow's sampling, the last one 0, by the pipeline's own schedule."""
        wish = wish or Wish(PROBE, "", self._sampling.width, self._sampling.height)
        size = wish.width, wish.height
        if size not in self._sigmas:
            self.initial([wish], [0])
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
        guided = self.guided_calling.parts == 1
        with self.place("vae"):
            self.prepare(stand_ins, guided=guided)
            run = self._run(stand_ins, [0] * len(wishes), guided=guided, output="pil")
            learnt = self.guided_calling if guided else self.plain_calling
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
            "evaluations_per_step": self.guided_calling.parts,
            "network": self.description.denoiser,
            "loads_lora": hasattr(type(self.pipe), "load_lora_weights"),
            "video": "num_frames" in self._accepted,
            "call": {name: value for name, value in _FIXED.items() if name in self._accepted},
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


def _shapes_of(step: Step) -> Any:
    """Shapes of all that a call is told, by which calls are put into one batch."""
    return tuple(
        (place, tuple(value.shape) if isinstance(value, torch.Tensor) else tuple(tuple(item.shape) for item in value))
        for call in step.calls
        for place, value in calling.arguments(call)
    )
