"""How many of the instructions in a prompt a completion follows, as far as that can be verified without judging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from raft_core.errors import ConfigError, RewardError, nearest
from raft_core.protocols import RewardInfo
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import parse_json
from raft_core.rewards.scoring import told
from raft_core.types import Prompt, Sample
from raft_text.rewards.ifeval import CHECKS, mistakes_in
from raft_text.rewards.texts import completions

SHOWN = 3  # mistakes of a prompt file that are told one by one


class VerifiableInstructions:
    """How many of a prompt's verifiable instructions a completion follows: "at least 300 words", "no commas", "end with …".

    Args:
        instructions: field of the prompt file with a list of IFEval's ids, such as ``length_constraints:number_words``.
        arguments: field with a list of objects, one for each id: ``{"num_words": 300, "relation": "at least"}``; what is null
            in them counts as absent.
        reading: ``strict`` takes the completion as it is; ``loose`` is content if an instruction is followed without the first
            line, the last line or the asterisks of Markdown.
        counting: ``share`` of the instructions that are followed, or ``all`` = 1 where all of them are, else 0.
        name: column in the store and label in the report.

    Source: IFEval (2311.07911): ``all`` is its accuracy by prompt. Differs: see ``ifeval.py``.
    """

    def __init__(
        self,
        instructions: str = "instruction_id_list",
        arguments: str = "kwargs",
        reading: Literal["strict", "loose"] = "strict",
        counting: Literal["share", "all"] = "share",
        name: str = "instructions",
    ):
        mistakes = []
        if not instructions or not arguments:
            mistakes.append("instructions and arguments must name fields of the prompt file, but one of them is empty")
        if reading not in ("strict", "loose"):
            mistakes.append(f"reading is {reading!r}, but must be 'strict' or 'loose'")
        if counting not in ("share", "all"):
            mistakes.append(f"counting is {counting!r}, but must be 'share' or 'all'")
        if mistakes:
            raise ConfigError(mistakes)
        self.instructions, self.arguments = instructions, arguments
        self.reading, self.counting = reading, counting
        what = "share of the instructions that are followed" if counting == "share" else "1 = all instructions are followed"
        self.info = RewardInfo(name=name, scale=f"{what}, read {'strictly' if reading == 'strict' else 'loosely'}")

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """Instructions that are unknown, lack an argument, or need a package that is not installed; prompts without any."""
        asked = [self._asked(prompt) for prompt in (*train, *held_out)]
        problems = list(dict.fromkeys(problem for each in asked for problem in each.problems))
        for side, prompts in {"the prompts": train, "the held-out prompts": held_out}.items():
            if prompts and not any(self._asked(prompt).instructions for prompt in prompts):
                problems.append(f"of {side} not one can be scored: {self._without(prompts[0])}")
        left = len(problems) - SHOWN
        return problems[:SHOWN] + ([f"… and {left} more mistakes in the instructions of the prompts"] if left > 0 else [])

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N] in [0, 1]

        Raises:
            PartlyScored: some prompts have no instructions, or instructions with a mistake.
            RewardError: all have.
        """
        asked = {sample.prompt.id: self._asked(sample.prompt) for sample in samples}
        texts = completions(samples)
        pairs = zip(samples, texts, strict=True)
        scores = np.array([self._score(asked[sample.prompt.id], text) for sample, text in pairs], dtype=np.float64)
        unscored = [sample.prompt for sample, score in zip(samples, scores, strict=True) if np.isnan(score)]
        reason = next(iter([*asked[unscored[0].id].problems, self._without(unscored[0])]), "") if unscored else ""
        if samples and len(unscored) == len(samples):
            raise RewardError(reason)
        return told(scores, reason)

    def _asked(self, prompt: Prompt) -> _Asked:
        names, given = (_listed(prompt.meta.get(field)) for field in (self.instructions, self.arguments))
        given = [_present(each) for each in given] or [{}] * len(names)
        if len(given) != len(names):
            start = prompt.text[:40]
            return _Asked([], [f"the prompt {start!r} has {len(names)} instructions, but {len(given)} objects of arguments"])
        problems = [problem for name, arguments in zip(names, given, strict=True) for problem in mistakes_in(name, arguments)]
        return _Asked([] if problems else list(zip(names, given, strict=True)), problems)

    def _score(self, asked: _Asked, text: str) -> float:
        if not asked.instructions:
            return np.nan
        versions = [each for each in (loosened(text) if self.reading == "loose" else [text]) if each.strip()]
        followed = [any(CHECKS[name](each, **arguments) for each in versions) for name, arguments in asked.instructions]
        return float(all(followed)) if self.counting == "all" else float(np.mean(followed))

    def _without(self, prompt: Prompt) -> str:
        if self.instructions in prompt.meta:
            return f"the field {self.instructions!r} holds no instructions"
        there = nearest(self.instructions, prompt.meta) if prompt.meta else " (they have no other field)"
        return f"prompts have no field {self.instructions!r} with the ids of instructions{there}; name it with instructions"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a prompt asks for: (id, arguments) of each instruction; none if there is a problem."""

    instructions: list[tuple[str, Any]]
    problems: list[str]


def loosened(text: str) -> list[str]:
    """A text, and what it is without its first line, its last line, both, and each of these without asterisks."""
    lines = text.split("\n")
    parts = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return parts + [part.replace("*", "") for part in parts]


def _listed(value: object) -> list[Any]:
    """A field with a list, also one that is written as JSON in a CSV file; any other value is a list of one, null is empty."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except Unreadable:
            return [value]
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _present(arguments: object) -> object:
    """The arguments that are not null; tables of several instructions have a column for each argument of any of them."""
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        return arguments
    whole = {key: int(v) if isinstance(v, float) and v.is_integer() else v for key, v in arguments.items()}
    return {key: value for key, value in whole.items() if value is not None}
