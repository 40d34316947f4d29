"""How likely a policy finds what is written down, and the winners of a run as such a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raft_core.conversations import ANSWERS, REPLY
from raft_core.errors import ConfigError, StoreError
from raft_core.machine.files import write_text
from raft_core.protocols import Policy, RewardInfo
from raft_core.store.rounds import read_round, rounds_in
from raft_core.types import MESSAGES, Sample
from raft_text.policy import CausalLM


class ResponseLoss:
    """How unlikely the policy finds the response that the prompts' table gives, whatever it has drawn: nats per token.

    The held-out loss, before and after, is this judge's; its exponential is a perplexity. In a round it is measured before the
    update. It takes one pass over the responses without gradients.

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
        if not isinstance(policy, CausalLM):
            raise ConfigError(f"ResponseLoss is of the policy CausalLM, and not of {type(policy).__name__}: leave it out")
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
