"""Whether the words that the prompt asks for can be read in the picture."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from raft_core.errors import ConfigError, MachineLack, MissingDependency
from raft_core.protocols import RewardInfo
from raft_core.rewards.scoring import told
from raft_core.types import Sample
from raft_diffusion.rewards.pictures import bad_pictures_unscored, pictures

if TYPE_CHECKING:
    from PIL.Image import Image

PACKAGES = ("rapidocr", "onnxruntime", "rapidfuzz")
# An apostrophe is no quotation mark: single ones open where no word goes before, and close where none goes on.
QUOTED = re.compile(
    r"\"([^\"]*)\"|“([^”]*)”|„([^“”]*)[“”]|«([^»]*)»"
    r"|(?<!\w)'((?:[^']|(?<=\w)'(?=\w))+)'(?!\w)|‘((?:[^’]|(?<=\w)’(?=\w))+)’(?!\w)"
)


def quoted(prompt: str) -> str | None:
    """The first text in quotation marks, or None."""
    return next((text for match in QUOTED.finditer(prompt) for text in match.groups() if text and text.strip()), None)


def legibility(read: str, target: str) -> float:
    """1 − min(d, n)/n: d the Levenshtein distance to the target of n characters; capitals and spaces do not count.

    Source: the OCR reward of Flow-GRPO (2505.05470), section 4.1. Differs from its code: text besides the target costs.
    """
    from rapidfuzz.distance import Levenshtein

    read, target = ("".join(text.casefold().split()) for text in (read, target))
    return 1 - min(Levenshtein.distance(read, target), len(target)) / len(target)


class Ocr:
    """How legibly a picture shows the first text that its prompt has in quotation marks.

    1 = exactly that text and no other, 0 = nothing of it. A prompt without quotation marks is not scored. The text is read by
    RapidOCR with PP-OCR's models on the CPU, which come with the package: ``pip install 'raft-align[ocr]'``.

    Args:
        confidence: lines that are read with less are taken for texture, 0–1.
        name: column in the store and label in the report.
    """

    def __init__(self, confidence: float = 0.5, *, name: str = "ocr"):
        if not 0 <= confidence <= 1:
            raise ConfigError(f"confidence is {confidence}, but must be from 0 to 1")
        self.info = RewardInfo(name=name, scale="0 = illegible, 1 = exactly the quoted text")
        self.confidence = confidence
        self._engine: Any = None

    def check(self) -> list[str]:
        missing = _missing()
        return [MachineLack(missing)] if missing else []

    def load(self) -> None:
        """Load the engine.

        Raises:
            MissingDependency: it is not installed.
        """
        if missing := _missing():
            raise missing
        self._engine = self._engine or _engine()

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        self.load()
        targets = [quoted(sample.prompt.text) for sample in samples]
        scores = [
            np.nan if target is None else legibility(self.read(image), target)
            for image, target in zip(pictures(samples), targets, strict=True)
        ]
        return told(np.array(scores), "the prompt has no text in quotation marks")

    def read(self, image: Image) -> str:
        """The text of an RGB picture, its lines in reading order."""
        self.load()
        found = self._engine(np.ascontiguousarray(np.asarray(image)[..., ::-1]))  # OpenCV's order: blue first
        lines: Iterable[tuple[str, float]] = zip(found.txts or (), found.scores or (), strict=True)
        return " ".join(text for text, confidence in lines if confidence >= self.confidence)


def _missing() -> MissingDependency | None:
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return MissingDependency(absent[0], "ocr", "reading text in pictures") if absent else None


def _engine() -> Any:
    from rapidocr import RapidOCR  # pyright: ignore[reportMissingImports] - an extra

    engine = RapidOCR(params={"Global.log_level": "error"})
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return engine
