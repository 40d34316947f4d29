"""Learning a reward from choices; in the worker's process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raft_demo.shared.reporting import PageReporter
from raft_demo.shared.worker import Progress, tell

HELD_OUT = 0.2
REFERENCES = 256


class Reporter(PageReporter):
    """Tells lines as progress, too."""

    def line(self, text: str) -> None:
        super().line(text)
        tell(Progress(text))


def learn(labels: str, run: str, folder: str, learner: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Learn a reward from a file of choices and put it into a new folder; yields what is told of it.

    Args:
        labels: the file.
        run: folder of the run whose samples were compared; those of its first round, which the start has drawn, set the scale.
        learner: arguments of the modality's learner, besides its seed.

    Raises:
        RaftError: too few prompts, no such model, a loss that is not finite.
    """
    from raft_core.preferences.fit import FitSettings
    from raft_core.preferences.folder import learner_class
    from raft_core.preferences.read import read_preferences
    from raft_core.preferences.train import train_reward
    from raft_core.store.create import require_empty
    from raft_core.training.optim import Optimizer

    require_empty(Path(folder))
    reporter = Reporter()
    reading = read_preferences(labels)
    reporter.line(reading.described())
    learns = learner_class(reading.modality)(**learner)
    if mistakes := learns.check():
        from raft_core.errors import ConfigError

        raise ConfigError(mistakes)
    settings = FitSettings(held_out_fraction=HELD_OUT, optimizer=Optimizer(lr=learns.lr))
    trained = train_reward(
        learns, reading.preferences, settings, Path(folder), reporter, reference=_references(Path(run), reading.modality)
    )
    yield {
        "preferences": len(reading.preferences),
        "passed": reading.unlabelled,
        "held_out": asdict(trained.held_out),
        "epoch": trained.fitted.best,
        "warnings": reporter.warnings,
    }


def _references(run: Path, modality: str) -> list[Any] | None:
    """Samples of the policy that the run began from; None when its first round is not stored."""
    from raft_core.format import evenly
    from raft_core.preferences.preference import Item
    from raft_core.store.rounds import read_round, rounds_in

    if 1 not in rounds_in(run):
        return None
    samples, _, _ = read_round(run, 1)
    kept = [Item.of(sample) for sample in samples if isinstance(sample.output, str) == (modality == "text")]
    return evenly([item for item in kept if item.output is not None], REFERENCES) or None
