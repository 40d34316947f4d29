import json

import pytest

from raft_core.errors import DataError
from raft_core.prompts import read_prompts
from raft_text.reasoning.datasets import Problem, convert, mathqa_options, read_problems, write_prompts
from raft_text.reasoning.reading import Reader
from raft_text.reasoning.templates import HEAD, N_COT, P_COT

GSM8K = {
    "question": "Natalia sold clips to 48 friends in April, and half as many in May. How many altogether?",
    "answer": "In May she sold 48/2 = <<48/2=24>>24 clips.\nAltogether 48+24 = <<48+24=72>>72.\n#### 72",
}
SVAMP = {
    "ID": "chal-1",
    "Body": "Each pack of dvds costs 76 dollars. There is a discount of 25 dollars on each pack.",
    "Question": "How much do you pay for a pack?",
    "Equation": "( 76.0 - 25.0 )",
    "Answer": 51.0,
    "Type": "Subtraction",
}
MATHQA = {
    "Problem": "the banker ' s gain of a certain sum due 3 years hence at 10 % is rs . 36 . what is the present worth ?",
    "Rationale": '"explanation : t = 3 years . answer : option a"',
    "options": "a ) rs . 400 , b ) rs . 300 , c ) rs . 500 , d ) rs . 350 , e ) none of these",
    "correct": "a",
    "annotated_formula": "divide(...)",
    "linear_formula": "multiply(n2,const_100)|",
    "category": "gain",
}
REFT = {"item_id": "svamp_9", "question": "23 + 28?", "answer_cot": "def solution():\n    return 23 + 28", "answer_value": "51"}


def lines(path, *records):
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n\n", encoding="utf-8")
    return path


def test_gsm8k(tmp_path):
    path = lines(tmp_path / "train.jsonl", GSM8K, {"question": "How many?", "answer": "Many.\n#### 1,250"})
    assert read_problems(path) == [
        Problem(GSM8K["question"], "72", "In May she sold 48/2 = 24 clips.\nAltogether 48+24 = 72."),
        Problem("How many?", "1,250", "Many."),
    ]


def test_svamp(tmp_path):
    path = tmp_path / "SVAMP.json"
    path.write_text(json.dumps([SVAMP, SVAMP], indent=2))
    question = f"{SVAMP['Body']} {SVAMP['Question']}"
    assert read_problems(path) == [Problem(question, "51")] * 2


def test_mathqa(tmp_path):
    path = tmp_path / "test.json"
    path.write_text(json.dumps([MATHQA]))
    (problem,) = read_problems(path)
    assert problem.question == f"{MATHQA['Problem']}\n{MATHQA['options']}"
    assert problem.answer_value == "a"
    assert problem.answer_cot == "explanation : t = 3 years . answer : option a"


def test_mathqa_options_in_all_their_spellings():
    expected = {"a": "12", "b": "15", "c": "10", "d": "8", "e": "14"}
    assert mathqa_options("a ) 12 , b ) 15 , c ) 10 , d ) 8 , e ) 14") == expected
    assert mathqa_options("['a ) 12', 'b ) 15', 'c ) 10', 'd ) 8', 'e ) 14']") == expected
    assert mathqa_options("a ) a ) 12 , b ) b ) 15 , c ) c ) 10 , d ) d ) 8 , e ) e ) 14") == expected
    assert mathqa_options("a ) 1 , 000 , b ) $ 0.40 , c ) 1 / 2 , d ) - 3 , e ) none of these")["a"] == "1 , 000"


def test_refts_own_files_and_plain_lines(tmp_path):
    path = tmp_path / "reft.json"
    path.write_text(json.dumps([REFT, {"item_id": "x", "question": "1 + 1?", "answer_value": 2}]))
    assert read_problems(path) == [Problem("23 + 28?", "51", REFT["answer_cot"]), Problem("1 + 1?", "2")]
    assert read_problems(lines(tmp_path / "plain.jsonl", REFT))[0].answer_value == "51"


def test_prompts_for_a_run_read_back_with_their_answers(tmp_path):
    problems = read_problems(lines(tmp_path / "train.jsonl", GSM8K))
    write_prompts(tmp_path / "prompts.jsonl", problems)
    (prompt,) = read_prompts(tmp_path / "prompts.jsonl")
    assert prompt.text == GSM8K["question"]
    assert prompt.meta["answer_value"] == "72"
    taught = N_COT.format(prompt=prompt.text) + prompt.meta["response"]
    assert taught.endswith("Altogether 48+24 = 72.\nTherefore, the answer is: 72")
    assert Reader()([taught]) == [72.0]


