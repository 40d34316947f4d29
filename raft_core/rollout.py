"""The record of a round: what has been drawn and scored is read back, what is missing is made and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from raft_core.errors import ModelError, RewardError, StoreError
from raft_core.machine.files import remove
from raft_core.machine.processes import Processes
from raft_core.reporter import Reporter
from raft_core.rewards.background import Ahead
from raft_core.sampling import chunks
from raft_core.store.rounds import PARTS, SAMPLES, TENSORS, earlier_scores, mask
from raft_core.store.tables import read_samples, read_table, write_samples, write_table
from raft_core.store.tensors import UnusableError, identity, load_tensors, normalised, save_tensors
from raft_core.types import Request, Sample, Scores, Selection


@dataclass
class RoundRecord:
    """One round's folder while the round is being made.

    Attributes:
        folder: of the round.
        rnd: its number.
        policy_hash: of the policy that it starts from; samples of another policy are never used.
        batch_size: requests per part of the sampling, and samples per call of ``render``.
        processes: that share the sampling.
        reporter: hears of progress and of what was damaged.
    """

    folder: Path
    rnd: int
    policy_hash: str
    batch_size: int
    processes: Processes
    reporter: Reporter
    _found: tuple[list[Sample], Scores, np.ndarray] | None = field(default=None, init=False)
    _ahead: Ahead | None = field(default=None, init=False)

    @property
    def _facts(self) -> dict[str, object]:
        return {"round": self.rnd, "policy_hash": self.policy_hash}

    def sampled(
        self, asked: Sequence[Request], draw: Callable[[Sequence[Request]], list[Sample]], ahead: Ahead | None = None
    ) -> list[Sample]:
        """The samples of these requests, each part of ``batch_size`` read back if it is there and drawn and kept if not.

        Parts are cut the same way every time, so that a sample is drawn in the same company. With several processes each draws
        its share of the parts and reads those of the others.

        Args:
            ahead: renders every part and begins to score it while the next is drawn. Not with several processes, of which one
                alone scores.
        """
        self._found = self._stored(asked)
        if self._found:
            return self._found[0]
        self._ahead = ahead if self.processes.count == 1 else None
        try:
            return self._all_parts(asked, draw)
        except BaseException:
            self._stop_ahead()
            raise

    def _all_parts(self, asked: Sequence[Request], draw: Callable[[Sequence[Request]], list[Sample]]) -> list[Sample]:
        parts = [(self.folder / PARTS / f"{i:04d}.safetensors", part) for i, part in enumerate(chunks(asked, self.batch_size))]
        done: dict[Path, list[Sample]] = {}
        with self.reporter.phase("sampling", len(asked)) as progress:
            for path, part in self.processes.share(parts):
                done[path] = self._begun(self._read_part(path, part) or self._draw_part(path, part, draw))
                progress.advance(len(part))
        self.processes.wait()
        for path, part in parts:
            if path not in done:
                try:
                    done[path] = load_tensors(path, part, self._facts)
                except UnusableError as error:
                    raise StoreError(f"round {self.rnd}: a part drawn by another process cannot be read: {error}") from error
        return [sample for path, _ in parts for sample in done[path]]

    def _begun(self, samples: list[Sample]) -> list[Sample]:
        """The same samples; rendered, and on their way to be scored, if that is done ahead."""
        if not self._ahead:
            return samples
        rendered = rendered_part(samples, self._ahead.render)
        self._ahead.begin(rendered)
        return rendered

    def _stop_ahead(self) -> None:
        if self._ahead:
            self._ahead.stop()
            self._ahead = None

    def _read_part(self, path: Path, part: Sequence[Request]) -> list[Sample] | None:
        if not path.exists():
            return None
        try:
            return load_tensors(path, part, self._facts)
        except UnusableError as reason:
            self.reporter.warn(f"round {self.rnd}: {len(part)} samples are drawn again: {reason}")
            return None

    def _draw_part(
        self, path: Path, part: Sequence[Request], draw: Callable[[Sequence[Request]], list[Sample]]
    ) -> list[Sample]:
        samples = normalised(draw(part))
        require_answers(samples, part, "sample")
        save_tensors(path, samples, self._facts)
        return samples

    def _stored(self, asked: Sequence[Request]) -> tuple[list[Sample], Scores, np.ndarray] | None:
        """What a round that was already scored has kept, or None."""
        path = self.folder / SAMPLES
        if not path.exists():
            return None
        try:
            samples, scores, kept, facts = read_samples(path, asked)
            if facts["policy_hash"] != self.policy_hash:
                raise UnusableError(f"{path.name} holds samples of another policy")
            if any(sample.output is None for sample in samples):
                raise UnusableError(f"{path.name} holds no outputs (they were not to be kept)")
            tensors = load_tensors(self.folder / TENSORS, asked, self._facts)
        except UnusableError as reason:
            self.reporter.warn(f"round {self.rnd} is sampled again: {reason}")
            return None
        return [s.with_output(o.output) for s, o in zip(tensors, samples, strict=True)], scores, kept

    def judged(
        self,
        samples: Sequence[Sample],
        render: Callable[[Sequence[Sample]], list[Sample]],
        scorer: Callable[..., Scores],
        choose: Callable[[Scores], Selection],
    ) -> tuple[list[Sample], Scores, Selection]:
        """The samples rendered, their scores, and what was chosen; read back if they are there, made and kept if not.

        With several processes the first renders and scores, for a reward may need to see the whole batch.

        Raises:
            RewardError: nothing could be scored; the samples stay, so that a resumed run scores them with the mended reward.
        """
        failure: Exception | None = None
        if not self._found and self.processes.is_main:
            try:
                self._found = self._judge(samples, render, scorer, choose)
            except Exception as error:  # noqa: BLE001 - the others wait below; it is raised as soon as they have been let go
                failure = error
        self.processes.wait()
        if failure:
            raise failure
        self._found = self._found or self._stored([sample.request for sample in samples])
        if not self._found:
            raise StoreError(f"round {self.rnd} could not be scored by the main process; its message says why")
        samples, scores, kept = self._found
        selection = choose(scores)
        if self.processes.is_main:
            self._settle(kept, mask(selection, len(samples)))
        return samples, scores, selection

    def _judge(
        self,
        samples: Sequence[Sample],
        render: Callable[[Sequence[Sample]], list[Sample]],
        scorer: Callable[..., Scores],
        choose: Callable[[Scores], Selection],
    ) -> tuple[list[Sample], Scores, np.ndarray]:
        rendered: list[Sample] = []
        with self.reporter.phase("rendering", len(samples)) as progress:
            for part in chunks(samples, self.batch_size):
                rendered += part if self._ahead else rendered_part(part, render)
                progress.advance(len(part))
        with self.reporter.phase("scoring", len(samples)) as progress:
            if getattr(scorer, "recalls", False):
                scorer.recall(earlier_scores(self.folder.parents[1], self.rnd))  # type: ignore[attr-defined]
            try:
                scores = scorer(rendered, self._ahead) if self._ahead else scorer(rendered)
            finally:
                self._stop_ahead()
            progress.advance(len(samples))
        require_scored(scores, f"round {self.rnd}")
        kept = mask(choose(scores), len(rendered))
        # The Parquet file comes last: where it is, the tensors are, and the parts are not needed any more.
        save_tensors(self.folder / TENSORS, rendered, self._facts)
        write_samples(self.folder / SAMPLES, rendered, scores, kept, rnd=self.rnd, policy_hash=self.policy_hash)
        return rendered, scores, kept

    def _settle(self, stored: np.ndarray, kept: np.ndarray) -> None:
        """Remove the parts, and mend the column ``kept`` if the selection is not the one that was stored."""
        if not np.array_equal(stored, kept):
            table, facts = read_table(self.folder / SAMPLES)
            place = table.column_names.index("kept")
            write_table(self.folder / SAMPLES, table.set_column(place, "kept", pa.array(kept)), facts)
        remove(self.folder / PARTS)


def rendered_part(samples: Sequence[Sample], render: Callable[[Sequence[Sample]], list[Sample]]) -> list[Sample]:
    """These samples with their outputs, as they will be when they are read back.

    Raises:
        ModelError: the policy mixed them up.
    """
    rendered = normalised(render(samples))
    require_answers(rendered, [sample.request for sample in samples], "render")
    return rendered


def require_answers(samples: Sequence[Sample], asked: Sequence[Request], method: str) -> None:
    """A policy that mixes up its samples would have the wrong ones trained on.

    Raises:
        ModelError: not one sample per request, in the same order.
    """
    if [identity(sample.request) for sample in samples] != [identity(request) for request in asked]:
        raise ModelError(
            f"the policy's method {method!r} was asked for {len(asked)} samples and returned {len(samples)}, or in another "
            "order; it must return one sample per request, in the order of the requests"
        )


def require_scored(scores: Scores, where: str) -> None:
    """Nothing to select from is the end of a run, with the reasons.

    Raises:
        RewardError: every sample is unscored by the reward that selects.
    """
    if not scores.reward or not np.isnan(scores.columns[scores.reward]).all():
        return
    n = len(scores.columns[scores.reward])
    reasons = "".join(f"\n  {name}, {f.count} of {n} samples: {f.first_error}" for name, f in scores.failures.items())
    raise RewardError(
        f"{where}: none of the {n} samples could be scored by {scores.reward!r}, so there is nothing to select from{reasons}\n"
        "The samples are kept: mend the reward and resume the run"
    )
