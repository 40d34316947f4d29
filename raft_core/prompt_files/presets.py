"""Published sets of prompts by their names. Whoever uses them fetches their files; only how to read them is known here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raft_core.errors import DataError, nearest
from raft_core.prompt_files.rows import Row, read_rows
from raft_core.reading.files import home_path, is_file, is_folder

PREFIX = "preset:"


@dataclass(frozen=True)
class Preset:
    """A published set of prompts.

    Attributes:
        title: what it is called.
        files: names that its files are published under, all of them needed; the first of several spellings that is there.
        origin: where they are.
        read: its rows, from the files in this order.
    """

    title: str
    files: Sequence[Sequence[str]]
    origin: str
    read: Callable[[Sequence[Path]], Iterator[Row]]


def _as_they_stand(paths: Sequence[Path]) -> Iterator[Row]:
    for path in paths:
        yield from read_rows(path)


def _styles(paths: Sequence[Path]) -> Iterator[Row]:
    """HPSv2: a list of prompts for each style, named by its file."""
    for path in paths:
        for row in read_rows(path):
            if not isinstance(row.values, str):
                raise DataError(f"{path}, {row.where}: expected a prompt, as HPSv2's files hold")
            yield Row(f"{path.name}, {row.where}", {"prompt": row.values, "style": path.stem})


def _activities(paths: Sequence[Path]) -> Iterator[Row]:
    """DDPO: an animal at an activity, every animal at each.

    Differs: the article goes by the first letter.
    """
    animals, activities = ([str(row.values) for row in read_rows(path)] for path in paths)
    for animal in animals:
        for activity in activities:
            article = "an" if animal[0].lower() in "aeiou" else "a"
            yield Row(
                f"{animal}, {activity}", {"prompt": f"{article} {animal} {activity}", "animal": animal, "activity": activity}
            )


PRESETS = {
    "partiprompts": Preset("PartiPrompts", [["PartiPrompts.tsv"]], "https://github.com/google-research/parti", _as_they_stand),
    "drawbench": Preset(
        "DrawBench",
        [["drawbench.csv", "DrawBench.csv", "DrawBench Prompts - Sheet1.csv", "drawbench_prompts.csv", "drawbench.tsv"]],
        "https://imagen.research.google, as CSV with the columns Prompts and Category",
        _as_they_stand,
    ),
    "geneval": Preset("GenEval", [["evaluation_metadata.jsonl"]], "https://github.com/djghosh13/geneval", _as_they_stand),
    "hpsv2": Preset(
        "HPSv2's benchmark",
        [["anime.json"], ["concept-art.json"], ["paintings.json"], ["photo.json"]],
        "https://huggingface.co/datasets/zhwang/HPDv2, in its folder benchmark",
        _styles,
    ),
    "ddpo_animals": Preset(
        "DDPO's animals", [["simple_animals.txt"]], "https://github.com/kvablack/ddpo-pytorch", _as_they_stand
    ),
    "ddpo_activities": Preset(
        "DDPO's animals at activities",
        [["simple_animals.txt"], ["activities.txt", "activities_v0.txt"]],
        "https://github.com/kvablack/ddpo-pytorch",
        _activities,
    ),
}


def preset_rows(source: str, base: Path | None = None) -> Iterator[Row]:
    """The rows of ``preset:NAME`` or ``preset:NAME:PLACE``; PLACE is the file, or the folder that its files are in.

    Raises:
        DataError: there is no such set, or its files are not there; says where they are published.
    """
    preset, place = preset_place(source, base)
    return preset.read([place] if place.is_file() else files_in(preset, place))


def preset_place(source: str, base: Path | None = None) -> tuple[Preset, Path]:
    """The set that ``source`` names, and the file or folder to read: here, or else beside the configuration.

    Raises:
        DataError: there is no such set, or nothing of it is there.
    """
    name, _, place = source.removeprefix(PREFIX).partition(":")
    if name.lower() not in PRESETS:
        raise DataError(f"there is no preset of prompts called {name!r}{nearest(name, PRESETS)}")
    preset = PRESETS[name.lower()]
    path = home_path(place or ".")
    for candidate in [path] if base is None else [path, base / path]:
        if (is_file(candidate) and len(preset.files) == 1) or (is_folder(candidate) and not _missing(preset, candidate)):
            return preset, candidate
    where = path if is_folder(path) else path.parent
    names = ", ".join(_missing(preset, where) or [spellings[0] for spellings in preset.files])
    raise DataError(
        f"{source}: {names} of {preset.title} is not in {where}; fetch it from {preset.origin}, and name its folder: "
        f"{PREFIX}{name}:FOLDER"
    )


def files_in(preset: Preset, folder: Path) -> list[Path]:
    """The files of a set in a folder that has all of them."""
    return [next(folder / name for name in spellings if is_file(folder / name)) for spellings in preset.files]


def _missing(preset: Preset, folder: Path) -> list[str]:
    return [spellings[0] for spellings in preset.files if not any(is_file(folder / name) for name in spellings)]
