"""Whether a text keeps to a form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
import regex

from raft_core.errors import ConfigError, nearest
from raft_core.protocols import RewardInfo
from raft_core.rewards.scoring import told
from raft_core.types import Sample
from raft_text.rewards.texts import completions

Match = Literal["anywhere", "whole"]
FORMS = {
    "json": "",  # parsed
    "one_line": r"[^\n\r]+",
    "think_answer": r"\s*<think>((?!</?think>|</?answer>).)*</think>\s*<answer>((?!</?think>|</?answer>).)*</answer>\s*",
    "boxed": r".*\\boxed\{.+\}.*",
    "bullets": r"\s*([-*•] +\S[^\n]*)(\s*\n[-*•] +\S[^\n]*)*\s*",
}
TIMEOUT_S = 1.0  # a pattern that backtracks without end must not hold a run up


class Pattern:
    r"""1 where the completion matches a pattern, else 0; with ``forbid`` the other way round.

    Args:
        pattern: regular expression, with Python's syntax; ``(?i)`` in front ignores capitals, ``(?s)`` lets ``.`` match line
            ends. Or a known form by its name: ``form:json``, ``form:one_line``, ``form:think_answer`` (``<think>…</think>
            <answer>…</answer>`` and nothing else), ``form:boxed`` (``\boxed{…}``), ``form:bullets``.
        match: ``anywhere`` in the completion, or the ``whole`` of it. A form is always the whole.
        forbid: whether a match is what is not wanted.
        name: column in the store and label in the report.
    """

    def __init__(self, pattern: str, match: Match = "anywhere", forbid: bool = False, name: str = "pattern"):
        kind, colon, form = pattern.partition(":")
        self.form = form if colon and kind == "form" else None
        if self.form is not None and self.form not in FORMS:
            raise ConfigError(f"pattern is {pattern!r}, but there is no form {form!r}{nearest(form, FORMS)}")
        if match not in ("anywhere", "whole"):
            raise ConfigError(f"match is {match!r}, but must be 'anywhere' or 'whole'")
        try:
            self._compiled = regex.compile(pattern if self.form is None else "(?s)" + FORMS[self.form])
        except regex.error as error:
            raise ConfigError(f"pattern is {pattern!r}, which is no regular expression: {error}") from error
        self.pattern = pattern
        self.match: Match = "anywhere" if self.form is None and match == "anywhere" else "whole"
        self.forbid = forbid
        shown = pattern if len(pattern) <= 40 else pattern[:39] + "…"
        self.info = RewardInfo(name=name, scale=f"1 = {'does not match' if forbid else 'matches'} {shown}, else 0")

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]

        Raises:
            PartlyScored: on some texts the pattern took longer than a second.
        """
        scores = np.array([self._score(text) for text in completions(samples)], dtype=np.float64)
        return told(scores, f"the pattern took longer than {TIMEOUT_S:g} s")

    def _score(self, text: str) -> float:
        try:
            return float(self._matches(text) != self.forbid)
        except TimeoutError:
            return float("nan")

    def _matches(self, text: str) -> bool:
        if self.form == "json":
            return is_json(text)
        find = self._compiled.search if self.match == "anywhere" else self._compiled.fullmatch
        return find(text, timeout=TIMEOUT_S) is not None


def is_json(text: str) -> bool:
    """Whether a text is one JSON value by the standard, which has no NaN and no infinities."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
