"""Process rewards: a score for each step of a chain of thought, and one number of them for the whole."""

from __future__ import annotations

import ast
import itertools
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from raft_core.errors import ConfigError, ModelError, RaftError, nearest
from raft_core.protocols import RewardInfo
from raft_core.rewards.function import find_function
from raft_core.rewards.scoring import told
from raft_core.types import Sample
from raft_text.rewards.models import Dtype, Loaded, Source, by_length, inputs_of, load
from raft_text.rewards.texts import completions, encodable

Aggregate = Literal["min", "last", "product", "mean"]
AGGREGATES: dict[str, Callable[[np.ndarray], float]] = {
    "min": lambda scores: float(scores.min()),
    "last": lambda scores: float(scores[-1]),
    "product": lambda scores: float(scores.prod()),
    "mean": lambda scores: float(scores.mean()),
}
UNSCORED = "the text has no step, or one of its steps has no score"
EXPRESSION = re.compile(r"[-+*/×·÷()\d.,\s]+")
OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
LONGEST, TOLERANCE = 200, 1e-6  # letters of an expression; how far a result may be off, relatively


def split_steps(text: str, separator: str) -> list[str]:
    """The steps of a text, without those that are blank."""
    return [step.strip() for step in text.split(separator) if step.strip()]


def aggregated(scores: Sequence[float], how: Aggregate) -> float:
    """One number for all steps; NaN where there is none, or one has no score.

    Source: minimum and product: Lightman et al. 2023 (2305.20050), appendix F; last: Wang et al. 2023 (2312.08935).
    """
    values = np.array(scores, dtype=np.float64)
    return AGGREGATES[how](values) if len(values) and np.isfinite(values).all() else float("nan")


def aggregate_mistakes(how: str, separator: str) -> list[str]:
    found = [] if how in AGGREGATES else [f"aggregate is {how!r}, but must be one of {', '.join(AGGREGATES)}"]
    return found if separator else [*found, "separator is empty, but must be what stands between two steps"]


class StepReward:
    """A function's scores of the steps of a chain of thought, as one number for each text.

    As the reward it selects by how sound the whole way is, not by its end alone; ``raft generate --rerank`` takes it, too.

    Args:
        function: ``my_file.py:my_function`` of (prompts, steps), which returns for each text a list with one number per step;
            by default ``arithmetic``: 1 for a step whose equations hold, else 0.
        aggregate: ``min``, the worst step; ``last``; ``product``, for scores that are probabilities; ``mean``.
        separator: what stands between two steps.
        name: column in the store and label in the report.
    """

    def __init__(
        self,
        function: str = "raft_text.rewards.steps:arithmetic",
        aggregate: Aggregate = "min",
        separator: str = "\n",
        name: str = "steps",
    ):
        if mistakes := aggregate_mistakes(aggregate, separator):
            raise ConfigError(mistakes)
        self.function = function
        self.aggregate: Aggregate = aggregate
        self.separator = separator
        self.info = RewardInfo(name=name, scale=f"{aggregate} of the steps' scores", batch_size=64)
        self._call: Callable[[list[str], list], Any] | None = None

    def check(self) -> list[str]:
        """Whether the function can be found."""
        try:
            self.load()
        except RaftError as error:
            return [str(error)]
        return []

    def load(self) -> None:
        """Import the function.

        Raises:
            ConfigError: it cannot be found.
        """
        self._call = self._call or find_function(self.function)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]

        Raises:
            PartlyScored: some texts have no step, or steps without a score.
            ValueError: the function has not returned one number for each step.
        """
        self.load()
        assert self._call is not None
        steps = [split_steps(text, self.separator) for text in completions(samples)]
        scores = list(self._call([sample.prompt.text for sample in samples], steps))
        if len(scores) != len(steps) or any(len(own) != len(each) for own, each in zip(scores, steps, strict=True)):
            raise ValueError(
                f"{self.function} has to return a list for each of {len(steps)} texts, with a number for each step"
            )
        return told(np.array([aggregated(own, self.aggregate) for own in scores]), UNSCORED)


def arithmetic(prompts: Sequence[str], steps: Sequence[Sequence[str]]) -> list[list[float]]:  # noqa: ARG001
    """For each step of each text 1 if all equations in it hold, else 0; a step without any claims nothing wrong.

    "2 * 3 = 6." and "$1,000 / 4 = 250 = 5 * 50" hold, "2 + 2 = 5" does not. What is no arithmetic on both sides is passed over.
    """
    return [[float(all(map(_holds, _equations(step)))) for step in each] for each in steps]


def _equations(step: str) -> list[tuple[float, float]]:
    """The values of both sides of each sign of equality that stands between two expressions."""
    sides = step.replace("$", "").split("=")
    found = []
    for left, right in itertools.pairwise(sides):
        ends = [match.group() for match in EXPRESSION.finditer(left) if match.end() == len(left)]
        begins = EXPRESSION.match(right)
        values = [value_of(text) for text in (ends[-1] if ends else "", begins.group() if begins else "")]
        if values[0] is not None and values[1] is not None:
            found.append((values[0], values[1]))
    return found


def _holds(sides: tuple[float, float]) -> bool:
    return abs(sides[0] - sides[1]) <= TOLERANCE * max(1.0, abs(sides[0]), abs(sides[1]))


def value_of(text: str) -> float | None:
    """The value of an expression of numbers, + − * / and brackets; None of anything else, and where it divides by zero."""
    plain = text.replace(",", "").replace("×", "*").replace("·", "*").replace("÷", "/").strip().rstrip(".")
    if not plain or len(plain) > LONGEST:
        return None
    try:
        return _value(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None


def _value(node: ast.expr) -> float:
    """Of a tree of numbers and the four operations.

    Raises:
        ValueError: there is something else in it.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        return _value(node.operand) * (-1 if isinstance(node.op, ast.USub) else 1)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("no arithmetic")


