"""The trainer: what a batch is, what a step is, and that neither depends on how it was computed."""

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from raft_core.errors import ConfigError, DeviceError, ModelError, NotFiniteError
from raft_core.objectives.sft import Sft
from raft_core.reporter import Silent
from raft_core.rng import seed_for, torch_rng
from raft_core.testing import FakePolicy, close
from raft_core.training.ema import Ema
from raft_core.training.optim import Optimizer, Schedule
from raft_core.training.trainer import MAX_SKIPPED_IN_A_ROW, Trainer, batches
from raft_core.types import Prompt, Request, Sample, Weighted


class Noisy(FakePolicy):
    """A policy whose likelihood has a draw, as a diffusion model's has: noise added to x."""

    def draw(self, samples, seeds):
        return torch.stack([torch.randn(self.mean.shape[1], generator=torch_rng(seed)) for seed in seeds])

    def nll(self, samples, draw, *, reference=False):
        error = torch.stack([s.tensors["x"] for s in samples]) + draw - self._means(samples, 0.0 if reference else 1.0)
        return (error**2).sum(dim=1) / 2


class Heard(Silent):
    def __init__(self):
        self.warnings: list[str] = []
        self.phases: list[tuple[str, int]] = []
        self.advanced = 0

    def phase(self, name, total):
        self.phases.append((name, total))
        return super().phase(name, total)

    def advance(self, n=1):
        self.advanced += n

    def warn(self, text):
        self.warnings.append(text)


def some_samples(n: int = 5) -> list[Sample]:
    rng = torch_rng(seed_for("samples"))
    return [Sample(Request(Prompt(f"p{i}"), 0, i), tensors={"x": torch.randn(2, generator=rng) + 1}) for i in range(n)]


def everything(samples: list[Sample], weight: float = 1.0) -> Weighted:
    return Weighted(np.arange(len(samples)), np.full(len(samples), weight))


def trained(trainer: Trainer, policy=None, rounds: int = 1, samples=None, selection=None, objective=None, reporter=None):
    policy = policy or Noisy()
    samples = samples or some_samples()
    trainer.attach(policy, seed=3, rounds=rounds, reporter=reporter)
    metrics = {}
    for rnd in range(1, rounds + 1):
        metrics = trainer.fit(policy, objective or Sft(), samples, everything(samples) if selection is None else selection, rnd)
    return policy, metrics


# --- the stream of items


def test_batches_are_passes_cut_evenly():
    stream = list(batches(5, 3, 5, seed=0, rnd=1))
    assert [len(batch) for batch in stream] == [3] * 5
    flat = np.concatenate(stream)
    assert all(sorted(flat[i : i + 5]) == [0, 1, 2, 3, 4] for i in (0, 5, 10))
    assert not np.array_equal(flat[:5], flat[5:10])  # each pass is shuffled anew


def test_batches_depend_on_seed_and_round_alone():
    same = [np.concatenate(list(batches(9, 4, 3, seed=0, rnd=1))) for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], np.concatenate(list(batches(9, 4, 3, seed=1, rnd=1))))
    assert not np.array_equal(same[0], np.concatenate(list(batches(9, 4, 3, seed=0, rnd=2))))
    longer = np.concatenate(list(batches(9, 4, 5, seed=0, rnd=1)))
    assert np.array_equal(longer[:12], same[0])


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 2), ({"epochs": 3}, 4), ({"steps": 7}, 7), ({"batch_size": 8}, 1), ({"batch_size": 8, "epochs": 2}, 2)],
)
def test_steps_of_a_round(settings, steps):
    heard = Heard()
    _, metrics = trained(Trainer(**{"batch_size": 4, **settings}), reporter=heard)
    assert metrics["train/steps"] == steps
    assert heard.phases == [("training", steps)]
    assert heard.advanced == steps


def test_a_batch_larger_than_the_selection_repeats_items_with_fresh_noise():
    class Recording(Noisy):
        seeds: tuple = ()

        def draw(self, samples, seeds):
            self.seeds += tuple(seeds)
            return super().draw(samples, seeds)

    policy = Recording()
    trained(Trainer(batch_size=12, steps=2), policy)
    assert len(policy.seeds) == len(set(policy.seeds)) == 24
    assert policy.seeds[:3] == tuple(seed_for(3, "train", 1, 0, position) for position in range(3))


# --- the step


