"""Word problems from public files: GSM8K, SVAMP, MathQA and ReFT's own, as one list of problems and as prompts for a run.

A file is JSON (a list of objects) or JSONL (an object a line). Its layout is known by its fields:

| layout | fields | reasoning | answer |
|---|---|---|---|
| ``plain`` (ours and ReFT's) | ``question``, ``answer_value``, ``answer_cot`` if there is one | as it is | as it is |
| ``gsm8k`` | ``question``, ``answer`` | before ``####``, without the ``<<…>>`` of its calculator | after it |
| ``svamp`` | ``Body``, ``Question``, ``Answer`` | none in the file | a number |
| ``mathqa`` | ``Problem``, ``Rationale``, ``options``, ``correct`` | as it is | a letter; the options join the question |

As a command, ``python -m raft_text.reasoning.datasets FILE PROMPTS.jsonl`` writes prompts for a run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raft_core.errors import DataError
from raft_core.machine.files import replacing
from raft_core.reading.files import LARGEST_TEXT, Unreadable, read_text
from raft_text.reasoning.numbers import number
from raft_text.reasoning.numerals import as_text
from raft_text.reasoning.templates import program, words

Layout = Literal["plain", "gsm8k", "svamp", "mathqa"]
CALCULATOR = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its answer.

    Attributes:
        question: as the model reads it.
        answer_value: a number or a letter, as text.
        answer_cot: reasoning that leads to it, in words or as a program; "" where the file has none.
    """

    question: str
    answer_value: str
    answer_cot: str = ""


def read_problems(path: str | Path, layout: Layout | None = None) -> list[Problem]:
    """All problems of a file, in its order.

    Args:
        path: ``.json`` or ``.jsonl``.
        layout: what the file is; by default told from the fields of its first record.

    Raises:
        DataError: the file cannot be read, is of no known layout, or a record lacks a field or an answer; names the line.
    """
    path = Path(path)
    problems = []
    for line, record in _records(path):
        where = f"{path}, line {line}"
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected an object with the fields of a problem, got {_short(record)}")
        layout = layout or _layout_of(record, where)
        problems.append(READERS[layout](_Record(record, where, layout)))
    if not problems:
        raise DataError(f"{path} has no problems in it")
    return problems


def write_prompts(path: str | Path, problems: Sequence[Problem], reasoning: Literal["words", "program"] = "words") -> None:
    """Write prompts for a run as JSONL: ``question``, ``answer_value``, and where there is reasoning ``answer_cot`` and
    ``response``, which is what a model is taught to write.

    Raises:
        StoreError: the file cannot be written.
    """
    with replacing(Path(path)) as temporary:
        temporary.write_text("".join(json.dumps(_row(p, reasoning), ensure_ascii=False) + "\n" for p in problems), "utf-8")


def _row(problem: Problem, reasoning: str) -> dict[str, str]:
    row = {"question": problem.question, "answer_value": problem.answer_value}
    if not problem.answer_cot:
        return row
    cot = problem.answer_cot
    taught = words(cot, problem.answer_value) if reasoning == "words" else program(cot, problem.question)
    return {**row, "answer_cot": cot, "response": taught}


# --- Layouts ----------------------------------------------------------------------------------------------------------

FIELDS: dict[Layout, tuple[str, ...]] = {
    "plain": ("question", "answer_value"),
    "gsm8k": ("question", "answer"),
    "svamp": ("Body", "Question", "Answer"),
    "mathqa": ("Problem", "options", "correct"),
}


def _layout_of(record: Mapping[str, Any], where: str) -> Layout:
    for layout, fields in FIELDS.items():
        if all(field in record for field in fields):
            return layout
    known = "; ".join(f"{layout}: {', '.join(fields)}" for layout, fields in FIELDS.items())
    raise DataError(f"{where}: the fields {', '.join(map(str, record)) or '(none)'} are of no known layout. Known are {known}")


@dataclass(frozen=True)
class _Record:
    """A record and where it is, for errors."""

    fields: Mapping[str, Any]
    where: str
    layout: Layout

    def text(self, name: str, *, optional: bool = False) -> str:
        """A field as text, numbers included; "" for an optional one that is absent or null."""
        value = self.fields.get(name)
        if value is None and optional:
            return ""
        if name not in self.fields:
            raise DataError(f"{self.where}: the field {name!r} of the layout {self.layout} is missing")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return as_text(value)
        if not isinstance(value, str) or not (value.strip() or optional):
            raise DataError(f"{self.where}: the field {name!r} holds {_short(value)}, but must be a text")
        return value.strip()

    def number(self, name: str, text: str) -> str:
        """``text``, from the field ``name``, if it is a number."""
        if number(text) is None:
            raise DataError(f"{self.where}: the field {name!r} states the answer {_short(text)}, which is no number")
        return text


