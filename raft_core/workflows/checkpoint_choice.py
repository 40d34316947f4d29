"""Which checkpoint a run hands out: the chosen one, unless training has broken it; compared with the start before it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raft_core.config.run_config import Checked
from raft_core.errors import NotFiniteError, StoreError
from raft_core.evaluation.evaluate import Evaluation, evaluate
from raft_core.evaluation.files import read_results, write_results
from raft_core.prompts import distinct
from raft_core.protocols import Policy
from raft_core.reporter import Reporter
from raft_core.rng import numpy_rng
from raft_core.soundness import REMEDY, failed_mask, failed_words, not_finite, sound_of
from raft_core.store.checkpoint import (
    Keep,
    best_checkpoint,
    checkpoint_folder,
    checkpoints_in,
    load_weights,
    read_state,
    read_tensors,
    taken_as_best,
)
from raft_core.store.rounds import earlier_scores
from raft_core.store.store import Store
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt


def compare_checkpoint(checked: Checked, store: Store, reporter: Reporter) -> int:
    """Put the checkpoint that is handed out into the policy and store its comparison with the start; returns its round.

    That is the first of ``candidates`` of whose samples no more fail than of the start's. Where every one has more, it is the
    one with the fewest.

    Raises:
        NotFiniteError: nothing was trained, or training made all samples of every checkpoint fail.
    """
    config = checked.config
    require_trained(store.history(), reporter)
    rounds = candidates(store.folder, store.history(), config.keep, config.export)
    if chosen_checkpoint(store.history(), config.keep, config.export) == 0:
        reporter.warn(f"no round did better than the first by {config.keep.best}: the last checkpoint is taken")
    if (known := _compared_before(store.folder)) in rounds:
        take_checkpoint(store.folder, known, config.policy, config.trainer)
        return known
    if config.scorer.recalls:
        config.scorer.recall(earlier_scores(store.folder))
    rnd, found = _soundest(checked, store, rounds, reporter)
    take_checkpoint(store.folder, rnd, config.policy, config.trainer)
    write_results(store.folder, rnd, found)
    return rnd


def require_trained(history: Sequence[Mapping[str, Any]], reporter: Reporter) -> None:
    """Where no round took a step there is nothing to hand out.

    Raises:
        NotFiniteError: because loss or gradient were never finite. Where nothing was selected, that is only said.
    """
    if any(row.get("train/steps") != 0 for row in history):
        return
    if skipped := sum(row.get("train/skipped_steps", 0) for row in history):
        raise NotFiniteError(
            f"nothing was trained: in all {int(skipped)} steps of the run the loss or the gradient was not finite; begin anew "
            "with a lower trainer.optimizer.lr, or in higher precision"
        )
    reporter.warn("nothing was selected in any round, so nothing was trained: what is compared and exported is the start")


def chosen_checkpoint(history: Sequence[Mapping[str, Any]], keep: Keep, export: str) -> int:
    """Round whose checkpoint is asked for; 0 when that would be the start."""
    best = taken_as_best(history, keep) if export == "best" else None
    return history[-1]["round"] if best is None else best


def candidates(folder: Path, history: Sequence[Mapping[str, Any]], keep: Keep, export: str) -> list[int]:
    """Rounds whose checkpoints can be handed out: the one asked for, the best that was measured, the others, newest first."""
    chosen = chosen_checkpoint(history, keep, export) or history[-1]["round"]
    others = [best_checkpoint(history, keep), *reversed(checkpoints_in(folder))]
    return list(dict.fromkeys(rnd for rnd in (chosen, *others) if rnd))


def _compared_before(folder: Path) -> int | None:
    """Round of the checkpoint that was compared before the run was stopped; a damaged comparison is made again."""
    try:
        results = read_results(folder)
    except StoreError:
        return None
    return None if results is None else results.checkpoint


def _soundest(checked: Checked, store: Store, rounds: Sequence[int], reporter: Reporter) -> tuple[int, list[Evaluation]]:
    """(round, comparisons) of the first whose training made no sample fail, or else of the one with the fewest."""
    config = checked.config
    best: tuple[int, int, list[Evaluation]] | None = None
    against: list[str] = []  # of each that was looked at and not taken at once
    for rnd in rounds:
        take_checkpoint(store.folder, rnd, config.policy, config.trainer)
        with config.trainer.averaged():
            wrong = "weights are not finite" if not_finite(config.policy.trainable()) else ""  # told without drawing
            found = [] if wrong else evaluations(checked, reporter)
        after, more = [sample for each in found for sample in each.after], broken_by_training(found)
        wrong = wrong or (failed_words(after) if more > 0 else "")
        if (not wrong or sound_of(after)) and (best is None or more < best[0]):
            best = (more, rnd, found)
        if not wrong:
            break
        against.append(wrong)
    if best is None:
        raise NotFiniteError(f"no checkpoint of the run can be exported; after round {rounds[0]}: {against[0]}. {REMEDY}")
    if best[1] != rounds[0]:
        reporter.warn(f"the checkpoint of round {best[1]} is exported and not that of round {rounds[0]}: {against[0]}")
    return best[1:]


def broken_by_training(found: Sequence[Evaluation]) -> int:
    """How many more samples failed after training than before it."""
    return sum(int(failed_mask(each.after).sum()) - int(failed_mask(each.before).sum()) for each in found)


def take_checkpoint(folder: Path, rnd: int, policy: Policy, trainer: Trainer) -> None:
    """Put a checkpoint's weights into the policy, and its moving average into the trainer."""
    load_weights(folder, rnd, policy)
    if rnd > 0:
        tensors = read_tensors(checkpoint_folder(folder, rnd) / "trainer.safetensors")
        trainer.load_state_dict(tensors, read_state(folder, rnd)["trainer"])


def evaluations(checked: Checked, reporter: Reporter) -> list[Evaluation]:
    """Before against after, on training and on held-out prompts."""
    config, prompts = checked.config, checked.prompts
    found = []
    train, _ = distinct(prompts.train)
    for split, prompts_of in (("train", train), ("heldout", prompts.held_out)):
        chosen = some(prompts_of, config.evaluation.prompts, config.seed)
        if chosen:
            settings = {"k": config.evaluation.k, "seed": config.seed, "split": split, "reporter": reporter}
            found.append(evaluate(config.policy, chosen, config.scorer, **settings))
    return found


def some(prompts: Sequence[Prompt], n: int | None, seed: int) -> list[Prompt]:
    """At most ``n`` prompts, the same ones for the same seed, in their order."""
    if n is None or n >= len(prompts):
        return list(prompts)
    return [prompts[i] for i in sorted(numpy_rng(seed, "evaluated").permutation(len(prompts))[:n])]
