"""Reasoning: answers, programs in a sandbox, data sets, voting; see ``docs/reasoning.md``."""
