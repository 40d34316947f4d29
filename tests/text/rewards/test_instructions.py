"""Instructions that can be verified: each against a text that follows it and one that does not."""

from __future__ import annotations

import importlib.util
import json
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from raft_core.config.components import Walk
from raft_core.errors import ConfigError, RewardError
from raft_core.prompts import read_prompts
from raft_core.rewards.scoring import PartlyScored
from raft_core.types import Prompt, Request, Sample
from raft_text.rewards import VerifiableInstructions
from raft_text.rewards.ifeval import CHECKS, mistakes_in, sentences

AT_LEAST, LESS = {"relation": "at least"}, {"relation": "less than"}
SECOND_SAYS_BUT = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "But"}
# id, arguments, texts that follow it, texts that do not
CASES = [
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["GO to U.S. now"],
        ["GO"],
    ),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "less than"}, ["go On"], ["I go"]),
    ("change_case:english_capital", {}, ["ALL OF IT, 3!"], ["All of it", "123"]),
    ("change_case:english_lowercase", {}, ["all of it, 3!"], ["All of it"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say  hi."}, [" say  hi. Hi!"], ["Hi! Say  hi."]),
    ("combination:two_responses", {}, ["one ****** two", "******one****** two"], ["one", "a ****** a", "a******b******c"]),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["Dear [name], at [place]"],
        ["Dear [name], at [pl\nace]"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Bye.\nP. S. More"], ["Bye.\nPS more"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["Bye. p.p.s. x"], ["Bye. P.S. x"]),
    ("detectable_format:constrained_response", {}, ["Well. My answer is maybe."], ["Maybe."]),
    ("detectable_format:json_format", {}, ['{"a": [1]}', '```json\n{"a": 1}\n```', "3"], ["{'a': 1}", "Here: {}"]),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1 a SECTION 2 b"],
        ["SECTION A"],
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n- b\n**c**"], ["* a", "* a\n* b\n* c"]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["*a* and **b c**"], ["*a*", "* *, **", "*a\nb*"]),
    ("detectable_format:title", {}, ["<<A poem>>\nx", "a << b >> c"], ["<<>>", "<<a\nb>>", "<a>", ">> a <<"]),
    ("keywords:existence", {"keywords": ["sea", "Land"]}, ["SEASIDE landing"], ["sea"]),
    ("keywords:forbidden_words", {"forbidden_words": ["sea", "c++"]}, ["seaside"], ["the Sea!"]),
    ("keywords:frequency", {"keyword": "a.b", "frequency": 2} | AT_LEAST, ["a.b A.B"], ["a.b axb"]),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "less than"}, ["#"], ["##"]),
    ("keywords:letter_frequency", {"letter": "E", "let_frequency": 2, "let_relation": "at least"}, ["eE"], ["e"]),
    ("length_constraints:nth_paragraph_first_word", SECOND_SAYS_BUT, ["a\n\n'but, b"], ["a\n\nb", "a\n\nbut\n\nc", "but"]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***a\n***\nb"],
        ["a\n\nb", "a\n***\n***\nb"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2} | AT_LEAST,
        ["Dr. A. Smith came. He left!"],
        ["Dr. A. Smith came."],
    ),
    ("length_constraints:number_words", {"num_words": 3} | LESS, ["one, two"], ["one two three"]),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
    ("startend:end_checker", {"end_phrase": "The End."}, ['"x. the end."', "the END.\n"], ["The end. No."]),
    ("startend:quotation", {}, [' "all of it" '], ['"', 'a "b"']),
]


@pytest.mark.parametrize(("name", "arguments", "followed", "not_followed"), CASES)
def test_every_kind(name, arguments, followed, not_followed):
    assert mistakes_in(name, arguments) == []
    assert [CHECKS[name](text, **arguments) for text in followed] == [True] * len(followed)
    assert [CHECKS[name](text, **arguments) for text in not_followed] == [False] * len(not_followed)


def test_no_kind_is_left_out():
    assert set(CHECKS) - {name for name, *_ in CASES} == {"language:response_language"}
    assert len(CHECKS) == 25


@pytest.mark.skipif(importlib.util.find_spec("langdetect") is None, reason="the extra `instructions` is not installed")
def test_the_language_of_a_text():
    check = CHECKS["language:response_language"]
    german = "Das ist ein kurzer Satz, und hier kommt noch einer hinterher."
    assert [check(german, language="de") for _ in range(5)] == [True] * 5
    assert not check(german, language="en")
    assert not check("123", language="en"), "a text without letters is in no language"


def test_sentences_are_told_apart():
    assert sentences('She said "No." Then e.g. Mr. B. Brown left! Why?  Who knows…') == [
        'She said "No."',
        "Then e.g. Mr. B. Brown left!",
        "Why?",
        "Who knows…",
    ]
    assert sentences(" ") == []


META = {
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"num_words": 3, "relation": "at least", "keywords": None}],
}


def drawn(*texts, meta=META):
    return [Sample(Request(Prompt("Write.", meta), i, i), output=text) for i, text in enumerate(texts)]


