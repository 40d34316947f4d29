"""RAFT++ and Reinforce-Rej against numbers derived by hand, and in the loop."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raft_core.errors import ConfigError, ModelError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.policy_gradient import PolicyGradient
from raft_core.objectives.raft_plus_plus import RaftPlusPlus
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.all_best import AllBest
from raft_core.selectors.reinforce_rej import ReinforceRej
from raft_core.store.store import Store
from raft_core.testing import FakePolicy, FakeReward, close
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Advantages, Prompt, Request, Sample, Weighted

NAN = math.nan
RECORD = json.loads((Path(__file__).parents[3] / "benchmarks/references/trl.json").read_text())["grpo"]


class Replaying(FakePolicy):
    """Its actions have the log-probs that a test gives: one row per sample, None = no action."""

    def __init__(self, *rows):
        super().__init__()
        width = max(map(len, rows))
        self.given = torch.tensor([[x or 0.0 for x in row] + [0.0] * (width - len(row)) for row in rows], requires_grad=True)
        self.mask = torch.tensor([[x is not None for x in row] + [False] * (width - len(row)) for row in rows])

    def step_log_probs(self, samples, *, reference=False):
        rows = [int(sample.prompt.text) for sample in samples]
        return self.given[rows], self.mask[rows]


def drawn(row: int, *log_probs: float) -> Sample:
    return Sample(Request(Prompt(str(row)), 0, 0), tensors={"step_log_probs": torch.tensor(log_probs)})


def ratios(*values: float) -> list[float]:
    return [math.log(value) for value in values]


# ---------------------------------------------------------------------- objectives


def test_raft_plus_plus_by_hand():
    # Ratios 1.1, 1.5, 0.5 of the first sample, clip 0.2: (1.1 + 1.2 + 0.5)/3 = 2.8/3; its weight is 1. The second has one
    # action, ratio 1, and weight 1/2. The gradient of −s/3 by log π is −s/3 where nothing is clipped, 0 where s > 1.2.
    policy = Replaying(ratios(1.1, 1.5, 0.5), [0.0])
    samples = [drawn(0, 0.0, 0.0, 0.0), drawn(1, 0.0)]
    part = Weighted(np.array([0, 1]), np.array([1.0, 0.5]))
    losses = RaftPlusPlus(average="samples")(policy, samples, part, [0, 1])
    assert losses.tolist() == pytest.approx([-2.8 / 3, -0.5])
    losses.sum().backward()
    assert policy.given.grad is not None
    assert policy.given.grad[0].tolist() == pytest.approx([-1.1 / 3, 0.0, -0.5 / 3])
    assert policy.given.grad[1].tolist() == pytest.approx([-0.5, 0.0, 0.0])
    # Over actions: the first has 2.8 in 3, the second 0.5 in 1, so a batch of both has −3.3/4; over samples −(2.8/3 + 0.5)/2.
    by_actions = RaftPlusPlus()
    assert by_actions(policy, samples, part, [0, 1]).tolist() == pytest.approx([-2.8, -0.5])
    assert by_actions.divisor(samples, part) == 4 and RaftPlusPlus(average="samples").divisor(samples, part) == 2


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (RaftPlusPlus(clip=0.2), -1.2),
        (RaftPlusPlus(clip=0.2, clip_high=0.28), -1.25),
        (RaftPlusPlus(clip=0.1), -1.1),
        (RaftPlusPlus(clip=None), -1.25),
    ],
)
def test_clip_higher_and_no_clip(objective, expected):
    loss = objective(Replaying(ratios(1.25)), [drawn(0, 0.0)], Weighted(np.array([0]), np.ones(1)), [0])
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.0, 1.0, -1.0, -1.0),
        (1.0, -1.0, 1.0, 1.0),
        (1.5, 1.0, -1.2, 0.0),  # it is likelier than the region allows: no further
        (0.5, 1.0, -0.5, -0.5),
        (0.5, -1.0, 0.8, 0.0),  # it is less likely than the region allows: no further
        (1.5, -1.0, 1.5, 1.5),
    ],
)
def test_the_policy_gradient_by_hand(ratio, advantage, loss, gradient):
    policy = Replaying([math.log(ratio) - 3.0])
    losses = PolicyGradient()(policy, [drawn(0, -3.0)], Advantages(np.array([0]), np.array([advantage])), [0])
    losses.sum().backward()
    assert policy.given.grad is not None
    assert losses.item() == pytest.approx(loss) and policy.given.grad.item() == pytest.approx(gradient)


def test_actions_that_do_not_count_change_nothing():
    policy = Replaying([math.log(1.1), None], ratios(1.1))
    samples = [drawn(0, 0.0, -50.0), drawn(1, 0.0)]
    losses = PolicyGradient(average="samples")(policy, samples, Advantages(np.array([0, 1]), np.ones(2)), [0, 0])
    assert losses.tolist() == pytest.approx([-1.1, -1.1])


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_policy_that_has_moved_far_away_still_has_a_gradient_that_is_a_number(advantage):
    policy = Replaying([500.0], [-500.0])
    part = Advantages(np.array([0, 1]), np.full(2, advantage))
    losses = PolicyGradient()(policy, [drawn(0, 0.0), drawn(1, 0.0)], part, [0, 0])
    losses.sum().backward()
    assert policy.given.grad is not None and losses.isfinite().all() and policy.given.grad.isfinite().all()


def test_in_a_rounds_first_step_the_gradient_is_that_of_the_likelihood():
    policy = FakePolicy()
    samples = policy.sample([Request(Prompt("p"), j, j) for j in range(3)], trace=True)
    grads = []
    for objective in (Sft(), RaftPlusPlus()):  # a fake sample has one action
        policy.mean.grad = None
        objective(policy, samples, Weighted(np.arange(3), np.ones(3)), [0, 1, 2]).sum().backward()
        assert policy.mean.grad is not None
        grads.append(policy.mean.grad.clone())
    close(*grads)
    assert grads[0].abs().sum() > 0


def test_samples_without_a_trace_are_refused():
    policy = FakePolicy()
    samples = policy.sample([Request(Prompt("p"), 0, 0)])
    with pytest.raises(ModelError, match=r"sample\(trace=True\)"):
        RaftPlusPlus()(policy, samples, Weighted(np.array([0]), np.ones(1)), [0])


@pytest.mark.parametrize("objective", [RaftPlusPlus, PolicyGradient])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip": 0.0}, "clip is 0"),
        ({"clip_high": -1.0}, "clip_high is -1"),
        ({"clip": None, "clip_high": 0.3}, "clip is null"),
        ({"average": "tokens"}, "average is 'tokens'"),
        ({"replay_tolerance": 0.0}, "replay_tolerance is 0"),
    ],
)
def test_widths_that_are_none(objective, arguments, message):
    with pytest.raises(ConfigError, match=message):
        objective(**arguments)


class Long(FakePolicy):
    """A sample repeats its one action as often as its prompt's text says."""

    def step_log_probs(self, samples, *, reference=False):
        one, _ = super().step_log_probs(samples, reference=reference)
        lengths = torch.tensor([int(sample.prompt.text) for sample in samples])
        return one.expand(-1, int(lengths.max())), torch.arange(int(lengths.max())) < lengths[:, None]

    def _traced(self, samples, reference):
        kept = zip(super()._traced(samples, reference), *self.step_log_probs(samples), strict=True)
        return [replace(s, tensors={**s.tensors, "step_log_probs": row[m].detach(), "step_mask": m[m]}) for s, row, m in kept]


