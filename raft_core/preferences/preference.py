"""What a preference is made of: a prompt, candidates, and how the choice fell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raft_core.conversations import transcript
from raft_core.media.medium import medium_of
from raft_core.media.picture import open_picture, read_picture_file
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
        return read_picture_file(self.path)

    @cached_property
    def digest(self) -> str:
        """The same for the same bytes."""
        return hashlib.blake2b(self.encoded(), digest_size=16).hexdigest()

    def load(self) -> Image.Image:
        """The picture in RGB.

        Raises:
            DataError: it is none.
        """
        return open_picture(self.encoded(), str(self.path or "the picture"))


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
        return medium_of(output).size(output)


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
