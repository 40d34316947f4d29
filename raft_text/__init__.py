"""Text: causal language models behind the core's protocols."""
