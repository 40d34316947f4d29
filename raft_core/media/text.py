"""Texts as a kind of output."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from raft_core.reading.files import Unreadable, excerpt
from raft_core.types import Sample

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_PROMPTS = 8
PROBES = ("No.", "Put it into boiling water for seven minutes.", "It is red, and round.", "I cannot say, but ask someone else.")


@dataclass(frozen=True)
class TextMedium:
    """Strings; see ``raft_core.media.medium``."""

    modality: ClassVar[str] = "text"
    feature: ClassVar[dict[str, str]] = {"dtype": "string", "_type": "Value"}
    size_unit: ClassVar[str] = "words"

    def holds(self, output: Any) -> bool:
        return isinstance(output, str)

    def normalised(self, output: str) -> str:
        return output

    def content(self, output: str) -> bytes:
        return b"\x1ftext\x1f" + output.encode("utf-8", "surrogatepass")

    def likeness(self, output: str) -> str:
        """The text without what is white at its ends."""
        return output.strip()

    def size(self, output: str) -> float:
        return float(len(output.split()))

    def column_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.string()

    def column(self, outputs: Sequence[str | None], name: Callable[[int], str]) -> pa.Array:
        import pyarrow as pa

        return pa.array(outputs, pa.string())

    def from_cell(self, cell: Any) -> str:
        if not isinstance(cell, str):
            raise Unreadable(f"a stored text is {excerpt(repr(cell), 40)}")
        return cell

    def to_message(self, output: str) -> str:
        return output

    def line(self, output: str) -> dict[str, Any]:
        return {"text": output}

    def write(self, output: str, folder: Path, stem: str) -> tuple[dict[str, Any], list[Path]]:
        return self.line(output), []

    def html(self, samples: Sequence[Sample]) -> str:
        rows = [(sample.prompt.text, told(sample)) for sample in samples]
        return f"<table>{''.join(_row(row) for row in rows)}</table>"

    def still(self, output: str) -> str:
        return output

    def before_after(self, before: Sequence[Sample], after: Sequence[Sample], k: int) -> Texts:
        return Texts(before, after, k)

    def probes(self) -> list[str]:
        return list(PROBES)


def told(sample: Sample) -> str:
    """The text of a sample, or why it has none."""
    return f"failed: {sample.failed}" if sample.failed else sample.output


def _row(cells: Sequence[str]) -> str:
    style = "text-align: left; vertical-align: top; white-space: pre-wrap"
    return "<tr>" + "".join(f'<td style="{style}">{html.escape(cell)}</td>' for cell in cells) + "</tr>"


@dataclass(frozen=True)
class Texts:
    """Texts before and after, the first of the ``k`` samples of each prompt."""

    before: Sequence[Sample]
    after: Sequence[Sample]
    k: int

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """(prompt, before, after) of some prompts."""
        starts = range(0, len(self.before), self.k)[:SHOWN_PROMPTS]
        return [(self.before[i].prompt.text, told(self.before[i]), told(self.after[i])) for i in starts]

    def __str__(self) -> str:
        return "\n\n".join(f"{prompt}\n  before: {before}\n  after:  {after}" for prompt, before, after in self.rows)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("prompt", "before", "after"))
        return f"<table><tr>{head}</tr>{''.join(_row(row) for row in self.rows)}</table>"
