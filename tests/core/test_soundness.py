"""A sample that is not finite has failed: it is neither rendered nor scored, selected, measured or trained on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raft_core.errors import ModelError, NotFiniteError
from raft_core.evaluation.evaluate import SIDES, evaluate
from raft_core.evaluation.files import read_results, write_results
from raft_core.evaluation.sheet import write_comparison
from raft_core.loop import align
from raft_core.metrics.voting import accuracy_table
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.reporter import Silent
from raft_core.rewards.combine import Distinct, KLPenalised, RankAggregate, Weighted
from raft_core.rewards.scoring import Scorer
from raft_core.rollout import Rollout
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK
from raft_core.soundness import examined, failed_mask, failed_of, failed_words, not_finite, render_sound, require_sound
from raft_core.sources.from_policy import FromPolicy
from raft_core.store.rounds import SAMPLES, read_round, round_folder
from raft_core.store.store import Store
from raft_core.terminal.result import unscored
from raft_core.testing import FakePolicy, FakeReward
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt, Request, Sample
from raft_core.workflows.generate import generate, write_outputs

K = 4
PROMPTS = [Prompt(f"prompt {i}") for i in range(4)]
LATENTS, PIXELS = "x are not finite", "pixels are not finite"


class Notes(Silent):
    def __init__(self):
        self.warnings: list[str] = []

    def warn(self, text):
        self.warnings.append(text)


class Flawed(FakePolicy):
    """Of three seeds one has NaN for latents, and one has pixels that are not finite."""

    def __init__(self, modality="image", **settings):
        super().__init__(modality, **settings)
        self.only_sound: list[Sample] = []  # what it was asked about besides sampling

    def sample(self, requests, *, purpose="use", strength=1.0, trace=False):
        drawn = super().sample(requests, purpose=purpose, strength=strength, trace=trace)
        return [replace(s, tensors={**s.tensors, "x": s.tensors["x"] * math.nan}) if s.seed % 3 == 0 else s for s in drawn]

    def render(self, samples):
        self.only_sound += samples
        return [s.as_failed(PIXELS) if s.seed % 3 == 1 else s for s in super().render(samples)]

    def nll(self, samples, draw, *, reference=False):
        self.only_sound += [s for s in samples if s.output is not None]
        return super().nll(samples, draw, reference=reference)

    def embed(self, samples):
        self.only_sound += samples
        return super().embed(samples)


class Diverged(FakePolicy):
    """Draws NaN alone; the frozen start does not."""

    def sample(self, requests, *, purpose="use", strength=1.0, trace=False):
        drawn = super().sample(requests, purpose=purpose, strength=strength, trace=trace)
        return drawn if strength == 0 else [replace(s, tensors={"x": s.tensors["x"] * math.inf}) for s in drawn]


def a_sample(index=0, **tensors):
    return Sample(Request(PROMPTS[0], index, index), output="text", tensors=tensors)


# ---------------------------------------------------------------------- one function decides


@pytest.mark.parametrize(("value", "reason"), [(1.0, ""), (math.nan, "step log probs are not finite"), (-math.inf, "step log")])
def test_what_is_not_finite_is_named(value, reason):
    tensors = {"tokens": torch.tensor([1, 2]), "step_log_probs": torch.tensor([0.0, value])}
    assert not_finite(tensors).startswith(reason) and bool(not_finite(tensors)) == bool(reason)


def test_a_failed_sample_says_why_and_has_no_output():
    good, bad = examined([a_sample(x=torch.zeros(2)), a_sample(x=torch.tensor([0.0, math.nan]))])
    assert (good.failed, good.output) == ("", "text")
    assert (bad.failed, bad.output, bad.unscorable) == (LATENTS, None, LATENTS)
    assert examined([bad])[0].failed == LATENTS  # a policy may have marked it itself


def test_only_what_is_sound_is_rendered_and_all_of_it():
    good, bad = a_sample(0), a_sample(1).as_failed(LATENTS)
    asked = []

    def render(samples):
        asked.extend(samples)
        return [s.with_output("seen") for s in samples]

    assert [s.output for s in render_sound([bad, good, bad], render)] == [None, "seen", None]
    assert asked == [good]
    assert render_sound([bad], render) == [bad] and len(asked) == 1
    with pytest.raises(ModelError, match="asked for 2 samples and returned 1"):
        render_sound([good, good], lambda samples: samples[:1])


def test_how_many_failed_is_said_with_the_reasons():
    good, bad, worse = a_sample(), a_sample().as_failed("a"), a_sample().as_failed("b")
    assert failed_words([good]) == ""
    assert failed_words([good, bad, bad]) == "2 of 3 samples failed: a"
    assert failed_words([worse, bad, bad]) == "3 of 3 samples failed: a (2), b (1)"
    said = []
    require_sound([good], "here", said.append)
    assert not said
    require_sound([good, bad], "round 2", said.append)
    assert said[0].startswith("round 2: 1 of 2 samples failed: a;")
    with pytest.raises(NotFiniteError, match=r"round 2: 2 of 2 samples failed.*lower trainer\.optimizer\.lr.*float32"):
        require_sound([bad, bad], "round 2", said.append)


def test_why_a_stored_sample_failed_is_read_from_its_meta():
    assert failed_of('{"failed": "a"}') == "a"
    assert failed_of('{"steps": 3}') == failed_of("[]") == failed_of("no JSON") == ""


# ---------------------------------------------------------------------- the loop


def one_run(folder, policy, reporter, rounds=2, scorer=None):
    trainer = Trainer(Optimizer(lr=0.1), steps=4)
    trainer.attach(policy, 1, rounds, reporter)
    scorer = scorer or Scorer(FakeReward())
    scorer.attach(policy)
    with Store.create(folder, {}, 1, reporter=reporter) as store:
        prompts = PromptSet(PROMPTS, [], len(PROMPTS), 1)
        align(policy, prompts, scorer, BestOfK(), Sft(), trainer, store, Monitor(reporter), rounds=rounds, k=K)
        return store.history()


def test_a_run_goes_on_with_the_samples_that_are_sound(tmp_path):
    policy, notes = Flawed(), Notes()
    history = one_run(tmp_path / "run", policy, notes)
    for rnd, row in enumerate(history, 1):
        samples, scores, kept = read_round(tmp_path / "run", rnd, tensors=True)
        failed = np.array([s.seed % 3 != 2 for s in samples])
        assert np.array_equal(failed_mask(samples), failed) and row["sample/failed"] == failed.sum() > 0
        assert [s.failed for s in samples] == [(LATENTS, PIXELS, "")[s.seed % 3] for s in samples]
        assert np.array_equal(np.isnan(scores.columns["mean"]), failed)
        assert not (kept & failed).any() and kept.sum() == row["select/kept"] > 0
        assert all((s.output is None) == bool(s.failed) for s in samples)
        assert not scores.failures and "unscored/mean" not in row  # the reward was not asked, so it did not fail
        assert math.isfinite(row["kl"]) and math.isfinite(row["diversity"])
        cells = pq.read_table(round_folder(tmp_path / "run", rnd) / SAMPLES)["image"].to_pylist()
        assert [cell is None for cell in cells] == failed.tolist()  # nothing black in its place
        assert any(f"round {rnd}: {failed.sum()} of 16 samples failed" in warning for warning in notes.warnings)
    assert all(not s.failed and s.seed % 3 != 0 for s in policy.only_sound)
    assert torch.isfinite(policy.mean).all()


def test_a_round_in_which_all_failed_stops_the_run_and_keeps_no_picture(tmp_path):
    with pytest.raises(NotFiniteError, match="round 1: 16 of 16 samples failed: x are not finite"):
        one_run(tmp_path / "run", Diverged("image"), Notes())
    assert not (round_folder(tmp_path / "run", 1) / SAMPLES).exists()


def test_failed_samples_read_back_as_they_were(tmp_path):
    policy, notes = Flawed(), Notes()
    asked = requests(PROMPTS, K, 5, 1)
    rollout = Rollout(policy, FromPolicy(), Scorer(FakeReward()), BestOfK(), False, notes)
    with Store.create(tmp_path / "run", {}, 5, reporter=notes) as store:
        made = []
        for _ in range(2):
            begun = rollout.begin(store.open(1, policy))
            made.append(begun.judge(begun.sample(asked)))
    (first, scores, chosen), (again, scores_again, chosen_again) = made
    assert [s.failed for s in first] == [s.failed for s in again] and failed_mask(first).any()
    assert np.array_equal(scores.columns["mean"], scores_again.columns["mean"], equal_nan=True)
    assert np.array_equal(chosen.index, chosen_again.index)
    assert not any("sampled again" in warning for warning in notes.warnings)


@pytest.mark.parametrize(
    "reward",
    [
        KLPenalised(FakeReward(), 0.1),
        Weighted([FakeReward(), FakeReward("other")], normalise="prompt"),
        RankAggregate([FakeReward(), FakeReward("other")]),
        Distinct(FakeReward()),
    ],
    ids=lambda reward: type(reward).__name__,
)
def test_combined_rewards_are_not_asked_about_them_either(reward):
    policy = Flawed("text")
    samples = render_sound(examined(policy.sample(requests(PROMPTS, K, 0, 1))), policy.render)
    scorer = Scorer(reward)
    scorer.attach(policy)
    scores = scorer(samples)
    assert np.array_equal(np.isnan(scores.columns[reward.info.name]), failed_mask(samples))
    assert not scores.failures
    assert all(s.seed % 3 == 2 for s in policy.only_sound if s.output is not None)


# ---------------------------------------------------------------------- comparisons, and what is generated


def test_a_comparison_is_of_the_pairs_that_are_sound_on_both_sides(tmp_path):
    policy, notes = Flawed(batch_size=5), Notes()
    policy.mean.data += 0.25
    found = evaluate(policy, PROMPTS, Scorer(FakeReward()), k=K, seed=1, reporter=notes)
    failed = failed_mask(found.before)
    comparison = found.comparisons[0]
    assert failed.any() and comparison.pairs == (~failed).sum() and comparison.unscored == failed.sum()
    assert comparison.difference.value == pytest.approx(0.25, rel=1e-4)
    assert found.diversity is not None and math.isfinite(found.diversity.after)
    assert set(found.failed) == set(SIDES) and len(notes.warnings) == 2
    assert f"heldout, {SIDES[1]}" in unscored([found])[1].replace("held-out prompts", "heldout")
    write_results(tmp_path, 3, [found])
    results = read_results(tmp_path)
    assert results is not None
    assert [s.failed for s in results.evaluations[0].after] == [s.failed for s in found.after]
    assert [s.output is None for s in results.evaluations[0].before] == failed.tolist()
    assert all(file.is_file() for file in write_comparison(tmp_path / "sheet", 0, found))


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_side_without_a_sound_sample_is_no_side(tmp_path, modality):
    found = evaluate(Diverged(modality), PROMPTS, Scorer(FakeReward()), k=2, seed=1)
    with pytest.raises(NotFiniteError, match="heldout prompts, after training: 8 of 8 samples failed"):
        found.require_sound()
    assert found.comparisons[0].pairs == 0 and found.comparisons[0].verdict == "unclear"
    write_results(tmp_path, 1, [found])
    results = read_results(tmp_path)
    assert results is not None and all(s.failed for s in results.evaluations[0].after)
    assert type(results.evaluations[0].before[0].output) is type(found.before[0].output)


def test_what_is_generated_has_a_reason_in_the_place_of_a_picture(tmp_path):
    notes = Notes()
    samples = generate(Flawed(), PROMPTS, k=K, seed=0, reporter=notes)
    write_outputs(tmp_path / "out", samples)
    sound = sum(not s.failed for s in samples)
    assert 0 < sound < len(samples) and len(list((tmp_path / "out").glob("*.png"))) == sound
    assert f"{len(samples) - sound} of {len(samples)} samples failed" in notes.warnings[0]
    with pytest.raises(NotFiniteError, match=r"generating: 4 of 4 samples failed"):
        generate(Diverged("image"), PROMPTS[:1], k=4, seed=0, reporter=notes)


def test_a_failed_sample_is_neither_right_nor_wrong():
    answers = [[1, None, 2], [None, None, None]]
    failed = np.array([[False, True, False], [True, True, True]])
    rows = {row.method: row for row in accuracy_table(answers, [1, 1], lambda a, b: a == b, failed=failed)}
    assert rows["top-1"].accuracy.value == 0.5 and rows["top-1"].questions == 1
    assert rows["vote"].accuracy.value == 1 and rows["vote"].questions == 1
