"""The rewards that a page offers: a page sends a key out of this list, never a class or a path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raft_core.errors import DataError, nearest
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_core.reading.shapes import taken_apart
from raft_demo.shared.runs import Modality

REWARDS = "rewards"  # folder of learned rewards in the runs folder, as `raft reward train` has it
LEARNED = "learned:"  # before the key of one of these, so that none passes for another reward
CLIP_L = "timm/vit_large_patch14_clip_224.openai"


@dataclass(frozen=True)
class Offer:
    """A reward with its arguments.

    Attributes:
        key: what a page sends.
        label: what a person reads.
        modality: what it scores.
        kind: its class, by its short name.
        arguments: of its constructor, besides the name.
        sees_prompt: whether it means nothing without a prompt.
        needs: what has to be had before it works here, in words, commands between backticks; "" = it works now.
        summary: what it measures; "" = what its class says of itself.
    """

    key: str
    label: str
    modality: Modality
    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sees_prompt: bool = False
    needs: str = ""
    summary: str = ""

    @property
    def name(self) -> str:
        """Of its scores."""
        return self.key.removeprefix(LEARNED)

    @property
    def spec(self) -> dict[str, Any]:
        """As it stands in a configuration."""
        return {"class_path": self.kind, "init_args": {**self.arguments, "name": self.name}}

    @property
    def measures(self) -> str:
        """What it measures, in a sentence or two."""
        return self.summary or _summary(self.kind)


@cache
def _summary(kind: str) -> str:
    """What a class says of itself."""
    from raft_core.config import listing

    return next((found.summary for found in listing.describe(kind)), "")


BUNDLED = (
    Offer(
        "taste",
        "Taste (bundled)",
        "image",
        "Aesthetic",
        {"weights": "bundled:shapes-taste"},
        summary="A head with one taste on the bundled shapes: centred, vivid, harmonious pictures. Blind to the prompt.",
    ),
    Offer(
        "shapes_aesthetic",
        "Clean shapes (bundled)",
        "image",
        "Aesthetic",
        {"weights": "bundled:shapes-aesthetic"},
        summary="A head that tells clean pictures of the bundled shapes from broken ones. Blind to the prompt.",
    ),
    Offer(
        "shapes_clip_score", "CLIP score (bundled)", "image", "ClipScore", {"model": "bundled:shapes-clip"}, sees_prompt=True
    ),
    Offer("gold", "Gold judge (bundled)", "image", "Gold", sees_prompt=True),
    Offer("gold_score", "Gold judge, graded (bundled)", "image", "GoldScore", sees_prompt=True),
    Offer("jpeg_compressibility", "Compressibility", "image", "JpegCompressibility"),
    Offer("jpeg_incompressibility", "Incompressibility", "image", "JpegIncompressibility"),
    Offer("sharpness", "Sharpness", "image", "Sharpness"),
    Offer("contrast", "Contrast", "image", "Contrast"),
    Offer("colorfulness", "Colourfulness", "image", "Colorfulness"),
    Offer("sentiment", "Sentiment", "text", "Sentiment"),
    Offer("length", "Length", "text", "Length"),
    Offer("repetition", "Repetition", "text", "Repetition"),
)
#: Offer, and the repositories of the Hub and the file of torch's that it loads.
PUBLISHED = (
    (Offer("aesthetic", "LAION aesthetic v2", "image", "Aesthetic"), (CLIP_L,), "sac+logos+ava1-l14-linearMSE.pth", "1.7 GB"),
    (Offer("clip_score", "CLIP score (ViT-L-14)", "image", "ClipScore", sees_prompt=True), (CLIP_L,), None, "1.7 GB"),
    (
        Offer("pick_score", "PickScore", "image", "PickScore", sees_prompt=True),
        ("yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),
        None,
        "3.9 GB",
    ),
    (Offer("hps_v2_1", "HPS v2.1", "image", "HpsV2", sees_prompt=True), ("xswu/HPSv2",), None, "3.9 GB"),
    (
        Offer("image_reward", "ImageReward", "image", "ImageReward", sees_prompt=True),
        ("THUDM/ImageReward", "google-bert/bert-base-uncased"),
        None,
        "1.8 GB",
    ),
)
ELSEWHERE = "more than a page can give: use it by `raft score` or in a configuration"
#: Rewards that ask for something that no page can know.
ASKING = (
    ("vlm_judge", "image", "VlmJudge", "a vision-language model behind an address"),
    ("gen_eval", "image", "GenEval", "prompts that come with what they ask for, as GenEval's do"),
    ("llm_judge", "text", "LlmJudge", "a language model, here or behind an address"),
    ("reward_model", "text", "RewardModel", "a model of transformers for sequence classification"),
    ("embedding_similarity", "text", "EmbeddingSimilarity", "an embedding model, and a text to be like"),
    ("answer", "text", "AnswerReward", "prompts that come with the right answers"),
    ("pattern", "text", "Pattern", "a pattern"),
    ("instructions", "text", "VerifiableInstructions", "prompts that come with IFEval's instructions"),
)


def offers(runs: Path, modality: Modality | None = None) -> list[Offer]:
    """All that are listed, those that were learned here first.

    Args:
        runs: the runs folder.
        modality: only those of one kind of sample.
    """
    found = [*learned(runs), *BUNDLED, *_published(), *_asking()]
    return [offer for offer in found if modality in (None, offer.modality)]


def offer(runs: Path, key: str, modality: Modality | None = None) -> Offer:
    """The reward of this key, if it works here and now.

    Raises:
        DataError: there is none of this key, or something is missing that it needs.
    """
    known = {each.key: each for each in offers(runs, modality)}
    if key not in known:
        raise DataError(f"there is no reward {str(key)[:60]!r} in the list{nearest(str(key)[:60], known)}")
    if known[key].needs:
        raise DataError(f"{known[key].label} cannot be used yet: it needs {known[key].needs}")
    return known[key]


def learned(runs: Path) -> Iterator[Offer]:
    """Rewards that were learned from preferences, in the runs folder's ``rewards``, the newest first."""
    from raft_core.preferences.folder import CONFIG, is_learned_reward

    folders = [path for path in (runs / REWARDS).glob("*") if not path.name.startswith(".") and is_learned_reward(path)]
    found = []
    for path in folders:
        try:
            facts = read_object(path / CONFIG)
            with taken_apart("it"):
                modality, training = facts["modality"], facts["training"]
                rate = training["held_out_accuracy"]
                told = f"right on {rate['value']:.0%} of {rate['n']} held-out ones" if rate["n"] else "none held out to test it"
                summary = f"Learned from {training['preferences'] + training['held_out']} preferences; {told}."
                sees = bool(facts["learner"].get("see_prompt", True))
                found.append(((path / CONFIG).stat().st_mtime, path, modality, summary, sees))
        except (OSError, Unreadable):
            continue  # being written, or not of this version: the command line says more
    for _, path, modality, summary, sees in sorted(found, key=lambda each: each[:2], reverse=True):
        if modality in ("image", "text"):
            place = {"folder": str(path.resolve())}
            label = f"{path.name} (learned)"
            yield Offer(LEARNED + path.name, label, modality, "LearnedReward", place, sees_prompt=sees, summary=summary)


