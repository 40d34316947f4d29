"""The vocabulary: what is asked for, what comes back, and what is chosen from it.

Samples of one round form a flat, prompt-major list: the samples of a prompt stand together, in the order of their index. Groups
may differ in size (see ``Grouping``). Selections hold flat indices into that list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


#: Role, content, and what else a chat template may read of a message.
Message = Mapping[str, Any]
#: Where ``Prompt.meta`` holds the conversation that a prompt is.
MESSAGES = "messages"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and whatever its file says of it besides (a reference answer, a category)."""

    text: str
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def messages(self) -> Sequence[Message] | None:
        """The conversation that is to be gone on with; ``text`` is then its transcript. None of a plain text."""
        found = self.meta.get(MESSAGES)
        return found if isinstance(found, (list, tuple)) and found else None

    @property
    def id(self) -> str:
        """16 hex digits, the same for the same text and meta in every run."""
        content = json.dumps([self.text, dict(self.meta)], sort_keys=True, default=str)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to draw: the prompt, its index among the prompt's K, and the seed that fixes it."""

    prompt: Prompt
    index: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One sample.

    Attributes:
        request: what was asked for.
        output: what a reward sees: a PIL image (RGB) or a string; None until ``Policy.render`` has made it.
        tensors: what training and replay need, without a batch axis, on the CPU: ``latents`` [C, h, w] or ``tokens`` [T], and
            after a traced sampling the trajectory and its log-probs.
        meta: plain facts about how it was made (steps, guidance scale, finish reason), and why it failed if it did.
    """

    request: Request
    output: Any = None
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> Prompt:
        return self.request.prompt

    @property
    def seed(self) -> int:
        return self.request.seed

    @property
    def failed(self) -> str:
        """Why it has no output, such as "latents are not finite"; "" for a sound sample (see ``soundness``)."""
        return self.meta.get("failed", "")

    @property
    def unscorable(self) -> str:
        """Why no reward is asked about it: it failed, or a rule gave it up before it was finished; "" for all others."""
        return self.failed or ("given up by a rule before they were finished" if self.meta.get("rejected") else "")

    def with_output(self, output: Any) -> Sample:
        return replace(self, output=output)

    def as_failed(self, reason: str) -> Sample:
        """The same sample without an output, saying why."""
        return replace(self, output=None, meta={**self.meta, "failed": reason})


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What a selector chose; every field is an array whose first axis is the M chosen items."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def take(self, items: Sequence[int] | np.ndarray) -> Self:
        """The selection of these items, in this order, repeats allowed."""
        items = np.asarray(items, dtype=np.int64)
        return replace(self, **{f.name: getattr(self, f.name)[items] for f in fields(self)})

    def placed(self, places: np.ndarray) -> Self:
        """The same selection with index i replaced by ``places[i]``."""
        names = [f.name for f in fields(self) if f.name in ("index", "chosen", "rejected")]
        return replace(self, **{name: places[getattr(self, name)] for name in names})

    @property
    def kept(self) -> np.ndarray:
        """[U] sorted distinct flat indices of all samples that the selection uses."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class Weighted(Selection):
    """Samples with weights, for weighted likelihood: index [M] int64, weight [M] float64 ≥ 0."""

    index: np.ndarray
    weight: np.ndarray
    name: ClassVar[str] = "weighted samples"

    @property
    def kept(self) -> np.ndarray:
        return np.unique(self.index)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs(Selection):
    """Preference pairs of one prompt each: chosen [M], rejected [M] int64, margin [M] float64 > 0 in reward units."""

    chosen: np.ndarray
    rejected: np.ndarray
    margin: np.ndarray
    name: ClassVar[str] = "pairs"

    @property
    def kept(self) -> np.ndarray:
        return np.unique(np.concatenate([self.chosen, self.rejected]))


@dataclass(frozen=True, slots=True, eq=False)
class Labels(Selection):
    """Samples that are good or bad, each for itself: index [M] int64, good [M] bool."""

    index: np.ndarray
    good: np.ndarray
    name: ClassVar[str] = "labels"

    @property
    def kept(self) -> np.ndarray:
        return np.unique(self.index)


