"""Prompt tables: each is read to the last mark, or refused with its line; no row is lost on the way."""

from __future__ import annotations

import csv
import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_core.errors import DataError
from raft_core.prompts import PromptFiles, distinct, gather, read_prompts
from raft_core.sampling import requests
from raft_core.types import Prompt


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def texts(prompts):
    return [prompt.text for prompt in prompts]


def refused(path, *words, **settings):
    with pytest.raises(DataError) as caught:
        read_prompts(path, **settings)
    for word in words:
        assert word in str(caught.value), str(caught.value)


# ---------------------------------------------------------------------- quotation marks


def test_tsv_has_no_quoting(tmp_path):
    rows = ['"Open the door, said the sign', "a dog", '"G I G G L E" painted on a wall', '5" nails', '"Closed"', '""']
    path = write(tmp_path, "p.tsv", "Prompt\tCategory\n" + "".join(f"{row}\t{i}\n" for i, row in enumerate(rows)))
    assert read_prompts(path) == [Prompt(row, {"Category": str(i)}) for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("content", "line", "word"),
    [
        ('prompt\n"Open" sign on a wall\na dog\n', 2, "begins with a quotation mark"),
        ('prompt,cat\na dog,A\n"Open the door,B\na cat,C\n', 3, "begins with a quotation mark"),
        ('prompt,cat\n"Open the door,A\na 12",B\na cat,C\n', 2, "could be a row of its own"),
        ('prompt\n"Open the door\na dog\nClosed"\na cat\n', 2, "could be a row of its own"),
        ('prompt;cat\n"Open the door;A\na 12";B\n', 2, "could be a row of its own"),
        ("prompt,cat\na dog\n", 2, "fewer fields"),
        ("prompt,cat\na dog,A,B\n", 2, "more fields"),
        ("prompt,cat\n\n\na dog, sitting,A\n", 4, "more fields"),
        ("prompt,prompt\na,b\n", 1, "two columns are called 'prompt'"),
        ("prompt;x,text\na;b,c\n", 1, "several ways"),
        ("a large red dog on the grass\na cat\n", 1, "looks like a prompt"),
        ("sep=|\nprompt|style\na|b\n", 1, "commas, semicolons and tabs are read"),
        ('prompt,cat\na "dog"x,A\n"a"x,B\n', 3, "quotation mark"),
        ("airplane\nautomobile\nbird\n", 1, "may be the column's name or the first prompt"),
        ("prompt\na\rdog\n", 2, "carriage return within a field"),
        ("pro\rmpt,x\na dog,1\n", 1, "carriage return within a field"),
    ],
)
def test_a_doubtful_csv_is_refused_with_its_line(tmp_path, content, line, word):
    refused(write(tmp_path, "p.csv", content), f"p.csv, line {line}:", word)


@pytest.mark.parametrize(
    ("content", "line", "word"),
    [
        ('"prompt"\t"cat"\n"a dog"\t"A"\n', 1, "quoted as in CSV"),
        ('prompt\tcat\n"a sign that says ""stop"""\tA\n', 2, "quoted as in CSV"),
        ("prompt\tcat\na dog\n", 2, "fewer fields"),
        ("prompt,cat\na dog,A\n", 1, "not separated by tabs"),
    ],
)
def test_a_doubtful_tsv_is_refused_with_its_line(tmp_path, content, line, word):
    refused(write(tmp_path, "p.tsv", content), f"p.tsv, line {line}:", word)


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)] * 2), min_size=1
    ),
    st.sampled_from([",", ";"]),
)
def test_what_a_program_writes_as_csv_is_read_as_it_was(tmp_path_factory, rows, separator):
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows([("prompt", "note"), *rows])
    path = write(tmp_path_factory.mktemp("csv"), "p.csv", out.getvalue())
    assert [(p.text, p.meta["note"]) for p in read_prompts(path)] == [(text.strip(), note) for text, note in rows]


# ---------------------------------------------------------------------- separators, headings


@pytest.mark.parametrize(
    "content",
    [
        "prompt;style\r\na dog, sitting;oil\r\n",
        "sep=;\nprompt;style\na dog, sitting;oil\n",
        "style\tPrompt\noil\ta dog, sitting\n",
    ],
)
def test_the_separator_of_a_csv_is_told_from_its_heading(tmp_path, content):
    assert read_prompts(write(tmp_path, "p.csv", content, "utf-8-sig")) == [Prompt("a dog, sitting", {"style": "oil"})]


@pytest.mark.parametrize("heading", ["Prompt", "PROMPTS", " prompt ", "Text", "caption"])
def test_the_prompts_column_is_known_in_capitals_too(tmp_path, heading):
    path = write(tmp_path, "p.csv", f"id,{heading}\n1,a dog\n")
    assert read_prompts(path) == [Prompt("a dog", {"id": "1"})]
    assert read_prompts(path, column="ID")[0].text == "1"
    refused(write(tmp_path, "q.jsonl", '{"Prompt": "a", "PROMPT": "b"}'), "PROMPT")


