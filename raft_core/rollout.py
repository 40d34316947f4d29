"""One round made, or read back where a killed run has already made it: samples, outputs, scores, selection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from raft_core import capabilities
from raft_core.capabilities import Adapts, JudgesUnfinished
from raft_core.errors import ModelError, RewardError, StoreError
from raft_core.machine.processes import Processes
from raft_core.protocols import Policy, Selector, Source
from raft_core.reporter import Reporter
from raft_core.rewards.background import Ahead, ahead_of
from raft_core.rewards.known import KnownScores, reusable
from raft_core.rewards.scoring import Scorer
from raft_core.sampling import chunks
from raft_core.selectors.select import select
from raft_core.soundness import examined, render_sound, require_sound
from raft_core.store.rounds import Choice, KeptRound, RoundFolder, mask
from raft_core.store.tensors import UnusableError, identity, normalised
from raft_core.types import Grouping, Request, Sample, Scores, Selection

T = TypeVar("T")


@dataclass(frozen=True)
class Rollout:
    """What makes the rounds of a run.

    Attributes:
        policy: draws the samples and renders them, where the source asks it to.
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

    @property
    def render(self) -> Callable[[Sequence[Sample]], list[Sample]]:
        """What makes the outputs of samples."""
        return capabilities.renderer(self.source, self.policy)

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
    _begun: Ahead | KnownScores | None = field(default=None, init=False)  # scores that are there, or on their way

    def sample(self, asked: Sequence[Request]) -> list[Sample]:
        """The samples of these requests, each part of the policy's batch size read back if it is there, else made and kept.

        Parts are cut the same way every time, so that a sample is drawn in the same company. With several processes each makes
        its share of the parts and reads those of the others. What can be scored in the background is, while the next part is
        drawn; not with several processes, of which one alone scores.
        """
        stages = self._stages(asked)
        places = np.concatenate(stages)
        order = np.argsort(places, kind="stable")
        self._found = self._read_back([asked[place] for place in places[order]])
        if self._found:
            return self._found.samples
        makes = self.makes
        if makes.processes.count == 1 and self._begun is None:
            self._begun = ahead_of(makes.scorer, makes.policy, makes.render)
        try:
            samples = self._all_parts([[asked[place] for place in stage] for stage in stages])
        except BaseException:
            self._stop_ahead()
            raise
        return [samples[place] for place in order]

    def judge(self, samples: Sequence[Sample]) -> tuple[list[Sample], Scores, Selection]:
        """The samples rendered, their scores, and what was chosen; read back if they are there, made and kept if not.

        With several processes the first renders and scores, for a reward may need to see the whole batch.

        Raises:
            NotFiniteError: every sample failed.
            RewardError: nothing could be scored; the samples stay, so that a resumed run scores them with the mended reward.
        """
        processes = self.makes.processes
        if not self._found:
            self._found = self._by_main(lambda: self._judged(samples))
        self._found = self._found or self._read_back([sample.request for sample in samples])
        if not self._found:
            raise StoreError(f"round {self.folder.rnd} could not be scored by the main process; its message says why")
        found = self._found
        selection = self._selection(found.samples, found.scores)
        if processes.is_main:
            self.folder.settle(found.kept, mask(selection, len(samples)))
        return found.samples, found.scores, selection

    def _by_main(self, work: Callable[[], T]) -> T | None:
        """What the first process makes, while the others wait; None there. What it raises is raised when they are let go."""
        made, failure = None, None
        if self.makes.processes.is_main:
            try:
                made = work()
            except Exception as error:  # noqa: BLE001 - the others wait below; it is raised as soon as they have been let go
                failure = error
        self.makes.processes.wait()
        if failure:
            raise failure
        return made

    # ------------------------------------------------------------------ sampling

    def _stages(self, asked: Sequence[Request]) -> list[np.ndarray]:
        """Places of the requests that are made, [M] int64 of each stage; of a source that adapts, the first is scored by then.

        Which are made in the second is decided once and kept: a judge may say something else when it is asked again.
        """
        source = self.makes.source
        if not isinstance(source, Adapts):
            return [np.arange(len(asked))]
        first = np.flatnonzero(source.first(asked))
        choice = self._read_choice(asked)
        if choice is None:
            drawn = self._all_parts([[asked[int(place)] for place in first]])
            choice = self._by_main(lambda: self._chosen(source, asked, first, drawn)) or self._read_choice(asked)
        if choice is None:
            raise StoreError(f"round {self.folder.rnd}: how many samples each prompt gets was not decided by the main process")
        self._begun = KnownScores.of([asked[int(place)] for place in first], choice.scores)
        return [first, choice.further]

    def _chosen(self, source: Adapts, asked: Sequence[Request], first: np.ndarray, drawn: Sequence[Sample]) -> Choice:
        """What is to be made besides the first samples, by their scores; decided and kept."""
        scorer = Scorer(self.makes.scorer.reward)
        with self.makes.policy.resident("render"):
            scores = self._scored(self._rendered(drawn), scorer)
        upward = np.full(len(asked), np.nan)
        upward[first] = scores.grid(1)[:, 0]
        choice = Choice(np.flatnonzero(source.further(asked, upward)), reusable(scorer.reward, scores))
        self.folder.keep_choice(asked, choice)
        return choice

    def _read_choice(self, asked: Sequence[Request]) -> Choice | None:
        try:
            return self.folder.read_choice(asked)
        except UnusableError as reason:
            self.makes.reporter.warn(f"round {self.folder.rnd}: how many samples each prompt gets is decided again: {reason}")
            return None

    def _all_parts(self, stages: Sequence[Sequence[Request]]) -> list[Sample]:
        parts = list(enumerate(part for stage in stages for part in self._cut(stage)))
        done: dict[int, list[Sample]] = {}
        with self.makes.reporter.phase("sampling", sum(map(len, stages))) as progress:
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

    def _cut(self, asked: Sequence[Request]) -> Iterator[Sequence[Request]]:
        source, size = self.makes.source, self.makes.policy.batch_size
        return source.parts(asked, size) if isinstance(source, JudgesUnfinished) else chunks(asked, size)

    def _read_part(self, number: int, part: Sequence[Request]) -> list[Sample] | None:
        if not self.folder.has_part(number):
            return None
        try:
            return self.folder.read_part(number, part)
        except UnusableError as reason:
            self.makes.reporter.warn(f"round {self.folder.rnd}: {len(part)} samples are drawn again: {reason}")
            return None

    def _make_part(self, number: int, part: Sequence[Request]) -> list[Sample]:
        samples = examined(normalised(self._drawn(part)))
        require_answers(samples, part, "sample")
        self.folder.keep_part(number, samples)
        return samples

    def _drawn(self, part: Sequence[Request]) -> list[Sample]:
        makes = self.makes
        if isinstance(makes.source, JudgesUnfinished):
            return makes.source.judged_samples(makes.policy, part, self._preview_scores, trace=makes.trace)
        return makes.source.samples(makes.policy, part, trace=makes.trace)

    def _preview_scores(self, previews: Sequence[Sample]) -> np.ndarray:
        """[M] scores of samples as they would come out, higher is better, NaN = not scored."""
        scorer = Scorer(self.makes.scorer.reward)
        if scorer.recalls:
            scorer.recall(self.folder.earlier_scores())
        return scorer(previews).grid(1)[:, 0]

    def _begin_scoring(self, samples: list[Sample]) -> list[Sample]:
        """The same samples; rendered, and on their way to be scored, if that is done while the next ones are drawn."""
        if not isinstance(self._begun, Ahead):
            return samples
        rendered = render_part(samples, self._begun.render)
        self._begun.begin(rendered)
        return rendered

    def _stop_ahead(self) -> None:
        if isinstance(self._begun, Ahead):
            self._begun.stop()
            self._begun = None

    # ------------------------------------------------------------------ judging

    def _judged(self, samples: Sequence[Sample]) -> KeptRound:
        rendered = self._rendered(samples)
        require_sound(rendered, f"round {self.folder.rnd}", self.makes.reporter.warn)
        scores = self._scored(rendered, self.makes.scorer)
        require_scored(scores, f"round {self.folder.rnd}")
        kept = mask(self._selection(rendered, scores), len(rendered))
        return self.folder.keep(rendered, scores, kept)

    def _rendered(self, samples: Sequence[Sample]) -> list[Sample]:
        rendered: list[Sample] = []
        with self.makes.reporter.phase("rendering", len(samples)) as progress:
            for part in chunks(samples, self.makes.policy.batch_size):
                rendered += part if isinstance(self._begun, Ahead) else render_part(part, self.makes.render)
                progress.advance(len(part))
        return rendered

    def _scored(self, rendered: list[Sample], scorer: Scorer) -> Scores:
        with self.makes.reporter.phase("scoring", len(rendered)) as progress:
            if scorer.recalls:
                scorer.recall(self.folder.earlier_scores())
            try:
                scores = scorer(rendered, self._begun) if self._begun else scorer(rendered)
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