def stepped(objective, part, **trainer):
    """Samples, the gradient of one step on all of them, as AdamW's first moment keeps it, and the step's figures."""
    policy = Long()
    samples = policy.sample([Request(Prompt(str(n)), 0, n) for n in (1, 2, 4, 9)], trace=True)
    made = Trainer(Optimizer(betas=(0.9, 0.99)), steps=1, batch_size=4, max_grad_norm=None, **trainer)
    made.attach(policy, seed=1, rounds=1)
    figures = made.fit(policy, objective, samples, part, 1)
    return samples, made.state_dict()[0]["optimizer/mean/exp_avg"] / (1 - 0.9), figures


@pytest.mark.parametrize(
    ("objective", "part"),
    [
        (RaftPlusPlus, Weighted(np.arange(4), np.ones(4))),
        (PolicyGradient, Advantages(np.arange(4), np.array([1.0, -1.0, 1.0, -1.0]))),
    ],
)
@pytest.mark.parametrize("average", ["actions", "samples"])
def test_a_batch_is_averaged_over_its_actions_or_its_samples_however_it_is_cut(objective, part, average):
    samples, found, figures = stepped(objective(average=average), part)
    lengths = torch.tensor([1.0, 2, 4, 9])
    signs = torch.as_tensor(getattr(part, "weight", None) if objective is RaftPlusPlus else part.advantage).float()
    factors = signs * (lengths / lengths.sum() if average == "actions" else 0.25)  # of each sample in the batch's loss, s = 1
    assert figures["train/loss"] == pytest.approx(float(-factors.sum()), rel=1e-4)
    start = Long()
    losses = -(factors * start.step_log_probs(samples)[0][:, 0]).sum()
    (gradient,) = torch.autograd.grad(losses, [start.mean])
    close(found, gradient)
    assert gradient.abs().max() > 0.01
    close(found, stepped(objective(average=average), part, micro_batch_size=1)[1])


