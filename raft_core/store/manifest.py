"""``config.yaml``, ``run.json``, ``metrics.jsonl``: what a run was told to do, and what became of it."""

from __future__ import annotations

import functools
import json
import math
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from raft_core.errors import StoreError
from raft_core.machine.files import write_text
from raft_core.reading.files import Unreadable, excerpt
from raft_core.reading.json_data import json_lines, read_object
from raft_core.reading.shapes import require_shape
from raft_core.reading.yaml_data import read_mapping

FORMAT = 2  # of a run folder; 1 named classes by their modules, and had no number
CONFIG, RUN, METRICS = "config.yaml", "run.json", "metrics.jsonl"
MOST_ROUNDS = 10**9
METRIC = (int, float, str, bool, type(None))
#: What ``run.json`` holds where it holds it; other keys are a policy's own.
SHAPE: dict[str, Any] = {
    **dict.fromkeys(("format", "seed"), int),
    **dict.fromkeys(("status", "started", "ended", "modality"), str),
    **dict.fromkeys(("reason", "latent_space"), (str, type(None))),
    **dict.fromkeys(("versions", "machine", "config", "policy"), dict),
    "keep": {
        "checkpoints": (int, type(None)),
        "best": str,
        "best_is_highest": (bool, type(None)),
        "latents": bool,
        "images": bool,
    },
    "prompts": object,
    "checkpoint": (int, str, type(None)),
    "exported": [str],
    "resumed": [str],
    "changes": [{"at": str, "after_round": int, "changed": [str]}],
}
PACKAGES = ("raft-align", "torch", "numpy", "accelerate", "diffusers", "transformers", "peft", "open_clip_torch", "pyarrow")


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as data that JSON and YAML hold alike."""
    return json.loads(json.dumps(dict(config), default=str))


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    write_text(folder / CONFIG, yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, width=120))


def read_config(folder: str | Path) -> dict[str, Any]:
    """The resolved configuration of a run, with whatever its user has changed in ``config.yaml`` since.

    Raises:
        StoreError: ``config.yaml`` is missing, or holds no names with values.
    """
    path = Path(folder) / CONFIG
    try:
        return read_mapping(path)
    except (OSError, Unreadable) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error


def read_run(folder: str | Path) -> dict[str, Any]:
    """``run.json``: seed, versions, status, what the policy says of itself.

    Raises:
        StoreError: no run is there, or its ``run.json`` is damaged.
    """
    try:
        run = require_shape(read_object(Path(folder) / RUN), SHAPE, "")
    except FileNotFoundError as error:
        raise StoreError(f"{folder} holds no run ({RUN} is missing)") from error
    except (OSError, Unreadable) as error:
        raise StoreError(f"{Path(folder) / RUN} cannot be read: {error}") from error
    if run.get("format", 1) > FORMAT:
        raise StoreError(
            f"{folder} is of format {excerpt(run['format'], 20)}, and this version reads up to {FORMAT}: use the version that "
            f"made it, raft-align {excerpt(run.get('versions', {}).get('raft-align', '(unknown)'), 20)} or newer"
        )
    return run


def read_history(folder: str | Path) -> list[dict[str, Any]]:
    """Metrics of a run's finished rounds, oldest first; a null is NaN again.

    Raises:
        StoreError: ``metrics.jsonl`` is damaged; names the line.
    """
    path = Path(folder) / METRICS
    rows: list[dict[str, Any]] = []
    try:
        for number, row in json_lines(path):
            if isinstance(row, Unreadable):
                raise StoreError(f"{path}, line {number}: {row}")
            rows.append(_metrics(row, f"{path}, line {number}", rows))
    except FileNotFoundError:
        return []
    except (OSError, Unreadable) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    return rows


def _metrics(row: Any, where: str, before: list[dict[str, Any]]) -> dict[str, Any]:
    """The metrics of a round.

    Raises:
        StoreError: they are none.
    """
    try:
        require_shape(row, {"round": int}, "", needs=("round",))
        for name, value in row.items():
            require_shape(value, METRIC, name)
    except Unreadable as error:
        raise StoreError(f"{where}: {error}") from None
    if not 0 < row["round"] < MOST_ROUNDS or (before and row["round"] <= before[-1]["round"]):
        raise StoreError(f"{where}: round {excerpt(row['round'], 20)} does not follow the one before")
    return {name: math.nan if value is None else value for name, value in row.items()}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested data as dotted names → leaves: ``{"a": {"b": [1]}}`` becomes ``{"a.b.0": 1}``."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else None
    if items is None or not value:
        return {name: value}
    return {key: leaf for k, v in items for key, leaf in flat(v, f"{name}.{k}" if name else str(k)).items()}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two configurations, one line each: ``name: old → new``."""
    before, after = flat(plain(old)), flat(plain(new))
    nothing = object()

    def words(value: Any) -> str:
        return "(not set)" if value is nothing else json.dumps(value, ensure_ascii=False)

    names = [*before, *(name for name in after if name not in before)]
    pairs = [(name, before.get(name, nothing), after.get(name, nothing)) for name in names]
    return [f"{name}: {words(a)} → {words(b)}" for name, a, b in pairs if a is nothing or b is nothing or a != b]


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What besides the versions decides the last bits of a result: the device, and how many threads add up on a CPU."""
    import torch

    if torch.accelerator.is_available() and torch.cuda.is_available():
        return {"device": torch.cuda.get_device_name()}
    kind = torch.accelerator.current_accelerator()
    return {"device": str(kind)} if kind else {"device": "cpu", "threads": torch.get_num_threads()}


def moved(run: Mapping[str, Any]) -> list[str]:
    """What is not as it was when a run was begun, one line each, from its ``run.json``."""
    before = {**run.get("versions", {}), **run.get("machine", {})}
    return changes(before, {name: value for name, value in {**versions(), **machine()}.items() if name in before})


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
