import json

import numpy as np
import pytest
import torch

from raft_core.errors import ConfigError, DataError, StoreError
from raft_core.evaluation.evaluate import column_roles, compare_column, evaluate
from raft_core.evaluation.files import as_plain, read_results, write_results
from raft_core.evaluation.table import notes, rows, sentence, sentences
from raft_core.protocols import RewardInfo
from raft_core.rewards.combine import RankAggregate, Weighted
from raft_core.rewards.scoring import Scorer
from raft_core.testing import FakePolicy, FakeReward
from raft_core.types import Prompt

PROMPTS = [Prompt(f"prompt {i}") for i in range(6)]


class Negated(FakeReward):
    """A judge for which lower is better."""

    def __init__(self):
        super().__init__("cost")
        self.info = RewardInfo("cost", higher_is_better=False)


def shifted(by):
    policy = FakePolicy("image", batch_size=5)
    with torch.no_grad():
        policy.mean += by
    return policy


def test_an_untrained_policy_does_not_differ_from_its_reference():
    found = evaluate(shifted(0.0), PROMPTS, Scorer(FakeReward(), [Negated()]), k=3, seed=1)
    for comparison in found.comparisons:
        assert comparison.difference.value == 0
        assert comparison.win_rate.value == 0.5
        assert comparison.verdict == "unclear"


def test_the_same_noise_on_both_sides_leaves_the_training_alone():
    found = evaluate(shifted(0.25), PROMPTS, Scorer(FakeReward(), [Negated()]), k=3, seed=1)
    reward, cost = found.comparisons
    assert reward.difference.value == pytest.approx(0.25, rel=1e-4)  # to the last sample: the noise cancels
    assert reward.after - reward.before == pytest.approx(reward.difference.value)
    assert (reward.win_rate.value, reward.verdict, reward.role) == (1.0, "better", "reward")
    assert (cost.win_rate.value, cost.verdict, cost.role) == (0.0, "worse", "judge")
    assert [s.seed for s in found.before] == [s.seed for s in found.after]
    assert found.prompts == PROMPTS


def test_chunks_do_not_change_the_numbers():
    scorer = Scorer(FakeReward())
    small, large = shifted(0.3), shifted(0.3)
    small.batch_size, large.batch_size = 1, 64
    first, second = (evaluate(policy, PROMPTS, scorer, k=2, seed=4) for policy in (small, large))
    assert as_plain(first) == as_plain(second)


def test_pairs_with_a_missing_side_are_left_out_and_counted():
    before = np.array([[1.0, np.nan], [2.0, 4.0]])
    after = np.array([[2.0, 5.0], [np.nan, 7.0]])
    found = compare_column(before, after, name="r", role="reward", scale="", higher_is_better=True, seed=0)
    assert (found.pairs, found.unscored) == (2, 2)
    assert (found.before, found.after, found.difference.value) == (2.5, 4.5, 2.0)


def test_failures_of_both_sides_are_added():
    found = evaluate(shifted(0.1), PROMPTS, Scorer(FakeReward(fails_on=3)), k=4, seed=0)
    assert found.failures["mean"].count == 2 * found.comparisons[0].unscored > 0


@pytest.mark.parametrize(
    "reward",
    [
        RankAggregate([FakeReward()]),
        Weighted([FakeReward()], normalise="prompt"),
        Weighted([FakeReward()], normalise="running"),
    ],
    ids=["ranks", "within the prompt", "running"],
)
def test_what_compares_samples_of_a_prompt_compares_before_with_after(reward):
    found = evaluate(shifted(0.25), PROMPTS, Scorer(reward), k=3, seed=1).comparisons[0]
    assert found.verdict == "better"  # of each side by itself its mean would be the same
    assert found.win_rate.value == 1.0


def test_the_pairs_of_a_prompt_stand_side_by_side():
    class Neighbours(FakeReward):
        info = RewardInfo("neighbours")

        def __init__(self):
            self.seen = []

        def __call__(self, samples):
            self.seen += [(s.prompt.text, s.request.index) for s in samples]
            return [0.0] * len(samples)

    reward = Neighbours()
    found = evaluate(shifted(0.25), PROMPTS[:2], Scorer(reward), k=2, seed=1)
    assert reward.seen == [(p.text, i) for p in PROMPTS[:2] for i in (0, 0, 1, 1)]
    assert [s.request.index for s in found.before] == [0, 1, 0, 1]


