"""Learning what is written down: supervised fine-tuning as the loop's simplest case, and distillation from a run's winners."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raft_core.errors import DataError, StoreError
from raft_core.files import write_text
from raft_core.protocols import RewardInfo
from raft_core.records import read_round, rounds_in
from raft_core.types import Prompt, Request, Sample
from raft_text.policy import RESPONSES, CausalLM


def response(prompt: Prompt) -> str | None:
    """What the prompts' table says is to be answered; None when it has no such column."""
    found = next((prompt.meta[name] for name in RESPONSES if name in prompt.meta), None)
    return found if isinstance(found, str) else None


class Demonstrated(CausalLM):
    """A language model that learns the responses in its prompts' table, by a person or by a teacher.

    In the rounds it "draws" the responses (column response, completion, answer or chosen), so K is 1 and all are kept; in
    comparisons it draws as ``CausalLM`` does. Its arguments are those of ``CausalLM``.
    """

    def sample(self, requests: Sequence[Request], *, trace: bool = False, reference: bool = False) -> list[Sample]:
        if self._whole:
            return super().sample(requests, trace=trace, reference=reference)
        texts = []
        for request in requests:
            text = response(request.prompt)
            if text is None:
                raise DataError(
                    f"the prompt {request.prompt.text!r} has no response to learn: the prompts' table needs a text in the "
                    f"column {' or '.join(RESPONSES)}"
                )
            texts.append(text)
        samples = self.written(requests, texts)
        return self._traced(samples, reference) if trace else samples


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


def write_winners(run: Path) -> Path:
    """Write ``winners.jsonl`` into a run's folder: for each prompt the best of the samples that were kept; returns its path.

    Raises:
        StoreError: the run has no samples of text.
    """
    best: dict[str, tuple[float, str]] = {}
    for rnd in rounds_in(run):
        samples, scores, kept = read_round(run, rnd)
        upward = scores.columns[scores.reward] * (-1 if scores.reward in scores.descending else 1)
        for sample, score, chosen in zip(samples, upward, kept, strict=True):
            if chosen and isinstance(sample.output, str) and score > best.get(sample.prompt.text, (-np.inf, ""))[0]:
                best[sample.prompt.text] = float(score), sample.output
    if not best:
        raise StoreError(f"{run} holds no kept samples of text, so there is nothing to learn from it")
    lines = [json.dumps({"prompt": text, "response": won}, ensure_ascii=False) for text, (_, won) in best.items()]
    write_text(run / "winners.jsonl", "\n".join(lines) + "\n")
    return run / "winners.jsonl"
