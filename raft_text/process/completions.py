"""Completions as samples: drawn from the model, or written elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from raft_core.protocols import Purpose
from raft_core.sampling import chunks
from raft_core.types import Request, Sample
from raft_text.model.encoding import PromptEncoder
from raft_text.model.engine import Engine
from raft_text.model.turns import TURNS
from raft_text.options import Sampling
from raft_text.process.growing import Drawn, Task, first_stop
from raft_text.process.rejection import Watcher


@dataclass(frozen=True)
class Completions:
    """Draws completions of requests, prompts of similar length together.

    Attributes:
        engine: the loaded model.
        sampling: how they are drawn.
        watcher: gives hopeless ones up in rounds; None = nobody does.
        draw: a completion for each prompt of a task.
        on_step: told how long the longest is after each token.
    """

    engine: Engine
    sampling: Sampling
    watcher: Watcher | None
    draw: Callable[[Task], list[Drawn]]
    on_step: Callable[[int, int], None] | None = None

    def __call__(self, requests: Sequence[Request], purpose: Purpose, trace: bool) -> list[Sample]:
        """One sample per request, in the same order."""
        prompts = [self.engine.encode(request.prompt) for request in requests]
        chats = [self.engine.encode.is_chat(request.prompt) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: len(prompts[i]))  # stable: the K of a prompt stay together
        drawn: dict[int, Drawn] = {}
        for chat in (False, True):  # turns of a chat end otherwise than texts do, so the two are not drawn together
            for part in chunks([i for i in order if chats[i] == chat], self.sampling.batch_size):
                task = self._task([requests[i] for i in part], [prompts[i] for i in part], chat, purpose, trace)
                drawn |= dict(zip(part, self.draw(task), strict=True))
        return [sample_of(request, drawn[i], self.sampling) for i, request in enumerate(requests)]

    def _task(
        self, requests: Sequence[Request], prompts: Sequence[Sequence[int]], chat: bool, purpose: Purpose, trace: bool
    ) -> Task:
        return Task(
            prompts=prompts,
            texts=[request.prompt.text for request in requests],
            seeds=[request.seed for request in requests],
            sampling=self.sampling.for_comparison() if purpose == "compare" else self.sampling,
            ends=self.engine.stops(self.sampling.stop, chat=chat),
            decode=self.engine.encode.text,
            watcher=self.watcher if purpose == "round" else None,
            trace=trace,
            on_step=self.on_step,
        )


def sample_of(request: Request, drawn: Drawn, sampling: Sampling) -> Sample:
    """What was drawn as a sample; failed where the probabilities of a token were not finite."""
    tensors = {"tokens": drawn.tokens}
    if drawn.log_probs is not None:
        tensors |= {"step_log_probs": drawn.log_probs, "step_mask": torch.ones(len(drawn.tokens), dtype=torch.bool)}
    meta: dict[str, Any] = {"tokens": len(drawn.tokens), "finish": drawn.finish}
    if drawn.entropy is not None:
        meta["entropy"] = drawn.entropy
    if drawn.finish == "rejected":
        meta |= {"rejected": True, "tokens_saved_at_most": sampling.max_new_tokens - len(drawn.tokens)}
    sample = Sample(request, tensors=tensors, meta=meta)
    return sample.as_failed("the next token's probabilities are not finite") if drawn.finish == "failed" else sample


def written_sample(encode: PromptEncoder, request: Request, text: str) -> Sample:
    """A rendered sample of a completion that was written elsewhere.

    Raises:
        DataError: it exceeds the model's context, or the chat template refuses it.
    """
    turns = encode.turns(request.prompt, text)
    tokens = torch.tensor([token for turn in turns for token in turn], dtype=torch.int64)
    lengths = {TURNS: torch.tensor([len(turn) for turn in turns])} if len(turns) > 1 else {}
    meta = {"tokens": len(tokens), "finish": "written"}
    return Sample(request, output=text, tensors={"tokens": tokens, **lengths}, meta=meta)


def text_of(encode: PromptEncoder, sample: Sample, stop: Sequence[str]) -> str:
    """What a person reads of a sample: of several turns the last."""
    tokens = sample.tensors["tokens"]
    text = encode.text(tokens[-int(sample.tensors[TURNS][-1]) :] if TURNS in sample.tensors else tokens)
    return text[: first_stop(text, stop)] if sample.meta.get("finish") == "stop" else text
