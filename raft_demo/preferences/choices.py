"""What people have chosen, in files that `raft reward train` reads: every choice is on the disk before the next is asked for.

``RUNS/preferences/NAME.jsonl`` holds choices between samples of the run NAME, a line each, in the layout of ballots (see
``raft_core.preferences.layouts``): ``best`` is an index, several of them for a tie, null for a question that was passed over.
Pictures are copied into ``RUNS/preferences/NAME/``, so that labels outlive the run. ``id`` tells choices apart, ``samples``
says which round and row each candidate is of, ``drawn`` how the question came about.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from raft_core.errors import DataError, StoreError
from raft_core.machine.files import replacing
from raft_core.media.picture import read_picture_file
from raft_core.reading.files import LARGEST_TEXT, Unreadable, read_text
from raft_core.reading.json_data import parse_json
from raft_core.reading.shapes import require_shape, taken_apart
from raft_core.types import MESSAGES
from raft_demo.preferences.pool import Pool
from raft_demo.shared.runs import FOLDER

_here = threading.Lock()


@dataclass(frozen=True)
class Choice:
    """A line of the file.

    Attributes:
        id: of its own.
        prompt: what the candidates answer.
        samples: (round, row) of each.
        best: those that were chosen; several for a tie, none when it was passed over.
        drawn: how the question was drawn.
    """

    id: str
    prompt: str
    samples: tuple[tuple[int, int], ...]
    best: tuple[int, ...]
    drawn: str

    @property
    def is_tie(self) -> bool:
        return len(self.best) > 1


class Choices:
    """The file of one run's choices. Any number of people, threads and processes may write to it at once.

    Args:
        runs: the runs folder.
        name: of the run.
    """

    def __init__(self, runs: Path, name: str):
        self.path = runs / FOLDER / f"{name}.jsonl"
        self.pictures = runs / FOLDER / name

    def read(self) -> list[Choice]:
        """All of them, in the order in which they were made.

        Raises:
            DataError: a line that is none, by its number.
        """
        return [_choice(line, f"{self.path.name}, line {i}") for i, line in enumerate(_lines(self.path), 1) if line.strip()]

    def add(self, pool: Pool, samples: Sequence[int], best: Sequence[int], drawn: str) -> str:
        """Put a choice down; on return it is on the disk. Gives its id.

        Args:
            samples: places in the pool, all of one prompt, all different.
            best: indices into them; several for a tie, none to pass over.

        Raises:
            DataError: no such question, or no such answer.
            StoreError: a full disk, a folder that cannot be written to, a picture that cannot be read.
        """
        _check(pool, samples, best)
        outputs = [pool.output(i) for i in samples]
        chosen: Any = None if not best else best[0] if len(best) == 1 else sorted(best)
        with self._held():
            context = pool.contexts[samples[0]]
            row = {
                "prompt": pool.prompts[samples[0]],
                **({} if context is None else {MESSAGES: list(context)}),
                "candidates": [self._kept(pool.keys[i], output) for i, output in zip(samples, outputs, strict=True)],
                "best": chosen,
                "samples": [list(pool.keys[i]) for i in samples],
                "drawn": drawn,
                "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "id": secrets.token_hex(8),
            }
            try:
                _append(self.path, json.dumps(row, ensure_ascii=False))
            except OSError as error:
                raise StoreError(f"the choice could not be written to {self.path}: {error}") from error
        return row["id"]

    def take_back(self, id: str) -> bool:
        """Remove a choice; says whether it was there.

        Raises:
            StoreError: a full disk, a folder that cannot be written to.
        """
        with self._held():
            lines = [line for line in _lines(self.path) if line.strip()]
            left = [line for line in lines if _row(line, str(self.path)).get("id") != id]
            if len(left) == len(lines):
                return False
            with replacing(self.path) as temporary:
                temporary.write_text("".join(line + "\n" for line in left), encoding="utf-8")
            return True

    def as_parquet(self, target: Path) -> Path:
        """Write the choices as Parquet with the pictures in it: one file that `raft reward train`, pandas and `datasets` read.

        Raises:
            DataError: there are none.
            StoreError: a full disk, a folder that cannot be written to.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [_row(line, str(self.path)) for line in _lines(self.path) if line.strip()]
        if not rows:
            raise DataError("nothing has been chosen yet")
        pictures = self.pictures.is_dir()
        for row in rows:
            row["best"] = row["best"] if row["best"] is None or isinstance(row["best"], list) else [row["best"]]
            if pictures:
                row["candidates"] = [
                    {"bytes": read_picture_file(self.path.parent / name), "path": name} for name in row["candidates"]
                ]
        candidate = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if pictures else pa.string()
        contexts = [row.get(MESSAGES) for row in rows]
        schema = pa.schema(
            [
                ("prompt", pa.string()),
                *([(MESSAGES, pa.array(contexts).type)] if any(contexts) else []),
                ("candidates", pa.list_(candidate)),
                ("best", pa.list_(pa.int64())),
                ("samples", pa.list_(pa.list_(pa.int64()))),
                *((name, pa.string()) for name in ("drawn", "time", "id")),
            ]
        )
        with replacing(target) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, compression="zstd")
        return target

    def _kept(self, key: tuple[int, int], output: str | bytes) -> str:
        """A candidate as it stands in the file: a text, or the path of the picture from the file's folder."""
        if isinstance(output, str):
            return output
        picture = self.pictures / f"{key[0]:04d}-{key[1]:05d}.png"
        if not picture.is_file() or picture.read_bytes() != output:
            # A run of the same name may have been made anew: the pictures of older choices stay as they were judged.
            if picture.is_file():
                picture = picture.with_name(f"{picture.stem}-{secrets.token_hex(4)}.png")
            with replacing(picture) as temporary:
                temporary.write_bytes(output)
        return f"{picture.parent.name}/{picture.name}"

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Nobody else writes to the file meanwhile, in this process or another."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _here, (self.path.parent / f".{self.path.name}.lock").open("w") as handle:
            try:
                import fcntl
            except ImportError:  # Windows: the threads of one app are kept apart, two apps are not
                yield
                return
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _check(pool: Pool, samples: Sequence[int], best: Sequence[int]) -> None:
    if not 2 <= len(samples) <= 4 or len(set(samples)) < len(samples) or len({pool.prompts[i] for i in samples}) > 1:
        raise DataError("this is no question: it takes two to four different samples of one prompt")
    if len(set(best)) < len(best) or not all(0 <= i < len(samples) for i in best):
        raise DataError(f"{list(best)} is no answer to a question with {len(samples)} candidates")


