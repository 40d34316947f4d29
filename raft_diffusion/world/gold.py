"""The gold judge of a bundled world: does the picture show its caption?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raft_core.errors import ModelError
from raft_core.protocols import RewardInfo
from raft_core.rewards.scoring import told
from raft_core.types import Sample

if TYPE_CHECKING:
    from raft_diffusion.world.emoji.judge import GoldJudge as EmojiJudge
    from raft_diffusion.world.judge import GoldJudge

FOLDER = Path(__file__).parents[1] / "bundled" / "shapes-judge"
WEIGHTS = "judge.safetensors"


def _folder_of(name):
    from raft_diffusion.model.bundle import PREFIX, resolve

    return resolve(name) if name.startswith(PREFIX) else Path(name)


def _judge_class(folder):
    """The judge's class of the world whose attributes are among the folder's answers."""
    from raft_diffusion.world.emoji.judge import GoldJudge as EmojiJudge
    from raft_diffusion.world.judge import GoldJudge

    config = folder / "config.json"
    answers = json.loads(config.read_text(encoding="utf-8"))["answers"] if config.is_file() else {}
    return EmojiJudge if "object" in answers else GoldJudge


class Gold:
    """1 where a picture of the bundled world shows all that its caption says, else 0. A judge: never train on it.

    An attribute classifier, meant to be right on 99 % of scenes that it has never seen; a test says where it is not
    yet. A caption that is not of the bundled world is not scored.

    Args:
        folder: with the judge's weights, or ``bundled:NAME``; null = the shapes' judge. Its config.json tells the world.
        name: column in the store and label in the report.
        batch_size: pictures per forward pass.
    """

    def __init__(self, folder: str | None = None, *, name: str = "gold", batch_size: int = 64):
        self.info = RewardInfo(name=name, scale="1 = shows its caption, 0 = does not", batch_size=batch_size)
        self.folder = _folder_of(folder) if folder else FOLDER
        self._judge: GoldJudge | EmojiJudge | None = None

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

        file = self.folder / WEIGHTS
        check_whole(file)
        try:
            self._judge = _judge_class(self.folder)(self.folder, batch_size=self.info.batch_size or 64)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ModelError(f"{file} holds no judge of the bundled world: {error}") from error

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N] verdicts.

        Raises:
            PartlyScored: some captions are of another world.
        """
        self.load()
        assert self._judge is not None
        return told(self._judge(samples), "its caption is none of the bundled world")
