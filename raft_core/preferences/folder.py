"""A learned reward as a folder: ``config.json`` says how it is made, ``weights.safetensors`` holds what was trained."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raft_core.errors import ConfigError, ModelError
from raft_core.machine.files import publishing, strict
from raft_core.preferences.learner import Learner, Scale
from raft_core.preferences.probe import require_same
from raft_core.reading.files import Unreadable, excerpt, home_path
from raft_core.reading.json_data import read_object
from raft_core.reading.shapes import require_shape, taken_apart

CONFIG, WEIGHTS = "config.json", "weights.safetensors"
FORMAT = "raft-learned-reward-1"
SCALE = {"mean": float, "std": float}
SHAPE = {
    **dict.fromkeys(("format", "modality"), str),
    **dict.fromkeys(("learner", "training"), dict),
    **dict.fromkeys(("before", "after"), SCALE),
    "probe": [float],
}
# The core knows the modalities by name only; a folder cannot name a class of its own, for then it could run any code.
LEARNERS = {"image": "raft_diffusion.rewards.learned.ClipLearner", "text": "raft_text.rewards.learned.TextLearner"}


@dataclass(frozen=True)
class Recipe:
    """What ``config.json`` holds.

    Attributes:
        modality: ``image`` or ``text``.
        learner: constructor arguments of its learner.
        before: scale of raw scores on the reference policy's samples at the start of the training.
        after: the same at its end; scores are given in it.
        probe: raw scores of fixed inputs, by which it is seen that the model below has not changed.
        training: plain facts about data and fit.
    """

    modality: str
    learner: Mapping[str, Any]
    before: Scale
    after: Scale
    probe: Sequence[float]
    training: Mapping[str, Any]

    @property
    def preference_scale(self) -> float:
        """Factor that makes differences of scores log-odds."""
        return self.after.std / self.before.std

    def build(self) -> Learner:
        """The learner, nothing loaded yet."""
        return learner_class(self.modality)(**self.learner)


def learner_class(modality: str) -> type:
    """The class that learns rewards of a modality."""
    module, _, name = LEARNERS[modality].rpartition(".")
    return getattr(importlib.import_module(module), name)


def is_learned_reward(path: str | Path) -> bool:
    """Whether a path is the folder of a learned reward; never raises."""
    try:
        return read_object(home_path(path) / CONFIG).get("format") == FORMAT
    except (OSError, Unreadable):
        return False


def learned_folder(path: str, base: Path | None) -> str | None:
    """The absolute folder of the learned reward that a configuration names: here, else beside it; None when it names none."""
    folder = home_path(path)
    candidates = [folder] if base is None else [folder, base / folder]
    return next((str(found.resolve()) for found in candidates if is_learned_reward(found)), None)


def save_reward(folder: Path, learner: Learner, recipe: Recipe) -> Path:
    """Write the folder, whole or not at all; returns it.

    Raises:
        StoreError: a full disk, a folder that cannot be written to.
    """
    from safetensors.torch import save_file

    config = {"format": FORMAT, **asdict(recipe), "preference_scale": recipe.preference_scale}
    with publishing(folder) as temporary:
        (temporary / CONFIG).write_text(json.dumps(strict(config), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        tensors = {name: p.detach().cpu().contiguous().clone() for name, p in learner.parameters().items()}
        save_file(tensors, temporary / WEIGHTS)
    return folder


def read_recipe(folder: Path) -> Recipe:
    """How the reward in a folder is made.

    Raises:
        ModelError: it is no folder of a learned reward.
    """
    try:
        config = require_shape(read_object(folder / CONFIG), SHAPE, "", SHAPE)
        if config["format"] != FORMAT or config["modality"] not in LEARNERS:
            raise Unreadable(f"format {excerpt(config['format'], 40)!r} of {excerpt(config['modality'], 40)!r}")
        with taken_apart("it"):
            before, after = (Scale(float(config[name]["mean"]), float(config[name]["std"])) for name in ("before", "after"))
            probe = [float(x) for x in config["probe"]]
        recipe = Recipe(config["modality"], config["learner"], before, after, probe, config["training"])
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is no learned reward: there is no {CONFIG} in it (make one by: raft reward train)"
        ) from None
    except (OSError, Unreadable) as error:
        raise ModelError(f"{folder} is no learned reward: {CONFIG} cannot be used ({error})") from None
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"the learned reward {folder} is not complete: {WEIGHTS} is missing")
    return recipe


def load_learner(folder: Path, recipe: Recipe, device: str = "auto") -> Learner:
    """The trained learner of a folder.

    Raises:
        ModelError: the weights are damaged, or do not fit what the configuration describes, or the model below has changed.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with taken_apart("its learner"):
            learner = recipe.build()
    except (Unreadable, ConfigError) as error:
        raise ModelError(f"{folder / CONFIG} does not describe a learner of this version: {error}") from None
    learner.load(device)
    try:
        stored = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be read: {error}") from None
    own = learner.parameters()
    shapes = [{name: tuple(tensor.shape) for name, tensor in each.items()} for each in (own, stored)]
    if shapes[0] != shapes[1]:
        other = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))[0][0]
        raise ModelError(
            f"the weights in {folder} do not fit the model that they were trained on ({other} differs): "
            "is its base model the same as then?"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(stored[name])
    require_same(learner, recipe.probe, recipe.after, f"the learned reward {folder}")
    return learner
