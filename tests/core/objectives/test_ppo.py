"""PPO by numbers derived by hand, and in the loop on a policy with a critic: the reward rises, a resumed run is the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from raft_core.config.run_config import disagreements
from raft_core.errors import ConfigError, ModelError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.clipping import clipped_surrogate
from raft_core.objectives.gae import action_rewards, clipped_value_loss, gae, whitened
from raft_core.objectives.kl_control import KlPenalty
from raft_core.objectives.ppo import Ppo
from raft_core.prompts import PromptSet
from raft_core.protocols import RewardInfo
from raft_core.reporter import Silent
from raft_core.rewards.scoring import Scorer
from raft_core.rng import torch_rng
from raft_core.selectors.every_score import EveryScore
from raft_core.store.checkpoint import checkpoint_folder, read_state
from raft_core.store.store import Store, read_history
from raft_core.testing import FakePolicy
from raft_core.testing import close as near
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt, Request, Sample, Scored


def close(found, expected):
    return torch.allclose(torch.as_tensor(found, dtype=torch.float32), torch.tensor(expected), atol=1e-6)


# ---------------------------------------------------------------------- numbers


def test_the_surrogate_is_clipped_on_the_side_that_would_gain():
    log_prob = torch.tensor([1.5, 1.5, 0.5, 0.5]).log().requires_grad_()
    losses = clipped_surrogate(log_prob, torch.zeros(4), torch.tensor([2.0, -2.0, -2.0, 2.0]), 0.2)
    assert close(losses, [-2.4, 3.0, 1.6, -1.0])
    losses.sum().backward()
    assert close(log_prob.grad, [0, 3.0, 0, -1.0])  # d(−s·A)/d log p = −s·A where it is not clipped
    higher = clipped_surrogate(torch.tensor([1.5]).log(), torch.zeros(1), torch.tensor([2.0]), 0.2, 0.28)
    assert close(higher, [-2.56])


def test_the_score_is_paid_at_the_last_action_and_divergence_at_each():
    kl = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.0, 0.0]])
    rewards = action_rewards(kl, torch.tensor([1.0, 0.1]), torch.tensor([3, 1]), 0.1)
    assert close(rewards, [[-0.05, 0.1, 0.8], [0.0, 0, 0]])


def test_advantages_by_a_worked_example():
    rewards = torch.tensor([[0, 0, 1.0], [1.0, 0, 0]])
    values = torch.tensor([[0.5, 0.4, 0.6], [0.25, 0, 0]])  # the second has one action
    assert close(gae(rewards, values, 0.9, 0.5), [[0.004, 0.32, 0.4], [0.75, 0, 0]])
    assert close(gae(rewards, values, 1.0, 1.0), [[0.5, 0.6, 0.4], [0.75, 0, 0]])  # what came, less what was expected
    assert close(gae(rewards, values, 1.0, 0.0), [[-0.1, 0.2, 0.4], [0.75, 0, 0]])  # one step ahead


def test_whitening_counts_the_masked_entries_alone():
    mask = torch.tensor([[True, True], [True, False]])
    values = torch.tensor([[1.0, 2.0], [3.0, 99.0]])
    s = math.sqrt(1.5)
    assert close(whitened(values, mask), [[-s, 0.0], [s, 0.0]])
    assert close(whitened(values, mask, centred=False), [[s, 2 * s], [3 * s, 0.0]])
    assert close(whitened(torch.tensor([[2.0]]), torch.tensor([[True]])), [[0.0]])


def test_the_value_loss_is_the_worse_of_the_clipped_and_the_free():
    value = torch.tensor([0.5, 0.1, -0.5], requires_grad=True)
    losses = clipped_value_loss(value, torch.zeros(3), torch.ones(3), 0.2)
    assert close(losses, [0.32, 0.405, 1.125])
    losses.sum().backward()
    assert close(value.grad, [0.0, -0.9, -1.5])
    assert close(clipped_value_loss(torch.tensor([0.5]), torch.zeros(1), torch.ones(1), None), [0.125])


def test_the_price_of_divergence_follows_its_target():
    penalty = KlPenalty(beta=0.15, target=6.0)
    assert penalty.adapted(0.15, 12.0, 1000) == pytest.approx(0.153)
    assert penalty.adapted(0.15, 5.4, 1000) == pytest.approx(0.1485)
    assert penalty.adapted(0.15, 0.0, 25_000) == pytest.approx(0.15 * 0.8 * 0.8 * 0.9)
    assert penalty.adapted(0.15, 60.0, 20_000) == pytest.approx(0.15 * 1.2 * 1.2)
    assert KlPenalty(beta=0.15).adapted(0.15, 100.0, 1000) == 0.15


@pytest.mark.parametrize("kl", [0.0, 5.0, 5.7, 6.0, 6.6, 60.0])
def test_the_price_of_a_large_round_is_that_of_the_same_samples_in_small_ones(kl):
    """OpenAI's controller multiplies by 1 + clip(kl/target − 1, ±0.2)·n/horizon after each n ≤ horizon."""
    penalty, beta = KlPenalty(beta=0.15, target=6.0), 0.15
    for samples in (1000, 9000, 10_000):
        assert penalty.adapted(beta, kl, samples) == pytest.approx(
            beta * (1 + min(max(kl / 6 - 1, -0.2), 0.2) * samples / 10_000)
        )
    for samples in (20_000, 45_000, 1_000_000):
        small = beta
        for start in range(0, samples, 10_000):
            small = penalty.adapted(small, kl, min(10_000, samples - start))
        assert penalty.adapted(beta, kl, samples) == pytest.approx(small)
        assert penalty.adapted(beta, kl, samples) > 0