def test_a_step_by_hand():
    """AdamW's first step moves each weight by lr · g/(|g| + ε) whatever the gradient's size; here also towards x."""
    sample = Sample(Request(Prompt("p"), 0, 0), tensors={"x": torch.tensor([2.0, -1.0])})
    trainer = Trainer(Optimizer(lr=0.5, weight_decay=0.0), batch_size=2, steps=1, max_grad_norm=None)
    policy, metrics = trained(trainer, FakePolicy(buckets=1), samples=[sample])
    torch.testing.assert_close(policy.mean.detach(), torch.tensor([[0.5, -0.5]]))
    # nll = (4 + 1)/2, the same item twice in the batch; gradient of the mean = −x, norm √5.
    assert metrics == {
        "train/steps": 1,
        "train/skipped_steps": 0,
        "train/loss": pytest.approx(2.5),
        "train/loss_first": pytest.approx(2.5),
        "train/loss_last": pytest.approx(2.5),
        "train/grad_norm": pytest.approx(5**0.5),
        "train/lr": 0.5,
    }


def test_the_loss_divides_by_the_batch_and_not_by_the_weights():
    samples = some_samples(4)
    _, plain = trained(Trainer(batch_size=4, steps=1), FakePolicy(), samples=samples)
    _, half = trained(Trainer(batch_size=4, steps=1), FakePolicy(), samples=samples, selection=everything(samples, 0.5))
    assert half["train/loss"] == pytest.approx(plain["train/loss"] / 2)
    assert half["train/grad_norm"] == pytest.approx(plain["train/grad_norm"] / 2)


@pytest.mark.parametrize("micro", [1, 2, 3, 8])
def test_accumulation_makes_the_same_step(micro):
    settings = {"batch_size": 8, "steps": 4, "max_grad_norm": 0.5}
    whole, metrics = trained(Trainer(Optimizer(lr=0.1), **settings), rounds=2)
    cut, cut_metrics = trained(Trainer(Optimizer(lr=0.1), micro_batch_size=micro, **settings), rounds=2)
    close(cut.mean, whole.mean)
    assert cut_metrics == pytest.approx(metrics, rel=1e-5)


def test_clipping_is_of_the_whole_batch():
    reaching = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: reaching.append(optimizer.param_groups[0]["params"][0].grad.norm())
    )
    _, metrics = trained(Trainer(batch_size=8, micro_batch_size=1, steps=1, max_grad_norm=0.25))
    handle.remove()
    assert metrics["train/grad_norm"] > 0.25
    assert [float(norm) for norm in reaching] == [pytest.approx(0.25, rel=1e-4)]


def test_global_randomness_is_given_back_and_fixed_inside():
    class Dropout(FakePolicy):
        def nll(self, samples, draw, *, reference=False):
            return torch.nn.functional.dropout(super().nll(samples, draw, reference=reference), 0.5)

    results = []
    for outside in (0, 1):
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        results.append(trained(Trainer(steps=3), Dropout())[0].mean.detach())
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)


# --- schedule


