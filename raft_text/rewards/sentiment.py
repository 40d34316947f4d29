"""How positive a text sounds, by a lexicon."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raft_core.protocols import RewardInfo
from raft_core.types import Sample
from raft_text.rewards.texts import completions, joined

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


class Sentiment:
    """VADER's compound score: the valence of known English words, with their negations and boosters, squeezed into −1…1.

    Made for sentences; a long text drifts to −1 or 1. A text without a word of the lexicon is 0.

    Args:
        with_prompt: whether the prompt is scored with its completion, as one text.
        name: column in the store and label in the report.

    Source: Hutto & Gilbert, VADER (ICWSM 2014), by the authors' vaderSentiment.
    """

    def __init__(self, with_prompt: bool = False, name: str = "sentiment"):
        self.with_prompt = with_prompt
        self.info = RewardInfo(name=name, scale="VADER compound, −1…1")
        self._analyzer: SentimentIntensityAnalyzer | None = None

    def load(self) -> None:
        """Read the lexicon."""
        if self._analyzer is None:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # it reads its lexicon with codecs.open
                self._analyzer = SentimentIntensityAnalyzer()

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        self.load()
        assert self._analyzer is not None
        texts = completions(samples)
        if self.with_prompt:
            texts = [joined(sample.prompt.text, text) for sample, text in zip(samples, texts, strict=True)]
        return np.array([self._analyzer.polarity_scores(text)["compound"] for text in texts], dtype=np.float64)
