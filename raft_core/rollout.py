"""One round made, or read back where a killed run has already made it: samples, outputs, scores, selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from raft_core import capabilities
from raft_core.errors import ModelError, RewardError, StoreError
from raft_core.machine.processes import Processes
from raft_core.protocols import Policy, Selector, Source
from raft_core.reporter import Reporter
from raft_core.rewards.background import Ahead, ahead_of
from raft_core.rewards.scoring import Scorer
from raft_core.sampling import chunks
from raft_core.selectors.select import select
from raft_core.soundness import examined, render_sound, require_sound
from raft_core.store.rounds import KeptRound, RoundFolder, mask
from raft_core.store.tensors import UnusableError, identity, normalised
from raft_core.types import Grouping, Request, Sample, Scores, Selection


@dataclass(frozen=True)
class Rollout:
    """What makes the rounds of a run.

    Attributes:
        policy: renders the samples, and draws them where the source asks it to.
        source: where they come from.
        scorer: rewards and judges.
        selector: chooses among them.
        trace: whether sampling keeps what a replay needs.
        processes: that share the sampling.
        reporter: hears of progress and of what was damaged.
    """

    policy: Policy
    source: Source
    scorer: Scorer
    selector: Selector
    trace: bool
    reporter: Reporter
    processes: Processes = field(default_factory=Processes.current)

    def begin(self, folder: RoundFolder) -> Round:
        """The round of this folder."""
        return Round(self, folder)


@dataclass
class Round:
    """One round while it is being made.

    Attributes:
        makes: what the round is made by.
        folder: where it is kept.
    """

    makes: Rollout
    folder: RoundFolder
    _found: KeptRound | None = field(default=None, init=False)
    _ahead: Ahead | None = field(default=None, init=False)

    def sample(self, asked: Sequence[Request]) -> list[Sample]:
        """The samples of these requests, each part of the policy's batch size read back if it is there, else made and kept.

        Parts are cut the same way every time, so that a sample is drawn in the same company. With several processes each makes
        its share of the parts and reads those of the others. What can be scored in the background is, while the next part is
        drawn; not with several processes, of which one alone scores.
        """
        self._found = self._read_back(asked)
        if self._found:
            return self._found.samples
        self._ahead = ahead_of(self.makes.scorer, self.makes.policy) if self.makes.processes.count == 1 else None
        try:
            return self._all_parts(asked)
        except BaseException:
            self._stop_ahead()
            raise

    def judge(self, samples: Sequence[Sample]) -> tuple[list[Sample], Scores, Selection]:
        """The samples rendered, their scores, and what was chosen; read back if they are there, made and kept if not.

        With several processes the first renders and scores, for a reward may need to see the whole batch.

        Raises:
            NotFiniteError: every sample failed.
            RewardError: nothing could be scored; the samples stay, so that a resumed run scores them with the mended reward.
        """
        processes = self.makes.processes
        failure: Exception | None = None
        if not self._found and processes.is_main:
            try:
                self._found = self._judged(samples)
            except Exception as error:  # noqa: BLE001 - the others wait below; it is raised as soon as they have been let go
                failure = error
        processes.wait()
        if failure:
            raise failure
        self._found = self._found or self._read_back([sample.request for sample in samples])
        if not self._found:
            raise StoreError(f"round {self.folder.rnd} could not be scored by the main process; its message says why")
        found = self._found
        selection = self._selection(found.samples, found.scores)
        if processes.is_main:
            self.folder.settle(found.kept, mask(selection, len(samples)))
        return found.samples, found.scores, selection

    # ------------------------------------------------------------------ sampling

    def _all_parts(self, asked: Sequence[Request]) -> list[Sample]:
        parts = list(enumerate(chunks(asked, self.makes.policy.batch_size)))
        done: dict[int, list[Sample]] = {}
        with self.makes.reporter.phase("sampling", len(asked)) as progress:
            for number, part in self.makes.processes.share(parts):
                done[number] = self._begin_scoring(self._read_part(number, part) or self._make_part(number, part))
                progress.advance(len(part))
        self.makes.processes.wait()
        for number, part in parts:
            if number not in done:
                try:
                    done[number] = self.folder.read_part(number, part)
                except UnusableError as error:
                    what = f"round {self.folder.rnd}: a part drawn by another process cannot be read"
                    raise StoreError(f"{what}: {error}") from error
        return [sample for number, _ in parts for sample in done[number]]

    def _read_part(self, number: int, part: Sequence[Request]) -> list[Sample] | None:
        if not self.folder.has_part(number):
            return None
        try:
            return self.folder.read_part(number, part)
        except UnusableError as reason:
            self.makes.reporter.warn(f"round {self.folder.rnd}: {len(part)} samples are drawn again: {reason}")
            return None

    def _make_part(self, number: int, part: Sequence[Request]) -> list[Sample]:
        samples = examined(normalised(self.makes.source.samples(self.makes.policy, part, trace=self.makes.trace)))
        require_answers(samples, part, "sample")
        self.folder.keep_part(number, samples)
        return samples

    def _begin_scoring(self, samples: list[Sample]) -> list[Sample]:
        """The same samples; rendered, and on their way to be scored, if that is done while the next ones are drawn."""
        if not self._ahead:
            return samples
        rendered = render_part(samples, self._ahead.render)
        self._ahead.begin(rendered)
        return rendered

    def _stop_ahead(self) -> None:
        if self._ahead:
            self._ahead.stop()
            self._ahead = None

    # ------------------------------------------------------------------ judging

    def _judged(self, samples: Sequence[Sample]) -> KeptRound:
        rendered = self._rendered(samples)
        require_sound(rendered, f"round {self.folder.rnd}", self.makes.reporter.warn)
        scores = self._scored(rendered)
        require_scored(scores, f"round {self.folder.rnd}")
        kept = mask(self._selection(rendered, scores), len(rendered))
        return self.folder.keep(rendered, scores, kept)

    def _rendered(self, samples: Sequence[Sample]) -> list[Sample]:
        rendered: list[Sample] = []
        with self.makes.reporter.phase("rendering", len(samples)) as progress:
            for part in chunks(samples, self.makes.policy.batch_size):
                rendered += part if self._ahead else render_part(part, self.makes.policy.render)
                progress.advance(len(part))
        return rendered

    def _scored(self, rendered: list[Sample]) -> Scores:
        scorer = self.makes.scorer
        with self.makes.reporter.phase("scoring", len(rendered)) as progress:
            if scorer.recalls:
                scorer.recall(self.folder.earlier_scores())
            try:
                scores = scorer(rendered, self._ahead) if self._ahead else scorer(rendered)
            finally:
                self._stop_ahead()
            progress.advance(len(rendered))
        return scores

    def _selection(self, samples: Sequence[Sample], scores: Scores) -> Selection:
        return select(capabilities.at_round(self.makes.selector, self.folder.rnd), scores, Grouping.of(samples))

    def _read_back(self, asked: Sequence[Request]) -> KeptRound | None:
        """What a round that was already scored has kept, or None."""
        try:
            return self.folder.read(asked)
        except UnusableError as reason:
            self.makes.reporter.warn(f"round {self.folder.rnd} is sampled again: {reason}")
            return None


def render_part(samples: Sequence[Sample], render: Callable[[Sequence[Sample]], list[Sample]]) -> list[Sample]:
    """These samples with their outputs, as they will be when they are read back; the failed ones have none.

    Raises:
        ModelError: the policy mixed them up.
    """
    rendered = normalised(render_sound(samples, render))
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
