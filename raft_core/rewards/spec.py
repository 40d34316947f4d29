"""A reward by its description, for whatever has to build it elsewhere or tell it from others."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.capabilities import AttachesPolicy
from raft_core.errors import ConfigError
from raft_core.protocols import Combinator, Reward

# Settings that change no score, only what it is called and how fast it comes.
IRRELEVANT = frozenset({"name", "batch_size", "device"})
MOST_FILES = 10_000


@dataclass(frozen=True)
class RewardSpec:
    """A reward that has been checked, and how it is written in a configuration.

    Attributes:
        plain: ``{class_path: …, init_args: {…}}`` with every default filled in.
        reward: the object; nothing loaded.
    """

    plain: Mapping[str, Any]
    reward: Reward | Combinator

    @classmethod
    def require(cls, given: object) -> RewardSpec:
        """``given`` itself, if it is a specification.

        Raises:
            ConfigError: it is something else.
        """
        if isinstance(given, RewardSpec):
            return given
        raise ConfigError(
            f"a reward is given as {type(given).__name__}, but its description is needed: its class_path and init_args, as in "
            "a configuration; in Python, raft_core.config.components.reward_spec(…) makes one"
        )

    def require_plain(self, what: str) -> None:
        """Refuse what is no reward of its own.

        Raises:
            ConfigError: a combination, or a reward that needs the policy.
        """
        name = self.reward.info.name
        if isinstance(self.reward, Combinator):
            raise ConfigError(f"{name!r} is made of rewards: {what} its parts, for combining them costs nothing")
        if isinstance(self.reward, AttachesPolicy):
            raise ConfigError(f"{name!r} needs the policy itself, which changes in every round: do not {what} it")

    def fingerprint(self, version: str = "") -> str:
        """32 hex digits that are others when anything changes that the scores may depend on.

        That is the class and its module's file, all settings but the name, batch size and device, and every file or folder
        that a setting names: by content where it is code, else by size and time.
        """
        facts = json.dumps([version, _signed(self.plain)], sort_keys=True, default=str)
        return hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()


def _signed(value: Any) -> Any:
    """Plain data with a signature beside every name of code, file or folder."""
    if isinstance(value, Mapping):
        signed = {key: _signed(item) for key, item in value.items() if key not in IRRELEVANT}
        if isinstance(path := value.get("class_path"), str) and ":" not in path:
            signed["code"] = _module_signature(path)
        return signed
    if isinstance(value, (list, tuple)):
        return [_signed(item) for item in value]
    return [value, _file_signature(value)] if isinstance(value, str) else value


def _module_signature(class_path: str) -> str | None:
    try:
        spec = importlib.util.find_spec(class_path.rpartition(".")[0])
    except (ImportError, ValueError):
        return None
    origin = spec.origin if spec else None
    return _content(Path(origin)) if origin and origin.endswith(".py") else None


def _file_signature(text: str) -> Any:
    """A signature of the file or folder that this text names by its absolute path (code: ``file.py:name``), or None."""
    path = Path(text.rpartition(":")[0] if ".py:" in text else text)
    try:
        if not path.is_absolute() or not path.exists():
            return None
        if path.suffix == ".py":
            return _content(path)
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())[:MOST_FILES]
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    except (OSError, ValueError):  # too long for a name, or with a null in it: no path
        return None


def _content(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
