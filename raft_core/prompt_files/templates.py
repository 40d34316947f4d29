"""Templates in lines of text: ``{red|blue}`` stands for each of its parts, ``__animal__`` for each line of ``animal.txt``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from raft_core.errors import nearest
from raft_core.reading.files import Unreadable, excerpt, lines, read_text

MOST = 10_000  # prompts that one line stands for
DEEPEST = 8  # wildcards in the files of wildcards
FOLDERS = ("", "wildcards")  # beside the prompt file
LARGEST_FILE = 2**24  # bytes
_WILDCARD = re.compile(r"__([A-Za-z0-9](?:[A-Za-z0-9 /-]|_(?!_))*)__")
_RANDOM = re.compile(r"\s*[0-9.]+(\$\$|::)")  # choices and weights of programs that draw at random
_ESCAPED = re.compile(r"\\([{}|_\\])")


def expand(line: str, folder: Path) -> list[str] | None:
    """All prompts that a line stands for, in order; None when there is no template in it, and it stands for itself.

    A brace without a ``|`` in it is a brace. In a line with a template ``\\{``, ``\\|``, ``\\}`` and ``\\_`` are the characters
    themselves.

    Args:
        folder: where ``NAME.txt`` of a ``__NAME__`` lies, or in its subfolder ``wildcards``.

    Raises:
        Unreadable: it stands for too many, names a file that is not there, or asks for random draws.
    """
    options = _expand(line, folder, 0)
    if len(options) == 1 and options[0] == line and not _holds_template(line):
        return None
    return [_ESCAPED.sub(r"\1", " ".join(option.split())) for option in options]


def _holds_template(line: str) -> bool:
    return _WILDCARD.search(line) is not None or any(len(parts) > 1 for parts in _braces(line))


def _braces(line: str) -> list[list[str]]:
    """The parts within each outermost pair of braces."""
    found, at = [], 0
    while (start := _find(line, "{", at)) >= 0:
        end = _closing(line, start)
        if end < 0:
            at = start + 1
            continue
        found.append(_split(line[start + 1 : end]))
        at = end + 1
    return found


def _expand(text: str, folder: Path, depth: int) -> list[str]:
    found, at = [""], 0
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text):
            found, at = _joined(found, [text[at : at + 2]]), at + 2
        elif text[at] == "{" and (end := _closing(text, at)) > 0:
            parts = _split(text[at + 1 : end])
            if len(parts) > 1:
                if _RANDOM.match(parts[0]):
                    raise Unreadable(
                        f"{excerpt(text[at : end + 1], 40)} asks for random draws; only {{one|or|another}} is known"
                    )
                options = [option for part in parts for option in _expand(part, folder, depth)]
            else:
                options = [f"{{{option}}}" for option in _expand(parts[0], folder, depth)]
            found, at = _joined(found, options), end + 1
        elif named := _WILDCARD.match(text, at):
            found, at = _joined(found, _wildcard(named[1], folder, depth + 1)), named.end()
        else:
            found, at = _joined(found, [text[at]]), at + 1
    return found


def _joined(heads: Sequence[str], tails: Sequence[str]) -> list[str]:
    if len(heads) * len(tails) > MOST:
        raise Unreadable(f"it stands for more than {MOST} prompts; write it as several lines, or leave some of them out")
    return [head + tail for head in heads for tail in tails]


def _wildcard(name: str, folder: Path, depth: int) -> list[str]:
    if depth > DEEPEST:
        raise Unreadable(f"__{name}__ leads through more than {DEEPEST} files of wildcards; does it lead back to itself?")
    for each in FOLDERS:
        file = folder / each / f"{name}.txt"
        if file.is_file():
            try:
                text = read_text(file, LARGEST_FILE)
            except (OSError, Unreadable) as error:
                raise Unreadable(f"the file {file} of __{name}__ cannot be read: {error}") from None
            rows = [line.strip() for _, line in lines(text) if line.strip() and not line.strip().startswith("#")]
            if not rows:
                raise Unreadable(f"the file {file} of __{name}__ is empty")
            return [option for row in rows for option in _expand(row, folder, depth)]
    there = sorted({file.stem for each in FOLDERS for file in (folder / each).glob("*.txt")})
    raise Unreadable(
        f"__{name}__ stands for the lines of {name}.txt, which is not in {folder} or {folder / FOLDERS[1]}"
        f"{nearest(name, there) if there else ''}; two underscores that are meant as such: write the file as .jsonl"
    )


def _find(text: str, character: str, at: int) -> int:
    """The next place of a character that no backslash stands before; −1 when there is none."""
    while (found := text.find(character, at)) >= 0:
        slashes = len(text[:found]) - len(text[:found].rstrip("\\"))
        if slashes % 2 == 0:
            return found
        at = found + 1
    return -1


def _closing(text: str, start: int) -> int:
    """Where the brace closes that opens at ``start``; −1 when it does not."""
    depth, at = 0, start
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] in "{}":
            depth += 1 if text[at] == "{" else -1
            if not depth:
                return at
        at += 1
    return -1


def _split(text: str) -> list[str]:
    """The parts between the ``|`` that are in no further braces."""
    parts, depth, at, begun = [], 0, 0, 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] in "{}":
            depth += 1 if text[at] == "{" else -1
        elif text[at] == "|" and depth == 0:
            parts.append(text[begun:at])
            begun = at + 1
        at += 1
    return [*parts, text[begun:]]
