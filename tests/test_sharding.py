"""Weights spread over processes (FSDP2 by torch, over gloo) train as whole ones do: a tiny Llama and a tiny U-Net."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from raft_core.errors import ConfigError
from raft_core.machine.launch import SHARD, run_together
from raft_core.machine.processes import Processes
from raft_core.objectives.sft import Sft
from raft_core.rng import seed_for
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK
from raft_core.testing import FakePolicy, close, together
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt

KINDS = ("llama", "unet")
ROUNDS, K, SEED, BATCH, STEPS = 2, 4, 5, 6, 2
#: One item of one step of the second round, so that one process alone has a pass with nothing left.
FAILING = seed_for(SEED, "train", 2, 1, 3)


@dataclass(frozen=True)
class Anchored(Sft):
    """Held to the reference, so that the frozen start is read in the middle of a step; not a number for one item."""

    def __call__(self, policy, samples, part, seeds):
        chosen = [samples[i] for i in part.index]
        draw = policy.draw(chosen, seeds)
        nll = policy.nll(chosen, draw)
        losses = nll + 0.1 * (nll - policy.nll(chosen, draw, reference=True)) ** 2
        return torch.where(torch.tensor([seed == FAILING for seed in seeds], device=losses.device), torch.nan, losses)


def make_policy(kind: str, folder: Path, device: str = "cpu"):
    if kind == "llama":
        from raft_text import CausalLM, Sampling
        from raft_text.testing import tiny_model

        model = folder / "llama"
        if not model.exists():
            tiny_model(model)
        policy = CausalLM(str(model), lora=None, sampling=Sampling(max_new_tokens=6, batch_size=4), device=device)
    else:
        from raft_diffusion import Sampling, StableDiffusion
        from raft_diffusion.testing import tiny_pipeline

        model = folder / "sd"
        if not model.exists():
            tiny_pipeline(model)
        policy = StableDiffusion(str(model), lora=None, sampling=Sampling(steps=2, batch_size=4), device=device)
    policy.load()
    return policy


def train(kind: str, models: Path, out: Path, *, first: int = 1, device: str = "cpu") -> None:
    """The rounds from ``first`` on of one process; the first process leaves weights, state and metrics of each."""
    torch.set_num_threads(1)
    processes = Processes.current()
    policy = make_policy(kind, models, device)
    # A smooth update: where a gradient is nearly 0, Adam would take the sign of its rounding.
    trainer = Trainer(Optimizer(lr=0.01, eps=1e-2), batch_size=BATCH, micro_batch_size=1, steps=STEPS, ema_decay=0.5)
    trainer.attach(policy, seed=SEED, rounds=ROUNDS)
    if first > 1:
        stored = load_file(out / f"{kind}-{first - 1}.safetensors")
        with torch.no_grad():
            for name, parameter in policy.trainable().items():
                parameter.copy_(stored.pop(f"weights/{name}"))
        trainer.load_state_dict(stored, json.loads((out / f"{kind}-{first - 1}.json").read_text())[1])
    for rnd in range(first, ROUNDS + 1):
        asked = requests([Prompt("a cat"), Prompt("a dog on a hill"), Prompt("sun")], K, SEED, rnd)
        own = policy.sample(asked[processes.rank :: processes.count])  # each alone, and not equally many
        samples = policy.sample(asked)
        assert [s.request for s in own] == [s.request for s in samples[processes.rank :: processes.count]]
        scores = torch.tensor([float(next(iter(s.tensors.values())).float().mean()) for s in samples])
        selection = BestOfK()(scores.numpy().reshape(-1, K))
        metrics = trainer.fit(policy, Anchored(), samples, selection, rnd)
        if processes.is_main:
            tensors, plain = trainer.state_dict()
            with trainer.averaged():
                averaged = {f"averaged/{name}": value.detach().clone() for name, value in policy.trainable().items()}
            weights = {f"weights/{name}": value.detach().clone() for name, value in policy.trainable().items()}
            save_file(weights | tensors, out / f"{kind}-{rnd}.safetensors")
            save_file(averaged, out / f"{kind}-{rnd}-averaged.safetensors")
            (out / f"{kind}-{rnd}.json").write_text(json.dumps([metrics, plain]))
    processes.wait()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(folder of the models, of the run of one process with whole weights, of that of two with spread ones)."""
    models, one, two = (tmp_path_factory.mktemp(name) for name in ("models", "one", "two"))
    for kind in KINDS:
        train(kind, models, one)
    assert together(__file__, lambda _: (models, two, 1, "cpu"), 2) == [0, 0]
    return models, one, two


