"""Learning what is written down: supervised fine-tuning as the loop's simplest case, and distillation from a run's winners."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raft_core.conversations import ANSWERS, REPLY, response
from raft_core.errors import ConfigError, DataError, StoreError
from raft_core.machine.files import write_text
from raft_core.protocols import Policy, Purpose, RewardInfo
from raft_core.store.rounds import read_round, rounds_in
from raft_core.types import MESSAGES, Prompt, Request, Sample
from raft_text.model.visible import shortened
from raft_text.policy import CausalLM


def lacking_responses(prompts: Sequence[Prompt]) -> list[str]:
    """In words, naming the first, that some of the prompts have no response to learn; empty when all have one."""
    lacking = [prompt for prompt in prompts if response(prompt) is None]
    if not lacking:
        return []
    more = f" ({len(lacking)} of {len(prompts)} prompts have none)" if len(lacking) > 1 else ""
    needed = f"the prompts' table needs a text in the column {' or '.join(ANSWERS)}"
    if lacking[0].messages is not None:
        needed = f"a conversation has to end with an assistant's message, or {needed}"
    return [f"the prompt {shortened(lacking[0].text)!r} has no response to learn{more}: {needed}"]


class Demonstrated(CausalLM):
    """A language model that learns the responses in its prompts' table, by a person or by a teacher.

    In the rounds it "draws" the responses (column response, completion, answer or chosen, or the last message of a
    conversation), so K is 1 and all are kept; in comparisons it draws as ``CausalLM`` does. Of a conversation every turn of the
    assistant is learned (``prompting.learned_turns``). Its arguments are those of ``CausalLM``.
    """

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """Prompts without a response, which held-out ones do not need, and those of ``CausalLM.check_prompts``."""
        return [*lacking_responses(train), *super().check_prompts(train, held_out)]

    reads_responses = True
    #: Whether samples say how likely the model finds the response that the table gives; ``ResponseLoss`` asks for it.
    measures_responses = False

    def sample(
        self, requests: Sequence[Request], *, purpose: Purpose = "use", strength: float = 1.0, trace: bool = False
    ) -> list[Sample]:
        reference = self._is_reference(strength)
        if purpose != "round":
            drawn = super().sample(requests, purpose=purpose, strength=strength, trace=trace)
        else:
            drawn = self._given(requests)
            drawn = self.replay.traced(drawn, reference=reference) if trace else drawn
        return self._measured(drawn, reference) if self.measures_responses else drawn

    def render(self, samples: Sequence[Sample]) -> list[Sample]:
        """Responses as their table has them: a template may write more into a turn, and a tokenizer change a text."""
        given = [s.meta.get("finish") == "written" for s in samples]
        drawn = iter(super().render([s for s, each in zip(samples, given, strict=True) if not each]))
        return [s.with_output(response(s.prompt)) if each else next(drawn) for s, each in zip(samples, given, strict=True)]

    def _measured(self, samples: Sequence[Sample], reference: bool) -> list[Sample]:
        """The samples with ``response_loss`` in their meta, nats per token, where there is a response."""
        asked = {s.prompt.id: s.request for s in samples if response(s.prompt) is not None}
        written = self.written(list(asked.values()), [response(request.prompt) or "" for request in asked.values()])
        with torch.no_grad():
            nll = self.nll(written, None, reference=reference).tolist() if written else []
        losses = {s.prompt.id: value / s.meta["tokens"] for s, value in zip(written, nll, strict=True)}
        return [
            replace(s, meta={**s.meta, "response_loss": losses[s.prompt.id]}) if s.prompt.id in losses else s for s in samples
        ]

    def _given(self, requests: Sequence[Request]) -> list[Sample]:
        if mistakes := lacking_responses([request.prompt for request in requests]):
            raise DataError(mistakes[0])
        return self.written(requests, [response(request.prompt) or "" for request in requests])


class Given:
    """1 where the completion is the response that the prompts' table gives, else 0; without a response it is not scored.

    Args:
        name: column in the store and label in the report.
    """

    def __init__(self, name: str = "given"):
        self.info = RewardInfo(name=name, scale="1 = as given")

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]"""
        given = [response(sample.prompt) for sample in samples]
        pairs = zip(given, samples, strict=True)
        return np.array([np.nan if text is None else float(text.strip() == s.output.strip()) for text, s in pairs])


class ResponseLoss:
    """How unlikely the policy finds the response that the prompts' table gives, whatever it has drawn: nats per token.

    The held-out loss, before and after, is this judge's; its exponential is a perplexity. In a round it is measured before the
    update. It takes one pass over the responses without gradients, and the policy ``Demonstrated``.

    Args:
        name: column in the store and label in the report.
    """

    def __init__(self, name: str = "response_loss"):
        self.info = RewardInfo(name=name, scale="nats per token of the response given", higher_is_better=False)

    def attach(self, policy: Policy) -> None:
        """Have the policy measure what it draws.

        Raises:
            ConfigError: it cannot.
        """
        if not isinstance(policy, Demonstrated):
            raise ConfigError(
                f"ResponseLoss is of the policy Demonstrated, as raft sft uses it, and not of {type(policy).__name__}"
            )
        policy.measures_responses = True

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]"""
        return np.array([sample.meta.get("response_loss", np.nan) for sample in samples], dtype=np.float64)


def write_winners(run: Path, per_prompt: int = 1) -> Path:
    """Write ``winners.jsonl`` into a run's folder: of each prompt the best different samples that were kept; returns its path.

    Each line has the prompt, the response, and what the run's prompts say besides (a reference answer).

    Args:
        per_prompt: at most so many of a prompt, over all rounds; of equal scores the earlier sample.

    Raises:
        StoreError: the run has no samples of text.
    """
    found: dict[str, dict[str, tuple[float, dict[str, Any]]]] = {}  # prompt → response → score and line
    for rnd in rounds_in(run):
        samples, scores, kept = read_round(run, rnd)
        upward = scores.columns[scores.reward] * (-1 if scores.reward in scores.descending else 1)
        for sample, score, chosen in zip(samples, upward, kept, strict=True):
            if not chosen or not isinstance(sample.output, str) or np.isnan(score):
                continue
            others = found.setdefault(sample.prompt.text, {})
            text = sample.output.strip()
            if text not in others or score > others[text][0]:
                said = {n: value for n, value in sample.prompt.meta.items() if n not in (*ANSWERS, MESSAGES, REPLY)}
                asked = sample.prompt.text if sample.prompt.messages is None else sample.prompt.messages
                others[text] = float(score), {**said, "prompt": asked, "response": sample.output}
    if not found:
        raise StoreError(f"{run} holds no kept samples of text, so there is nothing to learn from it")
    best = [sorted(others.values(), key=lambda one: -one[0])[:per_prompt] for others in found.values()]  # stable
    lines = [json.dumps(line, ensure_ascii=False) for chosen in best for _, line in chosen]
    write_text(run / "winners.jsonl", "\n".join(lines) + "\n")
    return run / "winners.jsonl"
