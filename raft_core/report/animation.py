"""The rounds of a run as a moving picture: the same prompts' samples, round after round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raft_core.errors import DataError
from raft_core.evaluation.table import number
from raft_core.format import evenly
from raft_core.machine.files import replacing
from raft_core.media.image import PAPER, contact_sheet
from raft_core.report.data import RunData, StoredRound, read_run_data
from raft_core.report.facts import label

if TYPE_CHECKING:
    from PIL import Image

KINDS = {"gif": "GIF", "webp": "WEBP"}
COLUMNS, ROWS, SIDE, GAP = 6, 4, 96, 4
HEAD = 58  # pixels above the samples
INK, SOFT, DONE, TO_COME = (29, 29, 27), (98, 97, 93), (15, 123, 102), (221, 219, 213)
FRAME_MS, LAST_MS = 1100, 2600


@dataclass(frozen=True)
class Frame:
    """What one moment shows: a heading, a line below it, and the first samples of each prompt, [row][column]."""

    heading: str
    told: str
    samples: Sequence[Sequence[Any]]
    kept: Sequence[Sequence[bool]]


def write_animation(run_folder: Path, kind: str = "gif") -> Path:
    """Write ``report/rounds.gif`` or ``.webp`` of a run; returns its path.

    The first samples of the prompts as they were drawn: none is picked, and the framed ones were kept. The last moment is the
    trained model, where it was compared on the same prompts.

    Raises:
        DataError: the run has no stored pictures.
        StoreError: the folder holds no run, or cannot be written to.
    """
    folder = Path(run_folder)
    shown = frames(read_run_data(folder))
    path = folder / "report" / f"rounds.{kind}"
    pictures = [draw(frame, i, len(shown)) for i, frame in enumerate(shown)]
    if kind == "gif":  # few colours: those of all moments together, so that nothing flickers from one to the next
        pictures = _with_one_palette(pictures)
    durations = [FRAME_MS] * (len(shown) - 1) + [LAST_MS]
    with replacing(path) as temporary:
        pictures[0].save(
            temporary, KINDS[kind], save_all=True, append_images=pictures[1:], duration=durations, loop=0, quality=85
        )
    return path


def frames(data: RunData) -> list[Frame]:
    """A moment for each round, and one for the trained model.

    Raises:
        DataError: no pictures are stored.
    """
    rounds = [one for one in data.rounds if any(hasattr(sample.output, "size") for sample in one.samples)]
    if not rounds:
        raise DataError(f"{data.name} holds no pictures of its rounds, of which an animation could be made")
    prompts, rows = _prompts(rounds), min(ROWS, *(one.k for one in rounds))
    last = data.rounds[-1].rnd
    metrics = {row["round"]: row for row in data.history}
    found = [_of_round(one, prompts, rows, metrics.get(one.rnd, {}), last) for one in rounds]
    return found + list(_trained(data, prompts, rows))


def _prompts(rounds: Sequence[StoredRound]) -> list[str]:
    drawn = [list(dict.fromkeys(sample.prompt.text for sample in one.samples)) for one in rounds]
    shared = [prompt for prompt in drawn[0] if all(prompt in other for other in drawn)]
    if not shared:
        raise DataError("every round drew other prompts, so there is none that an animation could follow")
    return evenly(shared, COLUMNS)


def _of_round(one: StoredRound, prompts: Sequence[str], n: int, metrics: Any, last: int) -> Frame:
    drawn = [[i for i, sample in enumerate(one.samples) if sample.prompt.text == prompt] for prompt in prompts]
    name, mean = label(one.scores.reward), metrics.get("reward/mean")
    told = f"{name} {number(mean)} on average" if isinstance(mean, (int, float)) else name
    return Frame(
        f"Round {one.rnd} of {last}",
        f"{told}{', the model as it came' if one.rnd == 1 else ''}",
        _rows([[one.samples[i].output for i in column] for column in drawn], n, None),
        _rows([[bool(one.kept[i]) for i in column] for column in drawn], n, False),
    )


def _trained(data: RunData, prompts: Sequence[str], n: int) -> Iterator[Frame]:
    """The trained model, on the same prompts."""
    for evaluation in data.evaluations:
        drawn = [[s.output for s in evaluation.after if s.prompt.text == prompt] for prompt in prompts]
        if all(len(column) >= n for column in drawn):
            reward = evaluation.comparisons[0]
            yield Frame("Trained", f"{label(reward.name)} {number(reward.after)} on average", _rows(drawn, n, None), ())
            return


def _rows(columns: Sequence[Sequence[Any]], n: int, missing: Any) -> list[list[Any]]:
    """The first n of each column, as rows."""
    return [[column[row] if row < len(column) else missing for column in columns] for row in range(n)]


def draw(frame: Frame, number_of: int, of: int) -> Image.Image:
    """One moment as a picture."""
    from PIL import Image, ImageDraw, ImageFont

    columns = len(frame.samples[0])
    flat = [output if hasattr(output, "size") else None for row in frame.samples for output in row]
    sheet = contact_sheet(flat, columns, [mark for row in frame.kept for mark in row] or None, SIDE, GAP)
    picture = Image.new("RGB", (sheet.width, sheet.height + HEAD), PAPER)
    picture.paste(sheet, (0, HEAD))
    pen = ImageDraw.Draw(picture)
    pen.text((GAP, 8), frame.heading, INK, ImageFont.load_default(19))
    pen.text((GAP, 33), frame.told, SOFT, ImageFont.load_default(14))
    for i in range(of):
        left = picture.width - GAP - 16 * (of - i)
        pen.ellipse((left, 14, left + 10, 24), DONE if i <= number_of else TO_COME)
    return picture


def _with_one_palette(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    from PIL import Image

    tall = Image.new("RGB", (pictures[0].width, sum(p.height for p in pictures)))
    top = 0
    for picture in pictures:
        tall.paste(picture, (0, top))
        top += picture.height
    palette = tall.quantize(256)
    return [picture.quantize(palette=palette) for picture in pictures]