class StepRewardModel:
    """A process reward model, a token classifier: the chance that each step is right, as one number for each text.

    The text is read as TRL's ``PRMTrainer`` trains such models: the prompt, then every step with the separator behind it; a
    step's score is the chance of the label at the separator's last token.

    Args:
        model: a folder in transformers' layout, or a name on the Hub. Weights are read from safetensors alone.
        aggregate: ``min``, the worst step; ``last``; ``product``; ``mean``.
        separator: what stands between two steps, as in the model's training.
        label: name or number of the label that says that a step is right.
        name: column in the store and label in the report.
        batch_size: texts per forward pass.
        dtype: ``auto`` = float32, on a GPU bfloat16 where it is native.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; the model sleeps on the CPU.

    Source: Uesato et al. 2022 (2211.14275), Lightman et al. 2023 (2305.20050); TRL 1.x, ``PRMTrainer.tokenize_row``.
    """

    def __init__(
        self,
        model: str,
        aggregate: Aggregate = "min",
        separator: str = "\n",
        label: str | int = 1,
        name: str = "process",
        batch_size: int = 8,
        dtype: Dtype = "auto",
        device: str = "auto",
    ):
        mistakes = aggregate_mistakes(aggregate, separator)
        if batch_size < 1:
            mistakes.append(f"batch_size is {batch_size}, but must be at least 1")
        if mistakes:
            raise ConfigError(mistakes)
        self.source = Source(model, "TokenClassification", dtype, device)
        self.aggregate: Aggregate = aggregate
        self.separator = separator
        self.label = label
        self.batch_size = batch_size
        scale = f"{aggregate} of the chances that the steps are right, 0 to 1"
        self.info = RewardInfo(name=name, scale=scale, batch_size=8 * batch_size, gpu=device != "cpu")
        self._loaded: Loaded | None = None

    def check(self) -> list[str]:
        if mistakes := self.source.check():
            return mistakes
        try:
            if config := self.source.config():
                label_number(config, self.label)
        except ModelError as error:
            return [str(error)]
        return []

    def load(self) -> None:
        """Load the model.

        Raises:
            ModelError: it cannot be loaded, or has no such label.
        """
        if self._loaded is None:
            loaded = load(self.source)
            label_number(loaded.model.config.to_dict(), self.label)
            self._loaded = loaded

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self._loaded is not None:
            self._loaded.sleep()

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]

        Raises:
            PartlyScored: some texts have no step, or are longer than the model takes.
        """
        self.load()
        assert self._loaded is not None
        pairs = zip(samples, completions(samples), strict=True)
        with self._loaded.lock:
            rows = [self._row(self._loaded, s.prompt.text, split_steps(text, self.separator)) for s, text in pairs]
            scores = np.full(len(samples), np.nan)
            fits = [i for i, (ids, ends) in enumerate(rows) if ends and len(ids) <= (self._loaded.max_tokens or len(ids))]
            for batch in by_length([rows[i][0] for i in fits], self.batch_size):
                chosen = [fits[place] for place in batch]
                for i, own in zip(chosen, self._chances(self._loaded, [rows[i] for i in chosen]), strict=True):
                    scores[i] = aggregated(own, self.aggregate)
        return told(scores, "the text has no step, or is longer than the model takes")

    def _row(self, loaded: Loaded, prompt: str, steps: Sequence[str]) -> tuple[list[int], list[int]]:
        """(token ids, where each step's separator ends)."""
        tokenizer = loaded.tokenizer

        def ids(text: str) -> list[int]:
            return tokenizer(encodable(text), add_special_tokens=False)["input_ids"]

        row = [*([] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]), *ids(prompt)]
        ends = []
        for step in steps:
            row += [*ids(step), *ids(self.separator)]
            ends.append(len(row) - 1)
        return row, ends

    def _chances(self, loaded: Loaded, rows: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """The chance of the label at the end of each step of each text."""
        import torch

        with torch.inference_mode():
            logits = loaded.wake()(
                **inputs_of([{"input_ids": ids} for ids, _ in rows], loaded)
            ).logits.float()  # [B, T, labels]
        chance = logits.softmax(dim=-1)[..., label_number(loaded.model.config.to_dict(), self.label)]
        return [chance[i, ends].tolist() for i, (_, ends) in enumerate(rows)]


def label_number(config: dict[str, Any], label: str | int) -> int:
    """Which of a classifier's outputs a label is.

    Raises:
        ModelError: none.
    """
    names = {str(name): int(number) for number, name in (config.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}).items()}
    if isinstance(label, int) and label in names.values():
        return label
    if str(label) in names:
        return names[str(label)]
    raise ModelError(f"the model has no label {label!r}{nearest(str(label), names)}")
