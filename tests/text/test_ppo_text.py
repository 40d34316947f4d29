"""A language model with a critic: PPO raises a reward, its estimates replay, and all of it survives an interruption."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml

from raft_cli import main
from raft_core.errors import ConfigError, DataError, ModelError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.kl_control import KlPenalty
from raft_core.objectives.ppo import Ppo
from raft_core.prompts import PromptSet
from raft_core.protocols import RewardInfo
from raft_core.reporter import Silent
from raft_core.rewards.scoring import Scorer
from raft_core.sampling import requests
from raft_core.selectors.every_score import EveryScore
from raft_core.store.checkpoint import checkpoint_folder, read_tensors
from raft_core.store.store import Store, read_history
from raft_core.testing import close
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt, Request, Sample, Weighted
from raft_text import Critic, Lora, Memory
from raft_text.self_training import SftWithGold

PROMPTS = [Prompt("say one"), Prompt("and more")]
KINDS = pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])


def drawn(policy, k=3):
    return policy.render(policy.sample(requests(PROMPTS, k, 0, 1), trace=True))


def randomised(policy):
    """A critic that says something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        policy._value_head.weight.copy_(torch.randn(policy._value_head.weight.shape, generator=generator))


# ---------------------------------------------------------------------- the critic


@KINDS
def test_log_probs_beside_values_are_those_without_them(load, kind):
    policy = load(kind, critic=Critic())
    samples = drawn(policy)
    log_probs, values, mask = policy.step_log_probs_and_values(samples)
    assert torch.equal(log_probs, policy.step_log_probs(samples)[0])
    assert values.shape == log_probs.shape and not values.any()  # it begins at 0
    for row, kept, sample in zip(log_probs, mask, samples, strict=True):
        close(row[kept], sample.tensors["step_log_probs"])


@KINDS
@pytest.mark.parametrize("separate", [False, True], ids=["shared", "separate"])
def test_an_estimate_knows_only_what_goes_before(load, kind, separate):
    policy = load(kind, critic=Critic(separate=separate))
    randomised(policy)
    (sample,) = drawn(policy, 1)[:1]
    tokens = sample.tensors["tokens"]
    other = Sample(sample.request, tensors={"tokens": torch.cat([tokens[:3], (tokens[3:4] + 1) % 250, tokens[4:]])})
    (one,), (two,) = (policy.step_log_probs_and_values([s])[1].detach() for s in (sample, other))
    close(one[:4], two[:4])  # before the fourth token it is not yet seen
    assert not torch.allclose(one[4:], two[4:], atol=1e-5)
    together = policy.step_log_probs_and_values([other, *drawn(policy)])[1][0]
    close(together[: len(two)], two)


def test_packed_rows_have_the_same_estimates(load):
    plain, packed = (load(critic=Critic(), memory=Memory(packing=packing)) for packing in (False, True))
    for policy in (plain, packed):
        randomised(policy)
    samples = drawn(plain)
    close(plain.step_log_probs_and_values(samples)[1], packed.step_log_probs_and_values(samples)[1])


@pytest.mark.parametrize("arguments", [{}, {"lora": None}], ids=["lora", "full"])
def test_a_shared_trunk_is_trained_by_the_value_and_a_separate_one_apart(load, arguments):
    def touched(separate):
        policy = load(critic=Critic(separate=separate), **arguments)
        randomised(policy)
        policy.step_log_probs_and_values(drawn(policy))[1].sum().backward()
        return {name for name, p in policy.trainable().items() if p.grad is not None and p.grad.any()}

    shared, separate = touched(False), touched(True)
    assert {"critic.weight", "critic.bias"} <= shared & separate
    assert any(not name.startswith("critic.") for name in shared)
    assert all(name.startswith("critic.") for name in separate) and any("trunk" in name for name in separate)


