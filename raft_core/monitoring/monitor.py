"""What a run tells while it runs: a line per round, its costs by phase, and whether it should stop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raft_core.format import cell_width, figure, shortened
from raft_core.machine.out_of_memory import in_words
from raft_core.machine.peak_memory import peak_memory
from raft_core.metrics.history import best_round
from raft_core.monitoring.stopping import Plateau
from raft_core.protocols import History, Phase, Policy, Rule, Tracker
from raft_core.reporter import Reporter, Silent
from raft_core.types import Failure

LINE_WIDTH = 80
HEAD = (("reward", "reward/mean"), ("best", "reward/best"))
KEPT = ("kept", "reward/kept")
TAIL = (("kl", "kl"), ("diversity", "diversity"), ("seconds", "time/round_s"))


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

    def report(self, rnd: int, history: History, failures: Mapping[str, Failure] | None = None) -> None:
        """One line on the round, new warnings after it, metrics to the trackers.

        Args:
            failures: name of a reward → why it could not score some samples of this round.
        """
        metrics = next(row for row in reversed(history) if row["round"] == rnd)
        header, line = round_line(metrics)
        if header != self._header:
            self.reporter.line(header)
            self._header = header
        self.reporter.line(line)
        fresh = [rule for rule in self._warn_when if not rule(history[:-1])]  # what was said the round before is known
        for warning in [*unscored_warnings(metrics, failures or {}), *self._said(fresh, history)]:
            self.reporter.warn(f"round {rnd}: {warning}")
        if rnd == 1 and (flat := metrics.get("reward/flat_fraction")):
            self.reporter.line(
                f"{flat:.0%} of the prompts have no spread: their samples score alike, so comparing them tells nothing"
            )
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
    """(header, line) of one round in aligned columns, each at most 80 characters.

    As many judges as fit are shown, the first ones first; where not all do, ``kept`` makes room for one.
    """
    tail = [column for column in TAIL if column[1] in metrics]
    judges = [(key.removeprefix("judge/"), key) for key in metrics if key.startswith("judge/")]
    if line_width([*HEAD, KEPT, *judges, *tail]) <= LINE_WIDTH:
        columns = [*HEAD, KEPT, *judges, *tail]
    else:
        fitting = [n for n in range(len(judges) + 1) if line_width([*HEAD, *judges[:n], *tail]) <= LINE_WIDTH]
        columns = [*HEAD, *judges[: fitting[-1]], *tail]
    widths = [cell_width(label) for label, _ in columns]
    header = "round" + "".join(f" {shortened(label, w):>{w}}" for (label, _), w in zip(columns, widths, strict=True))
    line = "".join(f" {figure(metrics.get(key), w):>{w}}" for (_, key), w in zip(columns, widths, strict=True))
    return header, f"{metrics['round']:>5}{line}"


def line_width(columns: Sequence[tuple[str, str]]) -> int:
    return len("round") + sum(1 + cell_width(label) for label, _ in columns)


def unscored_warnings(metrics: Mapping[str, Any], failures: Mapping[str, Failure]) -> list[str]:
    """One line for each reward with samples that it could not score, with the first reason where it is known."""
    found = []
    for key, value in metrics.items():
        if key.startswith("unscored/") and value:
            name = key.removeprefix("unscored/")
            why = f": {failures[name].first_error}" if name in failures else ""
            found.append(f"{int(value)} samples could not be scored by {name}{why}")
    return found