def test_schedule_by_hand():
    assert [Schedule("constant", 4).factor(step, 0.5) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert Schedule("linear").factor(10, 0.25) == 0.75
    assert Schedule("cosine").factor(10, 0.25) == pytest.approx(0.853553, abs=1e-6)
    assert Schedule("cosine").factor(0, 0.0) == 1.0 and Schedule("linear").factor(9, 1.2) == 0.0


def test_the_schedule_runs_over_all_rounds():
    rates = []
    trainer = Trainer(Optimizer(lr=1.0), Schedule("linear"), steps=2)
    policy = Noisy()
    trainer.attach(policy, seed=0, rounds=4)
    samples = some_samples()
    for rnd in range(1, 5):
        rates.append(trainer.fit(policy, Sft(), samples, everything(samples), rnd)["train/lr"])
    assert rates == pytest.approx([7 / 8, 5 / 8, 3 / 8, 1 / 8])


# --- what goes wrong


def test_nothing_selected_trains_nothing():
    heard = Heard()
    policy, metrics = trained(Trainer(), selection=Weighted(np.empty(0, int), np.empty(0)), reporter=heard)
    assert metrics == {"train/steps": 0, "train/skipped_steps": 0}
    assert (policy.mean == 0).all()
    assert "empty" in heard.warnings[0]


class Failing(Sft):
    """Gives NaN, or an infinite gradient, in the calls listed."""

    def __init__(self, calls, how="nan"):
        self.__dict__.update(calls=calls, how=how, count=0)

    def __call__(self, *args):
        losses = super().__call__(*args)
        self.__dict__["count"] += 1
        if self.count in self.calls:
            return losses * float("nan") if self.how == "nan" else (losses * 0).sqrt().repeat(1)
        return losses


@pytest.mark.parametrize("how", ["nan", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(how):
    heard = Heard()
    policy, metrics = trained(Trainer(steps=6), objective=Failing({2, 3}, how), reporter=heard)
    assert metrics["train/steps"] == 4 and metrics["train/skipped_steps"] == 2
    assert all(np.isfinite(value) for value in metrics.values())
    assert torch.isfinite(policy.mean).all()
    assert len(heard.warnings) == 1 and "step 2" in heard.warnings[0]


def test_many_in_a_row_stop_the_run():
    with pytest.raises(NotFiniteError, match=r"round 1, step 7.*lower trainer\.optimizer\.lr"):
        trained(Trainer(steps=20), objective=Failing(range(3, 3 + MAX_SKIPPED_IN_A_ROW)))


def test_many_in_a_row_are_counted_over_rounds_and_over_a_resume():
    with pytest.raises(NotFiniteError, match=r"round 3, step 1.*as in the 4 steps before"):
        trained(Trainer(steps=2), rounds=3, objective=Failing(range(1, 9)))
    trainer, samples = Trainer(steps=4), some_samples()
    trainer.attach(Noisy(), 3, 2)
    trainer.fit(Noisy(), Failing(range(1, 5)), samples, everything(samples), 1)
    resumed = Trainer(steps=4)
    resumed.attach(Noisy(), 3, 2)
    resumed.load_state_dict(*trainer.state_dict())
    with pytest.raises(NotFiniteError, match="round 2, step 1"):
        resumed.fit(Noisy(), Failing(range(1, 5)), samples, everything(samples), 2)


def test_a_step_that_is_taken_begins_the_count_anew():
    _, metrics = trained(Trainer(steps=5), rounds=2, objective=Failing({2, 3, 4, 5, 7, 8, 9, 10}))
    assert metrics["train/skipped_steps"] == 4 and metrics["train/steps"] == 1


class OneFails(Sft):
    """Gives NaN for one sample, and passes it on to every gradient that it is part of."""

    def __call__(self, policy, samples, part, seeds):
        losses = super().__call__(policy, samples, part, seeds)
        return losses * torch.where(torch.tensor(part.index == 1), float("nan"), 1.0)


@pytest.mark.parametrize("micro_batch_size", [1, 3, None])
def test_an_item_whose_loss_is_not_finite_is_left_out_of_its_step(micro_batch_size):
    """The others' losses are divided by the batch size as ever: the same as if its weight were 0."""
    samples, heard = some_samples(), Heard()
    settings = {"batch_size": 5, "steps": 3, "micro_batch_size": micro_batch_size}
    policy, metrics = trained(Trainer(Optimizer(lr=0.1), **settings), samples=samples, objective=OneFails(), reporter=heard)
    weights = np.array([1.0, 0.0, 1.0, 1.0, 1.0])
    expected, others = trained(
        Trainer(Optimizer(lr=0.1), **settings), samples=samples, selection=Weighted(np.arange(5), weights)
    )
    torch.testing.assert_close(policy.mean, expected.mean)
    assert metrics == pytest.approx(others | {"train/failed_items": 3})
    assert len(heard.warnings) == 1 and "step 1: the loss of 1 of 5 items is not finite" in heard.warnings[0]


class Small(Noisy):
    """Memory for so many samples; runs out in the forward or, with the gradient half accumulated, in the backward pass."""

    def __init__(self, fits: int, where: str = "forward"):
        super().__init__()
        self.fits, self.where = fits, where

    def nll(self, samples, draw, *, reference=False):
        if len(samples) > self.fits and self.where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        values = super().nll(samples, draw, reference=reference)
        if len(samples) > self.fits:
            # The graph's first half has been accumulated when this hook runs.
            held = values.detach().clone().requires_grad_()
            held.register_hook(self._run_out)
            return torch.cat([values[:1], (values[1:] * (held[1:] / held[1:].detach()))])
        return values

    @staticmethod
    def _run_out(_):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 2 GiB)")


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_out_of_memory_halves_micro_batches_and_changes_nothing_else(where):
    heard = Heard()
    small, metrics = trained(Trainer(batch_size=8, steps=3), Small(2, where), reporter=heard)
    whole, whole_metrics = trained(Trainer(batch_size=8, steps=3))
    close(small.mean, whole.mean)
    assert metrics == pytest.approx(whole_metrics, rel=1e-5)
    assert [w.rpartition(" ")[2] for w in heard.warnings] == ["4", "2"]  # once each: it stays halved
    assert all("out of memory" in w for w in heard.warnings)


def test_out_of_memory_for_a_single_item_is_said_with_the_remedy():
    with pytest.raises(DeviceError, match="gradient checkpointing"):
        trained(Trainer(batch_size=4), Small(0))


def test_an_objective_without_a_loss_per_item_is_refused():
    class Mean(Sft):
        def __call__(self, *args):
            return super().__call__(*args).mean()

    with pytest.raises(ModelError, match=r"returned shape \(\) for 8 items"):
        trained(Trainer(), objective=Mean())


def test_other_errors_pass():
    class Broken(FakePolicy):
        def nll(self, *args, **kwargs):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        trained(Trainer(), Broken())


# --- settings


def test_all_mistakes_at_once():
    with pytest.raises(ConfigError) as caught:
        Trainer(
            Optimizer(lr=0, betas=(0.9, 1.0)),
            Schedule(warmup_steps=-1),
            batch_size=0,
            micro_batch_size=0,
            steps=3,
            epochs=1,
            max_grad_norm=0,
            ema_decay=1.0,
        )
    assert len(caught.value.mistakes) == 8
    assert "give one of the two" in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what only a GPU has")
def test_what_this_machine_cannot_do(monkeypatch):
    monkeypatch.setattr("raft_core.machine.devices._cpu_has_bf16", lambda: False)
    assert Trainer().check() == []
    assert "emulates" in Trainer(mixed_precision="bf16").check()[0]
    assert "fp16" in Trainer(mixed_precision="fp16").check()[0]
    assert "CUDA" in Trainer(Optimizer("adamw8bit")).check()[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda p: p.requires_grad_(False), "frozen"), (lambda p: torch.nn.Parameter(p.data.bfloat16()), "float32")],
)
def test_what_cannot_be_trained(change, message):
    policy = FakePolicy()
    policy.mean = change(policy.mean)
    with pytest.raises(ModelError, match=message):
        Trainer().attach(policy, 0, 1)


