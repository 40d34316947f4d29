"""GenEval's questions as a reward: things, counts, colours and places, by a detector and a CLIP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from raft_core.errors import ConfigError, nearest
from raft_core.machine.devices import resolve_device
from raft_core.protocols import RewardInfo
from raft_core.rewards.scoring import told
from raft_core.types import Prompt, Sample
from raft_diffusion.rewards.clip import Clip, ClipSource, load_clip
from raft_diffusion.rewards.composition import COLOURS, Composition, Thing, composition_of, met
from raft_diffusion.rewards.detector import Detector
from raft_diffusion.rewards.pictures import bad_pictures_unscored, pictures

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 16  # things of a kind
TEMPLATES = ("a photo of a {colour} {kind}", "a photo of a {colour}-colored {kind}", "a photo of a {colour} object")


class GenEval:
    """Whether a picture shows the things that its prompt asks for, so many, of their colours, where they should be.

    The prompts' table says what is asked for, as GenEval's ``evaluation_metadata.jsonl`` does (``preset:geneval``): the columns
    ``include`` (class, count, color, position), ``exclude`` and ``tag``. A prompt without them is not scored.

    Args:
        detector: a folder or Hub name of an object detector of transformers that knows COCO's things.
        clip: which tells colours: an open_clip name, a folder, ``hf-hub:`` or ``transformers:`` and a name.
        pretrained: for a name, open_clip's weight tag.
        counting: ``all`` = 1 where everything holds, else 0; ``share`` = the share of the clauses that hold.
        confidence: of a thing that counts as found, 0–1.
        confidence_to_count: the same where the number is asked for (tag ``counting``).
        name: column in the store and label in the report.
        batch_size: pictures per forward pass.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; the models sleep on the CPU.

    Source: GenEval (2310.11513). Differs: boxes of a detector that transformers loads, in place of Mask2Former's masks from
    mmdet, so that a thing's colour is told with what is around it; figures do not compare with published ones.
    """

    def __init__(
        self,
        detector: str = "PekingU/rtdetr_r50vd",
        clip: str = "ViT-L-14",
        pretrained: str = "openai",
        counting: Literal["all", "share"] = "all",
        confidence: float = 0.3,
        confidence_to_count: float = 0.9,
        *,
        name: str = "gen_eval",
        batch_size: int = 16,
        device: str = "auto",
    ):
        mistakes = []
        if counting not in ("all", "share"):
            mistakes.append(f"counting is {counting!r}, but must be 'all' or 'share'")
        for setting, value in (("confidence", confidence), ("confidence_to_count", confidence_to_count)):
            if not 0 < value < 1:
                mistakes.append(f"{setting} is {value}, but must be between 0 and 1")
        if mistakes:
            raise ConfigError(mistakes)
        self.detector = Detector(detector, batch_size, device)
        self.source = ClipSource.of(clip, pretrained)
        self.counting = counting
        self.confidence, self.confidence_to_count = confidence, confidence_to_count
        scale = "1 = all that is asked for" if counting == "all" else "share of what is asked for"
        self.info = RewardInfo(name=name, scale=scale, batch_size=batch_size, gpu=device != "cpu")
        self._clip: Clip | None = None

    def check(self) -> list[str]:
        return [*self.detector.check(), *self.source.check()]

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """Rows that ask for what is not to be understood; prompts of which none asks for anything."""
        found: list[str] = []
        for prompt in (*train, *held_out):
            _, mistakes = composition_of(prompt.meta)
            found += [f"the prompt {prompt.text[:40]!r}: {mistake}" for mistake in mistakes]
        for side, prompts in {"the prompts": train, "the held-out prompts": held_out}.items():
            if prompts and not any(prompt.meta.get("include") for prompt in prompts):
                found.append(f"of {side} not one can be scored: they have no column include, as preset:geneval has it")
        return [*found[:4], *([f"… and {len(found) - 4} more of the kind"] if len(found) > 4 else [])]

    def load(self) -> None:
        """Load the detector and the CLIP, or take the one that another reward has loaded."""
        self.detector.load()
        self._clip = self._clip or load_clip(self.source)

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        self.detector.sleep()
        if self._clip is not None:
            self._clip.sleep()

    @bad_pictures_unscored
    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]

        Raises:
            PartlyScored: some prompts ask for nothing, or for what the detector does not know.
        """
        self.load()
        images, kinds = pictures(samples), set(self.detector.kinds)
        least = min(self.confidence, self.confidence_to_count)
        scores, reason = np.full(len(samples), np.nan), ""
        for i, (sample, things) in enumerate(zip(samples, self.detector(images, least), strict=True)):
            asked, _ = composition_of(sample.prompt.meta)
            if asked is None:
                reason = reason or "the prompt has no column include that can be understood"
            elif unknown := sorted({*(clause.kind for clause in asked.include), *asked.exclude} - kinds):
                reason = reason or f"the detector knows no {unknown[0]!r}{nearest(unknown[0], kinds)}"
            else:
                holds = met(asked, self._sure(things, asked), self._colours_in(images[i]))
                scores[i] = float(all(holds)) if self.counting == "all" else float(np.mean(holds))
        return told(scores, reason)

    def _sure(self, found: Mapping[str, Sequence[Thing]], asked: Composition) -> dict[str, list[Thing]]:
        """What was found and counts."""
        least = self.confidence_to_count if asked.counts else self.confidence
        return {kind: [thing for thing in things if thing.score > least][:MOST] for kind, things in found.items()}

    def _colours_in(self, image: Image) -> Callable[[str, Sequence[Thing]], list[str]]:
        """(kind, things) → the colour of each by a CLIP."""

        def colours(kind: str, things: Sequence[Thing]) -> list[str]:
            clip, device = self._clip, resolve_device(self.detector.device)
            assert clip is not None  # loaded
            crops = [image.crop(_inside(thing.box, image)) for thing in things]
            rows = clip.images(crops, device, self.detector.batch_size)  # [N, D]
            texts = [template.format(colour=colour, kind=kind) for colour in COLOURS for template in TEMPLATES]
            classes = clip.texts(texts, device, self.detector.batch_size).reshape(len(COLOURS), len(TEMPLATES), -1).mean(dim=1)
            classes = classes / classes.norm(dim=-1, keepdim=True)  # [colours, D]
            return [COLOURS[i] for i in (rows @ classes.T).argmax(dim=1).tolist()]

        return colours


def _inside(box: Sequence[float], image: Image) -> tuple[int, int, int, int]:
    """A box in whole pixels of the picture, at least one wide and high."""
    left, top = min(max(int(box[0]), 0), image.width - 1), min(max(int(box[1]), 0), image.height - 1)
    return left, top, min(max(round(box[2]), left + 1), image.width), min(max(round(box[3]), top + 1), image.height)
