"""A third kind of output: one class, and the store, the evaluation, messages, files and notebooks know it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from raft_core.errors import ModelError
from raft_core.media import medium as media
from raft_core.media.digest import content_digest
from raft_core.media.medium import Medium, common_medium, medium_named, medium_of
from raft_core.result import Outputs
from raft_core.rewards.combine.distinct import Distinct
from raft_core.rewards.service.messages import asked
from raft_core.store.tables import read_samples, write_samples
from raft_core.store.tensors import normalised
from raft_core.testing import FakeReward
from raft_core.types import Prompt, Request, Sample, Scores
from raft_core.workflows.generate import write_outputs


class Tone(tuple):
    """A sound: (frequency in hertz, seconds)."""


class ToneMedium:
    modality: ClassVar[str] = "tone"
    feature: ClassVar[dict[str, str]] = {"_type": "Sequence"}
    size_unit: ClassVar[str] = "seconds"

    def holds(self, output: Any) -> bool:
        return isinstance(output, Tone)

    def normalised(self, output: Tone) -> Tone:
        return Tone(map(float, output))

    def content(self, output: Tone) -> bytes:
        return repr(tuple(output)).encode()

    def likeness(self, output: Tone) -> float:
        return round(output[0])

    def size(self, output: Tone) -> float:
        return output[1]

    def column_type(self) -> pa.DataType:
        return pa.list_(pa.float64())

    def column(self, outputs: Any, name: Any) -> pa.Array:
        return pa.array([output and list(output) for output in outputs], self.column_type())

    def from_cell(self, cell: Any) -> Tone:
        return Tone(cell)

    def to_message(self, output: Tone) -> str:
        return json.dumps(output)

    def line(self, output: Tone) -> dict[str, Any]:
        return {"tone": list(output)}

    def write(self, output: Tone, folder: Path, stem: str) -> tuple[dict[str, Any], list[Path]]:
        path = folder / f"{stem}.tone"
        path.write_text(self.to_message(output))
        return {"file": path.name}, [path]

    def html(self, samples: Any) -> str:
        return f"<audio>{len(samples)}</audio>"

    def still(self, output: Tone) -> str:
        return f"{output[0]:g} Hz for {output[1]:g} s"

    def before_after(self, before: Any, after: Any, k: int) -> Any:
        return [(one.output, other.output) for one, other in zip(before[::k], after[::k], strict=True)]

    def probes(self) -> list[Tone]:
        return [Tone((220.0 * n, 1.0)) for n in range(1, 5)]


@pytest.fixture
def tones(monkeypatch: pytest.MonkeyPatch) -> Medium:
    monkeypatch.setattr(media, "_MEDIA", dict(media._MEDIA))
    media.register(ToneMedium())
    return medium_named("tone")


def samples() -> list[Sample]:
    asked = [Request(Prompt("low"), 0, 1), Request(Prompt("low"), 1, 2), Request(Prompt("high"), 0, 3)]
    drawn = [Sample(request, output=Tone((440 + request.seed / 10, 1))) for request in asked]
    return [*drawn[:2], drawn[2].as_failed("its latents are not finite")]


def test_a_medium_is_found_by_what_it_holds_and_by_name(tones: Medium):
    assert medium_of("a text").modality == "text"
    assert medium_of(Tone((1, 1))) is tones is medium_named("tone")
    assert common_medium([None, Tone((1, 1))]) is tones
    assert common_medium([None]).modality == "text"
    with pytest.raises(TypeError, match="holds bytes, which is none of text, image, tone"):
        medium_of(b"")
    with pytest.raises(ModelError, match="no medium 'video', only text, image, tone"):
        medium_named("video")


@pytest.mark.usefixtures("tones")
def test_a_new_kind_of_output_is_stored_and_read_back(tmp_path: Path):
    kept = normalised(samples())
    scores = Scores("length", {"length": np.array([1.0, 2.0, np.nan])})
    write_samples(tmp_path / "samples.parquet", kept, scores, np.array([True, False, False]))
    back, _, _, _ = read_samples(tmp_path / "samples.parquet")
    assert [sample.output for sample in back] == [Tone((440.1, 1.0)), Tone((440.2, 1.0)), None]
    assert all(isinstance(sample.output, Tone) for sample in back[:2])
    assert content_digest(back[0]) == content_digest(kept[0]) != content_digest(back[1])


@pytest.mark.usefixtures("tones")
def test_a_new_kind_of_output_is_sent_written_and_shown(tmp_path: Path):
    drawn = samples()
    assert asked(drawn[:1])["samples"][0]["tone"] == "[440.1, 1]"
    files = write_outputs(tmp_path, drawn)
    assert [path.suffix for path in files] == [".tone", ".tone", ".jsonl", ".parquet"]
    rows = [json.loads(line) for line in files[2].read_text().splitlines()]
    assert rows[0]["file"] == files[0].name and rows[2]["failed"] == "its latents are not finite"
    assert Outputs(drawn)._repr_html_() == "<audio>3</audio>"


@pytest.mark.usefixtures("tones")
def test_a_new_kind_of_output_says_what_a_repetition_is():
    reward = Distinct(FakeReward())
    values = reward.combine({reward.parts[0].info.name: np.array([1.0, 2.0, np.nan])}, samples())
    assert values[0] == 1.0 and np.isnan(values[1:]).all()


@pytest.mark.usefixtures("tones")
def test_a_report_shows_a_new_kind_of_output_as_a_text_or_a_picture():
    assert [sample.output for sample in media.stills(samples())] == ["440.1 Hz for 1 s", "440.2 Hz for 1 s", None]
