"""What a reward makes of completions that were cut off, and of thoughts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raft_core.config.run_config import check
from raft_core.errors import ConfigError
from raft_core.metrics.voting import Voter
from raft_core.objectives.ppo import Ppo
from raft_core.objectives.sft import Sft
from raft_core.protocols import RewardInfo
from raft_core.rewards.combine import Weighted as WeightedSum
from raft_core.rewards.scoring import Scorer
from raft_core.types import Pairs, Prompt, Request, Sample, Weighted
from raft_text.mask_truncated import MaskTruncated
from raft_text.reasoning.reward import AnswerReward
from raft_text.rewards.length import Length
from raft_text.rewards.pattern import Pattern
from raft_text.rewards.self_judge import SelfJudge
from raft_text.rewards.thinking import WithoutThinking
from raft_text.rewards.truncated import Truncated


def sample(text, finish="end"):
    return Sample(Request(Prompt("p"), 0, 0), output=text, meta={} if finish is None else {"finish": finish})


def scored(reward, samples):
    scores = Scorer(reward)(samples)
    return scores.columns[scores.reward], scores


# ---------------------------------------------------------------------- cut off

DRAWN = [sample("one two"), sample("one two three", "length"), sample("one", "stop"), sample("one", None)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, [2, np.nan, 1, 1]), ({"score": -1.0}, [2, -1, 1, 1]), ({"penalty": 0.5}, [2, 2.5, 1, 1])],
)
def test_a_completion_that_was_cut_off_is_not_scored_or_penalised(settings, expected):
    values, scores = scored(Truncated(Length(), **settings), DRAWN)
    assert np.array_equal(values, expected, equal_nan=True)
    assert np.array_equal(scores.columns["length"], [2, 3, 1, 1])  # kept as it is
    if not settings:
        assert scores.failures["length_finished"].first_error == "cut off at sampling.max_new_tokens"


def test_a_penalty_is_a_penalty_where_less_is_better_and_what_is_not_scored_stays_so():
    class Cost:
        info = RewardInfo("cost", higher_is_better=False)

        def __call__(self, samples):
            return [np.nan, 3.0, 1.0, 1.0]

    assert np.array_equal(scored(Truncated(Cost(), penalty=2.0), DRAWN)[0], [np.nan, 5, 1, 1], equal_nan=True)
    turned = [sample("x", "length"), *DRAWN[1:]]
    assert np.array_equal(scored(Truncated(Cost(), score=9.0), turned)[0], [np.nan, 9, 1, 1], equal_nan=True)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"score": 1.0, "penalty": 1.0}, "both a score and a penalty"),
        ({"penalty": 0.0}, "penalty is 0.0"),
        ({"score": float("nan")}, "score is nan"),
        ({"name": "length"}, "give one of them another name"),
    ],
)
def test_what_makes_no_sense_is_told(settings, told):
    with pytest.raises(ConfigError, match=told):
        Truncated(Length(), **settings)


class Table:
    """A policy whose negative log-likelihoods are a parameter, one for each sample of a round."""

    def __init__(self, n):
        self.table = torch.nn.Parameter(torch.arange(1.0, n + 1))
        self.asked = []

    def draw(self, samples, seeds):
        self.asked.append(list(seeds))

    def nll(self, samples, draw):
        return torch.stack([self.table[s.request.index] for s in samples])


def test_what_was_cut_off_is_masked_in_the_loss():
    """Losses 1, 0, 3 and a gradient of the first and the third alone; their own seeds go with them."""
    samples = [Sample(Request(Prompt("p"), i, 0), meta={"finish": f}) for i, f in enumerate(["end", "length", "stop"])]
    part = Weighted(index=np.arange(3), weight=np.ones(3))
    policy = Table(3)
    losses = MaskTruncated(Sft())(policy, samples, part, [7, 8, 9])
    assert losses.tolist() == [1, 0, 3] and policy.asked == [[7, 9]]
    losses.sum().backward()
    assert policy.table.grad.tolist() == [1, 0, 1]
    nothing = MaskTruncated(Sft())(policy, samples, part.take([1]), [8])
    nothing.sum().backward()  # a batch in which all were cut off
    assert nothing.tolist() == [0] and policy.asked == [[7, 9]]


def test_a_pair_of_which_one_was_cut_off_is_left_out():
    class Margin:
        consumes, needs_trace = Pairs, False

        def __call__(self, policy, samples, part, seeds):
            return policy.table[part.chosen] - policy.table[part.rejected]

    samples = [sample("", f) for f in ("end", "end", "length", "end")]
    part = Pairs(chosen=np.array([0, 0, 3]), rejected=np.array([1, 2, 1]), margin=np.ones(3))
    assert MaskTruncated(Margin())(Table(4), samples, part, [0, 1, 2]).tolist() == [-1, 0, 2]
    assert MaskTruncated(Margin()).consumes is Pairs and MaskTruncated(Ppo()).needs_trace
    assert "takes its advantages from a critic" in MaskTruncated(Ppo()).suits(Table(1))[0]


def test_a_staged_objective_begins_with_the_whole_selection_and_leaves_what_it_leaves():
    class Staged(Sft):
        def begin(self, policy, samples, selection, carried):
            self_ = self

            class Round:
                def __init__(self):
                    self.carried = {"seen": len(selection)}

                def __call__(self, *arguments):
                    return self_(*arguments)

                def figures(self):
                    return {"x": 1.0}

            return Round()

    part = Weighted(index=np.arange(3), weight=np.ones(3))
    samples = [Sample(Request(Prompt("p"), i, 0), meta={"finish": f}) for i, f in enumerate(["end", "length", "stop"])]
    begun = MaskTruncated(Staged()).begin(Table(3), samples, part, {})
    assert begun.carried == {"seen": 3} and begun.figures() == {"x": 1.0}
    assert begun(Table(3), samples, part, [0, 1, 2]).tolist() == [1, 0, 3]
    plain = MaskTruncated(Sft()).begin(Table(3), samples, part, {})
    assert plain.carried == {} and plain.figures() == {} and plain(Table(3), samples, part, [0, 1, 2]).tolist() == [1, 0, 3]


# ---------------------------------------------------------------------- thoughts

THOUGHTS = {
    "<think>a b</think> one two": ("one two", "one two"),
    "a b</think>\n\none": ("one", "one"),  # the prompt had opened the thought
    "one two": ("one two", None),
    "<think>a b": (None, None),
    "<think>a</think>one<think>b": (None, None),
    "<think>a</think>one <think>b</think> two": ("two", "two"),
    "": ("", None),
}


@pytest.mark.parametrize("text", THOUGHTS)
def test_the_answer_stands_behind_the_thoughts(text):
    answer, opened = THOUGHTS[text]
    assert WithoutThinking(Length()).answer(text) == answer
    assert WithoutThinking(Length(), opened=True).answer(text) == opened


def test_a_reward_reads_answers_alone():
    drawn = [sample("<think>no no no</think>yes"), sample("<think>yes"), sample("yes no")]
    values, scores = scored(WithoutThinking(Pattern("no", forbid=True)), drawn)
    assert np.array_equal(values, [1, np.nan, 0], equal_nan=True) and scores.reward == "pattern_answer"
    assert "a thought that does not end with '</think>'" in scores.failures["pattern_answer"].first_error
    assert scored(WithoutThinking(Length(), unfinished="empty"), drawn)[0].tolist() == [1, 0, 2]
    assert scored(WithoutThinking(Length(), unfinished="whole"), drawn)[0].tolist() == [1, 1, 2]
    marked = WithoutThinking(Length(), begin="[", end="]")
    assert scored(marked, [sample("[a b] c")])[0].tolist() == [1]


def test_what_the_reward_needs_goes_through():
    class Needy:
        info = RewardInfo("needy")
        seen = None

        def check(self):
            return ["wrong"]

        def check_prompts(self, train, held_out):
            return [f"{len(train)} lack it"]

        def attach(self, policy):
            self.seen = policy

        def __call__(self, samples):
            return [np.nan] * len(samples)

    needy = Needy()
    around = WithoutThinking(needy)
    assert around.check() == ["wrong"] and around.check_prompts([Prompt("a")], []) == ["1 lack it"]
    around.attach("policy")
    assert needy.seen == "policy" and not hasattr(WithoutThinking(Length()), "attach")
    assert "returned NaN" in scored(around, [sample("a")])[1].failures["needy_answer"].first_error
    assert hasattr(WithoutThinking(SelfJudge()), "attach")
    with pytest.raises(ConfigError, match="around each of its parts"):
        WithoutThinking(WeightedSum([Length(), Pattern("a")]))
    with pytest.raises(ConfigError, match="begin is empty"):
        WithoutThinking(Length(), begin="")


def test_a_configuration_takes_all_three(tiny, tmp_path):
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    thinking = {"class_path": "WithoutThinking", "init_args": {"reward": "Length"}}
    raw = {
        "policy": {"class_path": "CausalLM", "init_args": {"model": str(tiny()), "sampling": {"max_new_tokens": 4}}},
        "prompts": {"train": str(tmp_path / "p.txt")},
        "reward": {"class_path": "Truncated", "init_args": {"reward": thinking, "penalty": 1.0}},
        "selector": "AllBest",
        "objective": {"class_path": "MaskTruncated", "init_args": {"objective": "RaftPlusPlus"}},
        "output": str(tmp_path / "run"),
    }
    checked = check(raw)
    assert checked.config.objective.needs_trace and checked.config.objective.consumes is Weighted
    assert checked.config.reward.info.name == "length_answer_finished"
    with pytest.raises(ConfigError, match="the selector ReinforceRej produces advantages, but the objective MaskTruncated"):
        check({**raw, "selector": "ReinforceRej"})


def test_a_reward_of_answers_votes_behind_thoughts():
    """What it would have read in the thoughts does not vote; a thought that does not end states nothing."""
    texts = ["<think>The answer is: 5</think>The answer is: 7", "The answer is: 7", "<think>The answer is: 5", "none"]
    voter = WithoutThinking(AnswerReward())
    assert isinstance(voter, Voter) and not isinstance(WithoutThinking(Length()), Voter)
    assert voter.answers([sample(text) for text in texts]) == [7.0, 7.0, None, None]
    assert voter.same(7.0, 7.0) and voter.reference(Prompt("p", {"answer_value": "7"})) == 7.0
