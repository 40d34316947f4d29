"""Completions as samples: drawn from the model, or written elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from raft_core.environment import Environment
from raft_core.protocols import Purpose
from raft_core.sampling import chunks, whole_prompts
from raft_core.types import Request, Sample
from raft_text.model.encoding import PromptEncoder
from raft_text.model.engine import Engine
from raft_text.model.turns import TOLD, TURNS
from raft_text.options import Sampling
from raft_text.process.episodes import Episode, Episodes
from raft_text.process.growing import Drawn, Task, first_stop
from raft_text.process.rejection import Watcher
from raft_text.process.stages import StageWatcher, stage_tokens

#: (samples of whole prompts as they are so far) → whether each goes on.
GoesOn = Callable[[Sequence[Sample]], Sequence[bool]]


@dataclass(frozen=True)
class Completions:
    """Draws completions of requests, prompts of similar length together.

    Attributes:
        engine: the loaded model.
        sampling: how they are drawn.
        watcher: gives hopeless ones up in rounds; None = nobody does.
        draw: a completion for each prompt of a task.
        on_step: told how long the longest is after each token.
        environment: answers between turns; None = a completion is one turn.
    """

    engine: Engine
    sampling: Sampling
    watcher: Watcher | None
    draw: Callable[[Task], list[Drawn]]
    on_step: Callable[[int, int], None] | None = None
    environment: Environment | None = None

    def __call__(self, requests: Sequence[Request], purpose: Purpose, trace: bool) -> list[Sample]:
        """One sample per request, in the same order."""
        prompts = [self.engine.encode(request.prompt) for request in requests]
        chats = [self.engine.encode.is_chat(request.prompt) for request in requests]
        order = sorted(range(len(requests)), key=lambda i: len(prompts[i]))  # stable: the K of a prompt stay together
        samples: dict[int, Sample] = {}
        for chat in (False, True):  # turns of a chat end otherwise than texts do, so the two are not drawn together
            for part in chunks([i for i in order if chats[i] == chat], self.sampling.batch_size):
                asked = [requests[i] for i in part]
                task = self._task(asked, [prompts[i] for i in part], chat, purpose, trace)
                samples |= dict(zip(part, self._drawn(asked, task), strict=True))
        return [samples[i] for i in range(len(requests))]

    def in_stages(
        self,
        requests: Sequence[Request],
        at: Sequence[float],
        goes_on: GoesOn,
        trace: bool,
    ) -> list[Sample]:
        """Completions of whole prompts together, in parts of about ``sampling.batch_size``, looked at on the way."""
        samples: dict[int, Sample] = {}
        for chat in (False, True):  # turns of a chat end otherwise than texts do
            places = [i for i, request in enumerate(requests) if self.engine.encode.is_chat(request.prompt) == chat]
            for part in whole_prompts([requests[i] for i in places], self.sampling.batch_size):
                own, places = places[: len(part)], places[len(part) :]
                task = self._task(part, [self.engine.encode(request.prompt) for request in part], chat, "round", trace)
                samples |= dict(zip(own, self._drawn_in_stages(part, task, at, goes_on), strict=True))
        return [samples[i] for i in range(len(requests))]

    def _drawn_in_stages(self, part: Sequence[Request], task: Task, at: Sequence[float], goes_on: GoesOn) -> list[Sample]:
        sampling, encode = task.sampling, self.engine.encode

        def previews(numbers: Sequence[int], texts: Sequence[str]) -> Sequence[bool]:
            return goes_on([Sample(part[number], output=text) for number, text in zip(numbers, texts, strict=True)])

        def text(drawn: Drawn) -> str:
            return text_of(encode, sample_of(part[0], drawn, sampling), sampling.stop)

        watcher = StageWatcher(stage_tokens(at, sampling.max_new_tokens), previews, text)
        pairs = zip(part, self.draw(replace(task, watcher=watcher)), strict=True)
        samples = [sample_of(request, drawn, sampling) for request, drawn in pairs]
        return [replace(s, meta={**s.meta, "evaluations": len(s.tensors["tokens"])}) for s in samples]

    def _drawn(self, requests: Sequence[Request], task: Task) -> list[Sample]:
        if self.environment is None:
            pairs = zip(requests, self.draw(task), strict=True)
            return [sample_of(request, drawn, task.sampling) for request, drawn in pairs]
        episodes = Episodes(self.environment, self.engine.encode, self.draw)(task, [request.prompt for request in requests])
        return [episode_sample(request, episode, task.sampling) for request, episode in zip(requests, episodes, strict=True)]

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


def episode_sample(request: Request, episode: Episode, sampling: Sampling) -> Sample:
    """What was said in an episode as a sample; its tokens are the policy's own."""
    sample = sample_of(request, episode.drawn(), sampling)
    meta = {**sample.meta, "turns": len(episode.turns), "told": episode.shown}
    return replace(sample, tensors={**sample.tensors, **episode.tensors()}, meta=meta)


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
    """What a person reads of a sample: of an episode all that was said, of several turns that are learned the last."""
    tokens = sample.tensors["tokens"]
    turns = tokens.split(sample.tensors[TURNS].tolist()) if TURNS in sample.tensors else [tokens]
    text = encode.text(turns[-1])
    text = text[: first_stop(text, stop)] if sample.meta.get("finish") == "stop" else text
    before = zip(turns[:-1], sample.meta["told"], strict=True) if TOLD in sample.tensors else ()
    return "".join(encode.text(turn) + reply for turn, reply in before) + text
