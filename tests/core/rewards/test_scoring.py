"""Scores: each reward once, nothing broadcast, no failure a zero; functions as rewards."""

import math
import re
import textwrap

import numpy as np
import pytest
import torch

from raft_core.errors import ConfigError, RaftError
from raft_core.protocols import Reward, RewardInfo
from raft_core.rewards.combine import Weighted
from raft_core.rewards.function import FunctionReward
from raft_core.rewards.scoring import Scorer, checked, score
from raft_core.sampling import requests
from raft_core.testing import FakePolicy, FakeReward
from raft_core.types import Prompt, Scores

NAN = math.nan


class Calls:
    """Does what it is told with the samples and remembers how many it saw in each call."""

    def __init__(self, answer, name="calls", **info):
        self.info = RewardInfo(name, **info)
        self.answer = answer
        self.sizes: list[int] = []

    def __call__(self, samples):
        self.sizes.append(len(samples))
        return self.answer(samples)


def drawn(n: int = 4):
    policy = FakePolicy()
    return policy.render(policy.sample(requests([Prompt("one"), Prompt("two")], n // 2, 0, 1)))


def indices(samples):
    return [float(s.request.index) for s in samples]


# --- a single reward


@pytest.mark.parametrize(("batch_size", "sizes"), [(None, [6]), (6, [6]), (4, [4, 2]), (1, [1] * 6)])
def test_batches(batch_size, sizes):
    reward = Calls(indices, batch_size=batch_size)
    columns, failures = score(reward, drawn(6))
    assert reward.sizes == sizes
    assert columns["calls"].tolist() == [0, 1, 2, 0, 1, 2]
    assert failures == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([True, False, True], [1, 0, 1]),
        ([0.5, None, NAN], [0.5, NAN, NAN]),
        ([math.inf, -math.inf, 0], [NAN, NAN, 0]),
        (np.array([1, 2, 3], dtype=np.int32), [1, 2, 3]),
        (torch.tensor([1.0, 2.0, 3.0], requires_grad=True), [1, 2, 3]),
        (torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16), [1, 2, 3]),
    ],
)
def test_what_a_reward_may_return(values, expected):
    found = checked(values, 3)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (1.0, "a single number"),
        ([1.0, 2.0], r"shape \(2,\)"),
        ([[1.0], [2.0], [3.0]], r"shape \(3, 1\)"),
        ([], r"shape \(0,\)"),
    ],
)
def test_nothing_is_broadcast(values, message):
    with pytest.raises(ValueError, match=message):
        checked(values, 3)


def test_a_failed_batch_is_unscored_and_counted_and_the_others_are_scored():
    def fails_on_the_second_prompt(samples):
        if samples[0].prompt.text == "two":
            raise KeyError("no such picture")
        return indices(samples)

    columns, failures = score(Calls(fails_on_the_second_prompt, batch_size=2), drawn(4))
    np.testing.assert_array_equal(columns["calls"], [0, 1, NAN, NAN])
    assert failures["calls"].count == 2
    assert failures["calls"].first_error == "KeyError: 'no such picture'"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda _: 1.0, "a single number for 4 samples"),
        (lambda _: [1.0], r"one score per sample"),
        (lambda samples: ["good"] * len(samples), "could not convert string"),
        (lambda samples: [NAN] * len(samples), "returned NaN or an infinity"),
        (lambda _: None, "returned None"),
    ],
)
def test_a_reward_that_is_misbuilt_scores_nothing_and_says_why(answer, why):
    columns, failures = score(Calls(answer), drawn(4))
    assert np.isnan(columns["calls"]).all()
    assert failures["calls"].count == 4
    assert re.search(why, failures["calls"].first_error)


def test_an_interrupt_is_no_failure():
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(Calls(interrupted), drawn(4))


# --- reward and judges together


