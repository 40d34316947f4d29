"""What a run tells while it runs: a line per round, its costs by phase, and whether it should stop."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from raft_core.out_of_memory import in_words
from raft_core.peak_memory import peak_memory
from raft_core.protocols import Phase, Policy, Reporter
from raft_core.watch import History, Plateau, Rule, best_round

LINE_WIDTH = 80
CELL = 9


@runtime_checkable
class Tracker(Protocol):
    """Where metrics go besides the run folder."""

    def log(self, history: History) -> None:
        """Take in the rounds of the history that it has not seen.

        May also have ``check() -> list[str]``, ``attach(folder, config)``, called before the first round, and ``finish()``.
        """
        ...


class Silent:
    """A reporter that says nothing."""

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Silent]:
        yield self

    def advance(self, n: int = 1) -> None:
        """Nothing to move."""

    def line(self, text: str) -> None:
        """Nobody listens."""

    def warn(self, text: str) -> None:
        """Nobody listens."""


class Monitor:
    """Watches a run.

    Args:
        reporter: where lines and warnings go.
        trackers: take in the metrics of every round.
        stop_when: rules that end the run.
        warn_when: rules that are only said.
        best: the metric by which the best round is chosen.
        best_is_highest: its direction; None counts as true.
    """

    def __init__(
        self,
        reporter: Reporter | None = None,
        trackers: Sequence[Tracker] = (),
        stop_when: Sequence[Rule] = (Plateau(),),
        warn_when: Sequence[Rule] = (),
        best: str = "reward/mean",
        best_is_highest: bool | None = None,
    ):
        self.reporter: Reporter = reporter or Silent()
        self._trackers = tuple(trackers)
        self._stop_when = tuple(stop_when)
        self._warn_when = tuple(warn_when)
        self._best = best
        self._best_is_highest = best_is_highest
        self._costs: dict[int, dict[str, float]] = {}
        self._started: dict[int, float] = {}
        self._header = ""

    @contextlib.contextmanager
    def phase(self, rnd: int, name: Phase, policy: Policy) -> Iterator[None]:
        """Make the policy resident for this phase; note how long it took, loading included, and its peak memory.

        Raises:
            DeviceError: memory ran out.
        """
        start = time.perf_counter()
        self._started.setdefault(rnd, start)
        with in_words(name), peak_memory() as peak, policy.resident(name):
            yield
        costs = self._costs.setdefault(rnd, {})
        costs[f"time/{name}_s"] = time.perf_counter() - start
        costs[f"memory/{name}_bytes"] = peak.bytes
        if peak.on_device:
            costs[f"memory/{name}_host_bytes"] = peak.host_bytes

    def costs(self, rnd: int) -> dict[str, float]:
        """Seconds and peak bytes by phase, and seconds since the round began; only what this process itself did."""
        if rnd not in self._started:
            return {}
        return {**self._costs.get(rnd, {}), "time/round_s": time.perf_counter() - self._started[rnd]}

    def report(self, rnd: int, history: History) -> None:
        """One line on the round, warnings after it, metrics to the trackers."""
        metrics = next(row for row in reversed(history) if row["round"] == rnd)
        header, line = round_line(metrics)
        if header != self._header:
            self.reporter.line(header)
            self._header = header
        self.reporter.line(line)
        for warning in [*unscored_warnings(metrics), *self._said(self._warn_when, history)]:
            self.reporter.warn(f"round {rnd}: {warning}")
        for tracker in self._trackers:
            tracker.log(history)

    def verdict(self, history: History) -> str | None:
        """Why the run should stop now, in words, or None."""
        return "; ".join(self._said(self._stop_when, history)) or None

    def best_round(self, history: History) -> int | None:
        """The round whose metrics are best; its samples were drawn before that round's update."""
        return best_round(history, self._best, self._best_is_highest)

    @staticmethod
    def _said(rules: Sequence[Rule], history: History) -> list[str]:
        return [reason for rule in rules if (reason := rule(history))]


def round_line(metrics: Mapping[str, Any]) -> tuple[str, str]:
    """(header, line) of one round in aligned columns, each at most 80 characters; judges that do not fit are left out."""
    fixed = [("reward", "reward/mean"), ("best", "reward/best"), ("kept", "reward/kept")]
    tail = [("kl", "kl"), ("diversity", "diversity"), ("seconds", "time/round_s")]
    judges = [(key.removeprefix("judge/"), key) for key in metrics if key.startswith("judge/")]
    room = (LINE_WIDTH - len("round") - 1) // (CELL + 1) - len(fixed) - len(tail)
    columns = [*fixed, *judges[:room], *[(label, key) for label, key in tail if key in metrics]]
    header = "round " + " ".join(f"{shortened(label, CELL):>{CELL}}" for label, _ in columns)
    line = f"{metrics['round']:>5} " + " ".join(f"{figure(metrics.get(key)):>{CELL}}" for _, key in columns)
    return header, line


def shortened(label: str, width: int) -> str:
    return label if len(label) <= width else label[: width - 1] + "…"


def figure(value: Any) -> str:
    """Four significant digits, without an exponent where it can be avoided; – for what is missing or NaN."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "–"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}"
    decimals = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 3
    return f"{value:.{min(decimals, 4)}f}"


def unscored_warnings(metrics: Mapping[str, Any]) -> list[str]:
    return [
        f"{int(value)} samples could not be scored by {key.removeprefix('unscored/')}"
        for key, value in metrics.items()
        if key.startswith("unscored/") and value
    ]