def test_checkpointing_changes_no_gradient(load):
    def gradients(on):
        policy = load(critic=Critic(separate=True), memory=Memory(gradient_checkpointing=on))
        randomised(policy)
        log_probs, values, _ = policy.step_log_probs_and_values(drawn(policy))
        (log_probs.sum() + values.sum()).backward()
        return {name: p.grad for name, p in policy.trainable().items() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    close(*(torch.cat([grad.flatten() for grad in each.values()]) for each in (plain, checkpointed)))


def test_without_a_critic_there_are_no_estimates(fresh, tiny):
    with pytest.raises(ModelError, match="no critic"):
        fresh().step_log_probs_and_values(drawn(fresh()))
    from raft_text import CausalLM

    both = CausalLM(str(tiny()), critic=Critic(separate=True), memory=Memory(offload=True))
    assert any("memory.offload" in mistake for mistake in both.check())


def test_the_critic_is_kept_and_not_exported(load, tmp_path):
    policy = load(critic=Critic(), lora=Lora(rank=2))
    policy.save(tmp_path / "export")
    assert not any("critic" in name for name in read_tensors(tmp_path / "export" / "adapter_model.safetensors"))
    load(critic=Critic(separate=True)).load_weights(tmp_path / "export")
    policy.load_weights(tmp_path / "export")
    from safetensors.torch import save_file

    save_file({name: value.detach().clone() for name, value in policy.trainable().items()}, tmp_path / "weights.safetensors")
    load().load_weights(tmp_path / "weights.safetensors")


ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])
@pytest.mark.parametrize("separate", [False, True], ids=["shared", "separate"])
@pytest.mark.parametrize("arguments", [{}, {"lora": None}], ids=["lora", "full"])
def test_a_round_trains_policy_and_critic(load, arguments, separate, device):
    policy = load(critic=Critic(separate=separate), device=device, **arguments)
    samples = drawn(policy)
    part = EveryScore()(np.linspace(0, 1, len(samples))[None])
    trainer = Trainer(Optimizer(lr=1e-3), batch_size=3, epochs=2)
    trainer.attach(policy, 0, 1)
    figures = trainer.fit(policy, Ppo(), samples, part, 1)
    assert figures["train/steps"] == 4 and abs(figures["ppo/kl"]) < 1
    assert policy._value_head.weight.any() and policy.nll(samples, None).ne(policy.nll(samples, None, reference=True)).all()


# ---------------------------------------------------------------------- in the loop


class Share:
    """Share of characters in the first half of the alphabet and before."""

    info = RewardInfo("share")

    def __call__(self, samples):
        return [sum(c < "n" for c in s.output) / max(len(s.output), 1) for s in samples]


def run(folder, policy, *, rounds, k, trainer, objective, calls=None):
    left = iter(range(calls if calls is not None else 10**6))
    asked = policy.step_log_probs_and_values

    def counted(samples):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return asked(samples)

    policy.step_log_probs_and_values = counted
    trainer.attach(policy, 5, rounds)
    begun = (folder / "run.json").exists()
    with Store.resume(folder, reporter=Silent()) if begun else Store.create(folder, {}, 5, reporter=Silent()) as store:
        store.restore(policy, trainer)
        parts = (PromptSet(PROMPTS, [], 2, 5), Scorer(Share()), EveryScore(), objective, trainer, store, Monitor(stop_when=()))
        align(policy, *parts, rounds=rounds, k=k)
    return read_history(folder)


def test_the_reward_rises(load, tmp_path):
    policy = load(lora=None, critic=Critic(), sampling={"max_new_tokens": 8, "batch_size": 32})
    trainer = Trainer(Optimizer(lr=1e-2), batch_size=16, epochs=2)
    history = run(tmp_path / "run", policy, rounds=5, k=16, trainer=trainer, objective=Ppo(kl=KlPenalty(beta=0.001)))
    means = [row["reward/mean"] for row in history]
    assert means[-1] > means[0] + 0.1
    assert history[0]["ppo/kl"] == pytest.approx(0, abs=1e-3) and history[-1]["ppo/kl"] > 0


