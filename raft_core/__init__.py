"""Align generative models with rewards: sample K per prompt, score, keep the best, fine-tune, repeat.

    import raft_core as raft

    run = raft.align("bundled:shapes", reward="Aesthetic", prompts=["a large red heart", "a large blue square"], rounds=3, k=8)

The rooms of this package hold the loop and everything in it that does not know what an image or a text is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raft_core.api import align, compare, generate, score
    from raft_core.errors import ConfigError, RaftError
    from raft_core.result import Comparison, Outputs, Run

_HOME = {
    "align": "api",
    "compare": "api",
    "generate": "api",
    "score": "api",
    "Comparison": "result",
    "Outputs": "result",
    "Run": "result",
    "ConfigError": "errors",
    "RaftError": "errors",
}

__all__ = ["Comparison", "ConfigError", "Outputs", "RaftError", "Run", "align", "compare", "generate", "score"]


def __getattr__(name: str) -> Any:
    """Import on first use: ``import raft_core`` stays cheap."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"raft_core.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