def same(found: Path, expected: Path, kind: str) -> None:
    for name in (f"{kind}-{ROUNDS}.safetensors", f"{kind}-{ROUNDS}-averaged.safetensors"):
        tensors, whole = load_file(found / name), load_file(expected / name)
        assert tensors.keys() == whole.keys()
        for key, value in whole.items():
            close(tensors[key], value, 1e-3)
    (metrics, plain), (expected_metrics, expected_plain) = (
        json.loads((at / f"{kind}-{ROUNDS}.json").read_text()) for at in (found, expected)
    )
    assert metrics == pytest.approx(expected_metrics, rel=1e-3)
    assert metrics["train/failed_items"] == 1
    assert plain == expected_plain


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_spread_weights_train_as_whole_ones(runs, kind):
    _, one, two = runs
    same(two, one, kind)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_processes_goes_on(runs, tmp_path, count):
    models, one, two = runs
    for file in two.glob("*-1.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert together(__file__, lambda _: (models, tmp_path, 2, "cpu"), count) == [0] * count
    for kind in KINDS:
        same(tmp_path, one, kind)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="accelerate spreads weights on accelerators alone")
def test_accelerates_own_way_trains_as_whole_weights_do(tmp_path):
    """By as many GPUs as there are; with one, all of it is that one's part."""
    models, one, spread = (tmp_path / name for name in ("models", "one", "spread"))
    for folder in (models, one, spread):
        folder.mkdir()
    for kind in KINDS:
        train(kind, models, one, device="cuda")
    command = [sys.executable, __file__, str(models), str(spread), "1", "cuda"]
    count = next(n for n in (3, 2, 1) if n <= torch.cuda.device_count())
    places = os.pathsep.join(place for place in sys.path if place)
    assert run_together(lambda _: command, count, {"PYTHONPATH": places}, timeout_s=280).first is None
    for kind in KINDS:
        same(spread, one, kind)


@pytest.mark.parametrize(
    ("lora", "words"), [({"rank": 2}, "set policy.lora to null"), (None, "accelerate is configured for FSDP 1")]
)
def test_what_cannot_be_spread_is_refused(tmp_path, monkeypatch, lora, words):
    from raft_core.training.shards import ShardedWeights
    from raft_text import CausalLM, Lora
    from raft_text.testing import tiny_model

    monkeypatch.setenv("FSDP_VERSION", "2" if lora else "1")
    policy = CausalLM(str(tiny_model(tmp_path)), lora=Lora(**lora) if lora else None, device="cpu")
    policy.load()
    with pytest.raises(ConfigError, match=words):
        ShardedWeights(policy, policy.trainable(), Optimizer().build, None)


def test_a_policy_without_a_network_is_refused(monkeypatch):
    from raft_core.training.shards import ShardedWeights

    monkeypatch.setenv("FSDP_VERSION", "2")
    policy = FakePolicy()
    with pytest.raises(ConfigError, match="FakePolicy has no network"):
        ShardedWeights(policy, policy.trainable(), Optimizer().build, None)


if __name__ == "__main__":
    os.environ.update(SHARD)
    for each in KINDS:
        train(each, Path(sys.argv[1]), Path(sys.argv[2]), first=int(sys.argv[3]), device=sys.argv[4])
