"""Models that stay loaded between jobs, the latest few. Only the worker's process needs this."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from raft_core.protocols import Policy
from raft_core.rewards.scoring import Scorer
from raft_core.workflows.trained import Source

T = TypeVar("T")
POLICIES, SCORERS = 2, 2


class Shelf(Generic[T]):
    """The last things that were asked for.

    Args:
        room: how many.
    """

    def __init__(self, room: int):
        self._room = room
        self._things: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """What lies under this key, made when it is not there; before, what was not asked for longest makes room."""
        if key not in self._things:
            self._drop()
            self._things[key] = make()
        self._things.move_to_end(key)
        return self._things[key]

    def _drop(self) -> None:
        from raft_core.machine.out_of_memory import make_room

        while len(self._things) >= self._room:
            self._things.popitem(last=False)
            make_room()


_policies: Shelf[Policy] = Shelf(POLICIES)
_scorers: Shelf[Scorer] = Shelf(SCORERS)


def policy_of(source: Source) -> tuple[Policy, str]:
    """The source's policy, loaded, with the source's way of sampling, and its key: the same for sources that share the base
    model and the form of what is trained. Whose weights are in it, only ``Source.put_weights`` tells.

    Raises:
        RaftError: it cannot be built or loaded.
    """
    fresh, _ = source.build(rewards=False)
    key = _policy_key(source, fresh)

    def load() -> Policy:
        fresh.load()
        return fresh

    policy = _policies.get(key, load)
    if policy is not fresh and hasattr(fresh, "sampling"):
        policy.sampling = fresh.sampling  # type: ignore[attr-defined] - it has one
        policy.batch_size = fresh.batch_size
    return policy, key


def scorer_key(source: Source) -> str:
    """The same for sources with the same reward and judges."""
    return _text({name: source.raw.get(name) for name in ("reward", "judges")})


def scorer_of(source: Source) -> Scorer:
    """The source's reward and judges, loaded.

    Raises:
        RaftError: they cannot be built or loaded.
    """

    def load() -> Scorer:
        _, scorer = source.build(rewards=True)
        assert scorer is not None  # asked for
        scorer.load()
        return scorer

    return _scorers.get(scorer_key(source), load)


def _policy_key(source: Source, policy: Policy) -> str:
    """Of all that ``load`` depends on; pictures may be asked for in another way without loading anything anew."""
    raw: dict[str, Any] = dict(source.raw["policy"])
    arguments = dict(raw.get("init_args") or {})
    if policy.modality == "image":
        arguments = {name: value for name, value in arguments.items() if name not in ("sampling", "loss")}
    model = Path(str(arguments.get("model", "")))
    stamp = model.stat().st_mtime_ns if model.exists() else 0
    return _text([raw.get("class_path"), arguments, stamp])


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