def test_a_column_without_a_name_is_the_index_of_a_data_frame(tmp_path):
    assert read_prompts(write(tmp_path, "p.csv", ",prompt\n0,a dog\n1,a cat\n")) == [Prompt("a dog"), Prompt("a cat")]


# ---------------------------------------------------------------------- JSON, Parquet


@pytest.mark.parametrize(
    "value", [["a dog", {"prompt": "a cat", "n": 1}], {"prompts": ["a dog", {"prompt": "a cat", "n": 1}], "name": "mine"}]
)
def test_json_files_hold_a_list(tmp_path, value):
    assert read_prompts(write(tmp_path, "p.json", json.dumps(value))) == [Prompt("a dog"), Prompt("a cat", {"n": 1})]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.json", '{"a": 1}', ["must hold a list"]),
        ("p.json", "[1]", ["entry 1", "got 1"]),
        ("p.json", "[", ["not JSON"]),
        ("p.json", '["\\ud800"]', ["entry 1", "surrogate"]),
        ("p.jsonl", '{"prompt": "a", "note": "\\udfff"}', ["line 1", "surrogate"]),
        ("p.jsonl", '"a"\n{"prompt": "b", "prompt": "c"}', ["line 2", "'prompt' twice"]),
        ("p.jsonl", f'{{"prompt": "a", "n": {"1" * 5000}}}', ["line 1", "5000 digits"]),
        ("p.jsonl", '{"prompt": "a", "n": ' + "[" * 5000 + "]" * 5000 + "}", ["line 1", "deep"]),
    ],
)
def test_odd_json_is_told_in_words(tmp_path, name, content, words):
    refused(write(tmp_path, name, content), *words)


def test_dates_in_parquet_are_read_however_far_away(tmp_path):
    far = pa.array([10**18, -(10**18)], pa.int64()).cast(pa.timestamp("us"))
    fine = pa.array([1, 10**18 + 1], pa.int64()).cast(pa.timestamp("ns"))
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": ["a", "b"], "far": far, "fine": fine}), path)
    found = read_prompts(path)
    assert texts(found) == ["a", "b"] and "00.000000001" in found[0].meta["fine"] and found[0].id
    pq.write_table(pa.table({"prompt": far}), path)
    refused(path, "row 1", "'prompt'", "not a text")


# ---------------------------------------------------------------------- seeds and negative prompts


@pytest.mark.parametrize("name", ["negative_prompt", "Negative Prompt", "negative-prompt", "negativePrompt", "NEGATIVE_PROMPT"])
def test_a_setting_is_known_however_its_words_are_joined(tmp_path, name):
    path = write(tmp_path, "p.json", json.dumps([{"prompt": "a dog", name: "blurry"}]))
    assert read_prompts(path) == [Prompt("a dog", {"negative_prompt": "blurry"})]


def test_seeds_and_negative_prompts_are_the_prompts_own(tmp_path):
    path = write(tmp_path, "p.csv", "prompt,Negative Prompt,Seed\na dog,blurry,5\na dog,,7.0\na cat,,\na cat,,-1\n")
    prompts, repeated = distinct(read_prompts(path))
    assert repeated == 1
    assert prompts == [Prompt("a dog", {"negative_prompt": "blurry", "seed": 5}), Prompt("a dog", {"seed": 7}), Prompt("a cat")]
    drawn = requests(prompts, 2, 0, "generate")
    assert [request.seed for request in drawn[:4]] == [5, 6, 7, 8]
    assert [r.seed for r in requests(prompts, 2, 1, "generate")][:4] == [5, 6, 7, 8]
    rounds = [[request.seed for request in requests(prompts[:1], 2, seed, rnd)] for seed in (0, 1) for rnd in (1, 2)]
    assert rounds[0] == rounds[2] and rounds[1] == rounds[3] and len({*rounds[0], *rounds[1]}) == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prompt,seed\na,1\nb,two\n", ["line 3", "'two' is no whole number"]),
        ("prompt,seed\na,1.5\n", ["line 2", "'1.5' is no whole number"]),
        ("prompt,seed\na,-7\n", ["line 2", "is no seed"]),
        (f"prompt,seed\na,{2**64}\n", ["line 2", "is no seed"]),
        ("prompt,seed,Seed\na,1,2\n", ["line 2", "two columns called 'seed'"]),
    ],
)
def test_a_seed_that_is_none_is_refused_with_its_line(tmp_path, content, words):
    refused(write(tmp_path, "p.csv", content), *words)


def test_a_text_with_several_seeds_is_on_one_side_alone(tmp_path):
    rows = "".join(f"prompt {n % 5},{n}\n" for n in range(20))
    found = gather(PromptFiles(str(write(tmp_path, "p.csv", "prompt,seed\n" + rows))), seed=0)
    assert len(found.held_out) == 4 and len(found.train) == 16
    assert not set(texts(found.train)) & set(texts(found.held_out))
    assert any("20 of 20 prompts have a seed of their own" in note for note in found.notes)


# ---------------------------------------------------------------------- templates


