"""Calls of a pipeline for the pictures that are wished for: made by the pipeline itself, or its network's made again."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from raft_core.errors import ModelError
from raft_core.rng import torch_rng
from raft_diffusion.model import calling, learning, recording
from raft_diffusion.model.calling import Calling
from raft_diffusion.model.recording import Step
from raft_diffusion.pipeline_options import PipelineSampling

#: Calls kept at most, each with the embeddings of a batch.
CALLS_KEPT = 16
PROBE = "a picture"
#: Arguments that every call has, where the pipeline takes them: a picture of the size that is asked for.
FIXED: Mapping[str, Any] = {"num_frames": 1, "use_resolution_binning": False}

Context = Callable[[], AbstractContextManager[None]]
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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


class PipelineCalls:
    """A pipeline with what was learnt of its calls.

    Attributes:
        accepted: the parameters of the pipeline's ``__call__``.
        guided: how the network is called with guidance, as it is sampled.
        plain: how it is called for the prompt alone.

    Args:
        pipe: the pipeline.
        denoiser: its network.
        sampling: with what it is called.
        placed: enters a context in which the network is on the device.
        holding: enters a context in which text encoders that have been loaded stay.

    Raises:
        ModelError: the network's calls cannot be made again; says what differs.
    """

    def __init__(self, pipe: Any, denoiser: Any, sampling: PipelineSampling, placed: Context, holding: Context):
        self.accepted = inspect.signature(type(pipe).__call__).parameters
        self._pipe = pipe
        self._denoiser = denoiser
        self._sampling = sampling
        self._placed = placed
        self._holding = holding
        self._steps: OrderedDict[tuple[Any, ...], Step] = OrderedDict()
        self._shapes: dict[tuple[Wish, bool], Any] = {}
        self._off: Mapping[str, float] = {}
        self._learn()

    def _learn(self) -> None:
        """Record two steps with guidance and without, and prove that they can be made again.

        Raises:
            ModelError: they cannot; says what differs.
        """
        sampling, name = self._sampling, type(self._pipe).__name__
        scales = {sampling.true_cfg_scale, self.guidance_scale or 0.0} - {0.0}
        try:
            self.guided = self._learnt(True, sorted(scales))
            if self.guided.parts == 1:
                self.plain = self.guided
                return
            for scale in (1.0, 0.0):  # guidance ends at 1 for most, at 0 for those that count from there
                self._off = {"guidance_scale": scale}
                self.plain = self._learnt(False, [scale])
                if self.plain.parts == 1:
                    return
        except ModelError as error:
            raise ModelError(f"model: a {name} like this one cannot be trained here: {error}") from error
        raise ModelError(
            f"model: {name} takes several predictions per step even without guidance, which cannot be trained here"
        )

    @torch.no_grad()
    def _learnt(self, guided: bool, scales: Sequence[float]) -> Calling:
        wishes = [Wish(PROBE, "", self._sampling.width, self._sampling.height)] * 2
        run = self.run(wishes, [0, 1], guided=guided)
        recording.encode_only(self._denoiser, run)  # so that text encoders and denoiser are not on the device together
        with self._placed():
            steps = recording.record(self._pipe, self._denoiser, run, 2)
            if len(steps) < 2:
                raise ModelError("its pipeline took fewer than two steps; set sampling.steps to at least 2")
            found = learning.learn(steps, scales)
            learning.require_replay(found, self._denoiser, steps)
        return found

    @property
    def guidance_scale(self) -> float | None:
        """The pipeline's argument, or its default; None where it takes none or has none."""
        default = getattr(self.accepted.get("guidance_scale"), "default", None)
        return self._sampling.guidance_scale if self._sampling.guidance_scale is not None else default

    @property
    def embeds_guidance(self) -> bool:
        """Whether the network is told the guidance scale."""
        return bool(self._denoiser.config.get("guidance_embeds", False))

    def _guidance(self, guided: bool) -> dict[str, Any]:
        """Arguments by which the pipeline guides, or does not; a scale that the network is told stays what it is."""
        found: dict[str, Any] = {}
        two = "true_cfg_scale" in self.accepted
        if two:
            found["true_cfg_scale"] = self._sampling.true_cfg_scale if guided else 1.0
        if "guidance_scale" in self.accepted and self._sampling.guidance_scale is not None:
            found["guidance_scale"] = self._sampling.guidance_scale
        if not guided and not two and not self.embeds_guidance:
            found |= self._off
        return found

    def run(
        self, wishes: Sequence[Wish], seeds: Sequence[int], *, guided: bool = True, output: str = "latent"
    ) -> Callable[[], Any]:
        """A call of the pipeline for pictures of one size."""
        sampling = self._sampling
        size = {name: value for name in ("width", "height") if (value := getattr(wishes[0], name)) is not None}
        offered: dict[str, Any] = {"negative_prompt": [wish.negative for wish in wishes], **FIXED}
        if not guided or ("true_cfg_scale" in self.accepted and sampling.true_cfg_scale <= 1):
            del offered["negative_prompt"]
        return lambda: self._pipe(
            prompt=[wish.prompt for wish in wishes],
            num_inference_steps=sampling.steps,
            generator=[torch_rng(seed) for seed in seeds],
            output_type=output,
            return_dict=False,
            **self._guidance(guided),
            **size,
            **{name: value for name, value in offered.items() if name in self.accepted},
            **sampling.arguments,
        )

    def step(self, wishes: Sequence[Wish], *, guided: bool) -> Step:
        """The calls of the network in a step for these pictures, without an evaluation; of equal shapes."""
        key = (tuple(wishes), guided)
        if key not in self._steps:
            learnt = self.guided if guided else self.plain
            run = self.run(wishes, [0] * len(wishes), guided=guided)
            self._steps[key] = recording.first_calls(self._pipe, self._denoiser, run, learnt.zeros)
        self._steps.move_to_end(key)
        while len(self._steps) > CALLS_KEPT:
            self._steps.popitem(last=False)
        return self._steps[key]

    def prepare(self, wishes: Sequence[Wish], *, guided: bool) -> None:
        """Encode what is new among the prompts, while the text encoders are there once."""
        new = [wish for wish in dict.fromkeys(wishes) if (wish, guided) not in self._shapes]
        if not new:
            return
        with torch.no_grad(), self._holding():
            for wish in new:
                step = self.step([wish], guided=guided)
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
        learnt = self.guided if guided else self.plain
        with torch.no_grad():
            steps = [self.step([wishes[place] for place in places], guided=guided) for places in groups]

        def predict(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            if len(groups) == 1:
                return learnt.predict(self._denoiser, steps[0].calls, x, timestep)
            rows: dict[int, torch.Tensor] = {}
            for places, step in zip(groups, steps, strict=True):
                part = torch.tensor(places, device=x.device)
                rows |= dict(zip(places, learnt.predict(self._denoiser, step.calls, x[part], timestep[part]), strict=True))
            return torch.stack([rows[place] for place in range(len(wishes))])

        return predict

    @torch.no_grad()
    def initial(self, wishes: Sequence[Wish], seeds: Sequence[int]) -> torch.Tensor:
        """[B, …] the noise from which the pipeline begins, in its own precision, of pictures of one size."""
        run = self.run(wishes, seeds)
        return recording.first_calls(self._pipe, self._denoiser, run, self.guided.zeros).x


def _shapes_of(step: Step) -> Any:
    """Shapes of all that a call is told, by which calls are put into one batch."""
    return tuple(
        (place, tuple(value.shape) if isinstance(value, torch.Tensor) else tuple(tuple(item.shape) for item in value))
        for call in step.calls
        for place, value in calling.arguments(call)
    )
