"""Benchmarks as lm-eval's own harness runs them, so that figures compare with those that others report."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raft_core.errors import ConfigError, DataError, MissingDependency, nearest
from raft_text.model.facts import context_length
from raft_text.policy import CausalLM

PACKAGE, EXTRA = "lm_eval", "harness"
NAMED = re.compile(r"^(?:task|group):\s*[\"']?([\w.\-]+)[\"']?\s*(?:#.*)?$", re.MULTILINE)
SUFFIXES = (".yaml", ".yml")
#: Of a task's result, what is no metric.
_NO_METRICS = ("alias", "samples", "sample_len", "name")


@dataclass(frozen=True)
class Settings:
    """How tasks are run.

    Attributes:
        shots: examples before each question; None = as the task says.
        limit: at most so many documents of a task; None = all, and only then do figures compare with others'.
        batch_size: rows that the harness reads together.
    """

    shots: int | None = None
    limit: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        least = {"shots": 0, "limit": 1, "batch_size": 1}
        mistakes = [
            f"--{name} is {value}, but must be at least {few}"
            for name, few in least.items()
            if (value := getattr(self, name)) is not None and value < few
        ]
        if mistakes:
            raise ConfigError(mistakes)


@dataclass(frozen=True)
class Figure:
    """One metric of one task.

    Attributes:
        task: as the harness calls it.
        metric: its name, with the filter of answers where that is not ``none``.
        value: as the harness reports it; NaN where it is no number.
        error: its standard error; None where the harness gives none.
        higher_is_better: as the task says; None where it does not.
    """

    task: str
    metric: str
    value: float
    error: float | None
    higher_is_better: bool | None


@dataclass(frozen=True)
class Tasks:
    """Tasks that the harness knows.

    Attributes:
        names: as it calls them.
        manager: where it finds them.
    """

    names: Sequence[str]
    manager: Any


def find_tasks(words: Sequence[str]) -> Tasks:
    """Tasks by name, or by a file of one's own in the harness's format; what such a file names (``!function``) is run.

    Raises:
        MissingDependency: lm-eval is not installed.
        ConfigError: no such task, with the nearest; a file that is not there or names no task.
    """
    require_harness()

    files = [Path(word).expanduser() for word in words if word.endswith(SUFFIXES)]
    own = {str(file): task_name(file) for file in files}
    names = [own.get(str(Path(word).expanduser()), word) for word in words]
    if not names:
        raise ConfigError("no task is named: give --tasks NAME, several with commas between them, or FILE.yaml")
    folders = [str(file.parent) for file in files]
    manager = _library("lm_eval.tasks").TaskManager(include_path=folders or None)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise ConfigError(
            [f"lm-eval has no task of the name {name!r}{nearest(name, manager.all_tasks)[:200]}" for name in unknown]
        )
    return Tasks(names, manager)


def _library(name: str) -> Any:
    """A module of lm-eval, which is an extra: its types are not checked, since it may be missing."""
    return importlib.import_module(name)


def require_harness() -> None:
    """
    Raises:
        MissingDependency: lm-eval is not installed.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise MissingDependency("lm-eval", EXTRA, "running benchmarks")


def task_name(file: Path) -> str:
    """What a file of the harness's format calls its task.

    Raises:
        ConfigError: it cannot be read, or names none.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the task {file} cannot be read: {error}") from None
    found = NAMED.search(text)  # not read as YAML: its tags name functions
    if found is None:
        raise ConfigError(f"{file} names no task: a line `task: NAME` has to stand in it")
    return found[1]


def run(policy: CausalLM, tasks: Tasks, settings: Settings, *, reference: bool) -> dict[str, Any]:
    """What the harness reports of the policy, or of its frozen start: its own results, versions and settings included.

    Raises:
        DataError: a task that cannot be run, such as one whose data cannot be had; with the harness's own words.
    """
    harness, wrapper = _library("lm_eval"), _library("lm_eval.models.huggingface").HFLM
    engine = policy.engine
    with engine.placed(), engine.version(reference), torch.no_grad():
        # A copy: the harness gives a tokenizer without a padding token one.
        model = wrapper(
            pretrained=engine.network,
            tokenizer=copy.deepcopy(engine.encode.tokenizer),
            batch_size=settings.batch_size,
            max_length=context_length(engine.network.config),
            chat_template_args=dict(policy.prompting.chat_template_kwargs) or None,
        )
        try:
            found = harness.simple_evaluate(
                model,
                tasks=list(tasks.names),
                task_manager=tasks.manager,
                num_fewshot=settings.shots,
                limit=settings.limit,
                apply_chat_template=policy.prompting.chat,
                system_instruction=policy.prompting.system,
                log_samples=False,
            )
        except Exception as error:  # tasks are code of their authors, and raise whatever they like
            what = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"lm-eval could not run {', '.join(tasks.names)}: {what[:600]}") from error
    if found is None:  # on another process than the first
        return {}
    return {key: found[key] for key in ("results", "versions", "n-shot", "n-samples", "higher_is_better") if key in found}


def figures(results: Mapping[str, Any]) -> list[Figure]:
    """The metrics of all tasks, in the harness's order."""
    found = []
    for task, values in results.get("results", {}).items():
        directions = results.get("higher_is_better", {}).get(task) or {}
        for key, value in values.items():
            name, _, chosen = key.partition(",")
            if name in _NO_METRICS or name.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            error = values.get(f"{name}_stderr,{chosen}" if chosen else f"{name}_stderr")
            metric = name if chosen in ("", "none") else f"{name} ({chosen})"
            numeric = isinstance(error, (int, float)) and math.isfinite(error)
            found.append(Figure(task, metric, float(value), float(error) if numeric else None, directions.get(name)))
    return found
