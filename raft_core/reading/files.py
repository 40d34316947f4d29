"""Files of anybody's making: only regular ones are opened, and only so much of them is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LARGEST_TEXT = 2**30  # bytes; a table of prompts or preferences
LARGEST_SETTINGS = 2**26  # bytes; what a program has noted about itself: a configuration, a run's facts
LARGEST_PICTURE_FILE = 2**28  # bytes


class Unreadable(ValueError):  # noqa: N818 - reads as what it says
    """Why something cannot be read, as the rest of a sentence whose subject is the file or the line: ``it is not UTF-8``."""


class BeyondLimitsError(Unreadable):
    """What could be read, but is larger, deeper or longer than anything that belongs here, or says two things at once."""


def home_path(text: str | Path) -> Path:
    """A path as a person types it, ``~`` being a home folder where there is such a person."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_file(path: str | Path) -> bool:
    """Whether a regular file is there; a text that can be no path names none, and what may not be looked at is not there."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there, as ``is_file``."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def is_something(path: str | Path) -> bool:
    """Whether anything is there, be it a pipe or a device; as ``is_file``."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading. A pipe would wait for whoever writes to it, a device might never end.

    Raises:
        OSError: there is no such file, or it may not be read.
        Unreadable: it is no regular file, or its name is none.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a null byte in the name
        raise Unreadable(f"its name is none: {error}") from None
    if stat.S_ISDIR(mode):
        raise Unreadable("it is a folder")
    if not stat.S_ISREG(mode):
        raise Unreadable("it is no regular file")
    # Looked at again once it is open: between the two it may have become a pipe, which must not block either.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Unreadable("it is no regular file")
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, most: int = LARGEST_SETTINGS) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Raises:
        OSError: there is no such file, or it may not be read.
        Unreadable: it is no regular file, or it is larger.
    """
    with open_regular(Path(path)) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise Unreadable(f"it is larger than {most / 2**20:g} MB")
    return content


def read_text(path: Path, most: int = LARGEST_SETTINGS) -> str:
    """The content of a text file, without a byte-order mark.

    Raises:
        OSError: there is no such file, or it may not be read.
        Unreadable: it is no regular file, it is larger than ``most`` bytes, or it is not UTF-8.
    """
    return decode(read_bytes(path, most))


def decode(content: bytes) -> str:
    """Text in UTF-8, without a byte-order mark.

    Raises:
        Unreadable: it is not UTF-8; names the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The positions of the error count from behind the mark.
        start = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        line = content.count(b"\n", 0, start) + 1
        raise Unreadable(f"it is not UTF-8 (byte 0x{content[start]:02x} in line {line})") from None


def without_lone_returns(text: str) -> str:
    """A text whose lines end with nothing but carriage returns, as some programs on a Mac write tables, with line feeds."""
    return text.replace("\r", "\n") if "\n" not in text else text


def lines(text: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a text without its line ends. Only these end a line: a prompt may hold other separators."""
    text = without_lone_returns(text)
    for number, line in enumerate(text.split("\n"), start=1):
        yield number, line.removesuffix("\r")


def excerpt(text: object, width: int = 120) -> str:
    """Foreign text for a message: one line of printable characters, cut. It may come from whoever wants a terminal to obey."""
    line = " ".join(str(text)[: 8 * width].split())
    line = "".join(character if character.isprintable() else "�" for character in line)
    return line if len(line) <= width else line[: width - 1] + "…"