def test_templates_stand_for_all_their_prompts(tmp_path):
    (tmp_path / "wildcards").mkdir()
    write(tmp_path / "wildcards", "animal.txt", "# of the farm\ncat\n{big|small} dog\n")
    write(tmp_path, "colour.txt", "red\nblue\n")
    path = write(tmp_path, "p.txt", "a __colour__ __animal__\n\na {very |}{old|new} {house} \\{x\\}\nx_{1}^{2}\n")
    assert texts(read_prompts(path)) == [
        *(f"a {colour} {animal}" for colour in ("red", "blue") for animal in ("cat", "big dog", "small dog")),
        "a very old {house} {x}",
        "a very new {house} {x}",
        "a old {house} {x}",
        "a new {house} {x}",
        "x_{1}^{2}",
    ]
    found = gather(PromptFiles(str(path), held_out_fraction=0), seed=0)
    assert any("2 templates in" in note and "stand for 10 prompts" in note for note in found.notes)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a __colur__ cat", ["line 1", "colur.txt", "did you mean 'colour'"]),
        ("__loop__", ["line 1", "lead back to itself"]),
        ("{1|2}" * 20, ["line 1", "more than 10000 prompts"]),
        ("a {2$$red|blue} cat", ["line 1", "random draws"]),
        ("a {0.5::red|blue} cat", ["line 1", "random draws"]),
        ("__empty__", ["line 1", "is empty"]),
    ],
)
def test_templates_that_cannot_be_followed(tmp_path, line, words):
    write(tmp_path, "colour.txt", "red\n")
    write(tmp_path, "loop.txt", "__loop__\n")
    write(tmp_path, "empty.txt", "# nothing\n")
    refused(write(tmp_path, "p.txt", line), *words)


def test_braces_in_tables_are_braces(tmp_path):
    assert texts(read_prompts(write(tmp_path, "p.jsonl", '{"prompt": "{a|b} __c__"}'))) == ["{a|b} __c__"]


# ---------------------------------------------------------------------- presets


def test_presets_read_the_files_that_their_authors_publish(tmp_path, monkeypatch):
    write(tmp_path, "PartiPrompts.tsv", 'Prompt\tCategory\tChallenge\tNote\n"G I G" on a wall\tArts\tWriting\t\n')
    write(tmp_path, "DrawBench Prompts - Sheet1.csv", "Prompts,Category\n\"A sign that says 'Hi', there\",Text\n")
    write(tmp_path, "evaluation_metadata.jsonl", '{"tag": "counting", "include": [], "prompt": "a photo of two cows"}\n')
    for style in ("anime", "concept-art", "paintings", "photo"):
        write(tmp_path, f"{style}.json", json.dumps([f"{style} of a cat"]))
    write(tmp_path, "simple_animals.txt", "cat\nape\n")
    write(tmp_path, "activities.txt", "riding a bike\n")
    folder = str(tmp_path)
    assert texts(read_prompts(f"preset:partiprompts:{folder}")) == ['"G I G" on a wall']
    assert texts(read_prompts(f"preset:partiprompts:{folder}/PartiPrompts.tsv")) == ['"G I G" on a wall']
    assert texts(read_prompts(f"preset:drawbench:{folder}")) == ["A sign that says 'Hi', there"]
    assert read_prompts(f"preset:GenEval:{folder}")[0].meta == {"tag": "counting", "include": []}
    assert [p.meta["style"] for p in read_prompts(f"preset:hpsv2:{folder}")] == ["anime", "concept-art", "paintings", "photo"]
    assert texts(read_prompts(f"preset:ddpo_activities:{folder}")) == ["a cat riding a bike", "an ape riding a bike"]
    monkeypatch.chdir(tmp_path)
    assert texts(read_prompts("preset:ddpo_animals")) == ["cat", "ape"]
    assert texts(read_prompts("preset:ddpo_animals:.", base=tmp_path)) == ["cat", "ape"]


def test_a_preset_that_is_not_there_says_where_it_is_published(tmp_path):
    refused(f"preset:geneval:{tmp_path}", "evaluation_metadata.jsonl", "github.com/djghosh13/geneval")
    refused("preset:partiprompt", "did you mean 'partiprompts'?")
    write(tmp_path, "anime.json", "[]")
    refused(f"preset:hpsv2:{tmp_path}", "concept-art.json, paintings.json, photo.json")


# ---------------------------------------------------------------------- odd files


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.tsv"])
def test_lines_may_end_as_on_old_macs(tmp_path, name):
    heading = "" if name == "p.txt" else "prompt\r"
    assert texts(read_prompts(write(tmp_path, name, heading + "a dog\ra cat\r"))) == ["a dog", "a cat"]


def test_a_column_of_words_is_read_when_it_is_named(tmp_path):
    path = write(tmp_path, "p.csv", "label\nairplane\nbird\n")
    assert texts(read_prompts(path, column="label")) == ["airplane", "bird"]
    refused(path, "line 1", "prompts.column")


def test_a_pipe_is_no_file_of_prompts(tmp_path):
    os.mkfifo(tmp_path / "p.txt")
    refused(tmp_path / "p.txt", "no regular file")
