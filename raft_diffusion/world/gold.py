"""The gold judge of a bundled world as a reward: does the picture show its caption, and how surely?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raft_core.errors import ModelError
from raft_core.protocols import RewardInfo
from raft_core.rewards.scoring import told
from raft_core.types import Sample

if TYPE_CHECKING:
    from raft_diffusion.world.judge import GoldJudge

FOLDER = "bundled:shapes-judge"
WEIGHTS = "judge.safetensors"
FLOOR = -8.0  # nats: beyond it the classifier's doubt means nothing, and one attribute would outweigh all others


def _folder_of(name: str) -> Path:
    from raft_diffusion.model.bundle import PREFIX, resolve

    return Path(resolve(name)) if name.startswith(PREFIX) else Path(name).expanduser()


class Gold:
    """1 where a picture of a bundled world shows all that its caption says, else 0. A judge: never train on it.

    An attribute classifier, meant to be right on 99 % of scenes that it has never seen; a test says where it is not
    yet. A caption that is not of its world is not scored.

    Args:
        folder: with the judge's weights, or ``bundled:NAME``; null = the shapes' judge. Its config.json tells the world.
        name: column in the store and label in the report.
        batch_size: pictures per forward pass.
    """

    scale = "1 = shows its caption, 0 = does not"

    def __init__(self, folder: str | None = None, *, name: str = "gold", batch_size: int = 64):
        self.info = RewardInfo(name=name, scale=self.scale, batch_size=batch_size)
        self.folder = _folder_of(folder or FOLDER)
        self._judge: GoldJudge | None = None

    def check(self) -> list[str]:
        return [] if (self.folder / WEIGHTS).is_file() else [f"there is no judge in {self.folder}: {WEIGHTS} is missing"]

    def load(self) -> None:
        """Load the classifier.

        Raises:
            ModelError: there is none, or a damaged one.
        """
        if self._judge is not None:
            return
        if mistakes := self.check():
            raise ModelError(mistakes[0])
        from raft_diffusion.model.weights_file import check_whole
        from raft_diffusion.world.judge import GoldJudge

        file = self.folder / WEIGHTS
        check_whole(file)
        try:
            self._judge = GoldJudge(self.folder, batch_size=self.info.batch_size or 64)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ModelError(f"{file} holds no judge of a bundled world: {error}") from error

    def judge(self) -> GoldJudge:
        """The classifier, loaded."""
        self.load()
        assert self._judge is not None
        return self._judge

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N] verdicts.

        Raises:
            PartlyScored: some captions are of another world.
        """
        return told(self.judge()(samples), "its caption is none of the judge's world")


class GoldScore(Gold):
    """Mean log-probability of what a caption of a bundled world says, by its gold judge: 0 at best, −8 at worst.

    The source of synthetic preferences, for which right or wrong alone would be too coarse.

    Args:
        folder: as of ``Gold``.
        name: column in the store and label in the report.
        batch_size: pictures per forward pass.
    """

    scale = "mean log-probability of the caption's attributes, nats"

    def __init__(self, folder: str | None = None, *, name: str = "gold_score", batch_size: int = 64):
        super().__init__(folder, name=name, batch_size=batch_size)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N] nats.

        Raises:
            PartlyScored: some captions are of another world.
        """
        from raft_diffusion.rewards.pictures import pictures

        world, log_probs = self.judge().world, self.judge().log_probs(pictures(samples))
        scores = np.full(len(samples), np.nan)
        for row, sample in enumerate(samples):
            if said := world.parse(sample.prompt.text):
                found = [log_probs[key][row, list(world.answers[key]).index(value)] for key, value in said.items()]
                scores[row] = np.maximum(found, FLOOR).mean()
        return told(scores, "its caption is none of the judge's world")
