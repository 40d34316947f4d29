"""Reasoning: answers, programs in a sandbox, data sets, voting; see ``docs/guides/reasoning.md``."""
