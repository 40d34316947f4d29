"""A reward in five lines: any function ``(prompts, outputs) -> list of floats``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from raft_core.errors import ConfigError, RaftError, nearest
from raft_core.protocols import RewardInfo
from raft_core.reading.files import home_path, is_file
from raft_core.types import Sample

PROMPT_NAMES = frozenset({"prompt", "caption", "text_prompt", "question"})
OUTPUT_NAMES = frozenset({"image", "output", "picture", "img", "pil_image", "sample", "completion", "response", "video"})


class FunctionReward:
    """A function as a reward.

    It gets the texts of the prompts and the outputs (RGB PIL images, or strings) in the same order and returns one number for
    each; NaN or None = not scored.

    Args:
        path: ``my_file.py:my_function``, or ``my_package.my_module:my_function`` (a dot in place of the colon will do).
        name: column of the scores; the function's name by default.
        higher_is_better: the direction.
        batch_size: samples per call; null = all at once.
        scale: what its numbers mean, in words.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        higher_is_better: bool = True,
        batch_size: int | None = None,
        scale: str = "",
    ):
        self.path = path
        self.module, self.function = split_path(path)
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"the batch_size of the reward {path!r} is {batch_size}, but must be at least 1")
        self.info = RewardInfo(name or self.function, scale=scale, higher_is_better=higher_is_better, batch_size=batch_size)
        self._call: Callable[[list[str], list], object] | None = None

    @classmethod
    def of(cls, function: Callable[[list[str], list], Sequence[float]]) -> FunctionReward:
        """A function that is there already. A run resumes from its folder alone if a file or a module holds the function."""
        file = getattr(sys.modules.get(function.__module__), "__file__", None)
        place = str(Path(file).resolve()) if file and function.__module__ == "__main__" else function.__module__
        reward = cls(f"{place}:{function.__name__}")
        check_signature(function, reward.path)
        reward._call = function
        return reward

    def check(self) -> list[str]:
        """Whether the function can be found and takes two arguments; imports its file."""
        try:
            self.load()
        except RaftError as error:
            return [str(error)]
        return []

    def load(self) -> None:
        """Import the function.

        Raises:
            ConfigError: no such file, module or function, one that fails on import, or one that takes other arguments.
        """
        if self._call is None:
            self._call = find_function(self.path)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        self.load()
        assert self._call is not None
        try:
            # Whatever comes back, the scorer checks it.
            return self._call([sample.prompt.text for sample in samples], [sample.output for sample in samples])  # type: ignore
        except (TypeError, AttributeError, ValueError) as error:  # what taking one argument for the other ends in
            error.args = (f"{error} (it was called with (prompts, outputs), in this order)",)
            raise


def split_path(path: str) -> tuple[str, str]:
    """(file or module, function) of ``file.py:name``, ``package.module:name`` or ``package.module.name``.

    Raises:
        ConfigError: it is none of these.
    """
    module, colon, function = path.rpartition(":")
    if not colon and not path.endswith(".py"):
        module, _, function = path.rpartition(".")
    if not module or not function.isidentifier():
        raise ConfigError(
            f"{path!r} names no function or class: write my_file.py:my_function or my_package.my_module:my_function"
        )
    return module, function


def find_function(path: str) -> Callable[[list[str], list], object]:
    """Import the function that ``path`` names.

    Raises:
        ConfigError: see ``FunctionReward.load``.
    """
    place, name = split_path(path)
    module = import_file(Path(place), path) if place.endswith(".py") else import_module(place, path)
    found = getattr(module, name, None)
    if not callable(found):
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        what = "has no" if found is None else "has something that cannot be called in place of a"
        raise ConfigError(f"the reward {path!r}: {place} {what} function {name!r}{nearest(name, own)}")
    require_own(found, path)
    check_signature(found, path)
    return found


def require_own(function: Any, path: str) -> None:
    """Refuse what was written for something else: it would be called with prompts, whatever it then does.

    Raises:
        ConfigError: it is a class, is built in, or comes from Python's standard library.
    """
    if inspect.isclass(function):
        raise ConfigError(f"the reward {path!r} is a class, not a function: give its path as the reward itself")
    kind = function if inspect.isroutine(function) else type(function)
    home = (getattr(inspect.unwrap(kind), "__module__", None) or "builtins").partition(".")[0]
    if inspect.isbuiltin(function) or (home in sys.stdlib_module_names and home not in ("__main__", "functools")):
        raise ConfigError(f"the reward {path!r} is {function!r} of Python itself, which is no function of prompts and outputs")


def check_signature(function: Callable, path: str) -> None:
    """Whether it can be called with prompts and outputs.

    Raises:
        ConfigError: it cannot.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin that does not tell
        return
    names = [name.lower().rstrip("s") for name in signature.parameters][:2]
    if len(names) == 2 and names[0] in OUTPUT_NAMES and names[1] in PROMPT_NAMES:
        raise ConfigError(
            f"the reward {path!r} takes {signature}, but is called with (prompts, outputs), in this order: swap its first two "
            "parameters"
        )
    try:
        signature.bind([], [])
    except TypeError as error:
        raise ConfigError(
            f"the reward {path!r} takes {signature}, but is called with two arguments, (prompts, outputs): {error}"
        ) from error


def import_file(file: Path, path: str) -> ModuleType:
    """The module of a Python file, which may import its neighbours.

    Raises:
        ConfigError: no such file, or it fails on import.
    """
    file = home_path(file).resolve()
    if not is_file(file):
        neighbours = [other.name for other in file.parent.glob("*.py")] if file.parent.is_dir() else []
        near = nearest(file.name, neighbours) if neighbours else ""
        raise ConfigError(f"{path!r}: there is no file {file}{near}")
    # Under its path, so that two files of one name do not meet, and once, so that state and classes in it stay the same.
    name = f"raft_function_{file.as_posix()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # a .py file has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the file look themselves up there
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that ends itself ends nothing else
        del sys.modules[name]
        raise ConfigError(f"{path!r}: {file} fails on import with {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(file.parent))
    return module


def import_module(name: str, path: str) -> ModuleType:
    """An importable module.

    Raises:
        ConfigError: there is none, it is Python's own or a package's command, or it fails on import.
    """
    refuse_standard_library(name, path)
    if name.endswith(".__main__"):  # python -m runs it, and so would its import
        raise ConfigError(f"{path!r} is the command of {name.removesuffix('.__main__')}, which holds no part of a run")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name and name.startswith(error.name)
        why = f"there is no module {name!r}" if missing else f"{name} fails on import with {type(error).__name__}: {error}"
        hint = " (a file is named with its .py: my_file.py:my_function)" if missing else ""
        raise ConfigError(f"{path!r}: {why}{hint}") from error


def refuse_standard_library(name: str, path: str) -> None:
    """Python's own modules hold no parts of a run, and importing some of them does things.

    Raises:
        ConfigError: this module is one of them.
    """
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        raise ConfigError(
            f"{path!r} is in Python's standard library, which holds no part of a run; a file of your own is named with its "
            f".py: {top}.py:NAME"
        )
