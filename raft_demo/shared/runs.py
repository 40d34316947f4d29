"""The runs folder as the pages see it. A visitor names a run by its folder's name; nothing outside the folder can be named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raft_core.errors import DataError, RaftError
from raft_core.reading.files import Unreadable, is_file, is_folder
from raft_core.reading.shapes import require_shape, taken_apart
from raft_core.store.manifest import RUN, read_config, read_history, read_run

Modality = Literal["image", "text"]
TEXT_POLICIES = ("CausalLM",)


_PART = (str, dict, type(None))
#: What of a run's configuration a list goes by.
CONFIG_SHAPE = {"policy": _PART, "reward": _PART, "rounds": (int, type(None))}


@dataclass(frozen=True)
class RunInfo:
    """A run, as a list shows it.

    Attributes:
        name: of its folder.
        status: "running", "finished", "interrupted", "failed"; "damaged" with ``trouble`` saying how.
        rounds: finished so far.
        planned: at most so many.
        modality: what its model makes.
        model: base model.
        reward: class that selected.
    """

    name: str
    folder: Path
    status: str
    rounds: int = 0
    planned: int = 0
    modality: Modality = "image"
    model: str = ""
    reward: str = ""
    trouble: str = ""

    @property
    def is_exported(self) -> bool:
        """Whether there are trained weights to compare with."""
        return (self.folder / "export").is_dir()


def inside(folder: Path, name: str) -> Path:
    """The entry of a folder that has this name.

    Raises:
        DataError: the name leads out of the folder, or nothing is there.
    """
    root = folder.resolve()
    try:
        place = next((entry.resolve() for entry in root.iterdir() if entry.name == name), None)  # a name, and never a path
    except (OSError, RuntimeError):  # a link that leads to itself
        place = None
    if place is None or place.parent != root:
        raise DataError(f"there is no {str(name)[:100]!r} among the runs; choose one of the list")
    return place


def all_runs(folder: Path) -> list[RunInfo]:
    """Every run of a folder, the newest first. A damaged one is listed as such."""
    found = [path for path in folder.glob("*") if is_file(path / RUN)] if is_folder(folder) else []
    return [info(path) for path in sorted(found, key=_age, reverse=True)]


def _age(folder: Path) -> float:
    try:
        return (folder / RUN).stat().st_mtime
    except OSError:  # it went meanwhile
        return 0.0


def info(folder: Path) -> RunInfo:
    """What a list shows of a run, whatever is in its folder: one that is strange must not hide the others."""
    try:
        with taken_apart("it"):
            return _info(folder, read_run(folder), read_config(folder), read_history(folder))
    except (RaftError, Unreadable) as error:
        return RunInfo(folder.name, folder, "damaged", trouble=str(error))


def _info(folder: Path, run: Mapping[str, Any], config: Mapping[str, Any], history: Sequence[Any]) -> RunInfo:
    require_shape(config, CONFIG_SHAPE, "config.yaml")
    policy = config.get("policy") or {}
    kind = _class(policy)
    arguments = policy.get("init_args") or {} if isinstance(policy, dict) else {}
    return RunInfo(
        name=folder.name,
        folder=folder,
        status=str(run.get("status", "interrupted")),
        rounds=len(history),
        planned=config.get("rounds") or 0,
        modality=modality_of(run.get("modality"), kind),
        model=str(arguments.get("model", "")),
        reward=_class(config.get("reward")),
        trouble=str(run.get("reason") or "") if run.get("status") == "failed" else "",
    )


def modality_of(stored: Any, policy: str) -> Modality:
    """The kind of output of a run: as stored, or (before runs stored it) by the class of its policy."""
    if stored in ("image", "text"):
        return stored
    return "text" if policy in TEXT_POLICIES else "image"


def _class(component: Any) -> str:
    """Bare class name of a component of a configuration."""
    path = component.get("class_path", "") if isinstance(component, dict) else str(component or "")
    return path.rpartition(".")[2]


FOLDER = "preferences"