def _append(path: Path, line: str) -> None:
    """Add a line and have the disk hold it. Half a line that a crash has left is cut off: it was never said to be kept."""
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(path: Path) -> list[str]:
    """Lines of a file; none when there is none. Not ``splitlines``, which cuts at characters that JSON leaves as they are."""
    try:
        text = read_text(path, LARGEST_TEXT)
    except FileNotFoundError:
        return []
    except (OSError, Unreadable) as error:
        raise StoreError(f"{path} cannot be read: {error}") from None
    lines = text.split("\n")
    return lines[:-1]  # what is behind the last newline was never wholly written


def _choice(line: str, where: str) -> Choice:
    try:
        with taken_apart("it"):
            row = _row(line, where)
            best = row["best"]
            samples = tuple((int(rnd), int(place)) for rnd, place in row["samples"])
            chosen = () if best is None else tuple(best) if isinstance(best, list) else (best,)
            return Choice(row["id"], row["prompt"], samples, chosen, row["drawn"])
    except Unreadable as error:
        raise DataError(f"{where} is no choice that this page has made ({error}); mend or move the file") from None


#: What of a line is gone by.
ROW = {
    **dict.fromkeys(("id", "prompt", "drawn"), str),
    "samples": [[int]],
    "best": (int, list, type(None)),
    "candidates": [str],
}


def _row(line: str, where: str) -> dict[str, Any]:
    """A line of the file of choices.

    Raises:
        DataError: it is none.
    """
    try:
        return require_shape(parse_json(line), ROW, "", ROW)
    except Unreadable as error:
        raise DataError(f"{where} is no choice that this page has made ({error}); mend or move the file") from None
