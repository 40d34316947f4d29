"""Features of texts by which diversity is measured, without a model."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence

import numpy as np

DIMENSIONS = 512


def ngram_features(texts: Sequence[str]) -> np.ndarray:
    """[N, 513] float32 unit vectors: counts of words and of pairs of words, hashed.

    Two texts are close when they use the same words in the same order. A last, constant element keeps an empty text from being
    undefined; such texts are all the same. The sign of a hash keeps collisions from making texts alike.
    """
    features = np.zeros((len(texts), DIMENSIONS + 1), dtype=np.float32)
    features[:, -1] = 1e-3
    for row, text in zip(features, texts, strict=True):
        words = text.lower().split()
        for gram in (*words, *(" ".join(pair) for pair in itertools.pairwise(words))):
            value = zlib.crc32(gram.encode())
            row[value % DIMENSIONS] += 1 if value >> 31 else -1
    return features / np.linalg.norm(features, axis=1, keepdims=True)
