"""Learn a reward from preferences.

  raft reward train preferences.jsonl --output my_reward
  raft reward train pick_a_pic/ --learner.clip ViT-H-14/laion2b_s32b_b79k
  raft reward train hh.jsonl.gz --learner.model Qwen/Qwen2.5-0.5B --fit.epochs 2
  raft align my.yaml --reward my_reward

DATA is .jsonl, .jsonl.gz or .parquet, or a folder of them, with the fields
prompt, chosen, rejected or prompt, candidates, choice (an index from 0), or as
HH-RLHF, Pick-a-Pic or UltraFeedback are published. Candidates are texts, or
pictures by their paths. Scores get mean 0 and variance 1 on the samples of the
reference policy, which --reference names (as `raft generate` writes them).
"""

from __future__ import annotations

import argparse
import contextlib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raft_core.config.components import Walk
    from raft_core.preferences.fit import FitSettings
    from raft_core.preferences.learner import Learner

USAGE = "raft reward train DATA [--output FOLDER] [--learner.SETTING VALUE …] […]"
TAKES_SETTINGS = True


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, help="an empty or new folder; by default runs/rewards/NAME")
    parser.add_argument("--reference", metavar="SAMPLES", help="of the reference policy; by default the candidates")
    parser.add_argument("--skip_invalid", action="store_true", help="leave out rows that are wrong instead of stopping")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def epilog() -> str:
    """What --learner and --fit take."""
    from raft_core.config.listing import settings

    lines = []
    for title, prefix, path in (
        ("settings of a fit", "fit", "raft_core.preferences.fit.FitSettings"),
        ("of a learner of pictures", "learner", "raft_diffusion.rewards.learned.ClipLearner"),
        ("of a learner of text", "learner", "raft_text.rewards.learned.TextLearner"),
    ):
        lines.append(f"{title}:")
        for name, default, meaning in settings(path):
            head = f"--{prefix}.{name}" + (f" ({default.strip(chr(39))})" if default and "(" not in default else "")
            lines += [f"  {head}", *textwrap.wrap(meaning, 74, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines)


def main(args: argparse.Namespace) -> None:
    from raft_core.preferences.read import read_items, read_preferences
    from raft_core.preferences.train import train_reward
    from raft_core.store.create import require_empty
    from raft_core.terminal import progress

    folder = args.output or free_output(args.target)
    require_empty(folder)
    reporter = progress.reporter()
    reading = read_preferences(args.target, skip_invalid=args.skip_invalid)
    reporter.line(reading.described())
    learner, settings = built(args.settings, reading.modality)
    reference = read_items(args.reference) if args.reference else None
    trained = train_reward(learner, reading.preferences, settings, folder, reporter, reference=reference, device=args.device)
    rate = trained.held_out
    reporter.line(
        f"held out: accuracy {rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f}, {rate.n} choices about {rate.prompts} "
        f"prompts), calibration error {trained.calibration.ece:.3f}"
    )
    reporter.line(f"the reward is in {folder}; use it by: --reward {folder}")


def free_output(data: str) -> Path:
    """``runs/rewards/NAME`` of the data, or the first of ``NAME-2`` … that is free."""
    from raft_core.machine.folders import free_folder

    return free_folder(Path("runs/rewards") / Path(data).name.split(".")[0])


def built(words: Sequence[str], modality: str) -> tuple[Learner, FitSettings]:
    """The learner of this modality and how it is fitted, by ``--learner.…`` and ``--fit.…``.

    Raises:
        ConfigError: with every mistake that there is.
    """
    from raft_core.config.components import Walk
    from raft_core.config.run_config import overridden, parse_overrides
    from raft_core.errors import ConfigError

    raw = overridden({}, parse_overrides(words))
    if unknown := [key for key in raw if key not in ("learner", "fit")]:
        raise ConfigError(f"--{unknown[0]} is not known here: {USAGE}")
    make, settings = learner_and_fit(Walk(), raw, modality)
    return make(), settings


def learner_and_fit(walk: Walk, raw: Mapping[str, Any], modality: str) -> tuple[Callable[[], Learner], FitSettings]:
    """What makes the learner, and how it is fitted.

    Args:
        walk: with the mistakes that are known already.
        raw: ``learner`` and ``fit`` as mappings, each of them or none.

    Raises:
        ConfigError: with every mistake that there is.
    """
    from raft_core.config.components import Unbuilt
    from raft_core.errors import ConfigError
    from raft_core.preferences.fit import FitSettings
    from raft_core.preferences.folder import learner_class

    fit, own = (as_mapping(raw.get(name), name) for name in ("fit", "learner"))
    # One seed for all, and a learning rate that suits what is trained, unless they are given.
    own = ({"seed": fit["seed"]} if "seed" in fit else {}) | own
    part = walk.section(own, learner_class(modality), "learner")
    with contextlib.suppress(Unbuilt):
        learner = part.make()
        walk.note("learner", learner.check())
        fit["optimizer"] = {"lr": learner.lr} | as_mapping(fit.get("optimizer"), "fit.optimizer")
    settings = None
    with contextlib.suppress(Unbuilt):
        settings = walk.section(fit, FitSettings, "fit").make()
    if walk.mistakes or settings is None:
        raise ConfigError(walk.mistakes)
    return part.make, settings


def as_mapping(raw: Any, name: str) -> dict[str, Any]:
    """Settings by name; none when nothing is given.

    Raises:
        ConfigError: something else is given.
    """
    from raft_core.config.schema import Typed, from_yaml
    from raft_core.errors import ConfigError

    found = from_yaml(raw) if isinstance(raw, Typed) else raw
    if found is not None and not isinstance(found, Mapping):
        raise ConfigError(f"{name} is {found!r}, but must be settings: --{name}.NAME VALUE")
    return dict(found or {})
