"""Metrics to TensorBoard, Weights & Biases or Trackio, through accelerate's trackers.

TensorBoard writes into the run folder and Trackio into its local database. Nothing leaves the machine unless
``WeightsAndBiases`` is asked for (or Trackio's own settings name a remote space).
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from raft_core.errors import MachineLack, MissingDependency, StoreError
from raft_core.protocols import History

if TYPE_CHECKING:
    import numpy as np

SHEET_PROMPTS, SHEET_SAMPLES = 8, 8


class _Accelerated:
    """A tracker of accelerate's for one run; started at the first round that is logged: a refused run leaves nothing."""

    package: ClassVar[str]
    extra: ClassVar[str | None] = None

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._config: dict[str, Any] = {}
        self._tracker: Any = None
        self._logged: set[int] = set()

    def check(self) -> list[str]:
        """Accelerate drops a tracker that is not installed without a word; here it is a mistake."""
        if importlib.util.find_spec(self.package):
            return []
        return [MachineLack(MissingDependency(self.package, self.extra, f"the tracker {type(self).__name__}"))]

    def attach(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Say which run this is.

        Raises:
            MissingDependency: the package is not installed.
        """
        if self.check():
            raise MissingDependency(self.package, self.extra, f"the tracker {type(self).__name__}")
        self._folder, self._config = Path(folder), dict(config)

    def log(self, history: History) -> None:
        """Log every round of the history that this process has not logged.

        After a resume that is all of them: the tracker's run is complete even if the last process was killed before it logged.
        """
        if self._folder is None:
            raise RuntimeError(f"{type(self).__name__}.attach(folder, config) comes before log")
        for row in history:
            if row["round"] in self._logged:
                continue
            if self._tracker is None:
                self._tracker = self._started(self._folder)
            self._tracker.log(scalars(row), step=row["round"])
            sheet = round_sheet(self._folder, row["round"])
            if sheet is not None:
                self._log_sheet(self._tracker, sheet, row["round"])
            self._logged.add(row["round"])

    def _started(self, folder: Path) -> Any:
        from accelerate import PartialState

        PartialState()  # accelerate's own logging refuses to work before it; a trainer has long made it
        tracker = self._create(folder)
        tracker.start()
        self._log_config(tracker, self._config)
        return tracker

    def finish(self) -> None:
        """Close what was started; a tracker that sends does so now."""
        if self._tracker is not None:
            self._tracker.finish()
            self._tracker = None

    def _create(self, folder: Path) -> Any:
        """Accelerate's tracker, not started."""
        raise NotImplementedError

    def _log_config(self, tracker: Any, config: Mapping[str, Any]) -> None:
        tracker.store_init_configuration(dict(config))

    def _log_sheet(self, tracker: Any, sheet: np.ndarray, rnd: int) -> None:
        """Log one picture [H, W, 3] uint8."""
        raise NotImplementedError


class TensorBoard(_Accelerated):
    """TensorBoard files in ``RUN/tensorboard``: see them with ``tensorboard --logdir RUN``."""

    package: ClassVar[str] = "tensorboard"

    def _create(self, folder: Path) -> Any:
        from accelerate.tracking import TensorBoardTracker

        return TensorBoardTracker("tensorboard", logging_dir=str(folder))

    def _log_config(self, tracker: Any, config: Mapping[str, Any]) -> None:
        # Not store_init_configuration: it makes a second TensorBoard run in a folder named after the clock.
        text = json.dumps(config, indent=2, ensure_ascii=False, default=str)
        tracker.log({"config": "    " + text.replace("\n", "\n    ")}, step=0)

    def _log_sheet(self, tracker: Any, sheet: np.ndarray, rnd: int) -> None:
        tracker.log_images({"samples": sheet[None]}, step=rnd, dataformats="NHWC")


class WeightsAndBiases(_Accelerated):
    """Weights & Biases. Sends metrics, configuration and pictures to its server, as your ``wandb login`` has set it up.

    Args:
        project: to file the run under.
        entity: user or team; yours by default.
    """

    package: ClassVar[str] = "wandb"
    extra: ClassVar[str | None] = "wandb"

    def __init__(self, project: str = "raft", entity: str | None = None):
        super().__init__()
        self.project = project
        self.entity = entity

    def _create(self, folder: Path) -> Any:
        from accelerate.tracking import WandBTracker

        return WandBTracker(self.project, entity=self.entity, name=folder.resolve().name, dir=str(folder))

    def _log_sheet(self, tracker: Any, sheet: np.ndarray, rnd: int) -> None:
        tracker.log_images({"samples": [sheet]}, step=rnd)


class Trackio(_Accelerated):
    """Trackio's local dashboard: see it with ``trackio show``.

    Args:
        project: to file the run under.
    """

    package: ClassVar[str] = "trackio"
    extra: ClassVar[str | None] = "trackio"

    def __init__(self, project: str = "raft"):
        super().__init__()
        self.project = project

    def _create(self, folder: Path) -> Any:
        from accelerate.tracking import TrackioTracker

        return TrackioTracker(self.project, name=folder.resolve().name, resume="allow")

    def _log_sheet(self, tracker: Any, sheet: np.ndarray, rnd: int) -> None:
        import trackio  # pyright: ignore[reportMissingImports] - an extra

        tracker.log({"samples": trackio.Image(sheet)}, step=rnd)


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a round: trackers draw nothing for NaN, and some refuse it."""
    return {
        key: float(value)
        for key, value in row.items()
        if key != "round" and isinstance(value, (int, float)) and math.isfinite(value)
    }


def round_sheet(folder: Path, rnd: int) -> np.ndarray | None:
    """[H, W, 3] uint8: samples of a round, a row per prompt, the kept ones framed; None when there are no pictures of it."""
    import numpy as np

    from raft_core.media.image import contact_sheet
    from raft_core.store.rounds import read_round

    try:
        samples, _, kept = read_round(folder, rnd)
    except StoreError:  # retention may have removed the pictures of an old round
        return None
    if not any(hasattr(sample.output, "convert") for sample in samples):
        return None
    k = 1 + max(sample.request.index for sample in samples)
    columns = min(k, SHEET_SAMPLES)
    shown = [p * k + j for p in range(min(SHEET_PROMPTS, len(samples) // k)) for j in range(columns)]
    return np.asarray(contact_sheet([samples[i].output for i in shown], columns, [bool(kept[i]) for i in shown]))
