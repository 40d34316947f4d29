"""Any text-to-image pipeline of diffusers as a policy: drawn by the pipeline itself, trained on what it drew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from raft_core.capabilities import NllUnit
from raft_core.errors import ConfigError, DeviceError, ModelError
from raft_core.machine.devices import resolve_device
from raft_core.protocols import Phase, Purpose
from raft_core.rng import torch_rng
from raft_core.types import Prompt, Request, Sample
from raft_diffusion.export import pipeline_files
from raft_diffusion.model import device as hardware
from raft_diffusion.model import estimate, pipeline_sizes, pipelines, quantization
from raft_diffusion.model.features import pixel_features
from raft_diffusion.model.lora_file import locate_lora
from raft_diffusion.model.pipeline_calls import Wish
from raft_diffusion.model.pipeline_engine import PipelineEngine
from raft_diffusion.model.pipelines import Description
from raft_diffusion.model.written import latent_space
from raft_diffusion.pipeline_options import PipelineLoss, PipelineMemory, PipelineSampling, TransformerLora
from raft_diffusion.policy import Draw
from raft_diffusion.process import flow_schedulers, flow_steps, wishes
from raft_diffusion.process.denoise import denoising_error, flow_weight
from raft_diffusion.process.flow_steps import NoisySteps
from raft_diffusion.process.noise import noised, target
from raft_diffusion.process.sampler import noise_like

FEW_STEPS = 8


class TextToImage:
    """A text-to-image pipeline of diffusers: Stable Diffusion 3, Flux, Qwen-Image, Sana, Z-Image and their kin.

    Args:
        model: a folder in diffusers' layout, ORGANISATION/NAME on the Hub, or bundled:NAME.
        lora: what is trained; null = full fine-tuning of the denoiser.
        sampling: how pictures are drawn.
        loss: what is minimised on kept pictures.
        memory: how the model is fitted into memory.
        device: auto, cpu, cuda or cuda:N.
        dtype: of the frozen weights; auto = half precision on CUDA, float32 elsewhere. Trained parameters are float32 always.
        variant: which of a folder's or Hub repository's weight files, such as fp16.

    Attributes:
        on_step: told, after each denoising step, how many are done and of how many; nobody by default.
    """

    modality = "image"
    nll_unit: NllUnit = "error"
    on_step: Callable[[int, int], None] | None = None

    def __init__(
        self,
        model: str,
        lora: TransformerLora | None = TransformerLora(),  # noqa: B008 - frozen
        sampling: PipelineSampling = PipelineSampling(),  # noqa: B008 - frozen
        loss: PipelineLoss = PipelineLoss(),  # noqa: B008 - frozen
        memory: PipelineMemory = PipelineMemory(),  # noqa: B008 - frozen
        device: str = "auto",
        dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto",
        variant: str | None = None,
    ):
        self.model = model
        self.lora = lora
        self.sampling = sampling
        self.loss = loss
        self.memory = memory
        self.device = device
        self.dtype = dtype
        self.variant = variant
        self.batch_size = sampling.batch_size
        self._engine: PipelineEngine | None = None
        self._tokenizers: list[Any] | None = None
        self._foreseen: list[Wish] = []

    # ------------------------------------------------------------------ before anything is loaded

    def check(self) -> list[str]:
        found = self._machine_mistakes()
        try:
            description = pipelines.find(self.model)
        except ModelError as error:
            return [*found, str(error)]
        return found + (self._model_mistakes(description) if description else [])

    def _machine_mistakes(self) -> list[str]:
        found = hardware.mistakes(self.device, self.dtype, "sdpa")
        device = "cpu" if found else str(resolve_device(self.device))
        return found + quantization.mistakes(self.memory.resolved.quantization or "none", device, self.lora is not None)

    def _model_mistakes(self, description: Description) -> list[str]:
        """What is wrong with the model, and with what is asked of it."""
        found = pipelines.mistakes(description, self.variant)
        found += flow_schedulers.mistakes(self.sampling, description.scheduler)
        found += pipeline_sizes.mistakes({"width": self.sampling.width, "height": self.sampling.height}, description)
        found += self._argument_mistakes(description)
        if self.lora is not None and self.lora.init is not None:
            try:
                locate_lora(self.lora.init)
            except ModelError as error:
                found.append(f"lora.init: {error}")
        return found

    def _argument_mistakes(self, description: Description) -> list[str]:
        import inspect

        try:
            accepted = inspect.signature(pipelines.pipeline_class(description.pipeline).__call__).parameters
        except ModelError as error:
            return [str(error)]
        name = description.pipeline
        found = [
            f"sampling.arguments: {name} takes no {argument!r}"
            for argument in self.sampling.arguments
            if argument not in accepted
        ]
        if self.sampling.true_cfg_scale != 1 and "true_cfg_scale" not in accepted:
            found.append(f"sampling.true_cfg_scale: {name} takes none; its classifier-free guidance is sampling.guidance_scale")
        if self.sampling.guidance_scale is not None and "guidance_scale" not in accepted:
            found.append(f"sampling.guidance_scale: {name} takes none")
        if self.sampling.negative_prompt and "negative_prompt" not in accepted:
            found.append(f"sampling.negative_prompt: {name} takes none")
        return found

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """Prompts whose rows ask for what cannot be drawn."""
        found = wishes.mistakes(train, held_out, self.sampling, {}, {})
        if not found:
            self._foreseen = [self._wish(prompt) for prompt in (*train, *held_out)]
            try:
                description = pipelines.find(self.model)
            except ModelError:  # told by ``check``
                return []
            sizes = {(wish.width, wish.height) for wish in self._foreseen} if description else set()
            for width, height in sizes:
                found += pipeline_sizes.mistakes({"width": width, "height": height}, description)  # pyright: ignore[reportArgumentType]
        return list(dict.fromkeys(found))

    def notes(self) -> list[str]:
        """What a person should know: models distilled to few steps blur under a plain denoising loss."""
        distilled = self._engine is not None and bool(self._engine.pipe.config.get("is_distilled", False))
        if not distilled and self.sampling.steps > FEW_STEPS:
            return []
        why = "the model says that it is distilled" if distilled else f"pictures are drawn in {self.sampling.steps} steps"
        return [
            f"{why}: if it was distilled to few steps, the denoising loss on its own samples blurs them. Train the model that "
            "it was distilled from and put its LoRA on the distilled one; or keep lr and rank low and watch a judge of detail"
        ]

    def estimate(self) -> str:
        """How much memory the weights take, in words, told from the architecture alone; "" where it is not known here."""
        try:
            description = pipelines.find(self.model)
        except ModelError:  # told by ``check``
            return ""
        known = estimate.architecture_of(description) if description else estimate.ARCHITECTURES.get(self.model)
        if known is None or "transformer" not in known:
            return ""
        weights = estimate.count(known, self.lora)
        return estimate.words(weights, self.memory, self.dtype, lora=self.lora is not None)

    # ------------------------------------------------------------------ loading

    def load(self) -> None:
        """Load the weights, add adapters, and prove that the network's calls can be made again.

        Raises:
            ModelError: the model cannot be loaded, adapted, or served.
            ConfigError: it cannot draw what is asked for.
            DeviceError: the hardware cannot do what is asked.
        """
        if found := self._machine_mistakes():
            raise DeviceError("; ".join(found))
        device = resolve_device(self.device)
        description = pipelines.fetch(self.model, self.variant)
        if found := self._model_mistakes(description):
            raise ConfigError(found)
        dtype = hardware.pick_dtype(self.dtype, device)
        arguments = (self.lora, self.sampling, self.loss, self.memory, device, dtype, self.variant)
        self._engine = PipelineEngine(description, *arguments)
        self._tokenizers = pipelines.load_tokenizers(description)
        if self._foreseen:
            self._engine.calls.prepare(self._foreseen, guided=True)
            self._engine.calls.prepare(self._foreseen, guided=False)

    @property
    def engine(self) -> PipelineEngine:
        """The loaded pipeline and what wraps it.

        Raises:
            ModelError: ``load`` has not been called.
        """
        if self._engine is None:
            raise ModelError(f"the model {self.model} is not loaded yet: call load() first")
        return self._engine

    @property
    def latent_space(self) -> str:
        """The same text for pipelines of one class with the same autoencoder: their latents are packed alike."""
        return f"{self.engine.description.pipeline} {latent_space(self.engine.pipe.vae)}"

    def visible(self, text: str) -> str:
        """The beginning of a prompt that the text encoder with the longest context takes in; all of it when it fits."""
        if self._tokenizers is None:
            self._tokenizers = pipelines.load_tokenizers(pipelines.fetch(self.model, self.variant))
        room = self.sampling.arguments.get("max_sequence_length")
        return max((pipeline_sizes.visible_text(tokenizer, text, room) for tokenizer in self._tokenizers), key=len)

    # ------------------------------------------------------------------ sampling

    def _wish(self, prompt: Prompt, *, without: bool = False) -> Wish:
        width, height = wishes.size_of(prompt, self.sampling)
        return Wish("" if without else prompt.text, wishes.negative_of(prompt, self.sampling), width, height)

    def sample(
        self, requests: Sequence[Request], *, purpose: Purpose = "use", strength: float = 1.0, trace: bool = False
    ) -> list[Sample]:
        if trace:
            self._require_log_probs()
        engine = self.engine
        asked = [self._wish(request.prompt) for request in requests]
        drawn: dict[int, Sample] = {}
        engine.calls.prepare(asked, guided=True)
        with torch.no_grad(), self._weights(strength), engine.place(engine.description.denoiser):
            for places in wishes.grouped([(wish.width, wish.height) for wish in asked]).values():
                part = self._traced if trace else self._drawn
                drawn |= dict(zip(places, part([requests[p] for p in places], [asked[p] for p in places]), strict=True))
        return [drawn[place] for place in range(len(requests))]

    @property
    def _meta(self) -> dict[str, Any]:
        evaluations = self.sampling.steps * self.engine.calls.guided.parts
        found = {
            "steps": self.sampling.steps,
            "guidance_scale": self.engine.calls.guidance_scale or 0.0,
            "evaluations": evaluations,
        }
        return found | ({"true_cfg_scale": self.sampling.true_cfg_scale} if self.sampling.true_cfg_scale != 1 else {})

    def _drawn(self, requests: Sequence[Request], asked: Sequence[Wish]) -> list[Sample]:
        """Samples of one size, by the pipeline itself."""
        latents = self.engine.draw(asked, [request.seed for request in requests], self.on_step)
        return [
            Sample(request, tensors={"latents": row}, meta=self._meta) for request, row in zip(requests, latents, strict=True)
        ]

    def _traced(self, requests: Sequence[Request], asked: Sequence[Wish]) -> list[Sample]:
        """Samples of one size by steps with noise, which can be replayed."""
        engine, settings = self.engine, self.sampling.stochastic
        assert settings is not None  # _require_log_probs
        drawn: dict[int, Sample] = {}
        sigmas = engine.sampling_sigmas(asked[0])
        for places in engine.calls.groups(asked, guided=True):
            part, seeds = [asked[place] for place in places], [requests[place].seed for place in places]
            latents, steps = flow_steps.draw(
                self._velocity(part), engine.calls.initial(part, seeds).to(engine.device), sigmas, seeds, settings, self.on_step
            )
            for row, place in enumerate(places):
                tensors = {"latents": latents[row], **_kept(steps, row, float(sigmas[1]))}
                drawn[place] = Sample(requests[place], tensors=tensors, meta=self._meta)
        return [drawn[place] for place in range(len(requests))]

    def _velocity(self, asked: Sequence[Wish]) -> flow_steps.Velocity:
        predict = self.engine.calls.predictor(asked, guided=True)
        return lambda x, sigma: predict(x, self.engine.process.network_times(sigma))

    @contextlib.contextmanager
    def _weights(self, strength: float) -> Iterator[None]:
        """The policy's weights, or the frozen start's (0), or what lies between and beyond; gradients at 1 alone."""
        if strength == 1:
            yield
            return
        reference = self.engine.reference
        with torch.no_grad(), reference() if strength == 0 else reference.at(strength):
            yield

    def render(self, samples: Sequence[Sample]) -> list[Sample]:
        rendered: list[Sample] = []
        for start in range(0, len(samples), self.batch_size):
            rendered += self._rendered(samples[start : start + self.batch_size])
        return rendered

    def _rendered(self, samples: Sequence[Sample]) -> list[Sample]:
        pictures: dict[int, Any] = {}
        asked = [self._wish(sample.prompt) for sample in samples]
        for places in wishes.grouped([(wish.width, wish.height) for wish in asked]).values():
            latents = torch.stack([samples[place].tensors["latents"] for place in places])
            pictures |= dict(zip(places, self.engine.decode(latents, [asked[place] for place in places]), strict=True))
        return [
            sample.as_failed(self.engine.overflow_words) if pictures[place] is None else sample.with_output(pictures[place])
            for place, sample in enumerate(samples)
        ]

    # ------------------------------------------------------------------ training

    def draw(self, samples: Sequence[Sample], seeds: Sequence[int]) -> Draw:
        generators = [torch_rng(seed) for seed in seeds]
        times = self.engine.process.draw_times(generators)
        dropped = torch.cat([torch.rand(1, generator=generator) for generator in generators]) < self.loss.caption_dropout
        return Draw(times, noise_like(tuple(samples[0].tensors["latents"].shape), generators), dropped)

    def nll(self, samples: Sequence[Sample], draw: Draw, *, reference: bool = False) -> torch.Tensor:
        """[B] squared error of the prediction at the draw's time and noise, mean over the latents' elements, weighted."""
        engine, process = self.engine, self.engine.process
        latents = torch.stack([sample.tensors["latents"] for sample in samples]).to(engine.device)
        noise, times = draw.noise.to(engine.device), draw.timestep.to(engine.device)
        asked = [self._wish(sample.prompt, without=bool(gone)) for sample, gone in zip(samples, draw.dropped, strict=True)]
        engine.calls.prepare(asked, guided=self.loss.guided)
        with self._weights(0.0 if reference else 1.0), engine.place(engine.description.denoiser):
            predict = engine.calls.predictor(asked, guided=self.loss.guided)
            predicted = predict(noised(process, latents, noise, times), process.network_times(times))
        error = denoising_error(predicted, target(process, latents, noise, times))
        return error * flow_weight(times, self.loss.weighting) if engine.is_flow and self.loss.weighting != "none" else error

    def nll_terms(self, samples: Sequence[Sample]) -> list[int]:
        """[B] ones: ``nll`` is a mean already."""
        return [1] * len(samples)

    def step_log_probs(
        self, samples: Sequence[Sample], *, reference: bool = False, steps: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """([B, S] log-probs in nats, summed over the latents' elements, [B, S] mask) of the steps with noise.

        Args:
            steps: which of them, in this order; None = all. Memory grows with their number where gradients are wanted.
        """
        log_probs, _, mask = self.step_predictions(samples, reference=reference, steps=steps)
        return log_probs, mask

    def step_predictions(
        self, samples: Sequence[Sample], *, reference: bool = False, steps: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As ``step_log_probs``, and between the two [B, S, …] the velocities that the network predicted, guided."""
        self._require_log_probs()
        settings = self.sampling.stochastic
        assert settings is not None
        if any("trajectory" not in sample.tensors for sample in samples):
            raise ModelError(
                "these samples were drawn without a trace, so there are no steps to replay: sample with trace=True"
            )
        engine = self.engine
        latents = torch.stack([sample.tensors["trajectory"] for sample in samples]).to(engine.device)
        first = samples[0].tensors
        asked = [self._wish(sample.prompt) for sample in samples]
        engine.calls.prepare(asked, guided=True)
        with self._weights(0.0 if reference else 1.0), engine.place(engine.description.denoiser):
            log_probs, predictions = flow_steps.replay(
                self._velocity(asked), latents, first["sigmas"], float(first["second_sigma"]), settings, steps
            )
        return log_probs, predictions, torch.ones_like(log_probs, dtype=torch.bool)

    def step_elements(self, samples: Sequence[Sample]) -> int:
        """Numbers of a latent: what a step's log-prob sums over."""
        return samples[0].tensors["latents"].numel()

    def check_trace(self) -> list[str]:
        """Why pictures cannot be drawn so that ``step_log_probs`` can replay them, in words; empty when they can."""
        if self.sampling.stochastic is None:
            return [
                "log-probs of denoising steps need noise in some steps, but sampling.stochastic is null; set "
                "sampling.stochastic: {kind: flow_grpo}"
            ]
        if self.sampling.scheduler_class not in (None, "FlowMatchEulerDiscreteScheduler"):
            return [
                f"sampling.stochastic takes its own steps, but sampling.scheduler is {self.sampling.scheduler!r}; leave it out"
            ]
        return []

    def _require_log_probs(self) -> None:
        if mistakes := self.check_trace():
            raise ConfigError(mistakes)

    def embed(self, samples: Sequence[Sample]) -> np.ndarray:
        return pixel_features([sample.output for sample in samples])

    @contextlib.contextmanager
    def resident(self, phase: Phase) -> Iterator[None]:
        name = "vae" if phase == "render" else self.engine.description.denoiser
        with self.engine.place(name):
            yield

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        return self.engine.parameters

    # ------------------------------------------------------------------ what is written

    def describe(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "model": self.model,
            "method": "LoRA" if self.lora else "full fine-tuning",
            "device": self.device,
        }
        if self.variant is not None:
            facts["variant"] = self.variant
        parts = {"lora": self.lora, "sampling": self.sampling, "loss": self.loss, "memory": self.memory.resolved}
        facts |= {name: asdict(part) for name, part in parts.items() if part is not None}
        return facts | (self._engine.describe() if self._engine is not None else {})

    def save(self, folder: Path) -> list[Path]:
        """Write what was trained: a LoRA in diffusers' layout (peft's, where the pipeline reads none), or the denoiser."""
        if self.lora is None:
            return pipeline_files.save_network(self.engine, self.model, Path(folder))
        return pipeline_files.save_lora(self.engine, self.lora, self.model, Path(folder))

    def write_card(self, run_folder: Path, folder: Path, place: str | None = None) -> Path:
        """Write the model card beside the exported weights, from what the run's folder tells; returns its path."""
        from raft_diffusion.export.card import write_run_card

        return write_run_card(Path(run_folder), Path(folder), place)

    @staticmethod
    def arguments_for(path: Path) -> dict[str, Any]:
        """Constructor arguments under which a policy can take a file's or folder's weights, as far as these tell them.

        Raises:
            ModelError: no weights are there.
        """
        return pipeline_files.arguments_for(Path(path))

    def load_weights(self, path: Path) -> None:
        """Take trained weights from a checkpoint's or an export's file or folder, or from any LoRA of matching shape.

        Raises:
            ModelError: the file cannot be read, or was made for other settings; says which.
        """
        values = pipeline_files.read_values(Path(path), self.engine)
        with torch.no_grad():
            for name, parameter in self.trainable().items():
                parameter.copy_(values[name])


def _kept(steps: NoisySteps, row: int, second: float) -> dict[str, torch.Tensor]:
    """What ``step_log_probs`` replays, of one sample."""
    return {
        "trajectory": steps.latents[row],
        "sigmas": steps.sigmas,
        "second_sigma": torch.tensor(second),
        "step_log_probs": steps.log_probs[row],
        "step_mask": torch.ones(steps.log_probs.shape[1], dtype=torch.bool),
    }