def test_each_is_scored_once_and_has_its_place():
    shared = Calls(indices, "shared")
    scorer = Scorer(
        Weighted([shared, FakeReward("mean")], name="sum"), judges=[shared, Calls(indices, "judge", higher_is_better=False)]
    )
    scores = scorer(drawn(4))
    assert list(scores.columns) == ["shared", "mean", "sum", "judge"]
    assert shared.sizes == [4]
    assert scores.reward == "sum" and scores.parts == {"shared", "mean"} and scores.descending == {"judge"}
    assert scores.grid(2, "judge").tolist() == [[0, -1], [0, -1]]
    assert scores.grid(2).shape == (2, 2)


def test_parts_that_would_be_mistaken_for_one_another():
    assert Scorer(FakeReward("a"), judges=[FakeReward("a"), FakeReward("b")]).check() == []  # measured once
    found = Scorer(FakeReward("a"), judges=[FakeReward("b"), FakeReward("b")]).check()
    assert found == ["two judges are named 'b': give one of them another name"]


def test_check_load_attach_and_sleep_reach_every_part_once():
    class Heavy(FakeReward):
        def __init__(self, name):
            super().__init__(name)
            self.calls: list = []

        def check(self):
            self.calls.append("check")
            return [f"{self.info.name} is wrong"]

        def load(self):
            self.calls.append("load")

        def attach(self, policy):
            self.calls.append(policy)

        def sleep(self):
            self.calls.append("sleep")

    part, judge, policy = Heavy("part"), Heavy("judge"), FakePolicy()
    scorer = Scorer(Weighted([part, FakeReward("plain")]), judges=[judge, part])
    assert scorer.check() == ["part is wrong", "judge is wrong"]
    scorer.load()
    scorer.attach(policy)
    scorer(drawn(4))
    assert part.calls == judge.calls == ["check", "load", policy, "sleep"]


def test_a_combination_that_fails_is_unscored_unless_it_is_misused():
    class Broken:
        parts = (FakeReward("a"),)
        info = RewardInfo("broken")

        def __init__(self, error):
            self.error = error

        def combine(self, scores, samples):
            raise self.error

    scores = Scorer(Broken(ZeroDivisionError("by zero")))(drawn(4))
    assert np.isnan(scores.columns["broken"]).all() and not np.isnan(scores.columns["a"]).any()
    assert scores.failures["broken"].first_error == "ZeroDivisionError: by zero"
    with pytest.raises(RaftError):
        Scorer(Broken(RaftError("misused")))(drawn(4))


def test_scores_of_nothing():
    assert Scores("r", {"r": np.empty(0)}).grid(3).shape == (0, 3)


# --- functions


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "my_rewards.py") -> str:
        (tmp_path / name).write_text(textwrap.dedent(text))
        return str(tmp_path / name)

    return write


def test_a_reward_in_five_lines(write):
    file = write("""
        def brevity(prompts, outputs):
            return [-float(len(output)) - len(prompt) for prompt, output in zip(prompts, outputs)]
    """)
    reward = FunctionReward(f"{file}:brevity")
    assert isinstance(reward, Reward) and reward.info.name == "brevity"
    assert reward.check() == []
    samples = drawn(4)
    expected = [-len(s.output) - len(s.prompt.text) for s in samples]
    assert Scorer(reward)(samples).columns["brevity"].tolist() == expected


def test_settings_of_a_function_reward(write):
    file = write("def length(prompts, outputs): return [len(o) for o in outputs]")
    reward = FunctionReward(f"{file}:length", name="len", higher_is_better=False, batch_size=2, scale="characters")
    assert reward.info == RewardInfo("len", "characters", False, 2)


