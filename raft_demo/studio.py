"""What every page is given: where the runs are, who does the work, what is allowed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from raft_demo.queue.line import Alignments
from raft_demo.shared.limits import Limits
from raft_demo.shared.runs import RunInfo, all_runs, inside
from raft_demo.shared.worker import Worker


@dataclass
class Studio:
    """The app's state in the web process; everything that must outlive it is in the runs folder.

    Attributes:
        runs: folder of run folders; made when it is not there.
        worker: does what needs a model.
        limits: what a visitor may ask for.
        alignments: those that were begun from a page, in their line.
    """

    runs: Path
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.runs = self.runs.expanduser().resolve()
        self.runs.mkdir(parents=True, exist_ok=True)
        self.worker = Worker(self.limits.waiting)
        self.alignments = Alignments(self.runs, self.limits.queued_runs)
        self.alignments.start()

    def all_runs(self) -> list[RunInfo]:
        return all_runs(self.runs)

    def run_folder(self, name: str) -> Path:
        """Folder of the run with this name.

        Raises:
            DataError: there is none.
        """
        return inside(self.runs, name)

    def close(self) -> None:
        self.alignments.close()
        self.worker.close()
