"""Text: causal language models behind the core's protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raft_text.options import Critic, Lora, Memory, Prompting, Rejection, Sampling, VllmServer
    from raft_text.policy import CausalLM

_HOME = {
    "CausalLM": "policy",
    "Critic": "options",
    "Lora": "options",
    "Memory": "options",
    "Prompting": "options",
    "Rejection": "options",
    "Sampling": "options",
    "VllmServer": "options",
}

__all__ = ["CausalLM", "Critic", "Lora", "Memory", "Prompting", "Rejection", "Sampling", "VllmServer"]


def __getattr__(name: str) -> Any:
    """Import on first use: ``import raft_text`` stays cheap."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"raft_text.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