def test_the_price_stays_a_number_however_short_the_horizon():
    shortest = KlPenalty(beta=0.15, target=6.0, horizon=1)
    assert 0 < shortest.adapted(0.15, 0.0, 10**9) < 0.15 < shortest.adapted(0.15, 60.0, 10**9) < math.inf


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"clip": 0}, "objective.clip is 0"),
        ({"clip_high": -1}, "objective.clip_high is -1"),
        ({"lam": 1.5}, "objective.lam is 1.5"),
        ({"value_weight": 0}, "objective.value_weight is 0"),
        ({"value_clip": 0}, "objective.value_clip is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments, says):
    with pytest.raises(ConfigError, match=says):
        Ppo(**arguments)


def test_a_price_that_makes_no_sense_is_refused():
    for arguments, says in [
        ({"beta": -1}, "beta is -1"),
        ({"beta": 0, "target": 1}, "only multiply"),
        ({"horizon": 0}, "horizon"),
    ]:
        with pytest.raises(ConfigError, match=says):
            KlPenalty(**arguments)


# ---------------------------------------------------------------------- a policy with a critic


class Steps(FakePolicy):
    """x ~ N(mean[prompt], 1) in D dimensions, one action per dimension; a critic with one estimate per action."""

    estimates_values = True

    def __init__(self, dim=3):
        super().__init__(dim=dim)
        self.value = torch.nn.Parameter(torch.zeros(dim))

    def trainable(self):
        return {"mean": self.mean, "value": self.value}

    def step_log_probs(self, samples, *, reference=False):
        x = torch.stack([sample.tensors["x"] for sample in samples])
        log_probs = -((x - self._means(samples, 0.0 if reference else 1.0)) ** 2) / 2
        return log_probs.detach() if reference else log_probs, torch.ones_like(log_probs, dtype=torch.bool)

    def step_log_probs_and_values(self, samples):
        log_probs, mask = self.step_log_probs(samples)
        return log_probs, self.value.expand_as(log_probs), mask


def one_sample(x, old):
    tensors = {"x": torch.tensor(x), "step_log_probs": torch.tensor(old), "step_mask": torch.ones(len(x), dtype=torch.bool)}
    return Sample(Request(Prompt("p"), 0, 0), tensors=tensors)


def advantages(*scores):
    return Scored(index=np.arange(len(scores)), score=np.array(scores))


def test_the_loss_of_a_round_by_hand():
    # Two actions, V = (0.5, 0.25), γ 1, λ 1, no penalty, score 1: advantages (0.5, 0.75), returns (1, 1).
    # x = 0, so log π = 0; drawn at log ½ each, so s = 2. Surrogate −1.2·0.5 = −0.6 and −1.2·0.75 = −0.9: mean −0.75.
    # Value errors ½·0.25 = 0.125 and ½·0.5625 = 0.28125: mean 0.203125, times 2 = 0.40625. In all −0.34375.
    policy = Steps(dim=2)
    policy.value.data = torch.tensor([0.5, 0.25])
    samples = [one_sample([0.0, 0.0], [math.log(0.5)] * 2)]
    objective = Ppo(lam=1.0, value_weight=2.0, whiten=False, kl=KlPenalty(beta=0))
    begun = objective.begin(policy, samples, advantages(1.0), {})
    begun._check._seen.add("all")  # as after an update: before the first one, a ratio of 2 stops the run
    losses = begun(policy, samples, advantages(1.0), [0])
    assert close(losses, [-0.34375])
    losses.sum().backward()
    assert close(policy.value.grad, [-0.5, -0.75])  # 2 · ½ · (V − R); the surrogate is clipped and has none
    assert float(policy.mean.grad.abs().sum()) == 0
    figures = begun.figures()
    assert figures["ppo/policy_loss"] == pytest.approx(-0.75) and figures["ppo/value_loss"] == pytest.approx(0.203125)
    assert figures["ppo/clip_fraction"] == 1 and figures["ppo/return"] == 1 and "ppo/kl" not in figures


def test_a_round_whose_ratios_do_not_begin_at_1_is_stopped():
    policy, samples = Steps(dim=2), [one_sample([0.0, 0.0], [math.log(0.5)] * 2)]
    begun = Ppo(kl=KlPenalty(beta=0)).begin(policy, samples, advantages(1.0), {})
    with pytest.raises(ModelError, match="not the one that drew"):
        begun(policy, samples, advantages(1.0), [0])


def test_over_actions_a_sample_has_their_sum_and_a_batch_is_divided_by_all():
    samples = [one_sample([0.0] * n, [0.0] * n) for n in (1, 3)]
    part, whole = advantages(1.0, 1.0), [0, 1]

    class Ragged(Steps):
        def step_log_probs(self, asked, *, reference=False):
            lengths = torch.tensor([len(sample.tensors["x"]) for sample in asked])
            return torch.zeros(len(asked), 3), torch.arange(3) < lengths[:, None]

    found = {}
    for average in ("samples", "actions"):
        begun = Ppo(lam=1.0, whiten=False, value_weight=1.0, kl=KlPenalty(beta=0), average=average).begin(
            Ragged(), samples, part, {}
        )
        losses = begun(Ragged(), samples, part, whole)
        found[average] = losses.tolist(), begun.divisor(samples, part), begun.figures()["ppo/policy_loss"]
    # Every action has advantage 1 and return 1, so −1 and ½.
    assert found["samples"] == (pytest.approx([-0.5, -0.5]), 2, pytest.approx(-1))
    assert found["actions"] == (pytest.approx([-0.5, -1.5]), 4, pytest.approx(-1))


def test_what_is_old_stays_old_while_the_policy_learns():
    policy = Steps(dim=2)
    samples = policy.sample([Request(Prompt("p"), i, i) for i in range(3)], trace=True)
    objective = Ppo(lam=1.0, whiten=False, kl=KlPenalty(beta=0))
    part = advantages(1.0, 0.0, 2.0)
    begun = objective.begin(policy, samples, part, {})
    before = begun(policy, samples, part, [0, 0, 0])
    assert close(begun.figures()["ppo/policy_loss"], float(-torch.tensor([1.0, 0.0, 2.0]).mean()))  # s = 1, V = 0
    policy.value.data += 0.1  # within the clip: the targets are still those of the start
    after = begun(policy, samples, part, [0, 0, 0])
    errors = 0.5 * ((torch.tensor([1.0, 0.0, 2.0]) - 0.1) ** 2 - torch.tensor([1.0, 0.0, 2.0]) ** 2)
    near(after - before, 5 * errors)
    assert close(begun(policy, samples, part.take([2, 0]), [0, 0]), after[[2, 0]].tolist())  # item by item


def test_divergence_is_paid_for_and_its_price_carried():
    policy = Steps(dim=2)
    with torch.no_grad():
        policy.mean += 1.0  # the reference stays at 0
    samples = [one_sample([1.0, 1.0], [0.0, 0.0])]  # log π = 0, log π_ref = −½: 0.5 nats an action
    objective = Ppo(lam=1.0, whiten=False, kl=KlPenalty(beta=0.1, target=2.0, horizon=10))
    begun = objective.begin(policy, samples, advantages(1.0), {})
    figures = begun.figures()
    assert figures["ppo/kl"] == pytest.approx(1.0) and figures["ppo/kl_coefficient"] == 0.1
    assert figures["ppo/return"] == pytest.approx((0.9 + 0.95) / 2)
    assert begun.carried == {"kl_coefficient": pytest.approx(0.1 * (1 - 0.2 / 10))}
    again = objective.begin(policy, samples, advantages(1.0), {"kl_coefficient": 1.0})
    assert again.figures()["ppo/return"] == pytest.approx((0.0 + 0.5) / 2)


def test_samples_without_a_trace_are_told():
    policy = Steps()
    samples = policy.sample([Request(Prompt("p"), 0, 0)])
    with pytest.raises(ModelError, match="trace=True"):
        Ppo().begin(policy, samples, advantages(1.0), {})


def test_a_policy_without_a_critic_is_refused_before_it_is_loaded():
    (mistake,) = disagreements({"policy": FakePolicy(), "selector": EveryScore(), "objective": Ppo()})
    assert "has none: give it one (critic: {}" in mistake
    assert disagreements({"policy": Steps(), "selector": EveryScore(), "objective": Ppo()}) == []


def test_every_score_is_kept_as_it_is():
    found = EveryScore()(np.array([[1.0, np.nan], [0.1, 0.0]]))
    assert found.index.tolist() == [0, 2, 3] and found.score.tolist() == [1.0, 0.1, 0.0]
    assert len(EveryScore()(np.full((2, 2), np.nan))) == 0


# ---------------------------------------------------------------------- in the loop


class Last:
    """Reward: the mean of x, whatever the modality."""

    info = RewardInfo("mean")

    def __call__(self, samples):
        return [float(s.tensors["x"].mean()) for s in samples]


ADAPTED = Ppo(kl=KlPenalty(beta=0.01, target=0.5, horizon=100))


def run(folder, *, calls=None, rounds=3, lr=0.05, objective=ADAPTED):
    left = iter(range(calls if calls is not None else 10**6))
    policy = Steps()
    drawn = policy.step_log_probs_and_values

    def counted(samples):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return drawn(samples)

    policy.step_log_probs_and_values = counted
    trainer = Trainer(Optimizer(lr=lr), batch_size=8, micro_batch_size=4, epochs=2)
    trainer.attach(policy, 3, rounds)
    begun = (folder / "run.json").exists()
    with Store.resume(folder, reporter=Silent()) if begun else Store.create(folder, {}, 3, reporter=Silent()) as store:
        store.restore(policy, trainer)
        prompts = PromptSet([Prompt("one"), Prompt("two")], [], 2, 3)
        parts = (prompts, Scorer(Last()), EveryScore(), objective, trainer, store, Monitor(stop_when=()))
        align(policy, *parts, rounds=rounds, k=8)
    return read_history(folder)


def test_the_reward_rises(tmp_path):
    history = run(tmp_path / "run", rounds=5, lr=0.15)
    assert history[-1]["reward/mean"] > history[0]["reward/mean"] + 0.5
    assert {"ppo/policy_loss", "ppo/value_loss", "ppo/clip_fraction", "ppo/kl", "ppo/value_explained"} <= set(history[-1])


def test_a_high_price_keeps_the_policy_near_its_start(tmp_path):
    cheap, dear = (
        run(tmp_path / name, lr=0.15, objective=Ppo(kl=KlPenalty(beta=beta)))[-1]
        for name, beta in (("cheap", 0.001), ("dear", 10.0))
    )
    assert dear["ppo/kl"] < cheap["ppo/kl"] / 2


def test_an_interrupted_run_ends_in_the_same_weights_with_the_same_price(tmp_path):
    whole = run(tmp_path / "whole")
    prices = [row["ppo/kl_coefficient"] for row in whole]
    assert len(set(prices)) == 3
    for calls in (1, 6, 14):  # before the first round's values; in the midst of its epochs; in the second round
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", calls=calls)
    cut = run(tmp_path / "cut")
    assert [row["ppo/kl_coefficient"] for row in cut] == prices
    for rnd in range(4):
        for name in ("weights.safetensors", "trainer.safetensors"):
            one, other = (checkpoint_folder(tmp_path / each, rnd) / name for each in ("whole", "cut"))
            assert one.read_bytes() == other.read_bytes(), (rnd, name)
    carried = read_state(tmp_path / "cut", 2)["trainer"]["carried"]
    assert carried == {"kl_coefficient": prices[2]}


def test_micro_batches_do_not_change_the_step():
    def stepped(size):
        policy = Steps()
        samples = policy.sample([Request(Prompt("p"), i, i) for i in range(8)], trace=True)
        trainer = Trainer(Optimizer(lr=0.1), batch_size=8, micro_batch_size=size, epochs=3)
        trainer.attach(policy, 0, 1)
        scores = torch.randn(8, generator=torch_rng(1)).tolist()
        trainer.fit(policy, Ppo(), samples, advantages(*scores), 1)
        return torch.cat([policy.mean.flatten(), policy.value]).detach()

    near(stepped(8), stepped(1))