class Referred(Replaying):
    """With log-probs of the reference, too."""

    def __init__(self, own, reference):
        super().__init__(*own)
        self.start = Replaying(*reference).given.detach()

    def step_log_probs(self, samples, *, reference=False):
        found, mask = super().step_log_probs(samples)
        return (self.start[[int(sample.prompt.text) for sample in samples]] if reference else found), mask


@pytest.mark.parametrize("case", RECORD["cases"], ids=lambda case: "-".join(str(case[key]) for key in case if key != "value"))
def test_the_settings_of_grpo_dapo_dr_grpo_and_gspo_as_trl_computes_them(case):
    policy = Referred(RECORD["policy"], RECORD["reference"])
    samples = [drawn(i, *row) for i, row in enumerate(RECORD["old"])]
    part = Advantages(np.arange(len(samples)), np.array(RECORD["advantages"]))
    objective = PolicyGradient(
        clip=case.get("low", 0.2),
        clip_high=case.get("high"),
        average={"grpo": "samples", "dapo": "actions", "dr_grpo": "constant"}[case["loss"]],
        length=case.get("length"),
        ratio="sequence" if case.get("level") == "sequence" else "action",
        beta=case.get("beta", 0.0),
    )
    losses = objective(policy, samples, part, [0] * len(samples))
    assert losses.sum().item() / objective.divisor(samples, part) == pytest.approx(case["value"], rel=2e-6, abs=2e-7)


def test_k1_is_taken_off_the_advantage_of_each_action():
    # Drawn at (−1, −2), the reference has (−3, −2): k1 is (2, 0), so A = 1 − 0.25·(2, 0) = (0.5, 1) and, with ratios of 1, the
    # loss −(0.5 + 1), of whose gradient each action has its own part.
    policy = Referred([[-1.0, -2.0]], [[-3.0, -2.0]])
    objective = PolicyGradient(beta=0.25, kl="k1")
    losses = objective(policy, [drawn(0, -1.0, -2.0)], Advantages(np.array([0]), np.ones(1)), [0])
    losses.sum().backward()
    assert policy.given.grad is not None
    assert losses.tolist() == [-1.5] and policy.given.grad.tolist() == [[-0.5, -1.0]]


def test_k3_is_in_the_loss_and_pulls_towards_the_reference():
    # d = log π_ref − log π = −ln 2: k3 = ½ + ln 2 − 1 = 0.1931, and its slope by log π is 1 − e^d = ½.
    policy = Referred([[0.0]], [[-math.log(2)]])
    losses = PolicyGradient(beta=2.0)(policy, [drawn(0, 0.0)], Advantages(np.array([0]), np.zeros(1)), [0])
    losses.sum().backward()
    assert policy.given.grad is not None
    assert losses.item() == pytest.approx(2 * (math.log(2) - 0.5), rel=1e-5) and policy.given.grad.item() == pytest.approx(1.0)


class Stepping(Referred):
    """Its actions are steps of 4 numbers, replayed apart; it remembers which were asked for."""

    def __init__(self, own, reference):
        super().__init__(own, reference)
        self.asked = []

    def step_log_probs(self, samples, *, reference=False, steps=None):
        self.asked.append(steps)
        found, mask = super().step_log_probs(samples, reference=reference)
        return (found, mask) if steps is None else (found[:, steps], mask[:, steps])

    def step_elements(self, samples):
        return 4


