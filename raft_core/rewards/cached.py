"""Scores that are kept for ever: the same output for the same prompt is scored once, in whichever run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raft_core import capabilities
from raft_core.media.digest import content_digest
from raft_core.rewards.scoring import PartlyScored, scored_by
from raft_core.rewards.spec import RewardSpec
from raft_core.sampling import chunks
from raft_core.types import Sample

WAIT_S = 60.0  # for another process that is writing
PER_QUERY = 500  # SQLite takes at most 999 values in one


class Cached:
    """A reward whose scores are kept on disk and never computed twice, in this run or any other.

    A score is found again by its reward (class, code, settings and files), its prompt and its output, in an SQLite file that
    any number of processes may share. What could not be scored is not kept. A reward that takes all samples of a round at once
    (``batch_size: null``) may compare them, so its scores are only found for the very same round: give it a batch size if it
    looks at each sample alone. Random judges are frozen at their first answer.

    Args:
        reward: whose scores; its column keeps its name. Not a combination: cache its parts.
        path: of the SQLite file; by default ``scores.sqlite`` in the user's cache folder.
        version: of what the description cannot tell, such as the model behind a remote reward. Another text, another score.
    """

    def __init__(self, reward: RewardSpec, path: str | None = None, version: str = ""):
        spec = RewardSpec.require(reward)
        spec.require_plain("cache")
        self._reward: Any = spec.reward
        self.path = Path(path).expanduser() if path else default_path()
        self.version = version
        self._spec = spec
        self._key = ""
        self.info = self._reward.info

    def check(self) -> list[str]:
        """Mistakes of the reward, and a file that is no cache."""
        found = capabilities.check(self._reward)
        try:
            with self._open():
                pass
        except (OSError, sqlite3.Error) as error:
            found.append(f"the cache {self.path} cannot be used ({error}): name another file, or move this one away")
        return found

    def load(self) -> None:
        """Load the reward."""
        capabilities.load(self._reward)

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        capabilities.sleep(self._reward)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N].

        Raises:
            PartlyScored: the reward could not score some.
        """
        keys = self._keys(samples)
        known = self._found(keys)
        # Of equal samples one is scored; a reward that takes them all at once has to see all of them.
        first: dict[bytes, Sample] = {}
        for key, sample in zip(keys, samples, strict=True):
            if key not in known:
                first.setdefault(key, sample)
        if not first:
            return np.array([known[key] for key in keys])
        asked = dict(zip(keys, samples, strict=True)) if self.info.batch_size is None else first
        values, failure = scored_by(self._reward, list(asked.values()))
        new = {key: float(value) for key, value in zip(asked, values, strict=True) if not np.isnan(value)}
        known = {**new, **known, **self._kept(new)}
        result = np.array([known.get(key, np.nan) for key in keys])
        if failure and np.isnan(result).any():
            raise PartlyScored(result, failure.first_error)
        return result

    def _keys(self, samples: Sequence[Sample]) -> list[bytes]:
        self._key = self._key or self._spec.fingerprint(self.version)
        digests = [content_digest(sample) for sample in samples]
        if self.info.batch_size is None:
            company = hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()
            digests = [f"{company}/{number}" for number in range(len(digests))]
        return [hashlib.blake2b(f"{self._key}/{digest}".encode(), digest_size=16).digest() for digest in digests]

    def _found(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """Scores that are kept. A cache that fails costs time and no score."""
        try:
            with self._open() as database:
                return _read(database, keys)
        except (OSError, sqlite3.Error) as error:
            warnings.warn(f"the cache {self.path} cannot be read, so all is scored anew: {error}", stacklevel=2)
            return {}

    def _kept(self, new: Mapping[bytes, float]) -> dict[bytes, float]:
        """Keep scores, and return those that are kept: another process's where that was faster."""
        try:
            with self._open() as database, database:  # one transaction: all of them or none
                database.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?)", list(new.items()))
                return _read(database, list(new))
        except (OSError, sqlite3.Error) as error:
            warnings.warn(f"the cache {self.path} cannot be written, so scores are not kept: {error}", stacklevel=2)
            return {}

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self.path, timeout=WAIT_S)) as database:
            database.execute("CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID")
            yield database


def _read(database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, float]:
    found: dict[bytes, float] = {}
    for part in chunks(keys, PER_QUERY):
        places = ",".join("?" * len(part))
        found |= database.execute(f"SELECT key, value FROM scores WHERE key IN ({places})", list(part)).fetchall()
    return found


def default_path() -> Path:
    """``scores.sqlite`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "raft-align" / "scores.sqlite"
