"""From the choices about a run to the job that learns a reward of them."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from raft_core.errors import ConfigError, DataError
from raft_demo.preferences.ballot_box import FEWEST
from raft_demo.preferences.choices import Choices
from raft_demo.preferences.pool import pool_of
from raft_demo.shared.offered import BUNDLED, CLIP_L, REWARDS, hub_cache
from raft_demo.shared.runs import RunInfo, info
from raft_demo.studio import Studio

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
LORA_RANK = 8


def job(studio: Studio, run: Any, name: Any) -> dict[str, Any]:
    """Arguments of ``preferences_work.learn``.

    Raises:
        RaftError: with every mistake that shows before a model is loaded.
    """
    folder = studio.run_folder(str(run))
    mistakes = _name_mistakes(studio.runs, str(name or "").strip())
    choices = Choices(studio.runs, folder.name)
    made = choices.read()
    chosen = [choice for choice in made if len(choice.best) == 1]
    prompts = {choice.prompt for choice in made if choice.best}
    if len(chosen) < FEWEST:
        mistakes.append(f"{len(chosen)} choices are too few to learn from: make {FEWEST - len(chosen)} more")
    elif len(prompts) < 2:
        mistakes.append("all choices are about one prompt, and one has to be held out: compare samples of another one, too")
    if mistakes:
        raise ConfigError(mistakes) if len(mistakes) > 1 else DataError(mistakes[0])
    return {
        "labels": str(choices.path),
        "run": str(folder),
        "folder": str(studio.runs / REWARDS / str(name).strip()),
        "learner": _learner(info(folder), pool_of(folder).modality, choices.path),
    }


def _name_mistakes(runs: Path, name: str) -> list[str]:
    if not name:
        return ["the reward has no name: give it one, such as my-taste"]
    if not NAME.fullmatch(name):
        return [f"the name {name[:60]!r} cannot be used: take small letters, digits, - and _, at most 40, such as my-taste"]
    if any(offer.name == name for offer in BUNDLED):
        return [f"{name!r} is the name of another reward: give yours one of its own"]
    if (runs / REWARDS / name).exists():
        return [f"there is a reward {name!r} already: take another name, for a run may be following it"]
    return []


def _learner(run: RunInfo, modality: str, labels: Path) -> dict[str, Any]:
    """Arguments of the learner that suits a run's model.

    Raises:
        DataError: it would have to be downloaded first.
    """
    if modality == "text":
        # As Ziegler et al. (1909.08593) begin: the reward grows from the model that is aligned.
        return {"model": run.model, "lora_rank": LORA_RANK}
    if run.model.startswith("bundled:"):
        return {"clip": "bundled:shapes-clip"}
    if CLIP_L not in hub_cache():
        raise DataError(
            "a reward of such pictures is learned on OpenAI's CLIP ViT-L-14, which is not here yet (1.7 GB): run `raft reward "
            f"train {labels}` once, which downloads it"
        )
    return {}


def outcome(name: str, told: dict[str, Any]) -> str:
    """HTML of what was learned."""
    rate, n = told["held_out"], told["preferences"]
    passed = f" ({told['passed']} passed over)" if told["passed"] else ""
    if rate["n"]:
        tested = (
            f"On choices about held-out prompts it agrees with you in <b>{rate['value']:.0%}</b> "
            f"<span class=raft-muted>(95 %: {rate['low']:.0%}–{rate['high']:.0%}, {rate['n']} choices about "
            f"{rate['prompts']} prompts)</span>."
        )
    else:
        tested = "Nothing but ties was held out, so how right it is is not known."
    warnings = "".join(f"<br><span class=raft-worse>{html.escape(text)}</span>" for text in told["warnings"])
    return (
        f"<div class='raft-card' role='status'><b>{html.escape(name)}</b> was learned from {n} choices{passed}. {tested} It is "
        f"now among the rewards of the page <b>Align</b>, and of <b>Rewards</b>.{warnings}</div>"
    )
