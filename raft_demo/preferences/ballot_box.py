"""What the page Preferences asks of the server: questions, room for answers, and how well the rewards agree with them."""

from __future__ import annotations

import html
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from raft_core.errors import DataError, RaftError
from raft_core.preferences.metrics import Rate
from raft_demo.preferences.choices import Choice, Choices
from raft_demo.preferences.pairs import How, draw
from raft_demo.preferences.pool import Pool, pool_of
from raft_demo.shared.runs import inside
from raft_demo.shared.worker import UNEXPECTED

log = logging.getLogger("raft.demo")
AHEAD = 3  # questions that a page holds, so that none is waited for
FEWEST = 10  # choices that a reward can be learned from
SIDE = 640  # largest side of a picture on the page, pixels
EQUAL_TRIES = 32
HOWS: tuple[How, ...] = ("teaching", "random")


class BallotBox:
    """The page's calls. Each takes and gives plain data; what is wrong comes as ``{"error": words}``.

    Args:
        runs: the runs folder.
    """

    def __init__(self, runs: Path):
        self.runs = runs

    def begin(self, asked: Any) -> dict[str, Any]:
        """The first questions about a run: ``{run, n, visitor}``."""
        return answered(self._begin, asked)

    def choose(self, asked: Any) -> dict[str, Any]:
        """Keep an answer and give more questions: ``{run, n, visitor, samples, best, drawn, pending}``."""
        return answered(self._choose, asked)

    def undo(self, asked: Any) -> dict[str, Any]:
        """Take an answer back: ``{run, id}``."""
        return answered(self._undo, asked)

    def _begin(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        pool, choices = self._opened(asked)
        made = choices.read()
        questions = questions_for(pool, made, [], asked.get("n"), asked.get("visitor"), AHEAD)
        return {"modality": pool.modality, "questions": questions, **told(pool, made)}

    def _choose(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        pool, choices = self._opened(asked)
        check_number(asked.get("n"))
        drawn = asked.get("drawn")
        if drawn not in HOWS:
            raise DataError(f"a question is drawn for its value or at random, not {str(drawn)[:40]!r}")
        best = asked.get("best")
        if not isinstance(best, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in best):
            raise DataError("an answer is a list of the candidates that were chosen")
        id = choices.add(pool, places(pool, asked.get("samples")), best, drawn)
        made = choices.read()
        pending = [frozenset(places(pool, samples)) for samples in _list(asked.get("pending"))[:AHEAD]]
        questions = questions_for(pool, made, pending, asked.get("n"), asked.get("visitor"), AHEAD - len(pending))
        return {"id": id, "questions": questions, **told(pool, made)}

    def _undo(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        pool, choices = self._opened(asked)
        gone = choices.take_back(str(asked.get("id")))
        return {"gone": gone, **told(pool, choices.read())}

    def _opened(self, asked: Mapping[str, Any]) -> tuple[Pool, Choices]:
        folder = inside(self.runs, str(asked.get("run")))
        return pool_of(folder), Choices(self.runs, folder.name)


def answered(call: Callable[[Mapping[str, Any]], dict[str, Any]], asked: Any) -> dict[str, Any]:
    """What a call gives, or why it gives nothing, in words."""
    try:
        if not isinstance(asked, Mapping):
            raise DataError("this is no question that the page asks")
        return call(asked)
    except RaftError as error:
        return {"error": str(error)}
    except Exception:
        log.exception("the page Preferences failed")
        return {"error": UNEXPECTED}


def check_number(n: Any) -> None:
    """Of candidates of a question.

    Raises:
        DataError: neither 2 nor 4.
    """
    if n not in (2, 4):
        raise DataError(f"a question has 2 or 4 candidates, not {str(n)[:40]}")


def places(pool: Pool, samples: Any) -> list[int]:
    """Places in the pool of (round, row) pairs from a page.

    Raises:
        DataError: there is no such sample.
    """
    keys = [tuple(key) if isinstance(key, list) and all(isinstance(x, int) for x in key) else () for key in _list(samples)]
    if unknown := [key for key in keys if key not in pool.places]:
        raise DataError(f"the run holds no sample {str(unknown[0])[:40]}; it may have changed: load the page again")
    return [pool.places[key] for key in keys]  # type: ignore[index] - all are there


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def questions_for(
    pool: Pool, made: Sequence[Choice], pending: Collection[frozenset[int]], n: Any, visitor: Any, count: int
) -> list[dict[str, Any]]:
    """At most ``count`` questions more.

    Args:
        made: what has been chosen, by anybody.
        pending: what the visitor is about to be asked.
        n: candidates of a question, 2 or 4.
        visitor: a number of the visitor's own, so that two are not asked the same.
    """
    from raft_core.rng import numpy_rng

    check_number(n)
    number = visitor if isinstance(visitor, int) else 0
    done = {*(frozenset(pool.places[key] for key in choice.samples) for choice in made if known(pool, choice)), *pending}
    found: list[dict[str, Any]] = []
    for attempt in range(count + EQUAL_TRIES):
        if len(found) == count:
            break
        drawn = draw(pool.scored, done, n, numpy_rng(number, "question", len(made), len(done), attempt))
        if drawn is None:
            break
        done.add(frozenset(drawn.samples))
        outputs = [pool.output(i) for i in drawn.samples]
        if len(set(outputs)) == len(outputs):  # equal pictures leave nothing to prefer
            found.append(
                {
                    "prompt": pool.prompts[drawn.samples[0]],
                    "samples": [list(pool.keys[i]) for i in drawn.samples],
                    "outputs": [shown(output) for output in outputs],
                    "drawn": drawn.how,
                }
            )
    return found


def known(pool: Pool, choice: Choice) -> bool:
    """Whether the run still holds what was chosen from."""
    return all(key in pool.places and pool.prompts[pool.places[key]] == choice.prompt for key in choice.samples)


def shown(output: str | bytes) -> str:
    """A completion as it is, a picture as an address that holds it: small ones to the pixel, large ones reduced."""
    from raft_core.media.image import data_uri, fitted
    from raft_core.media.picture import from_png

    if isinstance(output, str):
        return output
    image = fitted(from_png(output), SIDE)
    return data_uri(image, lossless=max(image.size) <= 128)


def agreement(pool: Pool, made: Sequence[Choice], drawn: How | None = None) -> dict[str, Rate]:
    """How often each reward of the run puts the chosen candidate first; ties and what was passed over do not count.

    Args:
        drawn: only questions that were drawn so.
    """
    counted = [c for c in made if len(c.best) == 1 and drawn in (None, c.drawn) and known(pool, c)]
    rates = {}
    for name, column in pool.scored.columns.items():
        hits = []
        for choice in counted:
            scores = column[[pool.places[key] for key in choice.samples]]
            best = scores == scores.max()  # all False where one is NaN
            hits.append(float(best[choice.best[0]] / best.sum()) if best.any() else math.nan)
        rates[name] = Rate.of(hits, [choice.prompt for choice in counted])
    return rates


def told(pool: Pool, made: Sequence[Choice]) -> dict[str, Any]:
    """What the page shows of all choices so far: their numbers, and the rewards' agreement as HTML."""
    chosen = sum(len(choice.best) == 1 for choice in made)
    return {
        "counts": {
            "chosen": chosen,
            "ties": sum(choice.is_tie for choice in made),
            "passed": sum(not choice.best for choice in made),
            "prompts": len({choice.prompt for choice in made if choice.best}),
        },
        "agreement": _table(pool, made) if chosen else "",
    }


def _table(pool: Pool, made: Sequence[Choice]) -> str:
    everything, random = agreement(pool, made), agreement(pool, made, "random")
    rows = "".join(
        f"<tr><td>{html.escape(name)}{' <span class=raft-muted>· reward</span>' if name == pool.scored.reward else ''}</td>"
        f"<td>{_rate(rate)}</td><td>{_rate(random[name])}</td></tr>"
        for name, rate in sorted(everything.items(), key=lambda item: item[0] != pool.scored.reward)
    )
    head = (
        "<tr><th scope=col>agrees with you</th>"
        f"<th scope=col>in all {sum(len(c.best) == 1 for c in made)}</th>"
        f"<th scope=col>in {sum(len(c.best) == 1 and c.drawn == 'random' for c in made)} random</th></tr>"
    )
    return f"<table class=raft-table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _rate(rate: Rate) -> str:
    if not rate.n:
        return "–"
    return f"{rate.value:.0%} <span class=raft-muted>{100 * rate.low:.0f}–{100 * rate.high:.0f}</span>"