@pytest.mark.parametrize("average", ["actions", "samples"])
@pytest.mark.parametrize("settings", [{}, {"ratio": "element", "beta": 0.1}, {"beta": 0.2, "kl": "k1"}])
def test_steps_are_replayed_one_by_one_and_add_up_to_the_whole(average, settings):
    own, reference = [[-1.0, -2.0, -1.5], [-2.0, -0.5, None]], [[-1.5, -2.5, -1.0], [-2.0, -1.0, 0.0]]
    samples = [
        replace(sample, tensors={**sample.tensors, "step_mask": torch.tensor(mask)})
        for sample, mask in (
            (drawn(0, -1.01, -1.99, -1.5), [True, True, True]),
            (drawn(1, -2.0, -0.51, 0.0), [True, True, False]),
        )
    ]
    part, objective = Advantages(np.arange(2), np.array([1.0, -0.5])), PolicyGradient(average=average, **settings)
    whole, apart = Stepping(own, reference), Stepping(own, reference)
    expected = objective(whole, samples, part, [0, 1])
    expected.sum().backward()
    rnd = objective.begin(apart, samples, part, {})
    losses = []
    for one in rnd.passes(apart, samples, part):
        losses.append(one(apart, samples, part, [0, 1]))
        losses[-1].sum().backward()  # before the next is computed
    assert len(losses) == 3 and [steps for steps in apart.asked if steps is not None] == apart.asked
    close(sum(losses), expected)
    assert apart.given.grad is not None and whole.given.grad is not None
    close(apart.given.grad, whole.given.grad)
    assert rnd.divisor(samples, part) == objective.divisor(samples, part) == (5 if average == "actions" else 2)
    assert rnd.figures()["policy/replay_error"] == pytest.approx(0.03 / 5, rel=1e-3)


def test_a_whole_samples_ratio_is_replayed_at_once():
    policy = Stepping([[-1.0, -2.0]], [[-1.0, -2.0]])
    rnd = PolicyGradient(ratio="sequence").begin(policy, [], Advantages(np.array([0]), np.ones(1)), {})
    assert len(rnd.passes(policy, [drawn(0, -1.0, -2.0)], Advantages(np.array([0]), np.ones(1)))) == 1


def test_the_ratio_of_an_element_is_that_of_the_mean_log_prob():
    # The log-prob of an action of 4 numbers has risen by 0.4: the ratio of the action is e^0.4 and is clipped, that of an
    # element e^0.1 and is not.
    policy, samples = Stepping([[-1.0]], [[-1.0]]), [drawn(0, -1.4)]
    part = Advantages(np.array([0]), np.ones(1))
    assert PolicyGradient()(policy, samples, part, [0]).item() == pytest.approx(-1.2)
    assert PolicyGradient(ratio="element")(policy, samples, part, [0]).item() == pytest.approx(-math.exp(0.1))


def test_what_a_policy_cannot_do_is_told_before_it_is_loaded():
    (mistake,) = PolicyGradient(ratio="element").suits(FakePolicy())
    assert "objective.ratio is 'element'" in mistake
    (mistake,) = PolicyGradient(beta=0.1, kl="prediction").suits(FakePolicy())
    assert "objective.kl is 'prediction'" in mistake
    assert PolicyGradient(beta=0.1).suits(FakePolicy()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"average": "constant"}, "objective.length is None"),
        ({"length": 8}, "only average 'constant'"),
        ({"ratio": "token"}, "ratio is 'token'"),
        ({"beta": -1.0}, "beta is -1"),
        ({"kl": "k2"}, "kl is 'k2'"),
    ],
)
def test_settings_of_the_policy_gradient_that_make_no_sense(arguments, message):
    with pytest.raises(ConfigError, match=message):
        PolicyGradient(**arguments)


# ---------------------------------------------------------------------- the replay before the first update


def test_a_policy_that_did_not_draw_the_samples_is_stopped_before_it_is_trained():
    class Guided(FakePolicy):
        def describe(self):
            return {"sampling": {"guidance_scale": 3.0, "steps": 9}}

    policy = Guided()
    samples = policy.sample([Request(Prompt("p"), j, j) for j in range(4)], trace=True)
    samples = [replace(sample, meta={"steps": 9, "guidance_scale": 7.5}) for sample in samples]
    trainer = Trainer(Optimizer(lr=0.1), steps=3, batch_size=4)
    trainer.attach(policy, seed=1, rounds=1)
    part = Advantages(np.arange(4), np.array([1.0, -1.0, 1.0, -1.0]))
    figures = trainer.fit(policy, PolicyGradient(), samples, part, 1)
    assert figures["policy/replay_error"] < 1e-6  # later steps have moved, and are not what is checked
    before = policy.mean.detach().clone()
    with pytest.raises(ModelError, match=r"not the one that drew.*guidance_scale: 7\.5 when drawn, 3\.0 now") as told:
        trainer.fit(policy, PolicyGradient(), samples, part, 2)
    assert "steps" not in str(told.value).split("differs in")[1] and policy.mean.equal(before)


