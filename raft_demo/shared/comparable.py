"""What can be compared: runs, their checkpoints, and the bundled example; and how a run draws by itself. Loads no model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.bundled import bundled_runs
from raft_core.errors import ConfigError, DataError, RaftError
from raft_core.prompts import distinct, read_prompts
from raft_core.store.manifest import read_config
from raft_core.types import Prompt
from raft_demo.shared.limits import Limits, within
from raft_demo.shared.runs import Modality, RunInfo, info

OWN_SIZE = "the model's own"
SIDES = (32, 64, 128, 256, 512, 768, 1024)
PROMPTS_SHOWN = 12
USUAL: dict[str, Any] = {"steps": 25, "guidance_scale": 7.5, "width": None, "height": None}  # of raft_diffusion's Sampling


@dataclass(frozen=True)
class Comparable:
    """Trained weights that a visitor may choose.

    Attributes:
        key: what a page sends.
        label: what a person reads.
        target: what ``raft compare`` and ``raft generate`` call it.
        folder: of the run.
        checkpoint: a round; None = what the run has exported.
    """

    key: str
    label: str
    target: str
    folder: Path
    checkpoint: str | None = None


@dataclass(frozen=True)
class Defaults:
    """How a run draws, and prompts to begin with.

    Attributes:
        size: as ``sizes`` spells it.
        prompts: held-out ones first, for the run has not been trained on them.
    """

    steps: int
    guidance_scale: float
    size: str
    prompts: Sequence[str]

    @property
    def opening(self) -> str:
        """The prompt to begin with."""
        return opening(self.prompts)


def opening(prompts: Sequence[str]) -> str:
    """The longest of the first few, for there is most to see in it; nothing when there is none."""
    return max(prompts[:4], key=len, default="")


def comparables(runs: Sequence[RunInfo], modality: Modality = "image") -> list[Comparable]:
    """All of one kind that can be compared, the newest run first, the bundled examples last."""
    return [*(each for run in runs for each in _of_run(run, modality)), *_examples(modality)]


def _of_run(run: RunInfo, modality: Modality) -> Iterator[Comparable]:
    if run.modality != modality or run.status == "damaged":
        return
    if run.is_exported:
        yield Comparable(run.name, run.name, str(run.folder), run.folder)
    rounds = sorted(int(path.name) for path in (run.folder / "checkpoints").glob("[0-9]*") if path.name.isdigit())
    for rnd in reversed(rounds):
        if rnd:  # round 0 is the model as it was
            yield Comparable(f"{run.name}@{rnd}", f"{run.name}, round {rnd}", str(run.folder), run.folder, str(rnd))


def _examples(modality: Modality) -> Iterator[Comparable]:
    for target, folder in bundled_runs().items():
        if (folder / "export").is_dir() and info(folder).modality == modality:
            yield Comparable(target, f"{folder.name} (bundled example)", target, folder)


def chosen(keys: Any, known: Sequence[Comparable], most: int) -> list[Comparable]:
    """What these keys name.

    Raises:
        ConfigError: none, or too many.
        DataError: one that is not on the list.
    """
    keys = [keys] if isinstance(keys, str) else list(dict.fromkeys(keys or []))
    if not keys:
        raise ConfigError("no model is chosen: choose at least one under Models")
    if len(keys) > most:
        raise ConfigError(f"{len(keys)} models are chosen; compare at most {most} at once")
    by_key = {each.key: each for each in known}
    for key in keys:
        if key not in by_key:
            raise DataError(f"there is no {str(key)[:100]!r} to compare any more; choose one of the list")
    return [by_key[key] for key in keys]


NO_DEFAULTS = Defaults(USUAL["steps"], USUAL["guidance_scale"], OWN_SIZE, ())


def defaults(folder: Path) -> Defaults:
    """How the run draws by itself; as usual where its configuration tells it wrongly, of which drawing says more."""
    try:
        config = read_config(folder)
        sampling = {**USUAL, **((config["policy"].get("init_args") or {}).get("sampling") or {})}
        width, height = sampling["width"], sampling["height"]
        size = f"{width} × {height}" if width and height else OWN_SIZE
        return Defaults(int(sampling["steps"]), float(sampling["guidance_scale"]), size, prompts_shown(config))
    except (RaftError, KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return NO_DEFAULTS


def prompts_shown(config: Mapping[str, Any]) -> list[str]:
    """Some to begin with, from all over the held-out ones, or else from those that were trained on."""
    found = [prompt.text for prompt in run_prompts(config, ("held_out",)) or run_prompts(config)]
    return found[:: max(1, len(found) // PROMPTS_SHOWN)][:PROMPTS_SHOWN]


def run_prompts(config: Mapping[str, Any], sides: Sequence[str] = ("held_out", "train")) -> list[Prompt]:
    """A run's prompts with what their tables say besides; none of files that are gone."""
    files = config.get("prompts") or {}
    found: list[Prompt] = []
    for name in sides:
        source = files.get(name) if isinstance(files, dict) else None
        if not source or str(source).startswith("hub:"):  # nothing is fetched to show an example
            continue
        try:
            once, _ = distinct(read_prompts(source, column=files.get("column")))
        except RaftError:  # the file may have moved since; the run's weights are what is compared
            continue
        found += once
    return found


def sizes(own: str, limits: Limits) -> list[str]:
    """Sizes to propose, the run's own first."""
    squares = [f"{side} × {side}" for side in SIDES if side <= limits.side]
    return list(dict.fromkeys([own, OWN_SIZE, *squares]))


def read_size(text: Any, limits: Limits) -> tuple[int | None, int | None]:
    """(width, height) in pixels, None for the model's own.

    Raises:
        ConfigError: it is no size, or too large.
    """
    if text == OWN_SIZE:
        return None, None
    found = re.fullmatch(r"\s*(\d{1,5})\s*[×x*]\s*(\d{1,5})\s*", str(text))
    if found is None:
        raise ConfigError(f"the size is {str(text)[:50]!r}; write it as 512 × 512, or choose one of the list")
    width, height = int(found[1]), int(found[2])
    within("the width", width, 8, limits.side)
    within("the height", height, 8, limits.side)
    return width, height