def test_a_file_may_import_its_neighbours_and_define_dataclasses_and_runs_once(write):
    write("BONUS = 5.0", "neighbour_of_rewards.py")
    file = write("""
        from dataclasses import dataclass
        from neighbour_of_rewards import BONUS

        @dataclass
        class Judge:
            calls: int = 0

            def __call__(self, prompts, outputs):
                self.calls += 1
                return [BONUS + self.calls] * len(outputs)

        judge = Judge()
    """)
    one, two = FunctionReward(f"{file}:judge"), FunctionReward(f"{file}:judge", name="other")
    assert one.check() == two.check() == []
    assert one(drawn(2)) == [6.0, 6.0] and two(drawn(2)) == [7.0, 7.0]


@pytest.mark.parametrize("path", ["{module}:score", "{module}.score"])
def test_a_function_in_a_module(write, tmp_path, monkeypatch, path):
    module = f"installed_{abs(hash(path))}"
    write("def score(prompts, outputs): return [1.0] * len(outputs)", f"{module}.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert Scorer(FunctionReward(path.format(module=module)))(drawn(2)).columns["score"].tolist() == [1, 1]


FILE = """
    def brevity(prompts, outputs):
        return [0.0] * len(outputs)

    def one(prompts): ...
    def three(prompts, outputs, model): ...
    def optional(prompts, outputs, model=None): return [0.0] * len(outputs)
    def keywords(*, prompts, outputs): ...
    LIMIT = 3
"""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("brevty", "has no function 'brevty' (did you mean 'brevity'?)"),
        ("one", "takes (prompts), but is called with two arguments, (prompts, outputs): too many positional arguments"),
        ("three", "missing a required argument: 'model'"),
        ("keywords", "too many positional arguments"),
        ("LIMIT", "cannot be called"),
    ],
)
def test_a_function_that_cannot_be_a_reward(write, function, message):
    (mistake,) = FunctionReward(f"{write(FILE)}:{function}").check()
    assert message in mistake
    with pytest.raises(ConfigError):
        FunctionReward(f"{write(FILE)}:{function}").load()


def test_optional_arguments_are_fine(write):
    assert FunctionReward(f"{write(FILE)}:optional").check() == []


def test_a_file_that_is_not_there_or_fails(write, tmp_path):
    write(FILE)
    (mistake,) = FunctionReward(f"{tmp_path}/my_reward.py:brevity").check()
    assert "there is no file" in mistake and "did you mean 'my_rewards.py'?" in mistake
    (mistake,) = FunctionReward(f"{tmp_path}/nowhere/my_reward.py:brevity").check()
    assert "there is no file" in mistake
    (mistake,) = FunctionReward(f"{write('import nonsense_package', 'bad.py')}:f").check()
    assert "bad.py fails on import with ModuleNotFoundError" in mistake
    (mistake,) = FunctionReward(f"{write('def f(:', 'worse.py')}:f").check()
    assert "fails on import with SyntaxError" in mistake


def test_a_module_that_is_not_there():
    (mistake,) = FunctionReward("no_such_module:f").check()
    assert "there is no module 'no_such_module'" in mistake and "my_file.py:my_function" in mistake


@pytest.mark.parametrize("path", ["brevity", "my_file.py", "my_file.py:", ":f", "a.b:c d", ""])
def test_a_path_that_names_no_function(path):
    with pytest.raises(ConfigError, match="names no function"):
        FunctionReward(path)


# --- memory


def test_one_reward_at_a_time_is_on_the_accelerator():
    awake, most = set(), []

    class Model(Calls):
        def __call__(self, samples):
            awake.add(self.info.name)
            most.append(len(awake))
            return super().__call__(samples)

        def sleep(self):
            awake.discard(self.info.name)

    parts = [Model(indices, name, gpu=True, batch_size=2) for name in ("a", "b")]
    Scorer(Weighted(parts), [Model(indices, "c", gpu=True)])(drawn(4))
    assert most == [1] * 5  # two batches of each part, one of the judge: awake between its batches, and never beside another
    assert not awake
    score(parts[0], drawn(4))
    assert awake == {"a"}  # asked by itself, as by a server, a reward stays awake
