"""A run from a checked configuration to its report: everything is assembled here, and nothing else is.

Rounds, then the before/after comparison, then the export and the report. Each stage leaves its result in the run folder, so a
run that was killed goes on with the stage that it was in.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raft_core import capabilities
from raft_core.capabilities import Exports
from raft_core.config.run_config import Checked, check, overridden, read_yaml
from raft_core.errors import DataError, NotFiniteError, StoreError
from raft_core.evaluation.files import FOLDER as EVALUATION
from raft_core.loop import align
from raft_core.machine.files import remove
from raft_core.machine.folders import free_folder
from raft_core.machine.processes import Processes, lost_in_words
from raft_core.monitoring.monitor import Monitor
from raft_core.prompts import PromptSet
from raft_core.protocols import Policy
from raft_core.reporter import Reporter, Silent
from raft_core.store.create import require_empty
from raft_core.store.manifest import CONFIG, read_run
from raft_core.store.store import Store
from raft_core.types import Prompt
from raft_core.workflows.checkpoint_choice import compare_checkpoint

TRUNCATED_SHOWN = 3


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal; ``folder`` is where it goes on from."""

    def __init__(self, folder: Path):
        super().__init__(f"interrupted; resume with: raft resume {folder}")
        self.folder = folder


def output_folder(checked: Checked) -> Path:
    """The run folder: as configured, else the first of ``runs/NAME``, ``runs/NAME-2`` … that is free; one for all processes."""
    if checked.config.output is not None:
        return Path(checked.config.output).expanduser()
    return Path(Processes.current().first_ones(str(free_folder(Path("runs") / checked.name))))


def align_run(checked: Checked, reporter: Reporter | None = None, *, folder: Path | None = None) -> Path:
    """Begin a run and carry it through; returns its folder.

    Nothing is written before everything is loaded.

    Raises:
        StoreError: the output folder holds something already.
        RaftError: whatever else a user can mend.
        Interrupted: by a signal; the run can be resumed.
    """
    reporter = reporter or Silent()
    folder = folder or output_folder(checked)
    if Processes.current().is_main:  # the others would meet the folder that the first has just made
        require_empty(folder)
    _load(checked, reporter)
    plain = {**checked.plain, "output": str(folder)}
    opened = Store.create(folder, plain, checked.config.seed, keep=checked.config.keep, reporter=reporter)
    with opened as store, ended_in_words(store, reporter):
        store.note(
            modality=checked.config.policy.modality,
            policy=checked.config.policy.describe(),
            prompts=fingerprint(checked.prompts),
            latent_space=capabilities.latent_space(checked.config.policy),
        )
        _carry_through(checked, store, reporter)
    return folder


def reopened(folder: Path, overrides: Sequence[Any] = ()) -> Checked:
    """The configuration of a run, from its folder alone.

    Raises:
        StoreError: the folder holds no run.
        ConfigError: the configuration does not hold any more, such as a prompt file that is gone.
    """
    read_run(folder)
    return check(overridden(read_yaml(folder / CONFIG), overrides), name=folder.name)


def resume_run(folder: Path, reporter: Reporter | None = None, *, overrides: Sequence[Any] = (), force: bool = False) -> Path:
    """Go on with a run in the stage that it was in; returns its folder.

    Args:
        overrides: changed settings, which need ``force``.

    Raises:
        StoreError: no run is there, or what it was begun with has changed and ``force`` is not given.
        Interrupted: by a signal, while it loads too; the run can be resumed.
    """
    try:
        _resume(folder, reporter or Silent(), overrides, force)
    except Interrupted:
        raise
    except KeyboardInterrupt as signal:
        raise Interrupted(folder) from signal
    return folder


def _resume(folder: Path, reporter: Reporter, overrides: Sequence[Any], force: bool) -> None:
    checked = reopened(folder, overrides)
    known, found = read_run(folder).get("prompts"), fingerprint(checked.prompts)
    if known and known != found and not force:
        raise StoreError(
            f"the prompts are not those that {folder} was begun with ({known['train']} to train on and {known['held_out']} "
            f"held out then, {found['train']} and {found['held_out']} now, or other texts): restore the files, or --force"
        )
    opened = Store.resume(folder, checked.plain, force=force, keep=checked.config.keep, reporter=reporter)
    with opened as store, ended_in_words(store, reporter):
        if force:  # what was compared may not be what is now asked for
            remove(folder / EVALUATION)
        _load(checked, reporter)
        store.note(prompts=found)
        _carry_through(checked, store, reporter)


def is_finished(folder: Path) -> bool:
    """Whether a run has come to its end, report included."""
    return read_run(folder).get("status") == "finished"


def fingerprint(prompts: PromptSet) -> dict[str, Any]:
    """What tells whether prompts are the same as before: how many, and a digest of all."""
    names = [prompt.id for prompt in prompts.train] + ["|"] + [prompt.id for prompt in prompts.held_out]
    digest = hashlib.sha256("".join(names).encode()).hexdigest()[:16]
    return {"train": len(prompts.train), "held_out": len(prompts.held_out), "digest": digest}


def _load(checked: Checked, reporter: Reporter) -> None:
    config = checked.config
    for note in checked.notes:
        reporter.line(f"note: {note}")
    config.policy.load()
    for warning in loaded_warnings(config.policy, [*checked.prompts.train, *checked.prompts.held_out]):
        reporter.warn(warning)
    config.scorer.load()
    config.scorer.attach(config.policy)
    capabilities.attach([config.objective, config.samples], config.policy)


