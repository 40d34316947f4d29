"""Every error a user can meet, in one tree.

RaftError                     what is wrong, the value, the remedy; the CLI prints it and exits with 2
├── ConfigError               the configuration; carries every mistake found, not only the first
├── DataError                 a prompt file, a preference file, an image
├── ModelError                a model folder, a weight file, a policy that cannot do what is asked
├── DeviceError               hardware that cannot do what is asked (bf16, xformers, 8-bit optimisers, memory)
│   └── ProcessLostError      another process of the run has ended (exit status 3)
├── StoreError                a run folder: not empty, damaged, another configuration, a full disk
├── RewardError               nothing in a round could be scored, or a reward that is misused
├── NotFiniteError            NaN or infinities are all that a model draws or a training step gives: it diverged or overflowed
└── MissingDependency         an optional package that is asked for and not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RaftError(Exception):
    """Base of all errors that are a user's to mend; shown without a traceback."""

    exit_code = 2


class ConfigError(RaftError):
    """One or more mistakes in a configuration, all listed at once."""

    def __init__(self, mistakes: str | Iterable[str]):
        self.mistakes = [mistakes] if isinstance(mistakes, str) else list(mistakes)
        head = "" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes in the configuration:\n"
        bullet = "" if len(self.mistakes) == 1 else "  - "
        super().__init__(head + "\n".join(bullet + mistake for mistake in self.mistakes))


class DataError(RaftError):
    """Input data that cannot be used; names the file and, where there is one, the line."""


class ModelError(RaftError):
    """A model that cannot be loaded or cannot do what is asked."""


class DeviceError(RaftError):
    """Hardware that cannot do what is asked."""


class ProcessLostError(DeviceError):
    """Another process of the run has ended; it is the one to ask why, so the exit status is one of its own."""

    exit_code = 3


class StoreError(RaftError):
    """A run folder that cannot be used as it is."""


class RewardError(RaftError):
    """A reward that gave nothing to select from, or is misused."""


class NotFiniteError(RaftError):
    """A model that draws, or losses that are, nothing but NaN and infinities."""


class MissingDependency(RaftError):  # noqa: N818 - reads better in a message than with a suffix
    """An optional package that is asked for and not installed."""

    def __init__(self, package: str, extra: str | None, purpose: str):
        install = f"'raft-align[{extra}]'" if extra else package
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed: pip install {install}")


class MachineLack(str):
    """A mistake in words that is not the configuration's but this machine's: hardware, a package or a key that it lacks.

    It counts like any other where a run is about to begin, and is only remarked upon where one is planned for another machine.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` with the nearest of ``known``, or all of them when none is near."""
    options = sorted(known)
    close = difflib.get_close_matches(name[:100], options, n=1, cutoff=0.5)  # it may be anything, of any length
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(options)})" if options else ""
