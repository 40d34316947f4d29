"""The five places where a run can differ: policy, reward, selector, objective, and what carries them.

Anything with these methods fits; nothing has to inherit or register.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from raft_core.types import Prompt, Request, Sample, Selection

if TYPE_CHECKING:
    import torch


Phase = Literal["sample", "render", "train"]
Purpose = Literal["round", "compare", "use"]


@runtime_checkable
class Policy(Protocol):
    """A generative model that can be sampled and trained.

    What it may be able to do besides is listed in ``raft_core.capabilities``.

    Attributes:
        modality: ``"image"`` or ``"text"``; names the kind of ``Sample.output``.
        batch_size: requests per call of ``sample`` that the caller should aim at.
    """

    modality: str
    batch_size: int

    def check(self) -> list[str]:
        """Mistakes that can be seen without loading a weight, in words; empty when there are none."""
        ...

    def load(self) -> None:
        """Load the weights; called once, after the whole configuration has been checked. The constructor loads nothing."""
        ...

    def visible(self, text: str) -> str:
        """The part of a prompt that the model takes in; the text itself unless it is longer than the tokenizer allows."""
        ...

    def sample(
        self, requests: Sequence[Request], *, purpose: Purpose = "use", strength: float = 1.0, trace: bool = False
    ) -> list[Sample]:
        """Draw one sample per request, each fixed by its own seed whatever else is in the batch; outputs not yet rendered.

        Args:
            purpose: ``round`` = for a round of training, where samples may be given up before they are finished (``rejected``
                in their ``meta``; they are not scored); ``compare`` = for the comparison before and after, drawn as it shall
                be; ``use`` = as configured. For the last two every sample is finished.
            strength: how strongly what was trained acts: 0 is the frozen start, 1 as trained.
            trace: the samples also keep what ``step_log_probs`` replays, and in their tensors the log-probs under which they
                were drawn, ``step_log_probs`` [S] and ``step_mask`` [S].

        Raises:
            ModelError: a strength that the policy does not know.
        """
        ...

    def render(self, samples: Sequence[Sample]) -> list[Sample]:
        """The same samples with ``output`` set: latents decoded to images, tokens to text.

        One whose output would hold NaN or infinities is returned ``as_failed``, with the reason; failed ones are not asked for.
        """
        ...

    def draw(self, samples: Sequence[Sample], seeds: Sequence[int]) -> Any:
        """The randomness of one training pass, one seed per sample, shared by policy and reference.

        Diffusion: timesteps and noise. Text: nothing. Opaque to the caller, who hands it to ``nll``.
        """
        ...

    def nll(self, samples: Sequence[Sample], draw: Any, *, reference: bool = False) -> torch.Tensor:
        """[B] negative log-likelihood of each sample, or its denoising surrogate; differentiable unless ``reference``."""
        ...

    def step_log_probs(self, samples: Sequence[Sample], *, reference: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """([B, S] log-prob of each action of traced samples in nats, [B, S] mask of actions that count)."""
        ...

    def embed(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N, D] unit-length features of rendered outputs, by which diversity is measured."""
        ...

    def resident(self, phase: Phase) -> AbstractContextManager[None]:
        """Inside, the parts that this phase needs are on the device; parts that it does not need may be elsewhere."""
        ...

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """Parameters that training changes, by stable names. They alone make up a checkpoint."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain facts for the report and the model card: base model, adapter, sampling settings."""
        ...

    def save(self, folder: Path) -> list[Path]:
        """Write the trained weights in every format that users of this modality expect; returns the files."""
        ...


@dataclass(frozen=True, slots=True)
class RewardInfo:
    """What a reward says of itself.

    Attributes:
        name: column in the store and label in the report.
        scale: what its numbers mean, in words ("nominal 1–10", "0 or 1", "100 × cosine").
        higher_is_better: the direction.
        batch_size: samples per call; None = all at once (pairwise and group judges need that).
        differentiable: whether gradients flow from the score to the output.
        gpu: whether it wants the accelerator while it scores.
        relative: whether scores only compare within one prompt of one call (ranks do), so that their mean tells no progress.
        background: whether it may score on another thread while the next samples are drawn, for it waits for something else (a
            network, another process). It must have a ``batch_size``.
    """

    name: str
    scale: str = ""
    higher_is_better: bool = True
    batch_size: int | None = None
    differentiable: bool = False
    gpu: bool = False
    relative: bool = False
    background: bool = False


@runtime_checkable
class Reward(Protocol):
    """Scores rendered samples; NaN = not scored. A *judge* is a reward that is measured and never trained on.

    What it may be able to do besides (load a model, sleep, take the policy) is listed in ``raft_core.capabilities``.
    """

    info: RewardInfo

    def __call__(self, samples: Sequence[Sample]) -> Sequence[float] | np.ndarray:
        """[N] scores, one per sample in the same order."""
        ...


