"""A reward that was learned from preferences, as any other reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raft_core.errors import ConfigError, RaftError, RewardError
from raft_core.media.medium import medium_of
from raft_core.preferences.folder import Recipe, load_learner, read_recipe
from raft_core.preferences.learner import Learner, raw_scores
from raft_core.preferences.preference import Item
from raft_core.protocols import RewardInfo
from raft_core.types import Sample


class LearnedReward:
    """A reward that ``raft reward train`` has learned from preferences, for pictures or for text.

    Its scores have mean 0 and variance 1 on samples of the reference policy. ``--reward FOLDER`` is short for it.

    Args:
        folder: what ``raft reward train`` has written.
        name: column in the store and label in the report.
        batch_size: samples per forward pass; by default as trained.
        device: ``auto`` (this process's accelerator if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    """

    def __init__(self, folder: str, *, name: str = "learned", batch_size: int | None = None, device: str = "auto"):
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, but must be at least 1")
        self.folder = Path(folder).expanduser()
        self.device = device
        self.batch_size = batch_size
        self.info = RewardInfo(
            name=name, scale="mean 0, variance 1 on the reference policy", batch_size=batch_size or 64, gpu=device != "cpu"
        )
        self._loaded: tuple[Recipe, Learner] | None = None

    def check(self) -> list[str]:
        try:
            return read_recipe(self.folder).build().check()
        except (RaftError, TypeError) as error:
            return [str(error)]

    def load(self) -> None:
        """Load what it was trained on, and its weights.

        Raises:
            ModelError: the folder is no learned reward, or its weights do not fit.
        """
        if self._loaded is None:
            recipe = read_recipe(self.folder)
            learner = load_learner(self.folder, recipe, self.device)
            learner.batch_size = self.batch_size or learner.batch_size
            self._loaded = recipe, learner

    @property
    def preference_scale(self) -> float:
        """Factor that makes differences of scores log-odds: p = σ(scale · (r_w − r_l))."""
        return read_recipe(self.folder).preference_scale

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self._loaded is not None:
            self._loaded[1].sleep()

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N] scores; NaN for a sample that cannot be read, which costs the others nothing.

        Raises:
            RewardError: no sample can be read.
        """
        self.load()
        try:
            return self._scores(samples)
        except RaftError:
            if len(samples) < 2:
                raise
        scores, errors = np.full(len(samples), np.nan), []
        for row, sample in enumerate(samples):
            try:
                scores[row] = self._scores([sample])[0]
            except RaftError as error:
                errors.append(error)
        if len(errors) == len(samples):
            raise errors[0]
        return scores

    def _scores(self, samples: Sequence[Sample]) -> np.ndarray:
        assert self._loaded is not None
        recipe, learner = self._loaded
        for sample in samples:
            if (held := medium_of(sample.output).modality) != recipe.modality:
                raise RewardError(f"the learned reward {self.folder} scores {recipe.modality}, but a sample holds {held}")
        return recipe.after(raw_scores(learner, learner.encode([Item.of(sample) for sample in samples])))