def test_the_share_and_all():
    texts = ("one two three", "one, two, three", "one, two", "")
    np.testing.assert_array_equal(VerifiableInstructions()(drawn(*texts)), [1, 0.5, 0, 0])
    np.testing.assert_array_equal(VerifiableInstructions(counting="all")(drawn(*texts)), [1, 0, 0, 0])


def test_loose_reading_forgives_a_preface_and_markdown():
    meta = {"instruction_id_list": ["startend:quotation", "change_case:english_lowercase"], "kwargs": [{}, {}]}
    texts = ('Sure, here it is:\n"*all* of it"', '"all of it"\nHope this helps!', '"All of it"')
    np.testing.assert_array_equal(VerifiableInstructions()(drawn(*texts, meta=meta)), [0, 0, 0.5])
    np.testing.assert_array_equal(VerifiableInstructions(reading="loose")(drawn(*texts, meta=meta)), [1, 1, 0.5])


@pytest.mark.parametrize(
    ("names", "arguments", "said"),
    [
        (["punctuation:no_commas"], [{}], r"'punctuation:no_commas' is not known \(did you mean 'punctuation:no_comma'\?\)"),
        ([["a"]], [{}], r"\['a'\] is not known"),
        (["length_constraints:number_words"], [{"num_words": 3}], "relation is None, but must be 'less than' or 'at least'"),
        (["length_constraints:number_words"], [{"num_words": -1, **LESS}], "num_words is -1, but must be a whole number"),
        (["length_constraints:number_words"], None, "num_words is None"),
        (["keywords:existence"], [{"keyword": ["a"]}], r"has no argument 'keyword' \(did you mean 'keywords'"),
        (["keywords:existence"], [{"keywords": "a"}], "keywords is 'a', but must be a list of texts"),
        (["keywords:letter_frequency"], [{"letter": "ab", "let_frequency": 1, "let_relation": "at least"}], "one character"),
        (["punctuation:no_comma"], [{}, {}], "has 1 instructions, but 2 objects of arguments"),
        (["punctuation:no_comma"], [3], "the arguments of punctuation:no_comma are 3, but must be an object"),
    ],
)
def test_what_cannot_be_checked_is_told_before_a_run_and_never_scored(names, arguments, said):
    reward = VerifiableInstructions()
    wrong = Prompt("Write.", {"instruction_id_list": names, "kwargs": arguments})
    assert re.search(said, "\n".join(reward.check_prompts([Prompt("Fine.", META), wrong], [])))
    samples = [*drawn("one two three"), Sample(Request(wrong, 0, 0), output="one two three")]
    with pytest.raises(PartlyScored) as caught:
        reward(samples)
    np.testing.assert_array_equal(caught.value.values, [1, np.nan])
    with pytest.raises(RewardError):
        reward(samples[1:])


def test_prompts_without_instructions_are_told_of():
    reward = VerifiableInstructions()
    assert reward.check_prompts([Prompt("a", META)], []) == []
    (told,) = reward.check_prompts([Prompt("a", META)], [Prompt("b", {"instruction_ids": ["x"]})])
    assert "of the held-out prompts not one" in told and "did you mean 'instruction_ids'" in told
    many = [Prompt("a", {"instruction_id_list": [f"no:{i}"]}) for i in range(9)]
    assert reward.check_prompts(many, [])[-1] == "… and 7 more mistakes in the instructions of the prompts"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    problems = mistakes_in("language:response_language", {"language": "de"})
    assert "pip install 'raft-align[instructions]'" in problems[0]


def test_files_of_every_sort_can_hold_them(tmp_path):
    """JSONL as IFEval's own, Parquet as the Hub's (every argument in every row, mostly null), CSV with JSON in its fields."""
    row = {"prompt": "Write.", **META, "kwargs": [{}, {"num_words": 3, "relation": "at least"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    fields = [row["prompt"], *('"' + json.dumps(row[name]).replace('"', '""') + '"' for name in META)]
    (tmp_path / "a.csv").write_text("prompt,instruction_id_list,kwargs\n" + ",".join(fields) + "\n")
    for name in ("a.jsonl", "a.parquet", "a.csv"):
        prompts = read_prompts(tmp_path / name)
        assert VerifiableInstructions().check_prompts(prompts, []) == []
        assert VerifiableInstructions()([Sample(Request(prompts[0], 0, 0), output="one, two, three")]) == [0.5]


def test_settings():
    with pytest.raises(ConfigError) as caught:
        VerifiableInstructions("", reading="lax", counting="none")  # type: ignore[arg-type]
    assert len(caught.value.mistakes) == 3
    walk = Walk()
    part = walk.component({"class_path": "VerifiableInstructions", "init_args": {"counting": "all"}}, "reward", "reward")
    assert walk.mistakes == [] and part.make().info.scale == "1 = all instructions are followed, read strictly"


@pytest.mark.parametrize("junk", ["[", "*", "<<", "\n", "* ", "P. ", "- ", "a.", '"', "Section "])
def test_endless_junk_is_checked_at_once(junk):
    for name, arguments, *_ in CASES:
        CHECKS[name](junk * 30_000, **arguments)
