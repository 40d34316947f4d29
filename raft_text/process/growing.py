"""Completions while they grow: which tokens they have, and which of them are finished, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from raft_text.options import Sampling
from raft_text.process.token_choice import Picker, entropy, uniforms

Finish = Literal["end", "stop", "length", "rejected", "failed"]
COMPACT_AT = 0.25  # share of finished rows at which the others are moved together


@dataclass(frozen=True, eq=False)
class Drawn:
    """A completion.

    Attributes:
        tokens: [T] int64 on the CPU, with the end-of-text token if there is one; T ≥ 1 unless it failed.
        log_probs: [T] float32 in nats, of the distribution that the tokens were drawn from; None if not asked for.
        entropy: of the model's prediction, mean over tokens, nats; None if the engine does not tell, or it failed.
        finish: why it ended; "failed" where the probabilities of the next token were not finite.
    """

    tokens: torch.Tensor
    log_probs: torch.Tensor | None
    entropy: float | None
    finish: Finish


@dataclass(frozen=True)
class Task:
    """What to draw.

    Attributes:
        prompts: [B] token ids; equal ones are read once.
        texts: [B] the prompts' texts, for rules that look at completions.
        seeds: [B] of the samples.
        sampling: how.
        ends: ids of the tokens that end a text.
        decode: token ids to text, for stop texts and rules.
        watcher: says which beginnings are hopeless, a ``rejection.Watcher`` or ``stages.StageWatcher``; None = nothing is given
            up.
        trace: keep log-probs.
        on_step: told how many tokens the longest has, and how many it may have, after each.
    """

    prompts: Sequence[Sequence[int]]
    texts: Sequence[str]
    seeds: Sequence[int]
    sampling: Sampling
    ends: Sequence[int]
    decode: Callable[[torch.Tensor], str]
    watcher: Any = None
    trace: bool = False
    on_step: Callable[[int, int], None] | None = None


class Growing:
    """The completions while they grow; rows that are finished are dropped when there are enough of them."""

    def __init__(self, task: Task, context: torch.Tensor, device: torch.device):
        n, longest = len(task.prompts), task.sampling.max_new_tokens
        self.task = task
        self.rows = torch.arange(n, device=device)  # [A] which sample each row is
        self.context = context  # [A, L]
        # What is not yet written repeats the row's first token: a repetition penalty then sees nothing that is not there.
        self.tokens = context[:, :1].repeat(1, longest)  # [A, T]
        self.log_probs = torch.zeros(n, longest, device=device)
        self.entropy = torch.zeros(n, device=device)
        self.count = torch.zeros(n, dtype=torch.int64, device=device)
        self.alive = torch.ones(n, dtype=torch.bool, device=device)
        self.uniform = uniforms(task.seeds, longest, device)
        self._ends = torch.tensor(list(task.ends), device=device)
        self._done: dict[int, Drawn] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def pick(self, picker: Picker, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """([A] each row's next token, [A, V] logits of the distribution that it is drawn from)."""
        last = self.tokens.shape[1] - 1
        good = can_be_drawn_from(logits)
        if not bool(good.all()):  # of NaN no token would come, but an index beyond the vocabulary; ``write`` sees to these rows
            logits = torch.where(good[:, None], logits, 0.0)
        uniform = self.uniform.gather(1, self.count.clamp(max=last)[:, None])[:, 0]
        return picker(logits, torch.cat([self.context, self.tokens], dim=1), self.count, uniform)

    def write(self, token: torch.Tensor, shaped: torch.Tensor, logits: torch.Tensor, active: torch.Tensor) -> None:
        """Append ``token`` [A] to the rows that are alive and ``active`` [A].

        Where the logits give no probabilities the row has failed, and nothing is appended.

        Args:
            shaped: [A, V] logits of the distribution that the token was drawn from.
            logits: [A, V] of the model.
        """
        active = active & self.alive
        failed = active & ~can_be_drawn_from(logits)
        self._finish(failed, "failed")
        active = active & ~failed
        place = self.count.clamp(max=self.tokens.shape[1] - 1)[:, None]
        keep = active[:, None]
        self.tokens.scatter_(1, place, torch.where(keep, token[:, None], self.tokens.gather(1, place)))
        self.entropy += torch.where(active, entropy(logits), 0.0)
        if self.task.trace:
            log_prob = shaped.log_softmax(dim=-1).gather(1, token[:, None])
            self.log_probs.scatter_(1, place, torch.where(keep, log_prob, self.log_probs.gather(1, place)))
        self.count = self.count + active
        ended = torch.isin(token, self._ends) & active
        full = (self.count >= self.tokens.shape[1]) & active & ~ended
        self._finish(ended, "end")
        if self.task.sampling.stop:
            self._finish(self._stopped(active & self.alive), "stop")
        self._finish(full & self.alive, "length")
        if self.task.watcher:
            self._finish(self._hopeless(active & self.alive), "rejected")

    def _stopped(self, rows: torch.Tensor) -> torch.Tensor:
        """[A] bool: those of ``rows`` [A] bool in which a stop text has come up."""
        stop = self.task.sampling.stop
        longest = max(len(text.encode()) for text in stop)  # tokens that a stop text can span, and some before it
        counts, found = self.count.tolist(), torch.zeros_like(rows)
        for row in _numbers(rows):
            tail = self.tokens[row, max(0, counts[row] - longest - 8) : counts[row]]
            found[row] = first_stop(self.task.decode(tail), stop) is not None
        return found

    def _hopeless(self, rows: torch.Tensor) -> torch.Tensor:
        """[A] bool: those of ``rows`` [A] bool that are to be looked at now and are given up."""
        counts, found = self.count.tolist(), torch.zeros_like(rows)
        due = [row for row in _numbers(rows) if self.task.watcher.due(counts[row])]
        if due:
            numbers = [self.rows.tolist()[row] for row in due]
            texts = [self.task.decode(self.tokens[row, : counts[row]]) for row in due]
            verdicts = self.task.watcher.hopeless(numbers, [self.task.texts[number] for number in numbers], texts, self._done)
            found[due] = torch.tensor(verdicts, device=found.device)
        return found

    def _finish(self, rows: torch.Tensor, why: Finish) -> None:
        for row in _numbers(rows):
            n = int(self.count[row])
            self._done[int(self.rows[row])] = Drawn(
                tokens=self.tokens[row, :n].cpu().clone(),
                log_probs=self.log_probs[row, :n].cpu().clone() if self.task.trace else None,
                entropy=None if why == "failed" else float(self.entropy[row]) / n,
                finish=why,
            )
        self.alive = self.alive & ~rows

    def compacted(self) -> torch.Tensor | None:
        """Rows that go on, if enough are finished to move the others together; the caller has them moved elsewhere too."""
        finished = len(self) - int(self.alive.sum())
        if finished < max(1, COMPACT_AT * len(self)):
            return None
        rows = self.alive.nonzero()[:, 0]
        for name in ("rows", "context", "tokens", "log_probs", "entropy", "count", "uniform", "alive"):
            setattr(self, name, getattr(self, name)[rows])
        return rows

    def results(self) -> list[Drawn]:
        return [self._done[index] for index in range(len(self.task.prompts))]


def can_be_drawn_from(logits: torch.Tensor) -> torch.Tensor:
    """[A] bool: whether logits [A, V] give probabilities: none is NaN or +∞, and one at least is more than −∞."""
    return logits.logsumexp(dim=-1).isfinite()


def _numbers(rows: torch.Tensor) -> list[int]:
    return rows.nonzero()[:, 0].tolist()


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the first of the stop texts begins; None when there is none."""
    found = [place for each in stop if (place := text.find(each)) >= 0]
    return min(found) if found else None
