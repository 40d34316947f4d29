"""What a visitor may ask for. A page bounds its sliders by these, and the handlers check them again: a request need not come
from a page."""

from __future__ import annotations

import math
from dataclasses import dataclass

from raft_core.errors import ConfigError
from raft_core.reading.files import excerpt


@dataclass(frozen=True)
class Limits:
    """Largest values of what costs time, memory or disk.

    Attributes:
        steps: sampling steps of a picture.
        side: of a picture, in pixels.
        images: pictures of one comparison, of each model.
        completions: texts of one comparison, before and after each.
        models: of one comparison.
        k: samples per prompt and round of an alignment.
        rounds: of an alignment.
        rank: of a LoRA.
        prompts: lines of a prompt box.
        prompt_characters: of one prompt.
        tokens: new tokens of a completion.
        votes: chains of thought of one vote.
        problems: whose answers are voted on at once.
        waiting: jobs that may wait for the worker.
        queued_runs: alignments that may wait.
        upload_bytes: of one file.
        upload_files: of one drop.
        upload_pixels: of one picture.
    """

    steps: int = 100
    side: int = 1024
    images: int = 8
    completions: int = 8
    models: int = 4
    k: int = 64
    rounds: int = 50
    rank: int = 128
    prompts: int = 500
    prompt_characters: int = 2000
    tokens: int = 512
    votes: int = 32
    problems: int = 100
    waiting: int = 64
    queued_runs: int = 8
    upload_bytes: int = 20 * 2**20
    upload_files: int = 32
    upload_pixels: int = 32_000_000


def within(name: str, value: float | str, low: float, high: float) -> float:
    """The value, if it is between the bounds.

    Raises:
        ConfigError: it is not, or is no number.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        shown = excerpt(repr(value), 40)
        raise ConfigError(f"{name} is {shown}, which is no number; give one from {low:g} to {high:g}") from None
    if not low <= number <= high:
        raise ConfigError(f"{name} is {number:g}; give a value from {low:g} to {high:g}")
    return value if isinstance(value, (int, float)) else number


LARGEST_SEED = 2**31 - 1