def test_diversity_falls_when_samples_become_alike():
    class Narrowed(FakePolicy):
        def sample(self, requests, *, strength=1.0, **settings):
            samples = super().sample(requests, strength=0.0, **settings)
            return samples if strength == 0 else [s.__class__(s.request, tensors={"x": 0.1 * s.tensors["x"]}) for s in samples]

    found = evaluate(Narrowed("image"), PROMPTS, Scorer(FakeReward()), k=4, seed=0)
    assert found.diversity is not None
    assert found.diversity.after < 0.2 * found.diversity.before
    assert found.diversity.difference.high < 0
    assert evaluate(Narrowed("image"), PROMPTS, Scorer(FakeReward()), k=1, seed=0).diversity is None


def test_files_give_back_what_was_evaluated(tmp_path):
    judges = [Negated(), FakeReward("flaky", fails_on=3)]
    found = [
        evaluate(shifted(0.25), prompts, Scorer(FakeReward(), judges), k=2, seed=1, split=split)
        for split, prompts in (("train", PROMPTS[:1]), ("heldout", PROMPTS))
    ]
    path = write_results(tmp_path, 7, found)
    plain = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert plain["evaluations"][0]["comparisons"][0]["difference"]["low"] is None  # one prompt gives no interval
    results = read_results(tmp_path)
    assert results is not None and results.checkpoint == 7
    again = results.evaluations
    assert rows(again) == rows(found)
    for first, second in zip(found, again, strict=True):
        assert second.prompts == first.prompts and second.failures == first.failures
        np.testing.assert_array_equal(second.scores_after.columns["flaky"], first.scores_after.columns["flaky"])
        assert [s.output.tobytes() for s in second.after] == [s.output.tobytes() for s in first.after]
    assert read_results(tmp_path / "elsewhere") is None


def test_pairs_open_in_datasets_with_both_pictures(tmp_path):
    import datasets

    write_results(tmp_path, 7, [evaluate(shifted(0.25), PROMPTS, Scorer(FakeReward()), k=2, seed=1)])
    table = datasets.Dataset.from_parquet(str(tmp_path / "evaluation/heldout.parquet"), cache_dir=str(tmp_path / "cache"))
    assert len(table) == 12
    assert table[0]["before"].size == table[0]["after"].size == (8, 8)
    assert table[0]["after.mean"] > table[0]["before.mean"]


def test_texts_are_kept_too(tmp_path):
    policy = FakePolicy("text")
    write_results(tmp_path, 7, [evaluate(policy, PROMPTS, Scorer(FakeReward()), k=1, seed=1)])
    results = read_results(tmp_path)
    assert results is not None
    (again,) = results.evaluations
    assert again.before[0].output.count(",") == 1 and again.diversity is None


def test_a_damaged_evaluation_is_said(tmp_path):
    write_results(tmp_path, 7, [evaluate(shifted(0), PROMPTS, Scorer(FakeReward()), k=1, seed=1)])
    (tmp_path / "evaluation/heldout.parquet").write_bytes(b"not a table")
    with pytest.raises(StoreError, match="cannot be read"):
        read_results(tmp_path)


def test_words_say_no_more_than_the_interval():
    def said(before, after, **more):
        arguments = {"name": "gold", "role": "judge", "scale": "", "higher_is_better": True, "seed": 0} | more
        return sentence(compare_column(np.asarray(before), np.asarray(after), **arguments))

    rng = np.random.default_rng(0)
    before = rng.normal(size=(12, 4))
    assert "rose from" in said(before, before + 1 + 0.1 * rng.normal(size=(12, 4)))
    assert "It got worse" in said(before, before - 1 + 0.1 * rng.normal(size=(12, 4)))
    assert "It got worse" in said(before, before + 1, higher_is_better=False)
    assert "no change is shown" in said(before, before + rng.normal(size=(12, 4)) - 0.0)
    assert "too few prompts" in said(before[:1], before[:1] + 1)
    assert "nothing can be said" in said(before * np.nan, before)


def test_few_prompts_are_warned_of():
    found = evaluate(shifted(0.25), PROMPTS, Scorer(FakeReward()), k=2, seed=1)
    assert any("6 held-out prompts" in note for note in notes([found]))
    assert any("diversity within a prompt" in text for text in sentences(found))


def test_roles_name_what_was_trained_on():
    class Half:
        info = RewardInfo("half")
        parts = (FakeReward("a"), FakeReward("b"))

        def combine(self, scores, samples):
            return scores["a"] / 2

    roles = column_roles(Scorer(Half(), [FakeReward("b"), FakeReward("c")]))
    assert roles == {"half": "reward", "a": "part", "b": "part", "c": "judge"}


def test_nothing_to_evaluate_is_said():
    with pytest.raises(DataError, match="no heldout prompt"):
        evaluate(shifted(0), [], Scorer(FakeReward()), k=1, seed=0)
    with pytest.raises(ConfigError, match="at least 1"):
        evaluate(shifted(0), PROMPTS, Scorer(FakeReward()), k=0, seed=0)
