"""A sandbox for the programs that a model writes: ``Sandbox(...).run(programs)``; see ``docs/guides/reasoning.md``."""

from raft_text.reasoning.sandbox.pool import IMPORTS, Limits, Outcome, Sandbox

__all__ = ["IMPORTS", "Limits", "Outcome", "Sandbox"]