def test_programs_are_taught_without_the_head_that_the_prompt_holds(tmp_path):
    cot = HEAD.format(prompt="23 + 28?") + "    a = 23\n    return a + 28"
    write_prompts(tmp_path / "prompts.jsonl", [Problem("23 + 28?", "51", cot)], reasoning="program")
    (prompt,) = read_prompts(tmp_path / "prompts.jsonl")
    assert prompt.meta["response"] == "    a = 23\n    return a + 28"
    assert (P_COT.format(prompt=prompt.text) + prompt.meta["response"]).endswith(cot)


def test_the_command_writes_prompts(tmp_path, capsys):
    source, target = lines(tmp_path / "train.jsonl", GSM8K), tmp_path / "prompts.jsonl"
    convert(str(source), str(target))
    assert "1 problems in" in capsys.readouterr().out
    assert read_prompts(target)[0].meta["answer_value"] == "72"


BROKEN = {
    "unknown layout": (
        '{"prompt": "a"}',
        r"line 1: the fields prompt are of no known layout. Known are plain: question, answer_value",
    ),
    "missing field": (json.dumps(GSM8K) + '\n{"question": "a"}', r"line 2: the field 'answer' of the layout gsm8k is missing"),
    "no mark": ('{"question": "a", "answer": "72"}', r"line 1: the field 'answer' has no ####"),
    "no number": (
        '{"question": "a", "answer": "#### many"}',
        r"line 1: the field 'answer' states the answer many, which is no num",
    ),
    "null": ('{"question": "a", "answer_value": null}', r"line 1: the field 'answer_value' holds null, but must be a text"),
    "empty question": ('{"question": " ", "answer_value": "3"}', r"line 1: the field 'question' holds"),
    "a list for a text": ('{"question": ["a"], "answer_value": "3"}', r"line 1: the field 'question' holds \[\"a\"\]"),
    "not JSON": ('\n{"question": ', r"line 2: not JSON"),
    "two in a line": ('{"question": "a", "answer_value": "3"} {}', r"line 1: more than one value in a line"),
    "a number": ("3", r"line 1: expected an object"),
    "nothing": ("\n", r"has no problems in it"),
    "list, cut off": ('[\n{"question": "a", "answer_value": "3"},\n', r"line 3: the list of problems is cut off"),
    "list, no comma": (
        '[\n{"question": "a", "answer_value": "3"}\n{}]',
        r"line 3: the list of problems is cut off or lacks a comma",
    ),
    "list, later item": (
        '[\n{"question": "a", "answer_value": "3"},\n\n{"question": "b"}]',
        r"line 4: the field 'answer_value'",
    ),
    "list, bad item": ('[\n{"question": "a", "answer_value": "3"},\n{"question":\n oops}]', r"line 4: not JSON"),
    "list, trailing": ("[]\nmore", r"line 1: there is more after the list"),
    "empty list": ("[]", r"has no problems in it"),
    "huge number": ('{"question": "a", "answer_value": ' + "9" * 5000 + "}", r"line 1: not JSON"),
    "wrong option": (
        json.dumps({**MATHQA, "correct": "f"}),
        r"line 1: the correct option is 'f', but the options are a, b, c, d, e",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_errors_name_the_file_and_the_line(case, tmp_path):
    content, message = BROKEN[case]
    path = tmp_path / "problems.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"problems\.jsonl.*{message}"):
        read_problems(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json cannot be read: No such file"):
        read_problems(tmp_path / "absent.json")
    with pytest.raises(DataError, match=r"ending '\.csv'"):
        read_problems(tmp_path / "problems.csv")
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "a",\n "\xe9"}')
    with pytest.raises(DataError, match=r"latin\.jsonl cannot be read: it is not UTF-8 .*line 2"):
        read_problems(tmp_path / "latin.jsonl")
    with pytest.raises(DataError, match=r"line 1: the field 'answer' of the layout gsm8k is missing"):
        read_problems(lines(tmp_path / "plain.jsonl", REFT), layout="gsm8k")