@runtime_checkable
class Combinator(Protocol):
    """A reward made of rewards. The parts are scored (each once), kept under their names, then combined.

    May also have ``recall`` (see ``raft_core.capabilities.Recalls``) and ``unscored_reason``, why a sample may have no score
    though all its parts have one.
    """

    info: RewardInfo
    parts: Sequence[Reward]

    def combine(self, scores: Mapping[str, np.ndarray], samples: Sequence[Sample]) -> np.ndarray:
        """[N] from the parts' [N] scores by name."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where the samples of a round come from: the policy, a table, another run.

    Attributes of its own are its settings. It keeps no state: what it gives follows from its arguments, so that a resumed run
    gets the same.
    """

    def requests(self, prompts: Sequence[Prompt], k: int, seed: int, rnd: int) -> list[Request]:
        """What a round asks for, prompt-major. The groups of samples of one prompt may differ in size.

        Args:
            prompts: of the round.
            k: samples per prompt that the run is configured for.
            seed: of the run.
            rnd: number of the round, from 1.
        """
        ...

    def samples(self, policy: Policy, requests: Sequence[Request], *, trace: bool) -> list[Sample]:
        """One sample per request, in the same order; outputs need not be rendered yet.

        Args:
            trace: keep what ``Policy.step_log_probs`` replays.
        """
        ...


@runtime_checkable
class Selector(Protocol):
    """Chooses what to train on from the scores alone; a pure function.

    May also have ``least_k`` and ``at_round``, see ``ComparesGroups`` and ``FollowsRounds`` of ``raft_core.capabilities``.
    """

    produces: ClassVar[type[Selection]]

    def __call__(self, scores: np.ndarray) -> Selection:
        """From scores [P, K], NaN = not scored, to a selection of flat indices ``p * K + j``."""
        ...


@runtime_checkable
class Objective(Protocol):
    """A loss built on ``Policy.nll`` and ``Policy.step_log_probs`` alone.

    May also have ``begin``, see ``Staged``; and ``suits``, ``divisor``, ``passes``, ``prepare`` and ``least_batch``, see
    ``raft_core.capabilities``.

    Attributes:
        consumes: the selection type it reads; checked against the selector's before anything is loaded.
        needs_trace: whether sampling must keep trajectories.
    """

    consumes: ClassVar[type[Selection]]
    needs_trace: ClassVar[bool]

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Any, seeds: Sequence[int]) -> torch.Tensor:
        """[B] loss of each item of ``part``; ``samples`` are all of the round, ``seeds`` [B] fix the items' draws."""
        ...


class RoundLoss(Protocol):
    """The loss of one round, and what it leaves.

    Attributes:
        carried: plain numbers for ``begin`` of the next round; the checkpoint keeps them.
    """

    @property
    def carried(self) -> Mapping[str, float]: ...

    def __call__(self, policy: Policy, samples: Sequence[Sample], part: Any, seeds: Sequence[int]) -> torch.Tensor:
        """[B] as of an ``Objective``."""
        ...

    def figures(self) -> dict[str, float]:
        """Of this process's share of the round so far, by their names in the metrics file; the same names on every process."""
        ...


@runtime_checkable
class Staged(Protocol):
    """An objective that has to ask the policy as it is before a round's first step (old values, the reference's log-probs)."""

    def begin(self, policy: Policy, samples: Sequence[Sample], selection: Any, carried: Mapping[str, float]) -> RoundLoss:
        """What is minimised in this round in the objective's place.

        Args:
            selection: all that is trained on in the round.
            carried: what the round before has left; empty in the first.
        """
        ...


@runtime_checkable
class Valued(Protocol):
    """A policy with a critic: it estimates how much reward is still to come.

    Attributes:
        estimates_values: whether it is set up so; known before anything is loaded.
    """

    @property
    def estimates_values(self) -> bool: ...

    def step_log_probs_and_values(self, samples: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """([B, S] log-prob of each action, [B, S] estimate before it, both differentiable, [B, S] mask), in one pass."""
        ...


History = Sequence[Mapping[str, Any]]


@runtime_checkable
class Rule(Protocol):
    """Looks at the history and says in words what is the matter, or None.

    May also have ``settled``, see ``raft_core.capabilities.Settles``.
    """

    def __call__(self, history: History) -> str | None: ...


@runtime_checkable
class Tracker(Protocol):
    """Where metrics go besides the run folder."""

    def log(self, history: History) -> None:
        """Take in the rounds of the history that it has not seen.

        May also have ``check() -> list[str]``, ``attach(folder, config)``, called before the first round, and ``finish()``.
        """
        ...
