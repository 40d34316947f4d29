"""The work behind the page Compare, in the worker's process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from raft_core.capabilities import AttachesPolicy
from raft_core.errors import ConfigError, ModelError
from raft_core.evaluation.evaluate import column_roles, scored_together
from raft_core.reporter import Silent
from raft_core.soundness import failed_words
from raft_core.types import Prompt, Sample
from raft_core.workflows.align import truncated
from raft_core.workflows.generate import generate
from raft_core.workflows.trained import Source, open_source
from raft_demo.compare.comparison import Asked, Column, Comparison
from raft_demo.shared import shelf
from raft_demo.shared.measures import Measure, measure_of, unscored
from raft_demo.shared.worker import Progress, tell

TOLD_EVERY_S = 0.2  # a small model takes a step in milliseconds, less than the way to the page


@dataclass(frozen=True)
class _Model:
    """One of the models that are compared."""

    label: str
    target: str
    checkpoint: str | None
    source: Source


def compare(asked: Asked) -> Iterator[Comparison]:
    """Draw with every model before and after, score all of it; what is drawn so far is yielded after each column.

    The pictures are those of ``raft generate`` with the same prompt, seed and settings.

    Raises:
        RaftError: a model that cannot be loaded or cannot draw what is asked.
    """
    models = [_Model(label, target, checkpoint, open_source(target, [])) for label, target, checkpoint in asked.models]
    columns: list[Column] = []
    samples: list[list[Sample]] = []
    bases: dict[str, int] = {}
    notes: list[str] = []
    steps = _Steps(asked, len(models) * (1 + len(asked.strengths)))
    spent = 0.0
    for model in models:
        tell(Progress(f"loading {model.label}"))
        policy, key = _ready(model, asked)
        notes += [line for line in truncated(policy, [Prompt(asked.prompt)]) if line not in notes]
        strengths: list[float | None] = list(asked.strengths)  # None = before training
        if key in bases:
            steps.columns -= 1  # another model has shown this one's start
        else:
            bases[key] = len(columns)
            strengths.insert(0, None)
        for strength in strengths:
            begun = time.perf_counter()
            samples.append(_drawn(policy, asked, strength, steps))
            spent += time.perf_counter() - begun
            pictures, failed = [sample.output for sample in samples[-1]], [sample.failed for sample in samples[-1]]
            name = str(getattr(policy, "model", model.source.name))
            label = _label(asked, model, strength)
            facts = (label, name, model.target, model.checkpoint, strength or 0.0, bases[key])
            columns.append(Column(*facts, pictures, failed=failed))
            notes += [f"{label}: {words}"] if (words := failed_words(samples[-1])) else []
            yield Comparison(asked, tuple(columns), notes=tuple(notes), seconds=spent / (len(columns) * asked.k))
    if asked.score:
        tell(Progress("scoring"))
        scored, measures, more = _scored(models, asked, columns, samples)
        yield Comparison(asked, scored, measures, (*notes, *more), seconds=spent / (len(columns) * asked.k))


def _label(asked: Asked, model: _Model, strength: float | None) -> str:
    """``before``, ``after``, ``strength 0.5``; with the model's name where there are several."""
    one = len(asked.models) == 1
    if strength is None:
        return "before"
    if len(asked.strengths) > 1 or strength != 1:
        return f"strength {strength:g}" if one else f"{model.label} × {strength:g}"
    return "after" if one else model.label


def _ready(model: _Model, asked: Asked) -> tuple[Any, str]:
    """(the policy with the model's weights and the settings that are asked for, what decides how its start draws).

    Raises:
        RaftError: it cannot be loaded, or cannot draw so.
    """
    policy: Any
    policy, key = shelf.policy_of(model.source)
    if policy.modality != "image":
        raise ModelError(f"{model.label} draws no pictures; texts are compared on the page Text")
    model.source.put_weights(policy, model.checkpoint)
    sampling = getattr(policy, "sampling", None)  # a policy of somebody else's may have none
    changed: dict[str, Any] = {
        "steps": asked.steps,
        "guidance_scale": asked.guidance_scale,
        "width": asked.width,
        "height": asked.height,
    }
    if is_dataclass(sampling) and not isinstance(sampling, type):
        known = {each.name for each in fields(sampling)}
        policy.sampling = replace(sampling, **{name: value for name, value in changed.items() if name in known})
    if mistakes := policy.check():
        raise ConfigError(mistakes)
    return policy, f"{key} {getattr(policy, 'sampling', '')}"


class _Steps:
    """Counts denoising steps over all columns, and tells of them now and then.

    Attributes:
        columns: to be drawn.
    """

    def __init__(self, asked: Asked, columns: int):
        self.columns = columns
        self._asked = asked
        self._begun, self._done = 0, 0
        self._told_at = -math.inf

    def column(self, batch_size: int) -> Callable[[int, int], None]:
        """What a policy tells its steps to while it draws the next column."""
        self._begun += 1
        parts = math.ceil(self._asked.k / batch_size)

        def on_step(step: int, steps: int) -> None:
            self._done += 1
            if time.monotonic() - self._told_at < TOLD_EVERY_S:
                return
            self._told_at = time.monotonic()
            text = f"drawing {self._begun} of {self.columns}, step {step} of {steps}"
            tell(Progress(text, self._done, self.columns * parts * steps))

        return on_step


def _drawn(policy: Any, asked: Asked, strength: float | None, steps: _Steps) -> list[Sample]:
    """K rendered samples, from the same noise in every column."""
    policy.on_step = steps.column(policy.batch_size)
    try:
        prompts = [Prompt(asked.prompt)]
        return generate(policy, prompts, k=asked.k, seed=asked.seed, reporter=Silent(), strength=strength or 0.0)
    finally:
        policy.on_step = None


def _scored(
    models: Sequence[_Model], asked: Asked, columns: Sequence[Column], samples: Sequence[Sequence[Sample]]
) -> tuple[tuple[Column, ...], tuple[Measure, ...], list[str]]:
    """(columns with scores, what was measured, what could not be scored), by every model's reward and judges."""
    measures: dict[str, Measure] = {}
    scores: list[dict[str, Sequence[float]]] = [{} for _ in columns]
    notes: list[str] = []
    for model in {shelf.scorer_key(model.source): model for model in reversed(models)}.values():
        scorer = shelf.scorer_of(model.source)
        if any(isinstance(reward, AttachesPolicy) for reward in scorer.all):
            scorer.attach(_ready(model, asked)[0])
        sides = scored_together(scorer, *samples)
        names = {name: name if name not in measures else f"{name} ({model.label})" for name in column_roles(scorer)}
        measures |= {shown: measure_of(scorer, name, shown) for name, shown in names.items()}
        for found, side in zip(scores, sides, strict=True):
            found |= {shown: side.columns[name].tolist() for name, shown in names.items()}
        notes += unscored(sides)
    filled = tuple(replace(column, scores=found) for column, found in zip(columns, scores, strict=True))
    return filled, tuple(measures.values()), notes
