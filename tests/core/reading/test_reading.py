"""Plain data from outside: what is sound is read as it is, everything else is told in words, and nothing takes long."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raft_core.reading.files import Unreadable, excerpt, home_path, is_file, read_bytes, read_text
from raft_core.reading.json_data import json_lines, parse_json, read_object, require_shallow
from raft_core.reading.parquet import parquet_kinds, parquet_rows
from raft_core.reading.shapes import NUMBER, require_shape, taken_apart, whole_number
from raft_core.reading.yaml_data import parse_yaml, read_mapping

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_json_is_read_as_python_writes_it(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(PLAIN)
def test_yaml_is_read_as_it_is_written(value):
    text = yaml.safe_dump(value)
    if isinstance(value, float) or "\0" in json.dumps(value) or "\\u0000" in json.dumps(value):
        return
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("[1, 2", "not JSON"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        ("1" * 301, "301 digits"),
        ("[" * 101 + "]" * 101, "more than 100 deep"),
        ("[" * 100_000, "more than 100 deep"),
        (b"\xef\xbb\xbf\xff", "byte 0xff in line 1"),
        (b"[\n\xff]", "byte 0xff in line 2"),
        ("{'a': 1}", "not JSON"),
    ],
)
def test_json_beyond_the_limits(text, words):
    with pytest.raises(Unreadable, match=words):
        parse_json(text)


def test_json_within_the_limits():
    assert parse_json("[" * 100 + "]" * 100) and parse_json("1" * 300) == int("1" * 300)
    assert parse_json('{"a": 1, "a": 2}', repeated_keys=True) == {"a": 2}
    assert math.isnan(parse_json("NaN")) and parse_json(b"\xef\xbb\xbf[]") == []
    require_shallow([[{"a": [1]}]])


def test_json_lines_tell_what_is_wrong_with_each(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n\nnonsense\n\xff\n[2]')
    found = dict(json_lines(tmp_path / "a.jsonl"))
    assert found[1] == {"a": 1} and found[5] == [2] and list(found) == [1, 3, 4, 5]
    assert isinstance(found[3], Unreadable) and isinstance(found[4], Unreadable)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("lr: 1e-4", {"lr": 1e-4}),
        ("a: .5\nb: -1.5E3\nc: 1.", {"a": 0.5, "b": -1500.0, "c": 1.0}),
        ("a: 2001-01-01\nb: 1e5x", {"a": "2001-01-01", "b": "1e5x"}),
        ("- &A {x: 1, y: 2}\n- {<<: *A, x: 3}\n- *A", [{"x": 1, "y": 2}, {"x": 3, "y": 2}, {"x": 1, "y": 2}]),
        ("", None),
    ],
)
def test_yaml_as_configurations_are_written(text, value):
    assert parse_yaml(text) == value


def test_only_regular_files_are_read_and_only_so_much_of_them(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert read_bytes(tmp_path / "a", 100) == b"x" * 100
    with pytest.raises(Unreadable, match="larger than"):
        read_bytes(tmp_path / "a", 99)
    for path, words in ((tmp_path / "pipe", "no regular file"), (tmp_path, "a folder"), ("/dev/zero", "no regular file")):
        with pytest.raises(Unreadable, match=words):
            read_text(path)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "b")
    assert not is_file("a" * 5000) and not is_file("a\0b") and is_file(tmp_path / "a")
    assert str(home_path("~nobody-of-this-name/x")) == "~nobody-of-this-name/x"
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(Unreadable, match="must hold an object"):
        read_object(tmp_path / "c.json")
    (tmp_path / "c.yaml").write_text("- 1")
    with pytest.raises(Unreadable, match="must hold a mapping"):
        read_mapping(tmp_path / "c.yaml")


def test_foreign_words_are_one_line_that_a_terminal_shows():
    assert excerpt("a\n b\t\x1b[31mc\u202e", 40) == "a b �[31mc�"
    assert excerpt("x" * 10**7, 10) == "xxxxxxxxx…"


SHAPE = {"name": str, "n": int, "rows": [{"x": NUMBER}], "either": (str, type(None))}


def test_shapes():
    value = {"name": "a", "n": 3, "rows": [{"x": 1.5}, {"x": None}, {}], "either": None, "other": object}
    assert require_shape(value, SHAPE, "", needs=("name",)) is value
    for change, words in (
        ({"n": True}, "n is True, but must be a whole number"),
        ({"n": 3.0}, "n is 3.0, but must be a whole number"),
        ({"name": ["a"]}, r"name is \['a'\], but must be a text"),
        ({"rows": {}}, "rows is {}, but must be a list"),
        ({"rows": [{"x": "1"}]}, r"rows\[0\].x is '1', but must be a whole number or a number or null"),
        ({"either": 1}, "either is 1, but must be a text or null"),
    ):
        with pytest.raises(Unreadable, match=words):
            require_shape({**value, **change}, SHAPE, "")
    with pytest.raises(Unreadable, match="has no 'gone'"):
        require_shape(value, SHAPE, "", needs=("gone",))
    with pytest.raises(Unreadable, match="the run is damaged"), taken_apart("the run"):
        value["rows"][7]


@pytest.mark.parametrize(
    ("value", "number"), [(5, 5), ("5", 5), (5.0, 5), ("5.0", 5), ("", None), (None, None), (math.nan, None)]
)
def test_whole_numbers_as_tables_write_them(value, number):
    assert whole_number(value) == number


@pytest.mark.parametrize("value", ["x", "5.5", 5.5, True, [5], "1" * 100, math.inf, "nan"])
def test_what_is_no_whole_number(value):
    with pytest.raises(Unreadable, match="no whole number"):
        whole_number(value)


def test_parquet_rows_are_plain(tmp_path):
    table = pa.table({"t": ["a", None], "d": pa.array([0, 1], pa.timestamp("ns")), "x": [[1], []], "b": [b"\0", None]})
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = parquet_rows(tmp_path / "a.parquet")
    assert first == {"t": "a", "d": "1970-01-01 00:00:00.000000000", "x": [1], "b": b"\0"} and second["t"] is None
    assert parquet_kinds(tmp_path / "a.parquet")["d"] == "timestamp[ns]"
    assert list(parquet_rows(tmp_path / "a.parquet", ["x"])) == [{"x": [1]}, {"x": []}]
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(Unreadable, match="column 'a' twice"):
        list(parquet_rows(tmp_path / "b.parquet"))


def test_damaged_parquet_is_told_as_such(tmp_path):
    pq.write_table(pa.table({"t": ["ä" * 50] * 300, "n": list(range(300))}), tmp_path / "a.parquet")
    data, draw = (tmp_path / "a.parquet").read_bytes(), random.Random(0)
    for _ in range(60):
        harmed = bytearray(data[: draw.randrange(len(data) + 1)] if draw.random() < 0.2 else data)
        for _ in range(draw.choice((1, 5, 50))):
            if harmed:
                harmed[draw.randrange(len(harmed))] = draw.randrange(256)
        (tmp_path / "b.parquet").write_bytes(bytes(harmed))
        with contextlib.suppress(Unreadable):
            list(parquet_rows(tmp_path / "b.parquet"))