def test_nothing_to_train():
    class Frozen(FakePolicy):
        def trainable(self):
            return {}

    with pytest.raises(ModelError, match="no trainable"):
        Trainer().attach(Frozen(), 0, 1)


# --- moving average and state


def test_ema_by_hand():
    weight = torch.nn.Parameter(torch.tensor([0.0]))
    ema = Ema(0.9, {"w": weight})
    weight.data.fill_(1.0)
    ema.update()  # decay min(0.9, 1/10): 0.1·0 + 0.9·1
    assert ema.shadow["w"].item() == pytest.approx(0.9)
    weight.data.fill_(3.0)
    ema.update()  # decay min(0.9, 2/11): (2·0.9 + 9·3)/11
    assert ema.shadow["w"].item() == pytest.approx((1.8 + 27) / 11)
    with ema.applied():
        assert weight.item() == pytest.approx((1.8 + 27) / 11)
    assert weight.item() == 3.0


def test_averaged_weights_are_lent_and_given_back_even_after_an_error():
    trainer = Trainer(Optimizer(lr=0.1), steps=20, ema_decay=0.9)
    policy, _ = trained(trainer)
    last = policy.mean.detach().clone()
    with pytest.raises(KeyError), trainer.averaged():
        assert not torch.equal(policy.mean, last)
        raise KeyError
    assert torch.equal(policy.mean, last)


def test_without_an_average_the_weights_are_themselves():
    trainer = Trainer()
    policy, _ = trained(trainer)
    last = policy.mean.detach().clone()
    with trainer.averaged():
        assert torch.equal(policy.mean, last)


FULL = {"optimizer": Optimizer(lr=0.05), "schedule": Schedule("cosine", 5), "steps": 4, "ema_decay": 0.9}