def test_an_interrupted_run_ends_in_the_same_weights(load, tmp_path):
    def lived(folder, calls=None):
        policy = load("gpt2", critic=Critic(), sampling={"max_new_tokens": 4, "batch_size": 8})
        trainer = Trainer(Optimizer(lr=1e-2), batch_size=4, epochs=2)
        objective = Ppo(kl=KlPenalty(beta=0.1, target=0.1, horizon=20))
        return run(tmp_path / folder, policy, rounds=2, k=4, trainer=trainer, objective=objective, calls=calls)

    prices = [row["ppo/kl_coefficient"] for row in lived("whole")]
    for calls in (0, 3, 6):  # before the first values, within the epochs, in the second round
        with pytest.raises(KeyboardInterrupt):
            lived("cut", calls)
    assert [row["ppo/kl_coefficient"] for row in lived("cut")] == prices and prices[0] != prices[1]
    for rnd in range(3):
        for name in ("weights.safetensors", "trainer.safetensors"):
            whole, cut = (checkpoint_folder(tmp_path / each, rnd) / name for each in ("whole", "cut"))
            assert whole.read_bytes() == cut.read_bytes(), (rnd, name)
    kept = read_tensors(checkpoint_folder(tmp_path / "cut", 2) / "weights.safetensors")
    assert kept["critic.weight"].any()


def test_the_command_runs_it_and_refuses_a_policy_without_a_critic(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"question": f"say {n}", "answer_value": n, "response": str(n)}) for n in range(4)]
    (tmp_path / "sums.jsonl").write_text("\n".join(rows) + "\n")
    arguments = {"model": str(tiny()), "sampling": {"max_new_tokens": 4}, "critic": {}}
    raw = {
        "policy": {"class_path": "CausalLM", "init_args": arguments},
        "prompts": {"train": "sums.jsonl"},
        "reward": "AnswerReward",
        "selector": "EveryScore",
        "objective": {"class_path": "Ppo", "init_args": {"kl": {"beta": 0.01}}},
        "trainer": {"epochs": 2, "batch_size": 4},
        "trackers": [],
        "rounds": 1,
        "k": 2,
        "evaluation": {"k": 1, "prompts": 1},
        "export": "last",
        "output": "run",
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    assert main(["align", "c.yaml"]) == 0
    (row,) = read_history(tmp_path / "run")
    assert row["ppo/kl_coefficient"] == 0.01
    assert "Ppo" in (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert main(["compare", "run", "--prompts", "sums.jsonl", "--k", "1"]) == 0
    assert main(["align", "c.yaml", "--output", "other", "--policy.critic", "null"]) == 2
    assert "has none: give it one (critic: {} of CausalLM)" in capsys.readouterr().err


# ---------------------------------------------------------------------- self-training


def test_half_of_the_loss_is_on_the_written(load):
    policy = load()
    prompts = [Prompt("one", {"response": "yes"}), Prompt("two", {"response": "never"})]
    samples = policy.sample([Request(prompt, 0, n) for n, prompt in enumerate(prompts)])
    part = Weighted(index=np.array([0, 0]), weight=np.array([1.0, 2.0]))
    with torch.no_grad():
        losses = SftWithGold(gold=0.25)(policy, samples, part, [7, 4])  # 7 is odd: the second prompt's response, 4 the first's
        own = policy.nll(samples[:1], None)
        gold = policy.nll(policy.written([s.request for s in samples], ["yes", "never"]), None)
    close(losses[0], 0.75 * own[0] + 0.25 * gold[1])
    close(losses[1], 0.75 * 2 * own[0] + 0.25 * gold[0])


def test_what_self_training_cannot_do_is_told(fresh):
    with pytest.raises(ConfigError, match=r"objective.gold is 1.5"):
        SftWithGold(gold=1.5)
    samples = drawn(fresh())
    with pytest.raises(DataError, match="has no written response"):
        SftWithGold()(fresh(), samples, Weighted(np.array([0]), np.ones(1)), [0])
