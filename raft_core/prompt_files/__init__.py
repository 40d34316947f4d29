"""Rows of prompt files, as they stand there: text with templates, CSV, TSV, JSON, JSONL, Parquet, and published prompt sets."""
