"""Final answers as people and models write them, with the number that a careful person reads (null: none)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_text.reasoning.answers import extract_choice, extract_number
from raft_text.reasoning.numbers import number, result
from raft_text.reasoning.reading import Reader
from raft_text.reasoning.stated import final, statement

CASES = [json.loads(line) for line in Path(__file__).with_name("answers_as_written.jsonl").read_text("utf-8").splitlines()]
KINDS = sorted({case["kind"] for case in CASES})


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_read_as_a_careful_person_does(kind):
    of_kind = [case for case in CASES if case["kind"] == kind]
    read = [(case["text"], case["value"], extract_number(case["text"])) for case in of_kind]
    assert [each for each in read if not agree(*each[1:])] == []


def agree(expected, got):
    if expected is None or got is None:
        return expected is got
    return math.isclose(expected, got, rel_tol=1e-12)


def test_there_are_cases_of_either_sort():
    unread = sum(case["value"] is None for case in CASES)
    assert len(CASES) > 500 and min(unread, len(CASES) - unread) > 200


whole = st.integers(-(10**9), 10**9)
cents = st.integers(-(10**7), 10**7)
WRITTEN = [
    lambda n: (str(n), n),
    lambda n: (f"{n:,}", n),
    lambda n: (f"{n:,}.", n),
    lambda n: (f"{n:,}.00", n),
    lambda n: (f"${abs(n):,}", abs(n)),
    lambda n: (f"-${abs(n):,}", -abs(n)),
    lambda n: (f"{n}%", n),
    lambda n: (f" {n} ", n),
    lambda n: (f"{n / 100:,.2f}", float(f"{n / 100:.2f}")),
    lambda n: (f"${abs(n) / 100:,.2f}", float(f"{abs(n) / 100:.2f}")),
    lambda n: (f"{n / 100:.1f}", float(f"{n / 100:.1f}")),
]


@settings(deadline=None)
@given(whole | cents, st.sampled_from(WRITTEN))
def test_references_in_the_format_of_gsm8k(value, write):
    written, expected = write(value)
    answer = f"She sells 3 * 4 = <<3*4=12>>12 for $5 each.\nThen 2 are left.\n#### {written}"
    assert Reader().reference(answer) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert extract_number(answer) == Reader().reference(answer)


def test_letters_are_corrected_and_tagged_too():
    assert extract_choice("The answer is B. Wait, actually C.") == "C"
    assert extract_choice("<think>maybe the answer is B</think>\n<answer>(d)</answer>") == "D"
    assert extract_choice("#### B") == "B"
    assert extract_choice("The answer is (A), not (B).") == "A"


def test_a_statement_knows_where_its_marker_begins():
    found = statement("3 + 4 = 7.\nTherefore, the answer is: 7 apples")
    assert found is not None and found.text == "7 apples"
    assert "3 + 4 = 7.\nTherefore, the answer is: 7 apples"[found.start :].startswith("answer is")
    assert statement("I do not know.") is None


def test_several_boxes_of_a_list_are_one_answer():
    assert final("So $\\boxed{3}$ and $\\boxed{4}$.") == "3, 4"
    assert number("3, 4") is None
    assert final("First \\boxed{3}. But then \\boxed{4}.") == "4"


def test_the_result_of_a_chain():
    assert result("2 + 3 = 5. Then 5 * 4 = 20 apples, for 3 people") == 20
    assert result("there are 7 of them, and 8 others") == 7
    assert result("nothing to count") is None
    assert result("1 + 1 = 2. " * 500 + "2 + 2 = 4") == 4, "of a long chain the end counts"
