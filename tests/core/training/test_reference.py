"""A reference that follows the policy: what it holds when, and that a resumed run holds the same."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from raft_core.errors import ConfigError, ModelError
from raft_core.objectives.dpo import Dpo
from raft_core.protocols import Policy
from raft_core.testing import FakePolicy, close
from raft_core.training.optim import Optimizer
from raft_core.training.reference import Follower, Reference
from raft_core.training.trainer import Trainer
from raft_core.types import Pairs, Prompt, Request

PART = Pairs(np.array([0, 1]), np.array([2, 3]), np.ones(2))


class Watching(Dpo):
    """Tells what the reference's likelihoods are at the beginning of each round."""

    def begin(self, policy, samples, selection, carried):
        object.__setattr__(self, "seen", [*getattr(self, "seen", []), policy.nll(samples, None, reference=True)])
        return super().begin(policy, samples, selection, carried)


def trainer(policy, reference):
    made = Trainer(Optimizer(lr=0.1), steps=3, batch_size=2, reference=reference)
    made.attach(policy, seed=1, rounds=6)
    return made


def samples_of(policy):
    return policy.sample([Request(Prompt(f"p{j % 2}"), j, j) for j in range(4)])


@pytest.mark.parametrize(
    ("every", "expected"), [(None, [0] * 6), (1, range(6)), (2, [0, 0, 2, 2, 4, 4]), (4, [0, 0, 0, 0, 4, 4])]
)
def test_the_reference_is_the_policy_of_some_rounds_ago(every, expected):
    policy, objective = FakePolicy(), Watching(beta=0.5)
    made, samples, started = trainer(policy, Reference(every=every)), samples_of(policy), []
    for rnd in range(1, 7):
        with torch.no_grad():
            started.append(policy.nll(samples, None).clone())
        made.fit(policy, objective, samples, PART, rnd)
    assert len({tuple(row.tolist()) for row in started}) == 6
    for found, rnd in zip(objective.seen, expected, strict=True):
        assert found.tolist() == started[rnd].tolist()


def test_a_mixed_reference_is_a_moving_average_that_begins_at_the_start():
    policy, objective = FakePolicy(), Watching(beta=0.5)
    made, samples = trainer(policy, Reference(every=1, mix=0.25)), samples_of(policy)
    average = policy.mean.detach().clone()
    for rnd in range(1, 5):
        if rnd > 1:
            average = torch.lerp(average, policy.mean.detach(), 0.25)
        made.fit(policy, objective, samples, PART, rnd)
        expected = FakePolicy()
        expected.mean.data = average
        close(objective.seen[-1], expected.nll(samples, None))
    assert average.abs().sum() > 0


@pytest.mark.parametrize("reference", [Reference(every=2), Reference(every=1, mix=0.3), Reference(every=3, mix=0.3)])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_has_the_same_reference(reference, stop):
    def fitted(policy, made, samples, rounds):
        for rnd in rounds:
            made.fit(policy, Dpo(beta=0.5), samples, PART, rnd)
        return policy.mean.detach().clone()

    whole = FakePolicy()
    samples = samples_of(whole)
    expected = fitted(whole, trainer(whole, reference), samples, range(1, 6))
    first = FakePolicy()
    made = trainer(first, reference)
    weights, state = fitted(first, made, samples, range(1, stop + 1)), copy.deepcopy(made.state_dict())
    again = FakePolicy()
    resumed = trainer(again, reference)  # attached to the start, as a resumed run is, and then restored
    again.mean.data.copy_(weights)
    resumed.load_state_dict(*state)
    assert fitted(again, resumed, samples, range(stop + 1, 6)).equal(expected)


def test_a_view_of_a_policy_is_that_policy_but_for_its_reference():
    policy = FakePolicy()
    follower, samples = Follower(Reference(every=1), policy.trainable), samples_of(policy)
    assert follower.seen_by(policy) is policy  # it is the frozen start still
    policy.mean.data += 1
    follower.begin(2)
    policy.mean.data += 1
    view = follower.seen_by(policy)
    assert isinstance(view, FakePolicy) and isinstance(view, Policy)
    view.batch_size = 77
    assert policy.batch_size == 77 and view.trainable()["mean"] is policy.mean
    assert view.nll(samples, None).equal(policy.nll(samples, None))
    held = view.nll(samples, None, reference=True)
    assert not held.requires_grad and policy.mean.unique().tolist() == [2.0]
    assert not held.equal(policy.nll(samples, None)) and not held.equal(policy.nll(samples, None, reference=True))
    assert view.step_log_probs(samples, reference=True)[0][:, 0].equal(-held)


def test_the_values_come_back_when_the_reference_fails():
    policy = FakePolicy()
    follower = Follower(Reference(every=1), policy.trainable)
    follower.begin(2)
    policy.mean.data += 1
    with pytest.raises(RuntimeError, match="broken"), follower.applied():
        raise RuntimeError("broken")
    assert policy.mean.unique().tolist() == [1.0] and policy.mean.requires_grad


def test_autocast_keeps_no_cast_of_the_policy_for_the_reference():
    layer = torch.nn.Linear(4, 4, bias=False)
    layer.weight.data.fill_(1.0)
    follower = Follower(Reference(every=1), lambda: dict(layer.named_parameters()))
    follower.begin(2)
    layer.weight.data = torch.full((4, 4), 3.0)
    x = torch.ones(1, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x)[0, 0] == 12  # autocast now keeps a cast of the weight
        with follower.applied():
            assert layer(x)[0, 0] == 4
        out = layer(x)
        assert out[0, 0] == 12
    out.sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"every": 0}, "reference.every is 0"), ({"every": 1, "mix": 0.0}, "reference.mix is 0"), ({"mix": 0.5}, "every is null")],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=message):
        Trainer(reference=Reference(**settings))


def test_a_run_is_not_resumed_with_another_kind_of_reference():
    policy = FakePolicy()
    made, samples = trainer(policy, Reference(every=1)), samples_of(policy)
    for rnd in (1, 2):
        made.fit(policy, Dpo(beta=0.5), samples, PART, rnd)
    with pytest.raises(ModelError, match=r"reference\.every is null"):
        trainer(FakePolicy(), Reference()).load_state_dict(*made.state_dict())