@pytest.mark.parametrize(
    ("off", "settings", "stops"), [(0.04, {}, False), (0.06, {}, True), (0.06, {"replay_tolerance": 0.1}, False)]
)
@pytest.mark.parametrize(
    ("objective", "part"),
    [(PolicyGradient, Advantages(np.array([0]), np.ones(1))), (RaftPlusPlus, Weighted(np.array([0]), np.ones(1)))],
)
def test_the_tolerance_of_a_replay(objective, part, off, settings, stops):
    policy = Replaying([-1.0, -1.0])
    samples = [drawn(0, -1.0 - off, -1.0 + off)]
    rnd = objective(**settings).begin(policy, samples, part, {})
    if stops:
        with pytest.raises(ModelError, match="allowed for rounding"):
            rnd(policy, samples, part, [0])
    else:
        rnd(policy, samples, part, [0])
        rnd(policy, [drawn(0, -9.0, -9.0)], part, [0])  # past an update
    assert rnd.figures()["policy/replay_error"] == pytest.approx(off, rel=1e-4)


# ---------------------------------------------------------------------- selectors


def test_all_best_by_hand():
    scores = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, NAN], [NAN, NAN, NAN], [0.0, NAN, 1.0]])
    assert AllBest()(scores).index.tolist() == [0, 2, 3, 4, 11]
    assert AllBest(least=1.0)(scores).index.tolist() == [0, 2, 11]


def test_reinforce_rej_by_hand():
    # Mixed; all right; all wrong (0.1 is a wrong answer that could be read); one right and one not scored; mixed with a gap.
    scores = np.array([[1.0, 0.1, 0.0], [1.0, 1.0, 1.0], [0.0, 0.1, 0.0], [1.0, NAN, NAN], [NAN, 0.0, 1.0]])
    selection = ReinforceRej()(scores)
    assert selection.index.tolist() == [0, 1, 2, 13, 14]
    assert selection.advantage.tolist() == [1.0, -1.0, -1.0, -1.0, 1.0]
    assert ReinforceRej(right=0.1)(scores).index.tolist() == [0, 1, 2, 6, 7, 8, 13, 14]


shapes = st.tuples(st.integers(0, 5), st.integers(1, 5))
tables = shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.1, 1.0, NAN])))


@given(scores=tables, data=st.data())
@settings(max_examples=80, deadline=None)
def test_reinforce_rej_keeps_prompts_whole_and_is_blind_to_order(scores, data):
    k = scores.shape[1]
    before = scores.copy()
    selection = ReinforceRej()(scores)
    np.testing.assert_array_equal(scores, before)
    assert selection.index.dtype == np.int64 and selection.advantage.dtype == np.float64
    for prompt in {int(i) // k for i in selection.index}:
        mine = selection.advantage[selection.index // k == prompt]
        assert set(mine) == {1.0, -1.0} and len(mine) == (~np.isnan(scores[prompt])).sum()
    order = data.draw(st.permutations(range(k)))
    permuted = ReinforceRej()(scores[:, order])
    found = {(int(i) // k, order[int(i) % k]): a for i, a in zip(permuted.index, permuted.advantage, strict=True)}
    assert found == {(int(i) // k, int(i) % k): a for i, a in zip(selection.index, selection.advantage, strict=True)}


def test_a_threshold_must_be_a_score():
    with pytest.raises(ConfigError, match="right is nan"):
        ReinforceRej(right=NAN)


# ---------------------------------------------------------------------- the loop


class Positive(FakeReward):
    """1 where the mean of x is positive, else 0."""

    def __call__(self, samples):
        return (super().__call__(samples) > 0).astype(float)


@pytest.mark.parametrize(
    ("selector", "objective"),
    [(AllBest(least=1.0), RaftPlusPlus(clip_high=0.28)), (ReinforceRej(), PolicyGradient())],
    ids=["RAFT++", "Reinforce-Rej"],
)
def test_the_reward_rises_and_steps_stay_within_the_region(selector, objective, tmp_path):
    policy, prompts = FakePolicy(), [Prompt(f"prompt {i}") for i in range(4)]
    trainer = Trainer(Optimizer(lr=0.1, weight_decay=0.0), steps=10)
    trainer.attach(policy, seed=1, rounds=6)
    with Store.create(tmp_path / "run", {"seed": 1}, 1) as store:
        align(
            policy,
            PromptSet(prompts, [], per_round=4, seed=1),
            Scorer(Positive()),
            selector,
            objective,
            trainer,
            store,
            Monitor(),
            rounds=6,
            k=8,
        )
        means = [row["reward/mean"] for row in store.history()]
    assert means[0] < 0.75 and means[-1] > 0.9
