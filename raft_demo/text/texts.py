"""What the page Text asks for and shows, as plain data. Loads no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raft_core.errors import RaftError
from raft_core.store.manifest import read_config
from raft_core.types import Prompt
from raft_demo.shared.comparable import Comparable, opening, prompts_shown, run_prompts
from raft_demo.shared.limits import Limits
from raft_demo.shared.measures import Measure

USUAL: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 128}  # of raft_text's Sampling
HOTTEST = 2.0
ENDS = {"end": "ended by itself", "stop": "ended at a stop text", "length": "cut off at the longest length"}


@dataclass(frozen=True)
class Asked:
    """What a visitor asks for, checked.

    Attributes:
        label: of the model, as a person reads it.
        target: what ``open_source`` calls it.
        checkpoint: a round; None = what the run has exported.
        prompt: with what the run's table says of it besides.
        k: completions.
        temperature: 0 = the likeliest token always.
        tokens: longest completion.
    """

    label: str
    target: str
    checkpoint: str | None
    prompt: Prompt
    k: int
    seed: int
    temperature: float
    tokens: int


@dataclass(frozen=True)
class Completion:
    """A text and its tokens.

    Attributes:
        pieces: [T] the part of the text that each token contributes.
        finish: why it ended, in words.
        before: [T] log-prob of each token before training, nats; empty until computed.
        after: [T] the same after training.
    """

    text: str
    pieces: Sequence[str]
    finish: str
    before: Sequence[float] = ()
    after: Sequence[float] = ()


@dataclass(frozen=True)
class Completions:
    """The same prompt and seeds before and after training, as far as they are there.

    Attributes:
        before, after: [K]; empty until drawn.
        scores_before, scores_after: measure → [K], NaN = not scored.
        notes: what a person should know.
        seconds: for drawing, per completion.
    """

    asked: Asked
    before: Sequence[Completion]
    after: Sequence[Completion] = ()
    measures: Sequence[Measure] = ()
    scores_before: Mapping[str, Sequence[float]] = field(default_factory=dict)
    scores_after: Mapping[str, Sequence[float]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    seconds: float = 0.0

    def gain(self, measure: Measure, i: int) -> float:
        """After less before; NaN where either is missing."""
        return float(self.scores_after[measure.name][i]) - float(self.scores_before[measure.name][i])


@dataclass(frozen=True)
class Chain:
    """One chain of thought.

    Attributes:
        number: as drawn, from 1.
        score: by the reward that reranks; NaN = none asked for, or not scored.
    """

    number: int
    text: str
    finish: str
    score: float = math.nan


@dataclass(frozen=True)
class Party:
    """The chains that come to one answer.

    Attributes:
        answer: as a person writes it; "" for those that state none.
        right: None when the right answer is not known.
    """

    answer: str
    chains: Sequence[Chain]
    right: bool | None
    elected: bool = False
    best: bool = False


@dataclass(frozen=True)
class Verdict:
    """What n chains of thought say.

    Attributes:
        parties: most voters first, those without an answer last.
        reference: the right answer; "" = not known.
        reranker: name of the reward that chooses; "" = none.
    """

    asked: Asked
    parties: Sequence[Party]
    reference: str
    reranker: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Accuracies:
    """Rows of (method, samples, questions, accuracy, low, high) over several problems, accuracies in [0, 1]."""

    label: str
    rows: Sequence[tuple[str, int, int, float, float, float]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Defaults:
    """How a run draws by itself, and prompts to begin with, held-out ones first."""

    temperature: float
    tokens: int
    prompts: Sequence[str]

    @property
    def opening(self) -> str:
        """The prompt to begin with."""
        return opening(self.prompts)


def defaults(model: Comparable | None, limits: Limits) -> Defaults:
    """Of this model, within the limits. What its configuration does not tell, or tells wrongly, is as usual: writing will say
    more."""
    usual = Defaults(USUAL["temperature"], USUAL["max_new_tokens"], ())
    if model is None:
        return usual
    try:
        config = read_config(model.folder)
        sampling = {**USUAL, **((config["policy"].get("init_args") or {}).get("sampling") or {})}
        tokens = min(int(sampling["max_new_tokens"]), limits.tokens)
        return Defaults(min(float(sampling["temperature"]), HOTTEST), tokens, prompts_shown(config))
    except (RaftError, KeyError, TypeError, ValueError, AttributeError):
        return usual


def known_prompt(model: Comparable, text: str) -> Prompt:
    """The run's prompt of this text, with the right answer and whatever else its table says; else the text alone."""
    return next((prompt for prompt in problems(model) if prompt.text == text), Prompt(text))


def problems(model: Comparable) -> list[Prompt]:
    """The run's prompts, held-out ones first; none when its configuration cannot be read."""
    try:
        return run_prompts(read_config(model.folder))
    except RaftError:
        return []


def written(answer: Any) -> str:
    """An answer as a person writes it: numbers without a needless ``.0``."""
    if isinstance(answer, float) and math.isfinite(answer):
        return f"{answer:.10g}"
    return str(answer)
