"""The pre-flight: counts by hand, the predicted gain against the formula, and nothing left behind."""

from __future__ import annotations

import json

import numpy as np
import pytest

from raft_core.config.run_config import check
from raft_core.metrics.best_of import gaussian_gain
from raft_core.metrics.gain import c4
from raft_core.reporter import Silent
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt, Request, Sample
from raft_core.workflows.plan import Probe, advice, count, evaluations_per_sample, probe, steps_per_round


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(f"prompt {i}" for i in range(12)))
    return {
        "policy": "FakePolicy",
        "reward": "FakeReward",
        "prompts": {"train": str(tmp_path / "p.txt"), "held_out_fraction": 0.25, "per_round": 4},
        "k": 5,
        "trackers": [],
        "evaluation": {"k": 3, "prompts": 6},
    }


def made_probe(scores):
    return Probe(
        drawn=scores.size,
        sample_s=1.0,
        render_s=0.2,
        score_s=0.3,
        step_s=2.0,
        evaluations=0,
        memory_bytes={},
        scores=scores,
        failures={},
    )


def test_counts_by_hand(raw):
    counts = count(check(raw))
    # 12 prompts, a quarter held out: 9 and 3. 4 per round × 5 samples, the best of each kept, 1 epoch of 4 in batches of 8.
    assert (counts.prompts, counts.held_out, counts.per_round) == (9, 3, 4)
    assert (counts.samples, counts.kept, counts.steps) == (20, 4, 1)
    assert counts.evaluated == 2 * 3 * (6 + 3)


@pytest.mark.parametrize(("settings", "steps"), [({"steps": 7}, 7), ({"epochs": 3, "batch_size": 4}, 8), ({}, 2)])
def test_steps_per_round(settings, steps):
    assert steps_per_round(Trainer(**settings), 10) == steps


def test_time_is_samples_and_steps(raw):
    counts, found = count(check(raw)), made_probe(np.zeros((2, 2)))
    assert found.round_s(counts) == pytest.approx(20 * 1.5 + 1 * 2.0)
    assert found.evaluation_s(counts) == pytest.approx(54 * 1.5)


def test_gain_is_measured_up_to_the_samples_at_hand_and_extrapolated_beyond():
    found = made_probe(np.array([[1.0, 2.0, 3.0], [2.0, 2.0, np.nan]]))
    # Prompt 1: the best of 2 of {1, 2, 3} is 8/3 on average, the mean 2; prompt 2 gains nothing.
    assert found.gain(2).value == pytest.approx((2 / 3 + 0) / 2)
    assert found.spread == pytest.approx(0.5 / c4(3))
    assert found.gain(16).value == pytest.approx(gaussian_gain(0.5 / c4(3), 16))


@pytest.mark.parametrize(
    ("meta", "calls"),
    [({}, 0), ({"steps": 12}, 12), ({"steps": 12, "guidance_scale": 1.0}, 12), ({"steps": 12, "guidance_scale": 5.0}, 24)],
)
def test_guidance_doubles_the_evaluations(meta, calls):
    assert evaluations_per_sample(Sample(Request(Prompt("a"), 0, 0), meta=meta)) == calls


def test_probe_draws_whole_prompts_and_trains(raw):
    checked = check(raw)
    found = probe(checked, Silent())
    assert found.scores.shape == (4, 4) and not np.isnan(found.scores).any()
    assert found.drawn == 16 and found.spread > 0 and found.step_s > 0
    assert set(found.memory_bytes) == {"sample", "render", "train"}
    assert not advice(count(checked), found, checked.config)


def test_advice_names_what_cannot_work(raw):
    checked = check(raw | {"k": 1, "prompts": {**raw["prompts"], "held_out_fraction": 0.0}})
    lines = "\n".join(advice(count(checked), made_probe(np.ones((2, 4))), checked.config))
    assert "nothing to select" in lines and "k = 1" in lines and "no prompts are held out" in lines


def test_what_a_table_gives_is_counted_and_probed_as_it_is(raw, tmp_path):
    """Groups of one and of three: the plan is of these, and not of k each."""
    rows = [{"prompt": f"prompt {i}", "response": f"{j},{j}"} for i in range(12) for j in range(1 if i % 2 else 3)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw |= {"policy": "FakeWriter", "samples": {"class_path": "FromTable", "init_args": {"table": str(tmp_path / "t.jsonl")}}}
    checked = check(raw)
    sizes = [1 if int(prompt.text.split()[1]) % 2 else 3 for prompt in checked.prompts.draw(1)]
    counts = count(checked)
    assert counts.samples == sum(sizes) and counts.kept == 4
    found = probe(checked, Silent())
    assert found.drawn == sum(sizes) and found.scores.shape == (4, 3)
    assert (~np.isnan(found.scores)).sum(axis=1).tolist() == sizes
    assert found.step_s > 0 and found.spread == pytest.approx(1 / c4(3))


def test_of_a_source_that_adapts_the_mean_number_is_counted(raw):
    counts = count(check(raw | {"samples": {"class_path": "AdaptiveK", "init_args": {"pilot": 2}}}))
    assert counts.samples == 20


def test_advice_counts_the_prompts_without_spread(raw):
    checked = check(raw)
    scores = np.array([[1.0, 1, 1, 1], [1, 2, 3, 4], [np.nan] * 4, [2, np.nan, 2, np.nan]])
    (line,) = [line for line in advice(count(checked), made_probe(scores), checked.config) if "spread" in line]
    assert line.startswith("2 of the 4 prompts of the probe have no spread")
    assert not [line for line in advice(count(checked), made_probe(scores[1:2]), checked.config) if "spread" in line]


def test_the_probe_of_a_method_with_ratios_leaves_the_policy_where_it_drew(raw):
    many = {"selector": "GroupAdvantages", "objective": "PolicyGradient", "k": 4}
    checked = check(raw | many | {"trainer": {"optimizer": {"lr": 100.0}}})
    found = probe(checked, Silent())
    assert np.isfinite(found.step_s) and checked.config.policy.mean.abs().max() < 1e-20