@dataclass(frozen=True, slots=True, eq=False)
class Scored(Selection):
    """Samples with raw scores, for a critic to make advantages of: index [M] int64, score [M] float64, higher is better."""

    index: np.ndarray
    score: np.ndarray
    name: ClassVar[str] = "scored samples"

    @property
    def kept(self) -> np.ndarray:
        return np.unique(self.index)


@dataclass(frozen=True, slots=True, eq=False)
class Advantages(Selection):
    """Samples with signed advantages, for policy gradients: index [M] int64, advantage [M] float64 in reward deviations."""

    index: np.ndarray
    advantage: np.ndarray
    name: ClassVar[str] = "advantages"

    @property
    def kept(self) -> np.ndarray:
        return np.unique(self.index)


@dataclass(frozen=True, slots=True, eq=False)
class Groups(Selection):
    """Whole groups, for ranking losses: index [M, K] int64, reward [M, K] float64, NaN = not scored or no such sample."""

    index: np.ndarray
    reward: np.ndarray
    name: ClassVar[str] = "groups"

    @property
    def kept(self) -> np.ndarray:
        return np.unique(self.index[~np.isnan(self.reward)])


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Which samples of a flat, prompt-major list answer the same prompt.

    Attributes:
        sizes: [P] int64 ≥ 1, samples of each prompt.
    """

    sizes: np.ndarray

    @classmethod
    def of(cls, samples: Sequence[Sample | Request]) -> Grouping:
        """The groups of these samples or requests: one begins wherever the index starts again."""
        return cls.of_indices([s.request.index if isinstance(s, Sample) else s.index for s in samples])

    @classmethod
    def of_indices(cls, indices: Sequence[int]) -> Grouping:
        """The groups of samples with these indices among their prompt's."""
        starts = [i for i, index in enumerate(indices) if i == 0 or index <= indices[i - 1]]
        return cls(np.diff([*starts, len(indices)]).astype(np.int64))

    @property
    def places(self) -> np.ndarray:
        """[P · K] flat index of each cell of the padded [P, K], K being the largest group; a cell without a sample has its
        group's first one, and is never selected, for its score is NaN."""
        starts = np.cumsum(self.sizes) - self.sizes
        offsets = np.arange(self.sizes.max(initial=0))
        return (starts[:, None] + np.where(offsets < self.sizes[:, None], offsets, 0)).ravel()

    def pad(self, values: np.ndarray) -> np.ndarray:
        """[P, K] of [N] values, NaN in the cells without a sample."""
        width = self.sizes.max(initial=0)
        there = np.arange(width) < self.sizes[:, None]
        return np.where(there, np.asarray(values, dtype=np.float64)[self.places.reshape(there.shape)], np.nan)

    def among(self, chosen: np.ndarray) -> Grouping:
        """The groups of those samples that are ``chosen``, [N] bool; a group without any is left out."""
        sizes = np.array([part.sum() for part in self.split(chosen)], dtype=np.int64)
        return Grouping(sizes[sizes > 0])

    def split(self, values: np.ndarray) -> list[np.ndarray]:
        """P arrays: the values [N, …] of each group."""
        return np.split(values, np.cumsum(self.sizes)[:-1]) if len(self.sizes) else []


@dataclass(frozen=True)
class Failure:
    """Samples that a reward could not score: how many, and the first error in words."""

    count: int
    first_error: str


@dataclass(frozen=True)
class Scores:
    """All scores of a list of samples.

    Attributes:
        reward: name of the column that selects, or "" when nothing was trained on.
        columns: name → [N] float64, NaN = not scored; the reward, its parts, the judges.
        failures: name → what could not be scored and why.
        descending: names of columns where lower is better.
        parts: names of the parts of a combined reward; a judge that is also a part is a part.
    """

    reward: str
    columns: Mapping[str, np.ndarray]
    failures: Mapping[str, Failure] = field(default_factory=dict)
    descending: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()

    def grid(self, groups: Grouping | int, column: str | None = None) -> np.ndarray:
        """[P, K] of one column, by default the reward's, turned so that higher is better; NaN where a group has no such sample.

        Args:
            groups: which samples answer the same prompt; a number = so many of each.
        """
        name = column or self.reward
        values = (-1 if name in self.descending else 1) * self.columns[name]
        return values.reshape(-1, groups) if isinstance(groups, int) else groups.pad(values)
