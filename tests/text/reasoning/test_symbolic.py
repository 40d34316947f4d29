"""Formulas as answers: taken out of a sentence, and compared by algebra."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from raft_core.errors import ConfigError
from raft_core.metrics.voting import accuracy_table, vote
from raft_core.types import Prompt, Request, Sample
from raft_text.reasoning.reward import AnswerReward
from raft_text.reasoning.sandbox import Limits, Outcome, Sandbox
from raft_text.reasoning.symbolic import Algebra, formula

needs_algebra = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None or Sandbox.unsupported() is not None,
    reason="Math-Verify (the extra `symbolic`) is not installed, or programs are refused on this system",
)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("$(1,2)$ since x is 1", "(1,2)"),
        ("$x = 5$ or $x = 3$.", "x = 5, x = 3"),
        ("x = 5 or x = 3", "x = 5, x = 3"),
        ("2 \\text{ and } 3", "2, 3"),
        ("$3$ apples and $4$ pears", "3"),
        ("3$\\sqrt2$", "3 \\sqrt2"),
        ("2√3", "2\\sqrt{3}"),
        ("**x**2 + 1**", "x^2 + 1"),
        ("2 pi", "2 \\pi"),
        ("[0, inf)", "[0, \\infty )"),
        ("x² ≥ 4", "x^{2} \\ge 4"),
        ("0.(3)", "\\frac{1}{3}"),
        ("1.1\\overline{6}", "\\frac{7}{6}"),
        ("(1, 2)<|im_end|>", "(1, 2)"),
        (" . ", None),
    ],
)
def test_the_formula_of_a_sentence(stated, expected):
    assert formula(stated) == expected


SAME = [
    ("(1, 2)", "(1,2)"),
    ("{2, 1}", "\\{1, 2\\}"),
    ("3, 2", "2,3"),
    ("[0, inf)", "[0,\\infty)"),
    ("(3, ∞) ∪ (-∞, 3)", "(-\\infty,3)\\cup(3,\\infty)"),
    ("x**2 - 1", "(x-1)(x+1)"),
    ("\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}"),
    ("x = 5", "5"),
    ("5 < x", "x > 5"),
    ("2x - y + 3 = 0", "y = 2x + 3"),
    ("0.(3)", "\\frac13"),
    ("2 million", "2 \\times 10^6"),
    ("4 units", "\\sqrt{16}"),
    ("\\text{No solution}", "no solution"),
    ("2^10", "1024"),
    ("4i + 3", "3+4i"),
    ("\\begin{bmatrix}1\\\\2\\end{bmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
]
DIFFERENT = [
    ("(2, 1)", "(1,2)"),
    ("(0, 1)", "[0,1)"),
    ("x = 3", "y = 3"),
    ("0.333", "\\frac13"),
    ("1000001", "1000000"),
    ("x^2 + 1", "x^2 - 1"),
    ("6.28", "2\\pi"),
]


@pytest.fixture(scope="module")
def algebra():
    limited = Algebra(Sandbox(Limits(cpu_s=2), workers=1))
    yield limited
    limited.sandbox.close()


@needs_algebra
def test_formulas_are_compared_by_algebra(algebra):
    pairs = [(formula(one), formula(other)) for one, other in SAME + DIFFERENT]
    assert algebra.compare(pairs) == ["same"] * len(SAME) + ["different"] * len(DIFFERENT)


@needs_algebra
def test_what_cannot_be_read_is_no_answer_and_no_threat(algebra, tmp_path):
    code = f"__import__('pathlib').Path('{tmp_path}/broken').write_text('out')"
    tower = "9^{9^{9^{9}}}"
    assert algebra.compare([("}{", "3"), (tower, "3"), (None, "3")]) == ["unreadable"] * 3
    assert algebra.compare([(code, "3")])[0] in ("unreadable", "different")
    assert not (tmp_path / "broken").exists()
    assert algebra.compare([("x", "}{")]) == ["failed"], "a reference that is no formula is not the model's doing"


def samples(*outputs, **meta):
    return [Sample(Request(Prompt("Solve.", meta), i, i), output=output) for i, output in enumerate(outputs)]


@needs_algebra
def test_the_reward_and_the_vote(algebra):
    reward = AnswerReward("symbolic", sandbox=algebra.sandbox)
    assert reward.check() == []
    reward.algebra = algebra  # one sandbox for all tests: it takes a second to start
    outputs = (
        "So \\boxed{(x-1)(x+1)}.",
        "The answer is $x^2 - 1$.",
        "The answer is x^2.",
        "It is x^2 - 1.",
        "\\boxed{\\frac{x}}",
    )
    drawn = samples(*outputs, answer_value="$-1 + x^2$")
    np.testing.assert_array_equal(reward(drawn), [1, 1, 0.1, 0, 0])
    won = vote(reward.answers(drawn), reward.same)
    assert won is not None and (won.answer, won.count, won.of) == ("(x-1)(x+1)", 2, 4)
    table = accuracy_table([reward.answers(drawn)], [reward.reference(drawn[0].prompt)], reward.same)
    assert [row.accuracy.value for row in table] == [2 / 5, 1]


def test_a_sandbox_that_breaks_down_leaves_the_sample_unscored(monkeypatch):
    monkeypatch.setattr(Sandbox, "run", lambda _, programs: [Outcome("failed", "gone") for _ in programs])
    drawn = samples("\\boxed{x + 1}", "\\boxed{1 + x}", answer_value="1 + x")
    np.testing.assert_array_equal(AnswerReward("symbolic")(drawn), [np.nan, 1])


def test_what_is_missing_is_told_before_a_run(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    problems = AnswerReward("symbolic").check()
    assert "pip install 'raft-align[symbolic]'" in problems[0]
    with pytest.raises(ConfigError, match="'symbolic' and reasoning 'program'"):
        AnswerReward("symbolic", "program")
