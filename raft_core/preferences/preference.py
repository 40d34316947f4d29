"""What a preference is made of: a prompt, candidates, and how the choice fell."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from raft_core.conversations import transcript
from raft_core.errors import DataError
from raft_core.media.image import jpeg_kilobytes
from raft_core.types import MESSAGES, Message, Prompt, Request, Sample

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Picture:
    """A picture that is decoded when it is looked at: a data set of them does not fit into memory otherwise.

    Attributes:
        path: where it lies, or None when it is held here.
        data: the encoded bytes, or None when it lies in a file.
    """

    path: Path | None = None
    data: bytes | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            raise ValueError("a picture is either a file or bytes")

    def encoded(self) -> bytes:
        """Its bytes as stored.

        Raises:
            DataError: the file cannot be read.
        """
        if self.data is not None:
            return self.data
        assert self.path is not None
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(f"the picture {self.path} cannot be read: {error.strerror}") from None

    @cached_property
    def digest(self) -> str:
        """The same for the same bytes."""
        return hashlib.blake2b(self.encoded(), digest_size=16).hexdigest()

    def load(self) -> Image.Image:
        """The picture in RGB.

        Raises:
            DataError: it is none.
        """
        return decoded(self.encoded(), str(self.path or "the picture"))


def decoded(data: bytes, name: str) -> Image.Image:
    """Encoded bytes as an RGB picture, as ``opaque`` makes it.

    Raises:
        DataError: no picture, a damaged one, one without a pixel, or one that ``opaque`` refuses.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return opaque(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is no readable picture ({unreadable(data, error)})") from None
    except DataError as error:
        raise DataError(f"{name} is no readable picture ({error})") from None


def unreadable(data: bytes, error: Exception) -> str:
    """Why encoded bytes could not be opened, in words."""
    from PIL import UnidentifiedImageError

    if not data:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):  # names a place in memory
        return "no format of pictures that is known"
    return " ".join(str(error).split())


def opaque(image: Image.Image) -> Image.Image:
    """A decoded picture of any mode as 8-bit RGB.

    What is transparent lies on white, as on a page. 16 bits per channel are rounded to 8, palettes and greyscale become
    colours. Plain conversion shows what transparency hides and clips 16 bits to white.

    Raises:
        DataError: floating-point pixels, whose range nobody knows, integers beyond 16 bits, or a mode that is no picture's.
    """
    from PIL import Image

    if image.mode == "F":
        raise DataError("a picture of floating-point pixels has no known range: convert it to 8 bits per channel first")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DataError(
                f"a picture of mode {image.mode!r} holds values from {values.min()} to {values.max()}, but greyscale of 16 "
                "bits ends at 65535: convert it to 8 bits per channel first"
            )
        return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
    try:
        if not image.has_transparency_data:
            return image.convert("RGB")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    except ValueError as error:
        raise DataError(f"a picture of mode {image.mode!r} cannot be shown as RGB: {error}") from error


#: A conversation that is answered; None where the prompt is a text.
Context = Sequence[Message] | None


class Item(NamedTuple):
    """An output and what it answers.

    Attributes:
        prompt: as a text.
        output: a text, a PIL image or a ``Picture``.
        context: the conversation that it answers, of which the prompt may be a part; None = the prompt alone.
    """

    prompt: str
    output: Any
    context: Context = None

    @classmethod
    def of(cls, sample: Sample) -> Item:
        return cls(sample.prompt.text, sample.output, sample.prompt.messages)

    def asked(self) -> Prompt:
        """What it answers, as of a sample: the whole conversation, where the prompt is a part of it."""
        if self.context is None:
            return Prompt(self.prompt)
        return Prompt(transcript(self.context), {MESSAGES: list(self.context)})

    def loaded(self) -> Any:
        """The output as a reward sees it: a text, or a PIL image."""
        return self.output.load() if isinstance(self.output, Picture) else self.output

    def size(self) -> float:
        """What a hackable reward follows: words of a text, or kilobytes (of 1000) of a picture as JPEG of quality 95."""
        output = self.loaded()
        if isinstance(output, str):
            return float(len(output.split()))
        return jpeg_kilobytes(output)


@dataclass(frozen=True, eq=False)
class Preference:
    """One choice among candidates for a prompt.

    Attributes:
        prompt: what all candidates answer, as a text.
        candidates: n ≥ 2 texts or ``Picture``s, all different.
        target: [n] how the choice fell, ≥ 0, of sum 1: (1, 0) the first, (½, ½) a tie.
        margin: by how much the chosen one should win at least, in reward units, ≥ 0.
        group: a category to tell apart in an evaluation, or "".
        where: file and line, for messages.
        contexts: of each candidate, the conversation that it answers: the prompt's, and what was said between that and the
            candidate. Empty = they answer a text.
    """

    prompt: str
    candidates: tuple[Any, ...]
    target: tuple[float, ...]
    margin: float = 0.0
    group: str = ""
    where: str = ""
    contexts: tuple[Context, ...] = ()

    @property
    def choice(self) -> int | None:
        """Index of the chosen candidate, or None for a tie."""
        best = max(self.target)
        return self.target.index(best) if self.target.count(best) == 1 else None

    @property
    def items(self) -> list[Item]:
        contexts = self.contexts or (None,) * len(self.candidates)
        return [Item(self.prompt, each, context) for each, context in zip(self.candidates, contexts, strict=True)]

    def samples(self) -> list[Sample]:
        """The candidates as any reward takes them, pictures decoded."""
        return [Sample(Request(item.asked(), i, 0), output=item.loaded()) for i, item in enumerate(self.items)]


def flattened(preferences: Sequence[Preference]) -> list[Item]:
    """All candidates of all preferences, in order."""
    return [item for preference in preferences for item in preference.items]


def sliced(preferences: Sequence[Preference]) -> Iterator[slice]:
    """Where the candidates of each preference are in ``flattened``."""
    start = 0
    for preference in preferences:
        yield slice(start, start + len(preference.candidates))
        start += len(preference.candidates)
