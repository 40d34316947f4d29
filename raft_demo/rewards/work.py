"""Scores of what a visitor brings; in the worker's process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from raft_core import capabilities
from raft_core.errors import ConfigError, DataError, RaftError, RewardError
from raft_core.preferences.folder import CONFIG
from raft_core.protocols import Reward
from raft_core.types import Prompt, Request, Sample
from raft_demo.rewards.uploads import picture
from raft_demo.shared.limits import Limits
from raft_demo.shared.offered import Offer
from raft_demo.shared.shelf import Shelf
from raft_demo.shared.worker import Progress, tell

THUMB = 160  # pixels
KEPT = 8
_rewards: Shelf[Reward] = Shelf(KEPT)


@dataclass
class Marks:
    """What the rewards say of N outputs.

    Attributes:
        names: [N] file names, or the texts.
        pictures: [N] addresses that hold them small; "" for texts.
        columns: key of a reward → [N] scores, None = not scored.
        labels: key → what a person reads.
        scales: key → what its numbers mean.
        descending: keys of rewards of which less is better.
        reasons: key → why something was not scored.
        refused: (file, why) of what was not taken.
    """

    names: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    columns: dict[str, list[float | None]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    scales: dict[str, str] = field(default_factory=dict)
    descending: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)


def score(
    offers: Sequence[Offer], files: Sequence[tuple[str, str]], texts: Sequence[str], prompts: Sequence[str], limits: Limits
) -> Iterator[dict[str, Any]]:
    """Score uploaded pictures, or texts; yields a ``Marks`` as plain data.

    Args:
        offers: rewards that work here, all of one modality.
        files: (path, name that the visitor knows) of pictures.
        texts: in the place of pictures.
        prompts: one for each, "" = none.

    Raises:
        DataError: not one of the files is a picture that can be taken.
    """
    marks = Marks()
    samples = _pictures(files, prompts, limits, marks) if files else _texts(texts, prompts, marks)
    if not samples:
        raise DataError("; ".join(f"{name} {why}" for name, why in marks.refused))
    for number, offer in enumerate(offers):
        tell(Progress(f"Scoring by {offer.label}", number, len(offers)))
        marks.labels[offer.key] = offer.label
        try:
            values = _scored(offer, samples, marks)
        except RaftError as error:
            values, marks.reasons[offer.key] = np.full(len(samples), np.nan), str(error)
        marks.columns[offer.key] = [float(value) if np.isfinite(value) else None for value in values]
    yield asdict(marks)


def _pictures(files: Sequence[tuple[str, str]], prompts: Sequence[str], limits: Limits, marks: Marks) -> list[Sample]:
    from raft_core.media.image import data_uri, fitted

    samples = []
    for number, ((path, name), prompt) in enumerate(zip(files, prompts, strict=True)):
        tell(Progress("Looking at the pictures", number, len(files)))
        try:
            image = picture(Path(path), limits)
        except DataError as error:
            marks.refused.append((name, str(error)))
            continue
        marks.names.append(name)
        marks.pictures.append(data_uri(fitted(image, THUMB), lossless=max(image.size) <= THUMB))
        samples.append(Sample(Request(Prompt(prompt), len(samples), 0), output=image))
    return samples


def _texts(texts: Sequence[str], prompts: Sequence[str], marks: Marks) -> list[Sample]:
    marks.names, marks.pictures = list(texts), [""] * len(texts)
    return [
        Sample(Request(Prompt(prompt), i, 0), output=text) for i, (text, prompt) in enumerate(zip(texts, prompts, strict=True))
    ]


def _scored(offer: Offer, samples: Sequence[Sample], marks: Marks) -> np.ndarray:
    """[N] scores, NaN = not scored.

    Raises:
        RaftError: it can score none of them.
    """
    from raft_core.rewards.scoring import scored_by

    asked = [i for i, sample in enumerate(samples) if sample.prompt.text or not offer.sees_prompt]
    values = np.full(len(samples), np.nan)
    if len(asked) < len(samples):
        marks.reasons[offer.key] = "it compares with a prompt, and none is given"
    reward = _reward(offer)
    marks.scales[offer.key] = reward.info.scale
    if not reward.info.higher_is_better:
        marks.descending.append(offer.key)
    if asked:
        values[asked], failure = scored_by(reward, [samples[i] for i in asked])
        if failure:
            marks.reasons[offer.key] = failure.first_error
    capabilities.sleep(reward)
    return values


def _reward(offer: Offer) -> Reward:
    """The reward, loaded; the same one as last time unless its folder has changed."""
    file = Path(str(offer.arguments.get("folder"))) / CONFIG
    stamp = file.stat().st_mtime_ns if file.is_file() else 0
    return _rewards.get(json.dumps([offer.spec, stamp], sort_keys=True), lambda: _built(offer))


def _built(offer: Offer) -> Reward:
    from raft_core.config.components import build

    try:
        reward = build("reward", offer.spec, offer.key)
    except ConfigError as error:
        raise RewardError("; ".join(error.mistakes)) from None
    capabilities.load(reward)
    return reward
