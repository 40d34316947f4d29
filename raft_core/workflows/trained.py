"""Where a trained policy comes from: a run folder, a file of weights, or a model as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.bundled import bundled_models, bundled_runs
from raft_core.capabilities import Imports
from raft_core.config.components import build_each
from raft_core.config.importing import resolve
from raft_core.config.run_config import Override, overridden, read_yaml
from raft_core.errors import ConfigError, ModelError
from raft_core.protocols import Policy, Reward
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_core.rewards.scoring import Scorer
from raft_core.store.manifest import CONFIG, RUN, read_run
from raft_core.store.store import load_checkpoint

DEFAULT_POLICY = "StableDiffusion"
ITS_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
LORA_FILES = ("pytorch_lora_weights.safetensors",)


@dataclass(frozen=True)
class Source:
    """What a command line names, with its settings put in; nothing loaded yet.

    Attributes:
        path: the run folder, the weights, or the model's name.
        kind: which of the three.
        raw: configuration: of the run, or made up for the weights or the model.
        base: folder in which relative paths of the configuration are looked up.
    """

    path: Path
    kind: str
    raw: Mapping[str, Any]

    @property
    def name(self) -> str:
        """For folders and headings."""
        return self.path.stem if self.kind == "weights" else self.path.name

    def build(self, *, rewards: bool) -> tuple[Policy, Scorer | None]:
        """The policy, and the reward and the judges when they are asked for.

        Raises:
            ConfigError: with every mistake that there is.
        """
        wanted = {"policy": Policy, "reward": Reward, "judges": Sequence[Reward]} if rewards else {"policy": Policy}
        missing = [key for key in wanted if key not in self.raw and key != "judges"]
        named = {key: (kind, self.raw.get(key, [])) for key, kind in wanted.items() if key not in missing}
        told = [f"{key} is missing: give --{key} NAME (raft list {key}s says which there are)" for key in missing]
        built = build_each(named, mistakes=told)
        return built["policy"], Scorer(built["reward"], tuple(built["judges"])) if rewards else None

    def load(self, policy: Policy, checkpoint: str | None = None) -> str:
        """Load the policy with the trained weights; returns in words which.

        Args:
            checkpoint: of a run: ``best``, ``last`` or a round; by default what the run has exported.

        Raises:
            ModelError: the weights do not fit, or are not there.
            StoreError: no such checkpoint.
        """
        policy.load()
        return self.put_weights(policy, checkpoint)

    def put_weights(self, policy: Policy, checkpoint: str | None = None) -> str:
        """Put the trained weights into a policy that is loaded, whichever it has; as ``load`` otherwise."""
        if self.kind == "model":
            return "the model as it is"
        if self.kind == "weights":
            assert isinstance(policy, Imports)  # checked in open_source
            policy.load_weights(self.path)
            return str(self.path)
        if checkpoint is None and (self.path / "export").is_dir() and isinstance(policy, Imports):
            policy.load_weights(self.path / "export")
            return f"the export of {self.path}"
        chosen: int | str = checkpoint or read_run(self.path).get("checkpoint", "last")
        if isinstance(chosen, str) and chosen.isdigit():
            chosen = int(chosen)
        return f"checkpoint {load_checkpoint(self.path, chosen, policy)} of {self.path}"


def open_source(target: str, overrides: Sequence[Override], *, models: bool = False) -> Source:
    """The run (of the user's, or a bundled one), the weights or (with ``models``) the model that ``target`` names.

    Raises:
        ConfigError: it is none of these, a model where none is wanted, or a setting does not fit into it.
        ModelError: a file that holds no weights.
    """
    path = bundled_runs().get(target) or Path(target).expanduser()
    if (path / RUN).exists():
        return Source(path, "run", overridden(read_yaml(path / CONFIG), overrides))
    policy = next((o.text for o in overrides if o.path == "policy"), usual_policy(target))
    rest = [o for o in overrides if o.path != "policy"]
    if path.is_file() or (path.is_dir() and not (path / "model_index.json").exists()):
        arguments = weights_arguments(path, policy)
        kind = "model" if arguments.get("model") == str(path) else "weights"  # a whole model says that it is its own
    elif models or path.is_dir():
        kind, arguments = "model", {"model": target}
    else:
        raise ConfigError(f"{target} is neither a run folder (with {RUN} in it) nor a file or folder of trained weights")
    if kind == "model" and not models:
        raise ConfigError(
            f"{target} is a model as it is: nothing was trained, so there is no before and after; give a run folder, or "
            "weights that were trained"
        )
    return Source(path, kind, overridden({"policy": {"class_path": policy, "init_args": arguments}}, rest))


def usual_policy(target: str) -> str:
    """The policy that takes a file, folder or model when none is named.

    What transformers or peft has written is text; a pipeline of diffusers says its class, so does a LoRA that was trained here.
    """
    place = Path(bundled_models().get(target, target)).expanduser()
    has = {path.name for path in place.iterdir()} if place.is_dir() else set()
    if "adapter_config.json" in has or {"config.json", "tokenizer_config.json"} <= has:
        return "CausalLM"
    pipeline = _pipeline_of(place, has)
    return DEFAULT_POLICY if pipeline is None or pipeline in ITS_PIPELINES else "TextToImage"


def _pipeline_of(place: Path, has: set[str]) -> str | None:
    """The class of diffusers that a folder holds or a LoRA is for; None where that is not said."""
    try:
        if "model_index.json" in has:
            return read_object(place / "model_index.json", repeated_keys=True).get("_class_name")
        file = next((place / name for name in LORA_FILES if name in has), place)
        return noted(file).get("raft.pipeline") if file.suffix == ".safetensors" and file.is_file() else None
    except (OSError, Unreadable):
        return None  # what is wrong with it is told by the policy


def noted(file: Path) -> Mapping[str, str]:
    """The notes in a safetensors file's header; none in one that cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as content:
            return content.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def weights_arguments(path: Path, policy: str) -> dict[str, Any]:
    """Constructor arguments under which a policy can take these weights, as far as the file tells them.

    Raises:
        ModelError: the policy cannot take weights from files, or this file holds none.
    """
    target, _ = resolve(policy, "policy")
    if not isinstance(target, Imports):
        raise ModelError(f"{policy} takes no weights from files; give a run folder, not {path}")
    return target.arguments_for(path)
