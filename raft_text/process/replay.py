"""How likely completions that are there are: under the model, and under the distributions that they were drawn from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from raft_core.sampling import chunks
from raft_core.types import Sample
from raft_text.model.critic import ValueHead
from raft_text.model.engine import Engine
from raft_text.model.likelihood import Both, DrawnScoring, Row, Scoring, rows_at_once
from raft_text.model.turns import Passages
from raft_text.options import Sampling
from raft_text.process.token_choice import Picker


class Replay:
    """Log-probs of samples' tokens, read again.

    Args:
        engine: the loaded model.
        sampling: how completions are drawn.
    """

    def __init__(self, engine: Engine, sampling: Sampling):
        self._engine = engine
        self._sampling = sampling

    def log_probs(self, samples: Sequence[Sample], *, reference: bool, drawn: bool = False) -> list[torch.Tensor]:
        """[T] log-probs of each sample's tokens in nats: of the model itself, or of what they are drawn from; differentiable.

        Args:
            reference: of the frozen start, without a gradient.
            drawn: of the distributions that tokens are drawn from.
        """
        engine, passages = self._engine, Passages(self._engine.encode, samples)
        with engine.placed(), engine.version(reference):
            parts = self._parts(passages)
            scored = [engine.log_probs(rows, DrawnScoring(picker, rows) if drawn else None) for rows, picker in parts]
        return passages.of_samples([row for part in scored for row in part])

    def compared_with(
        self,
        other: Callable[[Sequence[Row]], Sequence[torch.Tensor]],
        samples: Sequence[Sample],
        measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> list[torch.Tensor]:
        """[T] at each of a sample's tokens, what another model's predictions there are to the model's own; differentiable.

        Args:
            other: rows to its logits [T, V].
            measure: (its logits [T, V], the model's own [T, V]) → [T].
        """
        engine, passages = self._engine, Passages(self._engine.encode, samples)
        found: list[torch.Tensor] = []
        with engine.placed(), engine.version(False):
            for rows, _ in self._parts(passages):
                found += engine.log_probs(rows, _against(other(rows), measure))
        return passages.of_samples(found)

    def log_probs_and_values(self, samples: Sequence[Sample], critic: ValueHead) -> list[Both]:
        """([T] log-probs of what each sample's tokens are drawn from, [T] the critic's estimates before them)."""
        engine, passages = self._engine, Passages(self._engine.encode, samples)
        with engine.placed(), engine.version(False):
            parts = self._parts(passages)
            pairs = [p for rows, picker in parts for p in engine.log_probs_and_values(rows, critic, DrawnScoring(picker, rows))]
        sides = ([log_probs for log_probs, _ in pairs], [values for _, values in pairs])
        return list(zip(*(passages.of_samples(side) for side in sides), strict=True))

    @torch.no_grad()
    def traced(self, samples: Sequence[Sample], *, reference: bool) -> list[Sample]:
        """The samples with log-probs of this model: another engine's own would differ by its kernels' rounding."""
        rows = self.log_probs(samples, reference=reference, drawn=True)
        masks = [torch.ones(len(row), dtype=torch.bool) for row in rows]
        return [
            replace(sample, tensors={**sample.tensors, "step_log_probs": row.float().cpu(), "step_mask": mask})
            for sample, row, mask in zip(samples, rows, masks, strict=True)
        ]

    @torch.no_grad()
    def log_ratios(self, samples: Sequence[Sample]) -> torch.Tensor:
        """[B] log π − log π_ref of each completion, in nats, of the distributions that completions are drawn from.

        Where top-k or top-p cut tokens off, both are of the tokens that the present policy leaves, and the one that is there.
        """
        passages = Passages(self._engine.encode, samples)
        found: list[torch.Tensor] = []
        for rows, picker in self._parts(passages):
            drawn = DrawnScoring(picker, rows, cut=True)
            sides = []
            for reference in (False, True):  # in this order: the policy's own side says what is cut off
                with self._engine.placed(), self._engine.version(reference):
                    sides.append(self._engine.log_probs(rows, drawn))
            found += [own - start for own, start in zip(*sides, strict=True)]
        return torch.stack([row.sum() for row in passages.of_samples(found)])

    def _parts(self, passages: Passages) -> Iterator[tuple[Sequence[Row], Picker]]:
        """(prompts and completions, how tokens are drawn there), in order. Without gradients a large batch is taken in parts.

        A turn of a chat ends otherwise than a text, so a part is of one kind.
        """
        for chat, run in itertools.groupby(zip(passages.rows, passages.chats, strict=True), key=lambda row: row[1]):
            rows = [row for row, _ in run]
            most = max(len(rows), 1)
            if not torch.is_grad_enabled() and not self._engine.sharded:
                most = min(self._sampling.batch_size, rows_at_once(rows, self._engine.vocabulary))
            picker = Picker(self._sampling, self._engine.stops(self._sampling.stop, chat=chat))
            yield from ((part, picker) for part in chunks(rows, most))


def _against(theirs: Sequence[torch.Tensor], measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Scoring:
    return lambda index, logits: measure(theirs[index], logits)
