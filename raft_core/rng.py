"""Random numbers by construction: every draw is named by what it is for, never taken from global state.

A seed is the hash of a path such as ``(run seed, "sample", round, prompt, index)``. Whoever asks for the same path gets the
same number, whatever was drawn before, in whichever process.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_for(*path: int | str) -> int:
    """A seed in [0, 2**63) that depends on the whole path and nothing else."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in path)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_rng(*path: int | str) -> np.random.Generator:
    """A NumPy generator for this path."""
    return np.random.default_rng(seed_for(*path))


def torch_rng(seed: int) -> torch.Generator:
    """A CPU generator: noise is drawn on the CPU so that a seed means the same on every device."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)