def loaded_warnings(policy: Policy, prompts: Sequence[Prompt]) -> list[str]:
    """What a person should know of a loaded policy and of what it sees of these prompts.

    Raises:
        DataError: prompts that the policy refuses.
    """
    return [*capabilities.notes(policy), *truncated(policy, prompts)]


def truncated(policy: Policy, prompts: Sequence[Prompt]) -> list[str]:
    """A warning for the first prompts that are longer than the model takes in, with what it sees of them.

    Raises:
        DataError: prompts that the policy refuses.
    """
    cut: list[tuple[str, str]] = []
    refused: list[str] = []
    for prompt in prompts:
        try:
            seen = capabilities.visible(policy, prompt)
        except DataError as error:
            refused.append(str(error))
        else:
            cut += [(prompt.text, seen)] if seen != prompt.text else []
    if refused:
        more = f" ({len(refused)} of {len(prompts)} prompts are refused likewise)" if len(refused) > 1 else ""
        raise DataError(refused[0] + more)
    lines = [f"a prompt is longer than the model takes in; it sees only: {seen!r}" for _, seen in cut[:TRUNCATED_SHOWN]]
    if len(cut) > TRUNCATED_SHOWN:
        lines.append(f"{len(cut) - TRUNCATED_SHOWN} more prompts are cut off likewise")
    return lines


@contextlib.contextmanager
def ended_in_words(store: Store, reporter: Reporter) -> Iterator[None]:
    """Inside, whatever stops the run is noted in its folder, and how to go on is said.

    Raises:
        Interrupted: a signal stopped it.
        NotFiniteError: an update that the weights' numbers cannot hold.
    """
    try:
        with lost_in_words(), overflow_in_words(store.config):
            yield
    except KeyboardInterrupt as signal:
        with contextlib.suppress(StoreError):
            store.ended("interrupted", "stopped by a signal")
        raise Interrupted(store.folder) from signal
    except Exception as error:
        with contextlib.suppress(StoreError):
            store.ended("failed", f"{type(error).__name__}: {error}")
        # A model that has diverged would only be met again; the error says what else to do.
        further = "" if isinstance(error, NotFiniteError) else "; go on with: raft resume"
        reporter.line(f"what was made so far is kept{further or ' in'} {store.folder}")
        raise


@contextlib.contextmanager
def overflow_in_words(config: Mapping[str, Any]) -> Iterator[None]:
    """Inside, torch's complaint that a step is larger than any number of the weights' precision says what to do.

    Raises:
        NotFiniteError: such a step.
    """
    try:
        yield
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        optimizer = (config.get("trainer") or {}).get("optimizer") or {}
        rate = f", which is {optimizer['lr']:g}" if isinstance(optimizer.get("lr"), float) else ""
        raise NotFiniteError(
            f"an update is larger than the weights' numbers can hold ({error}): lower trainer.optimizer.lr{rate}, and begin "
            "anew"
        ) from error


def _carry_through(checked: Checked, store: Store, reporter: Reporter) -> None:
    reason = _rounds(checked, store, reporter)
    store.note(reason=reason)  # the report tells it
    if Processes.current().is_main:
        _finish(checked, store, reporter)
    store.ended("finished", reason)


def _rounds(checked: Checked, store: Store, reporter: Reporter) -> str:
    """All rounds that are still to do; returns why there are no more."""
    config = checked.config
    config.trainer.attach(config.policy, store.seed, config.rounds, reporter)
    done = store.restore(config.policy, config.trainer)
    with attached(config.trackers, store) as trackers, reporter.phase("rounds", config.rounds) as bar:
        bar.advance(done)
        rules = (config.stop_when, config.warn_when)
        monitor = Monitor(reporter, [*trackers, _Advance(bar)], *rules, config.keep.best, config.keep.best_is_highest)
        parts = (config.policy, checked.prompts, config.scorer, config.selector, config.objective, config.trainer)
        return align(*parts, store, monitor, rounds=config.rounds, k=config.k, source=config.samples)


class _Advance:
    """Moves the bar of rounds; a tracker, for trackers are told of every round."""

    def __init__(self, bar: Any):
        self._bar = bar

    def log(self, history: Sequence[Any]) -> None:
        self._bar.advance(1)


@contextlib.contextmanager
def attached(trackers: Sequence[Any], store: Store) -> Iterator[Sequence[Any]]:
    """The trackers, told which run this is and what it has done before; closed at the end, however it comes."""
    for tracker in trackers:
        if hasattr(tracker, "attach"):
            tracker.attach(store.folder, store.config)
    try:
        if history := store.history():  # the process before may have been killed between a round's end and its being logged
            for tracker in trackers:
                tracker.log(history)
        yield trackers
    finally:
        for tracker in trackers:
            if hasattr(tracker, "finish"):
                tracker.finish()


def _finish(checked: Checked, store: Store, reporter: Reporter) -> None:
    """Compare, export, report: with the weights of the checkpoint that is handed out."""
    config = checked.config
    rnd = compare_checkpoint(checked, store, reporter)
    with config.trainer.averaged():
        files = config.policy.save(store.folder / "export")
    if isinstance(config.policy, Exports):  # after the evaluation, which its card quotes
        files = [*files, config.policy.write_card(store.folder, store.folder / "export")]
    store.note(checkpoint=rnd, exported=[str(file.relative_to(store.folder)) for file in files])
    from raft_core.report.page import write_report

    write_report(store.folder)
