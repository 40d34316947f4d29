"""Run folders of anybody's making: whatever is in their files, they are read or refused in words."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from test_report import make_run

from raft_core.errors import RaftError, StoreError
from raft_core.report.page import write_report
from raft_core.reporter import Silent
from raft_core.store.checkpoint import checkpoints_in
from raft_core.store.manifest import read_config, read_history, read_run
from raft_core.store.rounds import read_round, rounds_in
from raft_core.store.store import Store
from raft_core.workflows.whatif import stored_rounds

ODD = [None, True, -1, 10**9, 10**30, 1.5, float("nan"), "", "x", "../../x", "\ud800", "<b>", [], [1], [None], {}, {"a": 1}]
TABLES = [[None] * 9, ["x"] * 9, [10**12] * 9, [b"x"] * 9, [[1]] * 9, ["[1]"] * 9, [{"bytes": b"abc", "path": "p"}] * 9]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return [make_run(tmp_path_factory.mktemp("foreign") / kind, kind, rounds=2) for kind in ("image", "text")]


def places(value, path=()):
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def harmed(value, draw):
    """The same data with something odd in one place."""
    value, odd = copy.deepcopy(value), copy.deepcopy(draw.choice(ODD))
    path = draw.choice(list(places(value)))
    if not path:
        return odd
    node = value
    for key in path[:-1]:
        node = node[key]
    if draw.random() < 0.3:
        del node[path[-1]]
    else:
        node[path[-1]] = odd
    return value


def harm_table(file, draw):
    table = pq.read_table(file)
    facts = dict(table.schema.metadata)
    how = draw.random()
    if how < 0.4:
        facts[b"raft"] = json.dumps(harmed(json.loads(facts[b"raft"]), draw)).encode()
    elif how < 0.6:
        table = table.drop_columns([draw.choice(table.column_names)])
    else:
        column = pa.array((draw.choice(TABLES) * len(table))[: len(table)])
        place = draw.randrange(table.num_columns)
        table = table.set_column(place, table.column_names[place], column)
    pq.write_table(table.replace_schema_metadata(facts), file)


def harm(folder, draw):
    """Make one file of a run odd."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".safetensors"]
    file, how = draw.choice(files), draw.random()
    if how < 0.1:
        file.unlink()
        draw.choice((os.mkfifo, os.mkdir, lambda place: place.symlink_to(place)))(file)
    elif how < 0.2:
        file.write_bytes(bytes(draw.randrange(256) for _ in range(40)))
    elif file.suffix == ".parquet":
        harm_table(file, draw)
    elif file.suffix == ".json":
        file.write_text(json.dumps(harmed(json.loads(file.read_text()), draw)))
    elif file.suffix == ".jsonl":
        rows = harmed([json.loads(line) for line in file.read_text().splitlines()], draw)
        file.write_text("\n".join(map(json.dumps, rows if isinstance(rows, list) else [rows])))
    elif file.suffix == ".yaml":
        file.write_text(json.dumps(harmed(yaml.safe_load(file.read_text()), draw)))  # JSON is YAML
    return file


def read_everything(folder):
    """Whatever reads a run folder; what it says in words is fine."""
    readers = [
        read_run,
        read_config,
        read_history,
        write_report,
        stored_rounds,
        lambda place: Store.resume(place, reporter=Silent()).close(),
    ]
    readers += [lambda place, rnd=rnd: read_round(place, rnd, tensors=True) for rnd in rounds_in(folder)]
    for read in readers:
        with contextlib.suppress(RaftError):
            read(folder)


@pytest.mark.parametrize("seed", range(60))
def test_odd_run_folders_are_read_or_refused_in_words(runs, tmp_path, seed):
    draw = random.Random(seed)
    folder = tmp_path / "run"
    shutil.copytree(runs[seed % 2], folder)
    for _ in range(draw.choice((1, 1, 2))):
        harm(folder, draw)
    read_everything(folder)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("run.json", b"[]", "must hold an object"),
        ("run.json", b'{"status": 3}', "status is 3, but must be a text"),
        ("run.json", b'{"format": 99}', "of format 99"),
        ("run.json", b'{"seed": ' + b"1" * 5000 + b"}", "5000 digits"),
        ("run.json", b"\xff\xfe", "not UTF-8"),
        ("config.yaml", b"- 1", "must hold a mapping"),
        ("config.yaml", b"a: &a [*a]", "what it is part of"),
        ("metrics.jsonl", b'{"round": 1}\nnull\n', "line 2: it is None, but must be an object"),
        ("metrics.jsonl", b'{"round": 1}\n{"round": 2, "re', "line 2: it is not JSON"),
        ("metrics.jsonl", b'{"round": 2}\n{"round": 1}', "line 2: round 1 does not follow"),
        ("metrics.jsonl", b'{"round": 1, "reward/mean": [1]}', "line 1: reward/mean is [1]"),
    ],
)
def test_what_is_wrong_with_a_run_is_told(tmp_path, file, content, words):
    (tmp_path / file).write_bytes(content)
    read = {"run.json": read_run, "config.yaml": read_config, "metrics.jsonl": read_history}[file]
    with pytest.raises(StoreError) as caught:
        read(tmp_path)
    assert words in str(caught.value)


def test_folders_that_are_no_rounds_are_passed_over(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs[0], folder)
    for name in ("0001x", "²", "1", "99999999999999999999", "00007"):
        for place in ("rounds", "checkpoints"):
            (folder / place / name).mkdir()
            (folder / place / name / "samples.parquet").touch()
    assert rounds_in(folder) == [1, 2] and checkpoints_in(folder) == [0, 1, 2]


def test_a_checkpoints_sums_lead_nowhere_else(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs[0], folder)
    for name in ("/dev/zero", "../0001/state.json"):
        (folder / "checkpoints/0002/SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
        with pytest.warns(UserWarning, match="there is no file"):
            Store.resume(folder).close()
        shutil.rmtree(folder)
        shutil.copytree(runs[0], folder)
