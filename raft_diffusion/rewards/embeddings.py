"""CLIP embeddings of pictures on the disk, by content: the same picture is never embedded twice by the same weights."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raft_core.errors import StoreError
from raft_core.preferences.preference import Picture
from raft_core.store.tensors import hexdigest

if TYPE_CHECKING:
    from PIL.Image import Image

    from raft_diffusion.rewards.clip import Clip

QUERY = 500  # keys per question; SQLite takes 999 at least


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/raft-align/embeddings.sqlite``, by default in ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "raft-align" / "embeddings.sqlite"


def picture_key(picture: Picture | Image) -> str:
    """The same for the same bytes of a stored picture, or the same pixels of an open one."""
    if isinstance(picture, Picture):
        return f"file:{picture.digest}"
    content = hashlib.blake2b(f"{picture.mode}{picture.size}".encode(), digest_size=16)
    content.update(picture.tobytes())
    return f"pixels:{content.hexdigest()}"


def clip_key(clip: Clip) -> str:
    """The same for the same weights and preprocessing, whatever the model is called and wherever it lies."""
    return hexdigest(clip.model.state_dict().items(), repr(clip.preprocess))


class EmbeddingCache:
    """Vectors by (model, picture) in one SQLite file, which several processes may share.

    Args:
        path: the file; made when something is first kept.
    """

    def __init__(self, path: Path):
        self.path = path

    def get(self, model: str, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """What is there of these keys: [D] float32 each.

        Raises:
            StoreError: the file is no such cache, or cannot be read.
        """
        if not self.path.is_file():
            return {}
        found: dict[str, np.ndarray] = {}
        with self._open() as base:
            for start in range(0, len(keys), QUERY):
                part = keys[start : start + QUERY]
                marks = ",".join("?" * len(part))
                rows = base.execute(f"SELECT key, vector FROM embeddings WHERE model = ? AND key IN ({marks})", (model, *part))
                found |= {key: np.frombuffer(vector, np.float32) for key, vector in rows}
        return found

    def put(self, model: str, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep vectors.

        Raises:
            StoreError: the file cannot be written to.
        """
        rows = [(model, key, np.asarray(vector, np.float32).tobytes()) for key, vector in vectors.items()]
        with self._open() as base:
            base.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)

    @contextlib.contextmanager
    def _open(self):
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            base = sqlite3.connect(self.path, timeout=60)
            try:
                with base:
                    base.execute(
                        "CREATE TABLE IF NOT EXISTS embeddings "
                        "(model TEXT, key TEXT, vector BLOB, PRIMARY KEY (model, key)) WITHOUT ROWID"
                    )
                    yield base
            finally:
                base.close()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"the cache of embeddings {self.path} cannot be used: {error}; delete it, or name another file as `cache` "
                "(null for none)"
            ) from error
