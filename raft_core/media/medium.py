"""Kinds of output: for each, one object that knows how such outputs are kept, compared, sent and shown.

The core asks the medium and never what an output is. A new kind is one class with these methods, handed to ``register``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from raft_core.errors import ModelError
from raft_core.media.image import ImageMedium
from raft_core.media.text import TextMedium
from raft_core.types import Sample

if TYPE_CHECKING:
    import pyarrow as pa


class Medium(Protocol):
    """One kind of output.

    Attributes:
        modality: what policies of this kind call themselves; also the name of the outputs' column in a table of samples, and
            of their field in a message to a reward.
        feature: of a column, as the library ``datasets`` writes it.
        size_unit: what ``size`` counts.
    """

    modality: ClassVar[str]
    feature: ClassVar[dict[str, str]]
    size_unit: ClassVar[str]

    def holds(self, output: Any) -> bool:
        """Whether this is such an output."""
        ...

    def normalised(self, output: Any) -> Any:
        """The output as it will be when it is read back from a store."""
        ...

    def content(self, output: Any) -> bytes:
        """The same bytes for the same output, and others for another."""
        ...

    def likeness(self, output: Any) -> Any:
        """What a person would call the same output has the same likeness; hashable."""
        ...

    def size(self, output: Any) -> float:
        """A measure that rewards are known to be fooled by, in ``size_unit``."""
        ...

    def column_type(self) -> pa.DataType:
        """Of the outputs' column in a table."""
        ...

    def column(self, outputs: Sequence[Any], name: Callable[[int], str]) -> pa.Array:
        """[N] a table's column of outputs; None stays null.

        Args:
            name: row → name of a file that the output could have.
        """
        ...

    def from_cell(self, cell: Any) -> Any:
        """The output of a cell of such a column, as plain data.

        Raises:
            Unreadable: it holds none.
        """
        ...

    def to_message(self, output: Any) -> str:
        """The output as a string for JSON."""
        ...

    def line(self, output: Any) -> dict[str, Any]:
        """What a line of JSON says of the output without a file beside it; {} when it can hold none."""
        ...

    def write(self, output: Any, folder: Path, stem: str) -> tuple[dict[str, Any], list[Path]]:
        """(what a line of JSON says of the output, the files that were written beside it).

        Raises:
            StoreError: a full disk, a folder that cannot be written to.
        """
        ...

    def html(self, samples: Sequence[Sample]) -> str:
        """Samples with their outputs, some of them None, as a notebook shows them."""
        ...

    def still(self, output: Any) -> Any:
        """What a page that holds only texts and pictures shows of the output: a string, or a PIL image."""
        ...

    def before_after(self, before: Sequence[Sample], after: Sequence[Sample], k: int) -> Any:
        """Some of these pairs, of which ``k`` in a row answer the same prompt, as a notebook shows them."""
        ...

    def probes(self) -> list[Any]:
        """Four outputs that are the same for ever: a model that scores them otherwise is another model."""
        ...


_KNOWN: tuple[Medium, ...] = (TextMedium(), ImageMedium())
_MEDIA: dict[str, Medium] = {medium.modality: medium for medium in _KNOWN}


def register(medium: Medium) -> None:
    """Make a kind of output known. The last one of a modality counts."""
    _MEDIA[medium.modality] = medium


def media() -> list[Medium]:
    """All kinds that are known."""
    return list(_MEDIA.values())


def medium_named(modality: str) -> Medium:
    """The medium of policies of this modality.

    Raises:
        ModelError: none is known.
    """
    if modality not in _MEDIA:
        raise ModelError(
            f"there is no medium {modality!r}, only {', '.join(_MEDIA)}: call raft_core.media.medium.register with one, in the "
            "module of the policy"
        )
    return _MEDIA[modality]


def medium_of(output: Any) -> Medium:
    """The medium of an output.

    Raises:
        TypeError: it is of no known kind.
    """
    for medium in _MEDIA.values():
        if medium.holds(output):
            return medium
    raise TypeError(f"a sample holds {type(output).__name__}, which is none of {', '.join(_MEDIA)}: render it first")


def stills(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with texts and pictures in place of whatever outputs they have."""
    return [s if s.output is None else s.with_output(medium_of(s.output).still(s.output)) for s in samples]


def common_medium(outputs: Sequence[Any]) -> Medium:
    """The medium of outputs of one kind, some of which are None; that of texts when all are."""
    return next((medium_of(output) for output in outputs if output is not None), _MEDIA[TextMedium.modality])
