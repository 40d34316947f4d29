"""Who fills ballots in: any reward as a scripted labeller, or a person at the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raft_core.errors import ConfigError, RewardError
from raft_core.preferences.ballots import Ballot, open_ones
from raft_core.reporter import Reporter
from raft_core.rewards.scoring import Scorer
from raft_core.rng import numpy_rng


@dataclass(frozen=True)
class Labeller:
    """A reward that chooses in a person's stead.

    Args:
        scorer: its reward chooses.
        temperature: how unsure it is: a candidate is chosen with a probability in proportion to exp(score / temperature),
            scores in standard deviations over the candidates of all ballots; 0 = always the best, a tie where several are.
        seed: of its doubts.
    """

    scorer: Scorer
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature is {self.temperature}, but must not be negative; 0 = always the best")

    @property
    def name(self) -> str:
        return self.scorer.reward.info.name

    def scores(self, ballots: Sequence[Ballot], reporter: Reporter) -> list[np.ndarray]:
        """Scores of the candidates of each ballot, higher is better, NaN = not scored.

        Raises:
            RewardError: it can score nothing.
        """
        samples = [sample for ballot in ballots for sample in ballot.samples()]
        with reporter.phase(f"labelling by {self.name}", len(samples)) as bar:
            found = self.scorer(samples)
            bar.advance(len(samples))
        flat = found.grid(1)[:, 0]
        if len(flat) and np.isnan(flat).all():
            raise RewardError(f"the labeller {self.name!r} could score nothing: {found.failures[found.reward].first_error}")
        return np.split(flat, np.cumsum([len(ballot.candidates) for ballot in ballots])[:-1])

    def filled(self, ballots: Sequence[Ballot], reporter: Reporter) -> list[Ballot]:
        """The same ballots with a choice in each; one of which a candidate cannot be scored stays empty."""
        if not ballots:
            return []
        scores = self.scores(ballots, reporter)
        spread = float(np.nanstd(np.concatenate(scores))) or 1.0
        found = [replace(ballot, best=self._choice(ballot, row / spread)) for ballot, row in zip(ballots, scores, strict=True)]
        if empty := sum(1 for _ in open_ones(found)):
            reporter.warn(
                f"{empty} of {len(found)} ballots stay empty, for {self.name} could not score all of their candidates"
            )
        return found

    def _choice(self, ballot: Ballot, scores: np.ndarray) -> tuple[int, ...]:
        if np.isnan(scores).any():
            return ()
        if not self.temperature:
            return tuple(np.flatnonzero(scores == scores.max()).tolist())
        # By the ballot itself, so that the order of a file, or what else is in it, changes no choice.
        rng = numpy_rng(self.seed, "labeller", ballot.prompt, *ballot.candidates)
        return (int(np.argmax(scores / self.temperature + rng.gumbel(size=len(scores)))),)


HELP = "a number chooses · several, such as 1 3, are a tie · Enter passes over · u goes back · q ends, all is kept"


def asked(ballots: Sequence[Ballot], ask: Callable[[str], str], tell: Callable[[str], None]) -> Iterator[list[Ballot]]:
    """Ask a person for every ballot that is empty; yields all ballots after each answer, so that nothing said is lost.

    Args:
        ask: shows a question and returns the answer; EOFError or KeyboardInterrupt end it.
        tell: shows a line.
    """
    found, todo = list(ballots), list(open_ones(ballots))
    tell(HELP)
    place = 0
    while place < len(todo):
        ballot = found[todo[place]]
        tell(f"\n[{place + 1} of {len(todo)}] {harmless(ballot.prompt)}")
        for number, candidate in enumerate(ballot.candidates, 1):
            tell(f"  {number}: {harmless(candidate.strip())}")
        try:
            answer = ask("best: ").strip().lower()
        except (EOFError, KeyboardInterrupt):
            return
        if answer == "q":
            return
        if answer == "u":
            place = max(place - 1, 0)
            continue
        numbers = answer.replace(",", " ").split()
        if not all(word.isdigit() and 1 <= int(word) <= len(ballot.candidates) for word in numbers):
            tell(f"{answer!r} is no choice: {HELP}")
            continue
        found[todo[place]] = replace(ballot, best=tuple(sorted({int(word) - 1 for word in numbers})))
        place += 1
        yield list(found)


def harmless(text: str) -> str:
    """A text that a terminal shows and does not obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)
