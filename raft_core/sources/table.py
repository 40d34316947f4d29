"""Tables of outputs that were made elsewhere: by the prompt that they answer, with the scores that the table gives.

The layouts of preferences are those of ``raft_core.preferences.layouts``: each row is a group of its own, and how its choice
fell is the score (UltraFeedback's ``overall_score`` and a binarised row's ``score_chosen`` and ``score_rejected`` where they
are). Any other row holds one output, and the rows of a prompt are a group:

==================  =================================================================================================
demonstrations      ``prompt`` with ``response``, ``completion`` or ``answer``, or a conversation that ends with one; the
                    score is 1
labels              the same with ``label``, true or false (TRL's unpaired preferences); the score is 1 or 0
scores              the same with ``score``, or the column that is named
samples             ``prompt`` with ``text``, ``image`` or ``file``, as ``raft generate`` writes them
==================  =================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raft_core.bundled import bundled_file
from raft_core.conversations import ANSWERS, BadConversation, prompt_of, response, shortened
from raft_core.errors import DataError, nearest
from raft_core.preferences.layouts import LAYOUTS, layout_of, read_row
from raft_core.preferences.preference import Picture
from raft_core.preferences.read import content
from raft_core.preferences.rows import BadRow, Row, files_of, is_failed, listed, rows
from raft_core.prompt_files.columns import find_column
from raft_core.sources.written import WrittenGroup, WrittenOutput
from raft_core.store.tables import SCORE

OUTPUTS = (*(name for name in ANSWERS if name != "chosen"), "image", "file", "text", "output")
SCORES = ("score", "label")


@dataclass(frozen=True)
class WrittenTable:
    """What a table holds.

    Attributes:
        groups: by the text of the prompt, as a run's prompts have it.
        modality: ``image`` or ``text``.
        invalid: rows that were left out because something is wrong with them, each in words.
    """

    groups: Mapping[str, Sequence[WrittenGroup]]
    modality: str
    invalid: Sequence[str]


def read_table(source: str | Path, score: str | None = None, *, skip_invalid: bool = False) -> WrittenTable:
    """All outputs of a file, or of the files in a folder.

    Args:
        source: ``.jsonl``, ``.jsonl.gz`` or ``.parquet``, a folder of them, or ``bundled:NAME``.
        score: the column of the scores; by default ``score`` or ``label``, where there is one.
        skip_invalid: leave out what is wrong instead of stopping.

    Raises:
        DataError: a file that cannot be read, or rows that are wrong, each named by file and line.
    """
    found: dict[str, list[WrittenGroup]] = {}
    alone: dict[str, list[WrittenOutput]] = {}
    mistakes: list[str] = []
    place = bundled_file(str(source).removeprefix("bundled:")) if str(source).startswith("bundled:") else source
    for file in files_of(place):
        for row in rows(file):
            try:
                if not isinstance(row, Row):
                    raise BadRow(row[1])
                _take(row, score, found, alone)
            except BadRow as error:
                mistakes.append(f"{row[0]}: {error}")
    if mistakes and not skip_invalid:
        raise DataError(listed(mistakes, f"{source} has {len(mistakes)} invalid rows (skip_invalid: true leaves them out)"))
    for prompt, outputs in alone.items():
        found.setdefault(prompt, []).append(WrittenGroup(tuple(outputs), choice=False))
    if not found:
        raise DataError(listed(mistakes, f"{source} holds no output") if mistakes else f"{source} holds no output")
    return WrittenTable(found, _modality(found, str(source)), mistakes)


def _take(row: Row, score: str | None, found: dict[str, list[WrittenGroup]], alone: dict[str, list[WrittenOutput]]) -> None:
    """Put what a row holds where it belongs."""
    if is_failed(row.values):
        return
    if any(needed <= set(row.values) for needed, _ in LAYOUTS.values()):
        if (group := _chosen_among(row)) is not None:
            found.setdefault(group[0], []).append(group[1])
        return
    prompt, output = _single(row, score)
    alone.setdefault(prompt, []).append(output)


def _chosen_among(row: Row) -> tuple[str, WrittenGroup] | None:
    """(prompt, candidates) of a row of preferences; None where nobody has chosen."""
    said = read_row(row.values, layout_of(list(row.values)))
    if said.target is None:
        return None
    if any(context != said.contexts[0] for context in said.contexts):
        raise BadRow("the candidates go on from different conversations, so they are no answers to one prompt")
    scores = said.scores or _scores_of_a_pair(row.values) or said.target
    outputs = [content(candidate, row.folder) for candidate in said.candidates]
    written = tuple(WrittenOutput(output, float(score)) for output, score in zip(outputs, scores, strict=True))
    return said.prompt.strip(), WrittenGroup(written, choice=True)


def _scores_of_a_pair(values: Mapping[str, Any]) -> Sequence[float]:
    """Scores beside a pair, as UltraFeedback's binarised form has them, if they agree with its choice."""
    found = [values.get("score_chosen"), values.get("score_rejected")]
    numbers = [float(value) for value in found if value is not None and _is_number(value)]
    return numbers if len(numbers) == 2 and numbers[0] > numbers[1] and "chosen" in values else []


def _single(row: Row, score: str | None) -> tuple[str, WrittenOutput]:
    """(prompt, output) of a row that holds one."""
    values = row.values
    try:
        asked = prompt_of(values)
    except BadConversation as error:
        raise BadRow(str(error)) from None
    name = find_column([str(key) for key in values], None)
    if asked is not None:
        prompt, output = asked.text, response(asked)
    elif name is not None and isinstance(values[name], str):
        prompt, output = values[name], None
    else:
        raise BadRow("there is no prompt: give it in the column prompt, or a conversation")
    if output is None:
        output = next((values[each] for each in OUTPUTS if each != name and values.get(each) is not None), None)
    if output is None:
        raise BadRow(f"the prompt {shortened(prompt)} has no output: give it in one of the columns {', '.join(OUTPUTS)}")
    return prompt.strip(), WrittenOutput(content(output, row.folder), score_of(values, score))


def score_of(values: Mapping[str, Any], column: str | None) -> float | None:
    """The score of a row: a number, 1 or 0 of a label, 1 where the table has no such column, None where the cell is empty.

    Raises:
        BadRow: there is no column of the name that is asked for, or it holds something else.
    """
    names = SCORES if column is None else (column, SCORE + column)
    name = next((name for name in names if name in values), None)
    if name is None:
        if column is not None:
            raise BadRow(f"there is no column {column!r} of scores{nearest(column, map(str, values))}")
        return 1.0
    value = values[name]
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if not isinstance(value, bool) and not _is_number(value):
        raise BadRow(f"{name} is {shortened(value)}, but must be a number, or true or false")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _modality(groups: Mapping[str, Sequence[WrittenGroup]], source: str) -> str:
    kinds = {isinstance(each.output, Picture) for each in _outputs(groups)}
    if len(kinds) > 1:
        raise DataError(f"{source} holds pictures and texts: separate the two")
    return "image" if True in kinds else "text"


def _outputs(groups: Mapping[str, Sequence[WrittenGroup]]) -> Iterator[WrittenOutput]:
    for of_prompt in groups.values():
        for group in of_prompt:
            yield from group.outputs
