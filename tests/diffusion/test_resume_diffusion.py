"""A Stable Diffusion's run, interrupted in sampling, decoding and training, ends in the same LoRA bytes as one left alone.

What the store does between two file operations is tested in ``tests/core/test_resume.py``; here, that all which the real policy
and its training draw at random follows from the run's seed, and that latents and pictures survive being stored.
"""

from __future__ import annotations

import pytest

from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.reporter import Silent
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.best_of_k import BestOfK
from raft_core.store.checkpoint import checkpoint_folder
from raft_core.store.store import Store
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt
from raft_diffusion.rewards import JpegCompressibility

ROUNDS, K, SEED = 2, 3, 11


class Interrupted(KeyboardInterrupt):
    pass


def life(folder, policy, calls_to_live=None):
    """Begin or go on with the run; interrupted at a call of the policy, when so many have been made."""
    left = iter(range(calls_to_live if calls_to_live is not None else 1000))

    def counted(function):
        def called(*args, **kwargs):
            if next(left, None) is None:
                raise Interrupted
            return function(*args, **kwargs)

        return called

    for method in ("sample", "render", "nll"):
        setattr(policy, method, counted(getattr(policy, method)))
    trainer = Trainer(Optimizer(lr=1e-2), batch_size=2, micro_batch_size=1, steps=2, ema_decay=0.9)
    trainer.attach(policy, SEED, ROUNDS)
    begun = (folder / "run.json").exists()
    with Store.resume(folder, reporter=Silent()) if begun else Store.create(folder, {}, SEED, reporter=Silent()) as store:
        store.restore(policy, trainer)
        prompts = PromptSet([Prompt("a red cat"), Prompt("a dog")], [], 1, SEED)
        scorer = Scorer(JpegCompressibility())
        align(policy, prompts, scorer, BestOfK(), Sft(), trainer, store, Monitor(), rounds=ROUNDS, k=K)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_an_interrupted_run_ends_in_the_same_lora(load, tmp_path, kind):
    def policy():
        from raft_diffusion import DenoisingLoss

        return load(kind, sampling={"batch_size": 2, "eta": 0.5}, loss=DenoisingLoss(caption_dropout=0.5))

    life(tmp_path / "whole", policy())
    # One part of two sampled; all sampled, one part decoded; scored and in the midst of training; the second round likewise.
    for calls in (1, 2, 5, 6, 7):
        with pytest.raises(Interrupted):
            life(tmp_path / "interrupted", policy(), calls)
    life(tmp_path / "interrupted", policy())
    for rnd in range(ROUNDS + 1):
        for name in ("weights.safetensors", "trainer.safetensors"):
            whole, interrupted = (checkpoint_folder(tmp_path / run, rnd) / name for run in ("whole", "interrupted"))
            assert whole.read_bytes() == interrupted.read_bytes(), (rnd, name)