def _published() -> Iterator[Offer]:
    """Published models, offered when all that they load is in the cache: a page never begins a download of gigabytes."""
    here = hub_cache()
    for each, repositories, file, size in PUBLISHED:
        there = here.issuperset(repositories) and (file is None or _torch_file(file).is_file())
        needs = f"a download of {size}, which `raft score PICTURES --reward {each.kind}` makes once"
        yield each if there else replace(each, needs=needs)
    if find_spec("rapidocr") is not None:
        yield Offer("ocr", "Legible text (OCR)", "image", "Ocr", sees_prompt=True)
    else:
        yield Offer("ocr", "Legible text (OCR)", "image", "Ocr", needs="`pip install 'raft-align[ocr]'`")


def _asking() -> Iterator[Offer]:
    for key, modality, kind, what in ASKING:
        yield Offer(key, kind, modality, kind, needs=f"{what}, which is {ELSEWHERE}")  # type: ignore[arg-type]


def hub_cache() -> frozenset[str]:
    """Repositories of which there is a snapshot in the Hub's cache; names alone, nothing is opened."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = Path(HF_HUB_CACHE).glob("models--*/snapshots/*")
    return frozenset(path.parents[1].name.removeprefix("models--").replace("--", "/") for path in folders)


def _torch_file(name: str) -> Path:
    """A file in torch's cache, as ``torch.hub.get_dir`` places it; torch itself is not imported here."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch").expanduser()
    return home / "hub" / "checkpoints" / name