def test_resumed_is_uninterrupted_to_the_bit(tmp_path):
    import json

    from safetensors.torch import load_file, save_file

    whole = Trainer(**FULL)
    policy, metrics = trained(whole, rounds=3)

    first, first_trainer = Noisy(), Trainer(**FULL)
    samples = some_samples()
    first_trainer.attach(first, 3, 3)
    first_trainer.fit(first, Sft(), samples, everything(samples), 1)
    tensors, plain = first_trainer.state_dict()
    save_file(tensors, tmp_path / "trainer.safetensors")
    plain = json.loads(json.dumps(plain))

    second, second_trainer = Noisy(), Trainer(**FULL)
    second.mean.data.copy_(first.mean.data)
    second_trainer.attach(second, 3, 3)
    second_trainer.load_state_dict(load_file(tmp_path / "trainer.safetensors"), plain)
    second_trainer.fit(second, Sft(), samples, everything(samples), 2)
    assert second_trainer.fit(second, Sft(), samples, everything(samples), 3) == metrics
    assert torch.equal(second.mean, policy.mean)
    ours, theirs = second_trainer.state_dict(), whole.state_dict()
    assert ours[1] == theirs[1] and ours[0].keys() == theirs[0].keys()
    assert all(torch.equal(ours[0][name], theirs[0][name]) for name in ours[0])
    with second_trainer.averaged(), whole.averaged():
        assert torch.equal(second.mean, policy.mean)


def test_a_state_is_a_copy():
    trainer = Trainer(steps=2, ema_decay=0.5)
    policy, _ = trained(trainer)
    tensors, _ = trainer.state_dict()
    before = {name: value.clone() for name, value in tensors.items()}
    trainer.fit(policy, Sft(), some_samples(), everything(some_samples()), 2)
    assert all(torch.equal(tensors[name], before[name]) for name in tensors)


def test_halved_micro_batches_stay_halved_after_a_resume():
    trainer = Trainer(batch_size=8, steps=1)
    trained(trainer, Small(2))
    tensors, plain = trainer.state_dict()
    other, heard = Trainer(batch_size=8, steps=1), Heard()
    other.attach(Small(2), 3, 2, heard)
    other.load_state_dict(tensors, plain)
    other.fit(Small(2), Sft(), some_samples(), everything(some_samples()), 2)
    assert heard.warnings == []


def test_a_state_of_something_else_is_refused():
    trainer = Trainer(steps=1)
    trained(trainer)
    tensors, plain = trainer.state_dict()
    with pytest.raises(ModelError, match="'other'"):
        trainer.load_state_dict({"optimizer/other/exp_avg": torch.zeros(1)}, plain)
    averaging = Trainer(ema_decay=0.9)
    averaging.attach(Noisy(), 3, 1)
    with pytest.raises(ModelError, match=r"ema_decay is 0\.9"):
        averaging.load_state_dict(tensors, plain)


def test_fp16_lowers_its_loss_scale_without_a_word():
    """At the initial scale of 65,536 a weight of 8 in a batch of 8 overflows half precision: a skipped step, but no fault."""
    heard = Heard()
    trainer = Trainer(Optimizer(lr=0.1), steps=20, mixed_precision="fp16")

    class Half(FakePolicy):
        def nll(self, samples, draw, *, reference=False):
            return super().nll(samples, draw, reference=reference).half()

    policy, metrics = trained(trainer, Half(), selection=everything(some_samples(), 8.0), reporter=heard)
    assert 0 < metrics["train/skipped_steps"] < 20 and metrics["train/skipped_steps"] + metrics["train/steps"] == 20
    assert metrics["train/loss_last"] < metrics["train/loss_first"]
    assert metrics["train/grad_norm"] < 20  # of the unscaled gradient
    assert heard.warnings == []
    plain = trainer.state_dict()[1]
    again = Trainer(steps=1, mixed_precision="fp16")
    again.attach(policy, 3, 2)
    again.load_state_dict(*trainer.state_dict())
    assert again.state_dict()[1] == plain and plain["scaler"]["scale"] < 65536


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(precision):
    policy = Noisy()
    policy.mean.data = policy.mean.data.cuda()
    policy._start = policy._start.cuda()
    samples = [Sample(s.request, tensors={"x": s.tensors["x"].cuda()}) for s in some_samples()]
    policy.draw = lambda samples, _: torch.zeros(len(samples), 2, device="cuda")
    _, metrics = trained(Trainer(Optimizer(lr=0.1), steps=20, mixed_precision=precision), policy, samples=samples)
    assert metrics["train/loss_last"] < metrics["train/loss_first"]
