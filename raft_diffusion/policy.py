"""Stable Diffusion as a policy: asked for pictures, trained on the latents that it drew."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from raft_core.capabilities import NllUnit
from raft_core.errors import ConfigError, DeviceError, ModelError
from raft_core.machine.devices import resolve_device
from raft_core.protocols import Phase, Purpose
from raft_core.rng import torch_rng
from raft_core.sampling import chunks
from raft_core.soundness import examined, render_sound
from raft_core.types import Prompt, Request, Sample
from raft_diffusion.export import files as export
from raft_diffusion.export import merged
from raft_diffusion.model import addons as additions
from raft_diffusion.model import device as hardware
from raft_diffusion.model import loading
from raft_diffusion.model.encoding import Condition, visible_text
from raft_diffusion.model.engine import Engine, stacked_latents
from raft_diffusion.model.features import pixel_features
from raft_diffusion.model.folders import Configs
from raft_diffusion.model.written import encoded, fitted, latent_space
from raft_diffusion.options import Addons, DenoisingLoss, Lora, Memory, Sampling
from raft_diffusion.process import denoise, resolution, schedulers, wishes
from raft_diffusion.process.noise import noised, target
from raft_diffusion.process.sampler import Predict, Trajectory, noise_like, replay
from raft_diffusion.process.sampler import denoise as run_denoising
from raft_diffusion.process.schedulers import make_scheduler
from raft_diffusion.process.stages import denoise_in_stages, stage_steps

_NEEDED: Mapping[Phase, tuple[str, ...]] = {"sample": ("unet",), "render": ("vae",), "train": ("unet",)}


@dataclass(frozen=True, eq=False)
class Draw:
    """The randomness of one training pass, on the CPU.

    Attributes:
        timestep: [B] int64.
        noise: [B, C, h, w] float32.
        dropped: [B] bool, samples that are trained without their prompt.
    """

    timestep: torch.Tensor
    noise: torch.Tensor
    dropped: torch.Tensor


class StableDiffusion:
    """Stable Diffusion 1.x, 2.x or SDXL on diffusers.

    Args:
        model: bundled:NAME, a folder, a .safetensors file, or ORGANISATION/NAME on the Hub.
        lora: what is trained; null = full fine-tuning of the U-Net.
        sampling: how pictures are drawn.
        loss: what is minimised on kept pictures.
        memory: how the model is fitted into memory.
        device: auto, cpu, cuda or cuda:N.
        dtype: of the frozen weights; auto = half precision on CUDA, float32 elsewhere. Trained parameters are float32 always.
        variant: which of a folder's or Hub repository's weight files, such as fp16.
        addons: what is put into the model before it is trained: a VAE, LoRAs, textual inversions.

    Attributes:
        on_step: told, after each denoising step, how many are done and of how many; nobody by default.
    """

    modality = "image"
    nll_unit: NllUnit = "error"
    on_step: Callable[[int, int], None] | None = None

    def __init__(
        self,
        model: str,
        lora: Lora | None = Lora(),  # noqa: B008 - frozen
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        loss: DenoisingLoss = DenoisingLoss(),  # noqa: B008 - frozen
        memory: Memory = Memory(),  # noqa: B008 - frozen
        device: str = "auto",
        dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto",
        variant: str | None = None,
        addons: Addons = Addons(),  # noqa: B008 - frozen
    ):
        self.model = model
        self.lora = lora
        self.sampling = sampling
        self.loss = loss
        self.memory = memory
        self.device = device
        self.dtype = dtype
        self.variant = variant
        self.addons = addons
        self.batch_size = sampling.batch_size
        self._engine: Engine | None = None
        self._tokenizers: list[Any] | None = None

    def check(self) -> list[str]:
        found = hardware.mistakes(self.device, self.dtype, self.memory.attention)
        try:
            place, where = loading.locate(self.model)
        except ModelError as error:
            return [*found, str(error)]
        if problems := loading.mistakes(place, where, self.variant):
            return [*found, *problems]
        return found + self._mistakes(loading.find_configs(place, where))

    def _mistakes(self, configs: Configs | None) -> list[str]:
        """What the model cannot draw as asked, or be given; without its configurations, what no model can."""
        return self._sampling_mistakes(configs) + additions.mistakes(
            self.addons, self.lora.init if self.lora else None, configs
        )

    def _sampling_mistakes(self, configs: Configs | None) -> list[str]:
        if configs is None:
            return schedulers.mistakes(self.sampling, None)
        sizes = {"width": self.sampling.width, "height": self.sampling.height}
        return [
            *resolution.mistakes(sizes, configs.vae, configs.unet),
            *schedulers.mistakes(self.sampling, configs.scheduler),
        ]

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """Prompts whose rows ask for what cannot be drawn: sizes, and negative prompts where there is no guidance."""
        try:
            configs = loading.find_configs(*loading.locate(self.model))
        except ModelError:  # told by ``check``
            return []
        known = ({}, {}) if configs is None else (configs.vae, configs.unet)
        return wishes.mistakes(train, held_out, self.sampling, *known)

    def load(self) -> None:
        """Load the weights, and add adapters: fresh ones, or those of ``lora.init``.

        Raises:
            ModelError: the model cannot be loaded, adapted or sampled as asked.
            ConfigError: it cannot draw what is asked for.
            DeviceError: the hardware cannot do what is asked.
        """
        if found := hardware.mistakes(self.device, self.dtype, self.memory.attention):
            raise DeviceError("; ".join(found))
        device = resolve_device(self.device)
        dtype = hardware.pick_dtype(self.dtype, device)
        configs = loading.fetch_configs(self.model, self.variant)
        if found := additions.mistakes(self.addons, self.lora.init if self.lora else None, configs):
            raise ModelError("; ".join(found))
        self._require_drawable(configs)
        engine = Engine.load(self.model, self.lora, self.memory, device, dtype, self.variant, self.addons)
        pipe = engine.pipe  # its configurations again: those of a single file are known only now
        self._require_drawable(Configs(pipe.unet.config, pipe.vae.config, pipe.scheduler.config))
        self._engine = engine
        self._tokenizers = list(engine.encode.tokenizers())

    def _require_drawable(self, configs: Configs | None) -> None:
        if found := self._sampling_mistakes(configs):
            raise ConfigError(found)
        if configs is not None:
            make_scheduler(configs.scheduler, self.sampling)  # refuses a number of steps now, not in the first round

    @property
    def engine(self) -> Engine:
        """The loaded pipeline and what wraps it.

        Raises:
            ModelError: ``load`` has not been called.
        """
        if self._engine is None:
            raise ModelError(f"the model {self.model} is not loaded yet: call load() first")
        return self._engine

    def visible(self, text: str) -> str:
        if self._tokenizers is None:
            self._tokenizers = loading.load_tokenizers(self.model)
        return min((visible_text(tokenizer, text, self._read_by(tokenizer)) for tokenizer in self._tokenizers), key=len)

    def _read_by(self, tokenizer: Any) -> Callable[[str], str]:
        """How a prompt is read: with the vectors of added words one by one."""
        if self._engine is None or not self.addons.embeddings:
            return str
        pipe = self._engine.pipe
        return lambda text: pipe.maybe_convert_prompt(text, tokenizer)

    def sample(
        self, requests: Sequence[Request], *, purpose: Purpose = "use", strength: float = 1.0, trace: bool = False
    ) -> list[Sample]:
        if trace:
            self._require_log_probs()
        reference = strength == 0
        engine = self.engine
        drawing = engine.drawing(trace=trace, reference=reference)
        drawn: dict[int, Sample] = {}
        with torch.no_grad(), self._weights(strength), engine.place("unet"), drawing:
            for size, places in wishes.grouped([wishes.size_of(r.prompt, self.sampling) for r in requests]).items():
                part = [requests[place] for place in places]
                drawn |= dict(zip(places, self._drawn(part, engine.latent_shape(*size), trace, reference), strict=True))
        return [drawn[place] for place in range(len(requests))]

    def _drawn(self, requests: Sequence[Request], shape: tuple[int, int, int], trace: bool, reference: bool) -> list[Sample]:
        """Samples of one size."""
        engine = self.engine
        latents, trajectory = run_denoising(
            self._predict([request.prompt for request in requests], shape, reference),
            make_scheduler(engine.pipe.scheduler.config, self.sampling),
            [request.seed for request in requests],
            shape,
            self.sampling,
            device=engine.device,
            trace=trace,
            on_step=self.on_step,
        )
        meta = {"steps": self.sampling.steps, "guidance_scale": self.sampling.guidance_scale}
        return [
            Sample(request, tensors={"latents": row, **_traced(trajectory, index)}, meta=meta)
            for index, (request, row) in enumerate(zip(requests, latents, strict=True))
        ]

    def check_stages(self, at: Sequence[float]) -> list[str]:
        """Too few steps to look in between, and schedulers that tell nothing of the way."""
        if len(stage_steps(at, self.sampling.steps)) < len(at) or self.sampling.steps < 2:
            return [f"sampling.steps is {self.sampling.steps}, too few for {len(at)} looks on the way at {list(at)}"]
        return []

    def sample_in_stages(
        self,
        requests: Sequence[Request],
        at: Sequence[float],
        goes_on: Callable[[Sequence[Sample]], Sequence[bool]],
        *,
        trace: bool = False,
    ) -> list[Sample]:
        if trace:
            self._require_log_probs()
        engine = self.engine
        drawn: dict[int, Sample] = {}
        with torch.no_grad(), engine.place("unet"), engine.drawing(trace=trace, reference=False):
            for size, places in wishes.grouped([wishes.size_of(r.prompt, self.sampling) for r in requests]).items():
                part = [requests[place] for place in places]
                samples = self._drawn_in_stages(part, engine.latent_shape(*size), at, goes_on, trace)
                drawn |= dict(zip(places, samples, strict=True))
        return [drawn[place] for place in range(len(requests))]

    def _drawn_in_stages(
        self,
        requests: Sequence[Request],
        shape: tuple[int, int, int],
        at: Sequence[float],
        goes_on: Callable[[Sequence[Sample]], Sequence[bool]],
        trace: bool,
    ) -> list[Sample]:
        """Samples of one size; the network is asked about at most ``batch_size`` at once."""

        def predict_of(rows: Sequence[int]) -> Predict:
            parts = [
                self._predict([requests[row].prompt for row in part], shape, False) for part in chunks(rows, self.batch_size)
            ]
            return lambda x, t: torch.cat(
                [
                    p(*xt)
                    for p, xt in zip(parts, zip(x.split(self.batch_size), t.split(self.batch_size), strict=True), strict=True)
                ]
            )

        def looked_at(rows: Sequence[int], expected: torch.Tensor) -> Sequence[bool]:
            previews = [
                Sample(requests[row], tensors={"latents": latents}) for row, latents in zip(rows, expected, strict=True)
            ]
            return goes_on(render_sound(examined(previews), self.render))

        ways, timesteps, mask = denoise_in_stages(
            predict_of,
            make_scheduler(self.engine.pipe.scheduler.config, self.sampling),
            [request.seed for request in requests],
            shape,
            self.sampling,
            device=self.engine.device,
            prediction=self.engine.process.prediction,
            at=at,
            goes_on=looked_at,
            trace=trace,
            on_step=self.on_step,
        )
        meta = {"steps": self.sampling.steps, "guidance_scale": self.sampling.guidance_scale}
        samples = []
        for request, way in zip(requests, ways, strict=True):
            assert way.latents is not None
            more = way.trajectory(timesteps, mask) if trace and not way.given_up else {}
            own = {**meta, "evaluations": way.evaluations} | ({"rejected": True} if way.given_up else {})
            samples.append(Sample(request, tensors={"latents": way.latents, **more}, meta=own))
        return samples

    @contextlib.contextmanager
    def _weights(self, strength: float) -> Iterator[None]:
        """The policy's weights, or the frozen start's (0), or what lies between and beyond; gradients at 1 alone."""
        if strength == 1:
            yield
            return
        reference = self.engine.reference
        with torch.no_grad(), reference() if strength == 0 else reference.at(strength):
            yield

    def _predict(self, prompts: Sequence[Prompt], latent_shape: Sequence[int], reference: bool) -> Any:
        """(x, timestep) → the guided prediction for these prompts."""
        engine = self.engine
        predictor = engine.predictor(latent_shape, self.sampling.guidance_scale)
        guidance = engine.guidance(self.sampling.guidance_scale, self.sampling.guidance_rescale)
        condition = engine.conditions([prompt.text for prompt in prompts], reference=reference)
        negative = self._negative(prompts, reference) if guidance.on else condition
        return lambda x, timestep: predictor.guided(x, timestep, condition, negative, guidance)

    def _negative(self, prompts: Sequence[Prompt], reference: bool) -> Condition:
        texts = [wishes.negative_of(prompt, self.sampling) for prompt in prompts]
        return self.engine.conditions(texts, negative=True, reference=reference)

    def render(self, samples: Sequence[Sample]) -> list[Sample]:
        rendered: list[Sample] = []
        for start in range(0, len(samples), self.batch_size):
            rendered += self._rendered(samples[start : start + self.batch_size])
        return rendered

    def _rendered(self, samples: Sequence[Sample]) -> list[Sample]:
        pictures: dict[int, Any] = {}
        for places in wishes.grouped([tuple(sample.tensors["latents"].shape) for sample in samples]).values():
            decoded = self.engine.decode(stacked_latents([samples[place] for place in places]))
            pictures |= dict(zip(places, decoded, strict=True))
        return [
            sample.as_failed(self.engine.overflow_words) if pictures[place] is None else sample.with_output(pictures[place])
            for place, sample in enumerate(samples)
        ]

    traces_written = False

    @functools.cached_property
    def latent_space(self) -> str:
        """What tells the space of the autoencoder's latents from others."""
        return latent_space(self.engine.pipe.vae)

    def check_written(self, prompts: Sequence[Prompt], outputs: Sequence[Any]) -> list[str]:
        """Nothing: every picture is fitted to the size that is drawn."""
        return []

    def fitted(self, request: Request, output: Any) -> Any:
        """A picture in the size that the prompt's are drawn at."""
        _, height, width = self.engine.latent_shape(*wishes.size_of(request.prompt, self.sampling))
        return fitted(output, width * self.engine.pixels_per_latent, height * self.engine.pixels_per_latent)

    def written(self, requests: Sequence[Request], outputs: Sequence[Any], *, trace: bool = False) -> list[Sample]:
        """Rendered samples of pictures that were made elsewhere, encoded by the VAE.

        Raises:
            ModelError: a trace is asked for; nobody knows the steps of a picture that was not drawn here.
        """
        if trace:
            raise ModelError("pictures that were made elsewhere have no denoising steps that could be replayed")
        pictures = [self.fitted(request, output) for request, output in zip(requests, outputs, strict=True)]
        samples: list[Sample] = []
        for asked, part in zip(chunks(requests, self.batch_size), chunks(pictures, self.batch_size), strict=True):
            latents = encoded(self.engine, part)
            triples = zip(asked, part, latents, strict=True)
            samples += [Sample(r, picture, {"latents": row}, {"finish": "written"}) for r, picture, row in triples]
        return samples

    def draw(self, samples: Sequence[Sample], seeds: Sequence[int]) -> Draw:
        generators = [torch_rng(seed) for seed in seeds]
        shape = samples[0].tensors["latents"].shape
        timestep = self.engine.process.draw_times(generators)
        dropped = torch.cat([torch.rand(1, generator=generator) for generator in generators]) < self.loss.caption_dropout
        noise = noise_like(tuple(shape), generators)
        if self.loss.noise_offset:
            noise = noise + self.loss.noise_offset * noise_like((shape[0], 1, 1), generators)
        return Draw(timestep, noise, dropped)

    def nll(self, samples: Sequence[Sample], draw: Draw, *, reference: bool = False) -> torch.Tensor:
        """[B] squared error of the prediction at the draw's timestep and noise, mean over the latent's elements, weighted."""
        engine, process = self.engine, self.engine.process
        latents, noise = stacked_latents(samples).to(engine.device), draw.noise.to(engine.device)
        timestep = draw.timestep.to(engine.device)
        with self._weights(0.0 if reference else 1.0), engine.place("unet"):
            guidance = engine.guidance(self.loss.guided_scale or 1.0, self.sampling.guidance_rescale)
            condition, negative = self._training_conditions(samples, draw.dropped, guidance.on, reference)
            predictor = engine.predictor(latents.shape, self.sampling.guidance_scale)
            predicted = predictor.guided(noised(process, latents, noise, timestep), timestep, condition, negative, guidance)
        error = denoise.denoising_error(predicted, target(process, latents, noise, timestep))
        if self.loss.min_snr_gamma is None:
            return error
        return error * denoise.min_snr_weight(process.snr(timestep), self.loss.min_snr_gamma, process.prediction)

    def nll_terms(self, samples: Sequence[Sample]) -> list[int]:
        """[B] ones: ``nll`` is a mean already."""
        return [1] * len(samples)

    def _training_conditions(
        self, samples: Sequence[Sample], dropped: torch.Tensor, guided: bool, reference: bool
    ) -> tuple[Condition, Condition]:
        """Conditions with and without the prompt; for a dropped caption both are the empty one's: guidance adds nothing."""
        engine = self.engine
        condition = engine.conditions([sample.prompt.text for sample in samples], reference=reference)
        negative = self._negative([sample.prompt for sample in samples], reference) if guided else condition
        if not dropped.any():
            return condition, negative
        mask = dropped.to(engine.device)
        empty = engine.conditions([""] * len(samples), negative=True, reference=reference)
        return condition.where(mask, empty), negative.where(mask, empty)

    def step_log_probs(
        self, samples: Sequence[Sample], *, reference: bool = False, steps: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """([B, S] log-probs in nats, summed over channels and pixels, [B, S] mask) of denoising steps.

        Args:
            steps: which, in this order; None = all. Memory grows with their number where gradients are wanted.
        """
        log_probs, _, mask = self.step_predictions(samples, reference=reference, steps=steps)
        return log_probs, mask

    def step_predictions(
        self, samples: Sequence[Sample], *, reference: bool = False, steps: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As ``step_log_probs``, and between the two [B, S, C, h, w] what the network predicted, guided: ε, v or x₀."""
        self._require_log_probs()
        if any("trajectory" not in sample.tensors for sample in samples):
            raise ModelError(
                "these samples were drawn without a trace, so there are no steps to replay: sample with trace=True"
            )
        engine = self.engine
        trajectories = [sample.tensors["trajectory"] for sample in samples]
        mask = torch.stack([sample.tensors["step_mask"] for sample in samples])
        with self._weights(0.0 if reference else 1.0), engine.place("unet"):
            log_probs, predictions = replay(
                self._predict([sample.prompt for sample in samples], trajectories[0].shape, reference),
                make_scheduler(engine.pipe.scheduler.config, self.sampling),
                trajectories,
                samples[0].tensors["timesteps"],
                self.sampling.eta,
                device=engine.device,
                steps=steps,
            )
        return log_probs, predictions, (mask if steps is None else mask[:, list(steps)]).to(engine.device)

    def step_elements(self, samples: Sequence[Sample]) -> int:
        """Numbers of a latent: what a step's log-prob sums over."""
        return samples[0].tensors["latents"].numel()

    def check_trace(self) -> list[str]:
        """Why pictures cannot be drawn so that ``step_log_probs`` can replay them, in words; empty when they can."""
        if self.sampling.scheduler_class == "DDIMScheduler" and self.sampling.eta > 0:
            return []
        return [
            "log-probs of denoising steps need noise in every step, but sampling.scheduler is "
            f"{self.sampling.scheduler!r} with eta {self.sampling.eta}; set scheduler: ddim and eta: 1.0"
        ]

    def _require_log_probs(self) -> None:
        if mistakes := self.check_trace():
            raise ConfigError(mistakes)

    def embed(self, samples: Sequence[Sample]) -> np.ndarray:
        return pixel_features([sample.output for sample in samples])

    @contextlib.contextmanager
    def resident(self, phase: Phase) -> Iterator[None]:
        engine = self.engine
        text = ("text_encoder", "text_encoder_2") if engine.trains_text and phase != "render" else ()
        with engine.place(*_NEEDED[phase], *text):
            yield

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        return self.engine.parameters

    def shardable(self) -> torch.nn.Module:
        """The U-Net, whose weights may be spread over processes where all of them are trained.

        Raises:
            ConfigError: what moves weights.
        """
        if self.memory.offload:
            raise ConfigError("memory.offload cannot move weights that are spread over processes (FSDP): leave it off")
        return self.engine.networks["unet"]

    def renew(self, parameters: Mapping[str, torch.nn.Parameter], *, sharded: bool) -> None:
        """Take these parameters in place of the present ones."""
        self.engine.parameters.update(parameters)

    def describe(self) -> dict[str, Any]:
        facts = {"model": self.model, "method": "LoRA" if self.lora else "full fine-tuning", "device": self.device}
        if self.variant is not None:
            facts["variant"] = self.variant
        parts = {"lora": self.lora, "addons": self.addons, "sampling": self.sampling, "loss": self.loss}
        facts |= {name: asdict(part) for name, part in parts.items() if part is not None}
        if self._engine is not None:
            shape = self._engine.latent_shape(self.sampling.width, self.sampling.height)
            _, height, width = (side * self._engine.pixels_per_latent for side in shape)
            facts |= {"picture": {"width": width, "height": height}} | self._engine.describe()
        return facts

    def save(self, folder: Path) -> list[Path]:
        """Write what was trained: a LoRA in diffusers' and kohya's spelling, or the whole U-Net; returns the files."""
        if self.lora is None:
            return export.save_network(self.engine, self.model, Path(folder))
        return export.save_lora(self.engine, self.lora, self.model, Path(folder))

    def write_card(self, run_folder: Path, folder: Path, place: str | None = None) -> Path:
        """Write the model card beside the exported weights, from what the run's folder tells; returns its path."""
        from raft_diffusion.export.card import write_run_card

        return write_run_card(Path(run_folder), Path(folder), place)

    @staticmethod
    def merge_settings(dtype: str) -> Mapping[str, Any]:  # noqa: ARG004 - on a CPU pictures are computed in float32 alone
        return {"dtype": "float32", "device": "cpu", "memory.attention": "sdpa"}

    @staticmethod
    def merge_mistakes(path: Path) -> list[str]:
        return merged.mistakes(Path(path))

    def merge(self, path: Path, *, strength: float = 1.0, dtype: str = "float32") -> list[Path]:
        """Write the whole model as one file in the original layout, and its configuration as a folder; returns the two."""
        return merged.save_merged(self.engine, self.model, Path(path), strength, getattr(torch, dtype))

    @staticmethod
    def arguments_for(path: Path) -> dict[str, Any]:
        """Constructor arguments under which a policy can take a file's or folder's weights, as far as these tell them.

        Raises:
            ModelError: no weights are there.
        """
        return export.arguments_for(Path(path))

    def load_weights(self, path: Path) -> None:
        """Take trained weights from a checkpoint's or an export's file or folder, or from any LoRA of matching shape.

        Raises:
            ModelError: the file cannot be read, or was made for other settings; says which.
        """
        values = export.read_values(Path(path), self.engine, self.lora)
        with torch.no_grad():
            for name, parameter in self.trainable().items():
                if values[name].shape != parameter.shape:
                    shapes = tuple(values[name].shape), tuple(parameter.shape)
                    raise ModelError(f"{path}: {name} has shape {shapes[0]}, but the policy's has {shapes[1]}")
                parameter.copy_(values[name])


def _traced(trajectory: Trajectory | None, index: int) -> dict[str, torch.Tensor]:
    """What ``step_log_probs`` replays, of one sample."""
    if trajectory is None:
        return {}
    return {
        "trajectory": trajectory.latents[index],
        "timesteps": trajectory.timesteps,
        "step_log_probs": trajectory.log_probs[index],
        "step_mask": trajectory.mask,
    }