def _plain(record: _Record) -> Problem:
    return Problem(record.text("question"), record.text("answer_value"), record.text("answer_cot", optional=True))


def _gsm8k(record: _Record) -> Problem:
    cot, mark, value = record.text("answer").rpartition("####")
    if not mark:
        raise DataError(f"{record.where}: the field 'answer' has no #### before the answer, which GSM8K's have")
    return Problem(record.text("question"), record.number("answer", value.strip()), CALCULATOR.sub("", cot).strip())


def _svamp(record: _Record) -> Problem:
    value = record.number("Answer", record.text("Answer"))
    return Problem(f"{record.text('Body')} {record.text('Question')}", value)


def _mathqa(record: _Record) -> Problem:
    options, correct = mathqa_options(record.text("options")), record.text("correct").lower()
    if correct not in options:
        found = ", ".join(options) or "none"
        raise DataError(f"{record.where}: the correct option is {correct!r}, but the options are {found}")
    listed = " , ".join(f"{letter} ) {text}" for letter, text in options.items())
    cot = record.text("Rationale", optional=True).strip('" ')
    return Problem(f"{record.text('Problem')}\n{listed}", correct, cot)


def mathqa_options(text: str) -> dict[str, str]:
    """Letter → option, of ``a ) 38 , b ) 27.675 , …``, of ``['a ) 12', 'b ) 15', …]`` and of ``a ) a ) 2 , b ) b ) 5 , …``."""
    marks: list[tuple[str, int, int]] = []
    for letter in "abcde":
        found = re.compile(rf"(?:^|[\s,'\"\[]){letter} ?\)").search(text, marks[-1][2] if marks else 0)
        if not found:
            break
        marks.append((letter, found.start(), found.end()))
    ends = [start for _, start, _ in marks[1:]] + [len(text)]
    options = {}
    for (letter, _, start), end in zip(marks, ends, strict=True):
        options[letter] = text[start:end].strip(" ,'\"[]").removeprefix(f"{letter} )").strip()
    return options


READERS: dict[Layout, Callable[[_Record], Problem]] = {"plain": _plain, "gsm8k": _gsm8k, "svamp": _svamp, "mathqa": _mathqa}


# --- Files ------------------------------------------------------------------------------------------------------------


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """(line from 1, value) of each record."""
    if path.suffix.lower() not in (".json", ".jsonl"):
        raise DataError(f"{path} has the ending {path.suffix!r}; problems are read from .json and .jsonl")
    try:
        text = read_text(path, LARGEST_TEXT)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except Unreadable as error:
        raise DataError(f"{path} cannot be read: {error}; problems are read from files in UTF-8") from None
    return _list_items(path, text) if text.lstrip().startswith("[") else _lines(path, text)


def _lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, _decoded(path, line, content.strip(), 0)[0]


def _list_items(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Item by item and not the whole list at once, so that each one's line is known."""
    position, line, counted = text.index("[") + 1, 1, 0
    separator = ""
    while True:
        gap = re.compile(r"\s*(,?)\s*").match(text, position)
        assert gap is not None
        position = gap.end()
        line, counted = line + text.count("\n", counted, position), position
        if text.startswith("]", position) and not gap[1]:
            break
        if position >= len(text) or gap[1] != separator:
            raise DataError(f"{path}, line {line}: the list of problems is cut off or lacks a comma")
        value, position = _decoded(path, line, text, position)
        yield line, value
        separator = ","
    if text[position + 1 :].strip():
        raise DataError(
            f"{path}, line {line}: there is more after the list of problems: {_short(text[position + 1 :].strip())}"
        )


def _decoded(path: Path, line: int, text: str, position: int) -> tuple[Any, int]:
    """The JSON value at ``position``, which is in ``line``, and where it ends."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, position)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError
        at = line + (text.count("\n", position, error.pos) if isinstance(error, json.JSONDecodeError) else 0)
        raise DataError(f"{path}, line {at}: not JSON: {_short(text[position:])}") from None
    if position == 0 and end < len(text):
        raise DataError(f"{path}, line {line}: more than one value in a line: {_short(text[end:].strip())}")
    return value, end


def _short(value: Any, width: int = 60) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def convert(source: str, target: str, layout: Layout | None = None, reasoning: Literal["words", "program"] = "words") -> None:
    """Write the prompts of a file of problems.

    Args:
        source: a file of GSM8K, SVAMP, MathQA or ReFT.
        target: the JSONL file to write.
        layout: what the source is; by default told from its fields.
        reasoning: whether its ``answer_cot`` are words or programs.
    """
    problems = read_problems(source, layout)
    write_prompts(target, problems, reasoning)
    print(f"{len(problems)} problems in {target}, {sum(bool(p.answer_cot) for p in problems)} of them with reasoning")


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(convert)
