import numpy as np
import pytest

from raft_core.config.components import Walk
from raft_core.config.listing import public_names
from raft_core.errors import ConfigError, RewardError
from raft_core.protocols import Reward
from raft_core.rewards.scoring import Scorer
from raft_core.types import Prompt, Request, Sample
from raft_text.reasoning.reward import AnswerReward
from raft_text.reasoning.sandbox import Limits, Outcome, Sandbox
from raft_text.reasoning.templates import program_of

needs_sandbox = pytest.mark.skipif(Sandbox.unsupported() is not None, reason="programs are refused on this system")


def samples(*outputs, **meta):
    return [Sample(Request(Prompt("How many?", meta), i, i), output=output) for i, output in enumerate(outputs)]


def test_right_wrong_and_none():
    outputs = (
        "2 * 21 = 42.\nTherefore, the answer is: 42",
        "Therefore, the answer is: $42.00 dollars",
        "So \\boxed{42.005}",
        "Therefore, the answer is: 41",
        "It is 42.",
        "",
    )
    np.testing.assert_array_equal(AnswerReward()(samples(*outputs, answer_value="42")), [1, 1, 1, 0.1, 0, 0])
    judge = AnswerReward(partial=0.0, tolerance=0.0, name="accuracy")
    np.testing.assert_array_equal(judge(samples(*outputs, answer_value=42)), [1, 1, 0, 0, 0, 0])


def test_a_completion_that_was_cut_off_has_no_final_answer():
    """Of an answer that goes on, as 42 of 420, nobody knows; a stop text is taken off by the policy and is no cut."""

    def score(text, finish):
        sample = Sample(Request(Prompt("How many?", {"answer_value": 42}), 0, 0), output=text, meta={"finish": finish})
        return AnswerReward()([sample])[0]

    assert score("Therefore, the answer is: 42", "length") == 0
    assert score("Therefore, the answer is: 42", "end") == 1
    assert score("So.\n<answer>42", "stop") == 1
    assert score("So.\n<answer>42", "end") == 0
    assert score("<answer>41</answer> No, <answer>42", "stop") == 1


def test_letters():
    outputs = (
        "Therefore, the answer is: b",
        "the answer is (B) 12",
        "Therefore, the answer is: C",
        "Therefore, the answer is: 12",
    )
    np.testing.assert_array_equal(AnswerReward(form="choice")(samples(*outputs, answer_value="b")), [1, 1, 0.1, 0])


def test_the_reference_may_be_gsm8ks_whole_answer():
    reward = AnswerReward(column="answer")
    assert reward(samples("#### 1250", answer="so many\n#### 1,250")) == [1]


BODY = "a = 40\n    b = 2\n    return a + b\n"  # its first spaces are gone, as after decoding


@needs_sandbox
def test_programs(capsys):
    reward = AnswerReward(reasoning="program", sandbox=Sandbox(Limits(cpu_s=1, wall_s=5), workers=1))
    reward.load()
    assert "sandbox for programs: system calls in force" in capsys.readouterr().err
    outputs = (
        "def solution():\n    return 6 * 7\n",
        BODY,
        "Here it is:\n```python\nimport math\n\ndef solution():\n    return math.sqrt(42 ** 2)\n```\nDone.",
        "def solution():\n    return 41",
        "def solution():\n    return 'many'",
        "def solution():\n    return 1 / 0",
        "def solution():\n    while True: pass",
        "Therefore, the answer is: 42",
        "",
    )
    np.testing.assert_array_equal(reward(samples(*outputs, answer_value="42.0")), [1, 1, 1, 0.1, 0, 0, 0, 0, 0])


@needs_sandbox
def test_programs_that_choose():
    reward = AnswerReward(form="choice", reasoning="program", sandbox=Sandbox(workers=1))
    outputs = ("return 'c'", "return 'C'", "return 'd'", "return 3")
    np.testing.assert_array_equal(reward(samples(*outputs, answer_value="c")), [1, 1, 0.1, 0])


def test_what_is_not_the_models_doing_is_not_scored(monkeypatch):
    with_and_without = samples("Therefore, the answer is: 1", answer_value="1") + samples("Therefore, the answer is: 1")
    np.testing.assert_array_equal(AnswerReward()(with_and_without), [1, np.nan])

    reward = AnswerReward(reasoning="program")
    monkeypatch.setattr(Sandbox, "run", lambda *_: [Outcome("failed", "gone"), Outcome("answer", "1")])
    np.testing.assert_array_equal(reward(samples("return 1", "return 1", answer_value="1")), [np.nan, 1])


def test_prompts_without_references_are_told_of():
    with pytest.raises(RewardError, match=r"no field 'answer_value'.*did you mean 'answer'"):
        AnswerReward()(samples("1", answer="1"))
    with pytest.raises(RewardError, match=r"no field 'answer_value'.*no other field"):
        AnswerReward()(samples("1"))
    with pytest.raises(RewardError, match="holds 'many', which is no number"):
        AnswerReward()(samples("1", answer_value="many"))
    with pytest.raises(RewardError, match="which is no letter from A to E"):
        AnswerReward(form="choice")(samples("1", answer_value=3))
    scores = Scorer(AnswerReward())(samples("1", "2"))
    assert scores.failures["answer"].count == 2


def test_it_is_a_reward_with_a_short_name():
    assert isinstance(AnswerReward(), Reward)
    assert "AnswerReward" in public_names("reward")
    assert AnswerReward().info.scale == "1 = right, 0.1 = another answer, 0 = none"
    assert AnswerReward(reasoning="program").check() == ([] if Sandbox.unsupported() is None else [Sandbox.unsupported()])


def test_a_configuration_reaches_the_sandbox():
    walk = Walk()
    settings = {"reasoning": "program", "sandbox": {"limits": {"cpu_s": 3}, "imports": ["math"], "workers": 2}}
    part = walk.component({"class_path": "AnswerReward", "init_args": settings}, "reward", "reward")
    assert walk.mistakes == []
    reward = part.make()
    assert reward.reader.sandbox.limits.cpu_s == 3
    assert reward.reader.sandbox.imports == ("math",)
    assert part.plain["init_args"]["sandbox"]["workers"] == 2


def test_mistakes_in_the_settings():
    with pytest.raises(ConfigError) as caught:
        AnswerReward(form="letters", reasoning="thoughts", column="", partial=1.0, tolerance=-1.0)  # type: ignore[arg-type]
    assert len(caught.value.mistakes) == 5


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("def solution():\n    return 1\nQuestion: and now?", "def solution():\n    return 1\n"),
        ("from math import pi\ndef solution():\n\n    return pi", "from math import pi\ndef solution():\n\n    return pi\n"),
        ('def solution():\n    """A\nB"""\n    return 1\n\nmore', 'def solution():\n    """A\nB"""\n    return 1\n\n'),
        ("    return 1", "def solution():\n    return 1\n"),
        ("return 1", "def solution():\n    return 1\n"),
        ("if 1:\n        a = 1\n    return a\nEnd", "def solution():\n    if 1:\n        a = 1\n    return a\n"),
        ("```python\nx = 1\n```\n```\ndef solution():\n  return 2\nprint(1)\n```", "def solution():\n  return 2\nprint(1)\n"),
        ("```python\ndef solution():\n    return 3", "def solution():\n    return 3"),
    ],
)
def test_the_program_in_a_completion(completion, program):
    assert program_of(completion) == program
