"""The recipes that a page offers, as their files tell of them: what the knobs stand at, what it costs. Loads no model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from raft_core.config.recipes import DEFAULT, find_config, recipe_folders
from raft_core.errors import DataError, RaftError, nearest
from raft_core.prompts import distinct, read_prompts
from raft_core.reading.yaml_data import read_mapping
from raft_demo.shared.runs import TEXT_POLICIES, Modality

BEGINS = "raft align"  # a recipe for another command is not one of this page
#: Of raft_core.config.run_config.RunConfig and what it holds, where a recipe leaves them out.
USUAL = {"k": 8, "rounds": 10, "seed": 0, "lr": 1e-4}


@dataclass(frozen=True)
class Recipe:
    """A configuration that comes with RAFT.

    Attributes:
        name: such as ``shapes/resolution``.
        path: its file.
        modality: what its model makes.
        model: base model.
        about: its opening sentences.
        facts: "Cost", "Expected" → what the file says.
        reward: what it follows, in words.
        rank: of its LoRA; None when it trains something else.
        needs: why it cannot be begun from a page, in words; "" = it can.
    """

    name: str
    path: Path
    modality: Modality
    model: str
    about: str
    facts: Mapping[str, str]
    reward: str
    k: int
    rounds: int
    seed: int
    learning_rate: float
    rank: int | None
    needs: str = ""

    @property
    def raw(self) -> dict[str, Any]:
        """What the file holds."""
        return _read(self.path)

    @property
    def prompts(self) -> list[str]:
        """The prompts that it trains on; empty when they cannot be read."""
        files = self.raw.get("prompts") or {}
        try:
            once, _ = distinct(read_prompts(files["train"], column=files.get("column"), base=self.path.parent))
        except (RaftError, KeyError):
            return []
        return [prompt.text for prompt in once]


def recipes() -> list[Recipe]:
    """All that the command ``raft align`` takes, the default one first and what works at once before the rest."""
    names = [str(p.relative_to(folder).with_suffix("")) for folder in recipe_folders() for p in sorted(folder.rglob("*.yaml"))]
    found = [each for name in names if (each := _recipe(name)) is not None]
    return sorted(found, key=lambda each: (bool(each.needs), each.name != DEFAULT, each.modality, each.name))


def recipe(name: str) -> Recipe:
    """The recipe of this name, if it works here.

    Raises:
        DataError: it is none of the list, or something is missing that it needs.
    """
    known = {each.name: each for each in recipes()}
    if name not in known:
        raise DataError(f"there is no recipe {str(name)[:60]!r} in the list{nearest(str(name)[:60], known)}")
    if known[name].needs:
        raise DataError(f"{name} cannot be begun here: {known[name].needs}")
    return known[name]


@cache
def _read(path: Path) -> dict[str, Any]:
    return read_mapping(path)


def _recipe(name: str) -> Recipe | None:
    path = find_config(name)
    comments, raw = _comments(path), _read(path)
    if not comments.get("Command", "").startswith(BEGINS):
        return None
    policy = raw.get("policy") or {}
    kind, arguments = str(policy.get("class_path", "")), policy.get("init_args") or {}
    lora = arguments.get("lora")
    return Recipe(
        name=name,
        path=path,
        modality="text" if kind.rpartition(".")[2] in TEXT_POLICIES else "image",
        model=str(arguments.get("model", "")),
        about=comments.pop("", ""),
        facts={key: comments[key] for key in ("Cost", "Expected") if comments.get(key)},
        reward=in_words(raw.get("reward")),
        k=int(raw.get("k", USUAL["k"])),
        rounds=int(raw.get("rounds", USUAL["rounds"])),
        seed=int(raw.get("seed", USUAL["seed"])),
        learning_rate=float(((raw.get("trainer") or {}).get("optimizer") or {}).get("lr", USUAL["lr"])),
        rank=int(lora.get("rank", 8)) if isinstance(lora, dict) and not lora.get("init") else None,
        needs=_needs(str(arguments.get("model", "")), raw, path),
    )


def in_words(component: Any) -> str:
    """A reward of a configuration by its names: ``KLPenalised (Sentiment)``."""
    if isinstance(component, str):
        return component.rpartition(".")[2]
    if not isinstance(component, Mapping):
        return ""
    arguments = component.get("init_args") or {}
    name = str(arguments.get("name") or str(component.get("class_path", "")).rpartition(".")[2])
    parts: Sequence[Any] = arguments.get("rewards") or [part for part in [arguments.get("reward")] if part]
    return f"{name} ({', '.join(map(in_words, parts))})" if parts else name


def _comments(path: Path) -> dict[str, str]:
    """What the head of a recipe says: "" → its opening, then "Command", "Cost", "Expected"."""
    found: dict[str, str] = {"": ""}
    key = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("#").strip()
        if begun := re.match(r"(Command|Cost|Expected|measured):\s*(.*)", text):
            key, text = begun[1], begun[2]
        elif not text:
            key = "rest" if key else ""
        found[key] = f"{found.get(key, '')} {text}".strip()
    return found


def _needs(model: str, raw: Mapping[str, Any], path: Path) -> str:
    """A page never begins a download of gigabytes, nor guesses at a file that a person is to bring."""
    train, command = str((raw.get("prompts") or {}).get("train", "")), f"raft align {path.parent.name}/{path.stem}"
    if not model.startswith("bundled:") and not Path(model).expanduser().exists() and not _is_cached(model):
        return f"its model {model} is not on this machine yet; `{command}` fetches it once"
    if not train.startswith(("bundled:", "hub:")) and not (path.parent / train).is_file() and not Path(train).is_file():
        return f"its prompts {train} are not here; begin it with `{command} --prompts.train FILE`"
    return ""


def _is_cached(model: str) -> bool:
    from huggingface_hub.constants import HF_HUB_CACHE

    return any(Path(HF_HUB_CACHE).glob(f"models--{model.replace('/', '--')}/snapshots/*"))
