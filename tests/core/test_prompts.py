"""Prompts: every kind of file, every kind of mistake, the split and the draw."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_core.errors import ConfigError, DataError
from raft_core.prompts import PromptFiles, PromptSet, gather, read_prompts, split
from raft_core.types import Prompt


def texts(prompts):
    return [prompt.text for prompt in prompts]


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def test_text_file_keeps_lines_skips_blank_ones_and_the_byte_order_mark(tmp_path):
    path = write(tmp_path, "p.txt", "# of animals\na cat\r\n\n  # a comment \nüber # alles\n\\#1 fan\n", "utf-8-sig")
    assert texts(read_prompts(path)) == ["a cat", "über # alles", "#1 fan"]


def test_jsonl_takes_objects_and_strings_and_keeps_other_keys(tmp_path):
    path = write(tmp_path, "p.jsonl", '{"prompt": "a cat", "answer": 3}\n"a dog"\n')
    assert read_prompts(path) == [Prompt("a cat", {"answer": 3}), Prompt("a dog")]


def test_csv_takes_quoted_separators_and_line_breaks(tmp_path):
    path = write(tmp_path, "p.csv", 'id,caption\n1,"a cat, sitting"\n2,"a dog\nlying"\n')
    assert texts(read_prompts(path)) == ["a cat, sitting", "a dog\nlying"]
    assert read_prompts(path)[0].meta == {"id": "1"}


def test_tsv_and_parquet_take_a_named_column(tmp_path):
    tsv = write(tmp_path, "p.tsv", "what\twho\na cat\tme\n")
    assert texts(read_prompts(tsv, column="what")) == ["a cat"]
    parquet = tmp_path / "p.parquet"
    pq.write_table(pa.table({"what": ["a cat", "a dog"], "n": [1, 2]}), parquet)
    assert read_prompts(parquet, column="what")[1] == Prompt("a dog", {"n": 2})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.txt", b"", ["p.txt", "no prompts"]),
        ("p.txt", b"a cat\n\xff\xfe\n", ["p.txt", "line 2", "0xff", "UTF-8"]),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": \n', ["p.jsonl, line 2", "not JSON"]),
        ("p.jsonl", b"[1, 2]\n", ["line 1", "expected an object"]),
        ("p.jsonl", b'{"prompt": 3}\n', ["line 1", "'prompt' holds 3", "not a text"]),
        ("p.csv", b"prompt,n\na,1\nb,2,3\n", ["line 3", "more fields"]),
        ("p.csv", b"one,two\na,b\n", ["one, two", "prompts.column"]),
        ("p.parquet", b"nonsense", ["p.parquet", "Parquet"]),
        ("p.docx", b"x", [".docx", ".jsonl"]),
    ],
)
def test_unusable_files_are_named_with_line_and_remedy(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_prompts(path)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_missing_column_and_a_missing_file_name_the_nearest(tmp_path):
    path = write(tmp_path, "prompts.csv", "caption,n\na,1\n")
    with pytest.raises(DataError, match=r"no column 'captoin' \(did you mean 'caption'\?\)"):
        read_prompts(path, column="captoin")
    with pytest.raises(DataError, match=r"did you mean 'prompts.csv'"):
        read_prompts(tmp_path / "promts.csv")


def test_a_relative_file_is_found_beside_the_configuration(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "config").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(tmp_path / "config", "p.txt", "beside")
    assert texts(read_prompts("p.txt", base=tmp_path / "config")) == ["beside"]
    write(tmp_path / "here", "p.txt", "here")
    assert texts(read_prompts("p.txt", base=tmp_path / "config")) == ["here"]


def test_repeats_are_used_once_and_counted(tmp_path):
    path = write(tmp_path, "p.txt", "a\nb\na\nc\na\n")
    found = gather(PromptFiles(str(path), held_out_fraction=0), seed=0)
    assert texts(found.train) == ["a", "b", "c"]
    assert "2 repeated prompts" in found.notes[0]


def test_every_row_of_a_prompt_is_used_where_that_is_asked_for_and_no_prompt_lies_on_both_sides(tmp_path):
    rows = [{"prompt": str(n), "response": str(r)} for n in range(10) for r in (0, 1, 1)]
    path = write(tmp_path, "p.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    found = gather(PromptFiles(str(path), every_row=True), seed=0)
    assert "10 repeated rows" in found.notes[0]
    assert len(found.train) == 16 and len({(p.text, p.meta["response"]) for p in found.train}) == 16
    assert len(found.held_out) == 2 and not set(texts(found.train)) & set(texts(found.held_out))
    once = gather(PromptFiles(str(path)), seed=0)
    assert texts(once.train) == list(dict.fromkeys(texts(found.train))) and once.held_out == found.held_out


def test_what_is_trained_on_is_not_held_out(tmp_path):
    train, out = write(tmp_path, "t.txt", "a\nb\n"), write(tmp_path, "h.txt", "b\nc\n")
    found = gather(PromptFiles(str(train), str(out)), seed=0)
    assert texts(found.held_out) == ["c"]
    assert "1 prompts" in found.notes[0]
    with pytest.raises(DataError, match="have to be others"):
        gather(PromptFiles(str(train), str(train)), seed=0)


@given(n=st.integers(1, 40), fraction=st.floats(0, 0.99), seed=st.integers(0, 5))
def test_split_parts_the_prompts_and_is_fixed_by_the_seed(n, fraction, seed):
    prompts = [Prompt(str(i)) for i in range(n)]
    train, out = split(prompts, fraction, seed)
    assert sorted(texts(train) + texts(out)) == sorted(texts(prompts))
    assert train and (bool(out) == (fraction > 0 and n > 1))
    assert (train, out) == split(prompts, fraction, seed)


@settings(deadline=None)
@given(n=st.integers(1, 12), data=st.data(), seed=st.integers(0, 3))
def test_draw_goes_through_all_prompts_before_any_comes_again(n, data, seed):
    per_round = data.draw(st.integers(1, n))
    prompts = PromptSet([Prompt(str(i)) for i in range(n)], [], per_round, seed)
    rounds_per_epoch = n // per_round
    for epoch in range(3):
        drawn = [p.text for r in range(rounds_per_epoch) for p in prompts.draw(epoch * rounds_per_epoch + r + 1)]
        assert len(drawn) == len(set(drawn)) == rounds_per_epoch * per_round


def test_draw_differs_between_epochs_and_not_between_calls():
    prompts = PromptSet([Prompt(str(i)) for i in range(20)], [], 5, seed=0)
    assert prompts.draw(1) == prompts.draw(1)
    assert prompts.draw(1) != prompts.draw(5)


def test_more_prompts_per_round_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="there are 2 training prompts: choose 1 to 2"):
        PromptSet([Prompt("a"), Prompt("b")], [], 3, seed=0)


def test_hub_datasets_are_read_through_datasets(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = {}

    def load_dataset(name, split):
        asked.update(name=name, split=split)
        return datasets.Dataset.from_dict({"text": ["a cat"], "n": [1]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_prompts("hub:me/prompts:test") == [Prompt("a cat", {"n": 1})]
    assert asked == {"name": "me/prompts", "split": "test"}


def test_prompt_ids_survive_a_round_trip_through_json(tmp_path):
    prompt = Prompt("a cat", {"answer": [1, 2]})
    path = write(tmp_path, "p.jsonl", json.dumps({"prompt": prompt.text, **prompt.meta}))
    assert read_prompts(path)[0].id == prompt.id


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"Body": "Two and two.", "Question": "How many?", "Answer": 4}, "Two and two. How many?"),
        ({"context": "A passage. ", "question": "What is it?", "Answer": 4}, "A passage.\n\nWhat is it?"),
        ({"question": "Alone?", "Answer": 4}, "Alone?"),
        ({"Body": "b", "prompt": "Taken.", "Question": "q", "Answer": 4}, "Taken."),
    ],
)
def test_a_question_stands_behind_the_text_that_it_is_about(tmp_path, row, text):
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    (prompt,) = read_prompts(tmp_path / "p.jsonl")
    assert prompt.text == text and prompt.meta["Answer"] == 4
    assert not {"body", "question"} & {name.lower() for name in prompt.meta} or text == "Taken."


@pytest.mark.parametrize("row", [{"body": "a", "context": "b", "question": "q"}, {"body": "a", "Body": "b", "question": "q"}])
def test_what_a_question_is_about_must_be_plain(tmp_path, row):
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"say in prompts\.column which one"):
        read_prompts(tmp_path / "p.jsonl")


def test_a_question_about_what_is_no_text_is_told(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"body": 3, "question": "q"}) + "\n")
    with pytest.raises(DataError, match=r"column 'body' holds 3, which is not a text"):
        read_prompts(tmp_path / "p.jsonl")
