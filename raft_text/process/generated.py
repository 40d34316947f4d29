"""Completions of models that keep a state of what they have read, which no row of a shared reading can give back.

transformers' own ``generate`` reads and goes on; which token comes is decided as for every model. Each sample reads its prompt
itself, and prompts of one length are drawn together, because padding would enter the state.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from raft_core.errors import ModelError
from raft_text.model.likelihood import DrawnScoring, token_log_probs
from raft_text.options import Sampling
from raft_text.process.growing import Drawn, Growing, Task
from raft_text.process.token_choice import Picker

#: Largest difference of a log-prob in nats, in float32 and in half precision, between reading at once and step by step.
SAME, SAME_IN_HALF = 0.01, 0.2


def prove_replay(network: Any, ends: Sequence[int], device: torch.device) -> None:
    """Make sure that a model which keeps a state predicts the same step by step, as it is drawn from, and at once, as it is
    trained.

    Raises:
        ModelError: it does not.
    """
    n = network.get_input_embeddings().num_embeddings
    prompts = [[number % n for number in numbers] for numbers in ((1, 5, 2, 7, 3), (4, 1, 8, 6, 2))]  # drawn together
    sampling = Sampling(max_new_tokens=6, min_new_tokens=6, temperature=0.0)
    task = Task(prompts, ["", ""], [0, 1], sampling, ends, decode=lambda _: "", trace=True)
    drawn = [each for each in zip(prompts, draw_generated(network, task, device), strict=True) if each[1].finish == "length"]
    rows = [(prompt, each.tokens) for prompt, each in drawn]
    with torch.no_grad():
        at_once = token_log_probs(network, rows, device, scoring=DrawnScoring(Picker(sampling, ends), rows))
    pairs = [(row.cpu(), each.log_probs) for row, (_, each) in zip(at_once, drawn, strict=True) if each.log_probs is not None]
    difference = max((float((row - steps).abs().max()) for row, steps in pairs), default=0.0)
    if difference > (SAME if network.dtype == torch.float32 else SAME_IN_HALF):
        raise ModelError(
            f"{type(network).__name__} predicts otherwise step by step than at once (by {difference:.2g} nats a token), so "
            "what is drawn could not be trained on: it cannot be aligned here"
        )


@torch.no_grad()
def draw_generated(network: Any, task: Task, device: torch.device) -> list[Drawn]:
    """A completion per prompt and seed.

    Args:
        network: any causal LM of transformers in evaluation mode.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(task.prompts):
        groups[len(prompt)].append(i)
    found: dict[int, Drawn] = {}
    for rows in groups.values():
        part = replace(task, **{name: [getattr(task, name)[i] for i in rows] for name in ("prompts", "texts", "seeds")})
        if task.watcher is not None:
            part = replace(part, watcher=_Renumbered(task.watcher, rows))
        found |= zip(rows, _draw_alike(network, part, device), strict=True)
    return [found[i] for i in range(len(task.prompts))]


def _draw_alike(network: Any, task: Task, device: torch.device) -> list[Drawn]:
    """Completions of prompts of one length."""
    ids = torch.tensor([list(prompt) for prompt in task.prompts], device=device)
    growing = Growing(task, ids, device)
    config = GenerationConfig(
        max_new_tokens=task.sampling.max_new_tokens,
        do_sample=False,  # of what is forced
        repetition_penalty=1.0,  # these are the picker's matter, whatever the model's folder proposes
        no_repeat_ngram_size=0,
        eos_token_id=list(task.ends) or None,
        pad_token_id=int(ids[0, 0]),  # what a finished row is fed with
        use_cache=True,
    )
    network.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=config,
        logits_processor=LogitsProcessorList([_Choosing(growing, Picker(task.sampling, task.ends))]),
        stopping_criteria=StoppingCriteriaList([_Finished(growing)]),
    )
    return growing.results()


@dataclass(frozen=True)
class _Renumbered:
    """A watcher that is told of completions by their numbers in the whole task.

    Attributes:
        watcher: of the whole task.
        rows: number there of each completion that is drawn here.
    """

    watcher: Any
    rows: Sequence[int]

    def due(self, count: int) -> bool:
        return self.watcher.due(count)

    def hopeless(
        self, numbers: Sequence[int], prompts: Sequence[str], beginnings: Sequence[str], finished: Mapping[int, Drawn]
    ) -> list[bool]:
        done = {self.rows[number]: drawn for number, drawn in finished.items()}
        return self.watcher.hopeless([self.rows[number] for number in numbers], prompts, beginnings, done)


class _Choosing(LogitsProcessor):
    """Picks and writes each row's next token, and forces it."""

    def __init__(self, growing: Growing, picker: Picker):
        self._growing = growing
        self._picker = picker

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        growing, logits = self._growing, scores.float()
        token, shaped = growing.pick(self._picker, logits)
        growing.write(token, shaped, logits, torch.ones_like(growing.alive))
        if growing.task.on_step is not None:
            growing.task.on_step(int(growing.count.max()), growing.tokens.shape[1])
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)


class _Finished(StoppingCriteria):
    """Stops the rows that are finished."""

    def __init__(self, growing: Growing):
        self._growing = growing

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # type: ignore[override]
        return ~self._growing.alive
