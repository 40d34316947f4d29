"""Models by names that can be shown to anybody: nothing in a file that others get tells where things lay on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raft_core.errors import StoreError
from raft_core.store.manifest import RUN, read_config

BUNDLED = "bundled:"


def public_name(model: str) -> str:
    """A name on the Hub or of a bundled model as it is; of a path its last part."""
    return Path(model).name if is_local(model) else model


def is_local(model: str) -> bool:
    """Whether a model is named by where it lies on this machine."""
    if model.startswith(BUNDLED):
        return False
    path = Path(model).expanduser()
    looks_local = path.is_absolute() or model.startswith((".", "~")) or path.suffix == ".safetensors"
    return looks_local or model.count("/") > 1 or path.exists()


def model_of(file: Path, noted: str | None) -> dict[str, str]:
    """``model`` as an argument of a policy that is to take the weights in a file; empty where nobody knows it any more.

    Args:
        noted: the model's public name, as it is kept beside the weights. That of a model on another machine is of no use.
    """
    model = _model_of_run(file) or (noted if noted and ("/" in noted or noted.startswith(BUNDLED)) else None)
    return {"model": model} if model else {}


def _model_of_run(file: Path) -> str | None:
    """The model that weights were trained from, as the run knows it in whose folder they lie; None where they lie elsewhere."""
    run = next((folder for folder in file.absolute().parents[:3] if (folder / RUN).is_file()), None)
    if run is None:
        return None
    try:
        policy: Any = read_config(run).get("policy")
        return str(policy["init_args"]["model"])
    except (StoreError, KeyError, TypeError):
        return None
