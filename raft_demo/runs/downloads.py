"""What a run has to take away: its trained weights in every form that was exported, the model card, the report."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from raft_core.errors import DataError
from raft_core.format import size

EXPORT = "export"
#: What a button sends → what it says.
KINDS = {
    "diffusers": "LoRA for diffusers",
    "kohya": "LoRA for WebUI and ComfyUI",
    "peft": "Adapter for peft",
    "card": "Model card",
    "report": "Report",
    "all": "Weights and card as a zip",
}
_FILES = {
    "diffusers": ("export/pytorch_lora_weights.safetensors",),
    "kohya": ("export/lora_kohya.safetensors",),
    "peft": ("export/adapter_model.safetensors", "export/adapter_config.json"),
    "card": ("export/README.md",),
    "report": ("report/index.html",),
}


def available(folder: Path) -> dict[str, str]:
    """Kind → its size in words, of what this run has."""
    found = {}
    for kind in KINDS:
        files = _files(folder, kind)
        if files:
            found[kind] = _words(sum(file.stat().st_size for file in files))
    return found


def make(folder: Path, kind: str, place: Path) -> Path:
    """A file of this kind in ``place``; a zip where there are several.

    Raises:
        DataError: the run has no such thing.
    """
    files = _files(folder, kind) if kind in KINDS else []
    if not files:
        raise DataError(f"{folder.name} has no {str(kind)[:30]!r} to take away")
    if len(files) == 1:
        # A loader of diffusers looks for this very name; any other file is better known by its run.
        name = f"{folder.name}-{files[0].name}" if kind != "diffusers" else files[0].name
        return Path(shutil.copyfile(files[0], place / name))
    target = place / f"{folder.name}{'' if kind == 'all' else f'-{kind}'}.zip"
    with zipfile.ZipFile(target, "w") as archive:  # weights do not become smaller by compression
        for file in files:
            archive.write(file, file.relative_to(folder / EXPORT))
    return target


def _files(folder: Path, kind: str) -> list[Path]:
    """The files of a kind, all or none; links are passed over, for they may lead anywhere."""
    export = folder / EXPORT
    if kind == "all":
        return sorted(path for path in export.rglob("*") if path.is_file() and not path.is_symlink())
    files = [folder / name for name in _FILES[kind]]
    return files if all(file.is_file() and not file.is_symlink() for file in files) else []


def _words(n_bytes: int) -> str:
    return size(n_bytes) if n_bytes >= 2**20 else f"{max(1, n_bytes // 1024)} KiB"
