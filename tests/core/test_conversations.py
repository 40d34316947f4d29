"""Conversations: every layout that data sets publish comes out as messages with their roles, or is refused in words."""

from __future__ import annotations

import json

import pytest

from raft_core.conversations import BadConversation, messages_of, prompt_of, response, transcript
from raft_core.errors import DataError
from raft_core.preferences.ballots import ballots_of, read_ballots, write_ballots
from raft_core.preferences.read import read_items, read_preferences
from raft_core.prompts import PromptFiles, gather, read_prompts
from raft_core.types import Prompt, Request, Sample
from raft_core.workflows.generate import write_outputs
from raft_core.workflows.study import StudySettings, labelled_pairs


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def bot(text, **more):
    return {"role": "assistant", "content": text, **more}


CALL = bot("", tool_calls=[{"type": "function", "function": {"name": "add", "arguments": "{}"}}])


def gpt(**turns):
    return [{"from": name, "value": text} for name, text in turns.items()]


#: Layout → row, messages, response.
LAYOUTS = {
    "OpenAI": (
        {"messages": [system("s"), user("a"), bot("b"), user("c"), bot("d")]},
        [system("s"), user("a"), bot("b"), user("c")],
        "d",
    ),
    "without an answer": ({"messages": [user("a"), bot("b"), user("c")]}, [user("a"), bot("b"), user("c")], None),
    "an answer beside it": ({"messages": [user("a")], "response": "b"}, [user("a")], "b"),
    "parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
        [user("ab")],
        None,
    ),
    "nulls of Parquet": (
        {"messages": [{"role": "user", "content": "a", "name": None, "tool_calls": None}, bot("b", name=None)], "tools": None},
        [user("a")],
        "b",
    ),
    "ShareGPT": (
        {"conversations": gpt(human="a", gpt="b"), "system": "s"},
        [system("s"), user("a")],
        "b",
    ),
    "prompt and completion": (
        {"prompt": [user("a"), bot("b"), user("c")], "completion": [bot("d")]},
        [user("a"), bot("b", weight=0), user("c")],
        "d",
    ),
    "prompt alone": ({"prompt": [system("s"), user("a")]}, [system("s"), user("a")], None),
    "a beginning is given": (
        {"prompt": [user("a"), bot("b")], "completion": [bot("c")]},
        [user("a"), bot("b", weight=0)],
        "c",
    ),
    "explicit preference": ({"prompt": [user("a")], "chosen": [bot("b")], "rejected": [bot("c")]}, [user("a")], "b"),
    "implicit preference": (
        {"chosen": [user("a"), bot("b"), user("c"), bot("d")], "rejected": [user("a"), bot("b"), user("c"), bot("e")]},
        [user("a"), bot("b", weight=0), user("c")],
        "d",
    ),
    "UltraFeedback's": (
        {"prompt": "a", "chosen": [system("s"), user("a"), bot("b")], "rejected": [system("s"), user("a"), bot("c")]},
        [system("s"), user("a")],
        "b",
    ),
    "Alpaca with a system message and a history": (
        {"instruction": "c", "input": "", "output": "d", "system": "s", "history": [["a", "b"]]},
        [system("s"), user("a"), bot("b"), user("c")],
        "d",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_keeps_its_roles(name, tmp_path):
    row, messages, answer = LAYOUTS[name]
    (tmp_path / "data.jsonl").write_text(json.dumps({**row, "subject": "x"}))
    (prompt,) = read_prompts(tmp_path / "data.jsonl")
    assert prompt.messages == messages and response(prompt) == answer
    assert prompt.text == transcript(messages) and prompt.meta["subject"] == "x"
    assert json.loads(json.dumps(prompt.meta)) == prompt.meta  # it survives the store


def test_texts_stay_texts():
    assert prompt_of({"prompt": "a", "response": "b"}) is None and prompt_of({"text": "a"}) is None
    alpaca = prompt_of({"instruction": "Add.", "input": "2 + 3", "output": "5"})
    assert alpaca is not None and (alpaca.text, alpaca.messages, response(alpaca)) == ("Add.\n2 + 3", None, "5")
    chosen = prompt_of({"prompt": "a ", "chosen": [user("a "), bot("b")], "rejected": [user("a "), bot("c")], "n": 1})
    assert chosen == Prompt("a", {"n": 1, "response": "b"})


def test_a_column_decides(tmp_path):
    row = {"prompt": "first", "messages": [user("first"), bot("x"), user("second"), bot("y")]}
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    assert read_prompts(tmp_path / "data.jsonl")[0].messages == [user("first"), bot("x"), user("second")]
    (text,) = read_prompts(tmp_path / "data.jsonl", column="prompt")
    assert text == Prompt("first") and text.messages is None


def test_parquet_is_read_as_json_lines_are(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"messages": [system("s"), user("a"), bot("b")]},
        {"messages": [user("c"), bot("d", weight=0), user("e"), bot("f")]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    found = read_prompts(tmp_path / "data.parquet")
    assert [prompt.messages for prompt in found] == [[system("s"), user("a")], [user("c"), bot("d", weight=0), user("e")]]


def test_a_reply_that_is_more_than_a_text_is_kept_whole():
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
    prompt = prompt_of({"messages": [user("a"), bot("b", reasoning_content="hm", tool_calls=[call])], "tools": "[]"})
    assert prompt is not None and response(prompt) == "b"
    assert prompt.meta["reply"] == bot("b", reasoning_content="hm", tool_calls=[call]) and prompt.meta["tools"] == "[]"


BAD = {
    "a role": ({"messages": [{"role": "usr", "content": "a"}]}, r"messages\[0\] has the role 'usr'.*did you mean 'user'"),
    "no content": ({"messages": [{"role": "user"}]}, r"messages\[0\] has neither a content"),
    "a number": ({"messages": [{"role": "user", "content": 3}]}, "content 3, which is not a text"),
    "a picture": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part of the type 'image_url'"),
    "empty": ({"messages": []}, r"messages is \[\], but must be a list of messages"),
    "texts": ({"messages": ["a", "b"]}, "must be a list of messages"),
    "an answer alone": ({"messages": [bot("a")]}, "begins with an answer"),
    "two answers": ({"messages": [user("a"), bot("b"), bot("c")]}, r"messages\[1\] and messages\[2\] are answers"),
    "a completion by a user": ({"prompt": [user("a")], "completion": [user("b")]}, "completion does not end with an assistant"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told_with_its_line(name, tmp_path):
    row, told = BAD[name]
    (tmp_path / "data.jsonl").write_text(json.dumps({"messages": [user("a")]}) + "\n\n" + json.dumps(row))
    with pytest.raises(DataError, match=rf"line 3: .*{told}"):
        read_prompts(tmp_path / "data.jsonl")


def test_conversations_are_told_apart_and_split_as_prompts_are(tmp_path):
    rows = [{"messages": [user("a"), bot("b"), user(str(i % 5)), bot("d")]} for i in range(10)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = gather(PromptFiles(str(tmp_path / "data.jsonl"), held_out_fraction=0.4), 0)
    assert len(found.train) == 3 and len(found.held_out) == 2
    assert not {p.text for p in found.train} & {p.text for p in found.held_out}


def test_a_transcript_is_open_for_the_answer():
    assert transcript([user("a")]) == "a"
    assert transcript([system("s"), user("a")]) == "\n\nSystem: s\n\nHuman: a\n\nAssistant:"
    assert transcript([user("a"), bot("b")]) == "\n\nHuman: a\n\nAssistant: b"
    with pytest.raises(BadConversation, match="dialogue is 'a'"):
        messages_of("a", "dialogue")


# ---------------------------------------------------------------------- preferences

PAIRS = {
    "explicit": ({"prompt": [user("a")], "chosen": [bot("x")], "rejected": [bot("y")]}, "a", [[user("a")]] * 2),
    "implicit": (
        {"chosen": [system("s"), user("a"), bot("x")], "rejected": [system("s"), user("a"), bot("y")]},
        "\n\nSystem: s\n\nHuman: a\n\nAssistant:",
        [[system("s"), user("a")]] * 2,
    ),
    "several turns apart": (
        {
            "chosen": [user("a"), bot("b"), user("c"), bot("x")],
            "rejected": [user("a"), bot("z"), user("d"), bot("y")],
        },
        "a",
        [[user("a"), bot("b"), user("c")], [user("a"), bot("z"), user("d")]],
    ),
    "a text and conversations": (
        {"prompt": "a", "chosen": [user("a"), bot("x")], "rejected": [user("a"), bot("y")]},
        "a",
        [None, None],
    ),
    "ShareGPT's": (
        {"prompt": gpt(human="a"), "chosen": gpt(gpt="x"), "rejected": gpt(gpt="y")},
        "a",
        [[user("a")]] * 2,
    ),
    "candidates": (
        {"prompt": [user("a"), bot("b"), user("c")], "candidates": ["x", [bot("y")]], "choice": 0},
        "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:",
        [[user("a"), bot("b"), user("c")]] * 2,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_preferences_keep_their_roles(name, tmp_path):
    row, prompt, contexts = PAIRS[name]
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    (found,) = read_preferences(tmp_path / "data.jsonl").preferences
    assert (found.prompt, found.candidates, found.target) == (prompt, ("x", "y"), (1.0, 0.0))
    assert [item.context for item in found.items] == contexts
    assert [sample.prompt.messages for sample in found.samples()] == contexts


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"chosen": [user("a"), bot("x")], "rejected": [user("b"), bot("y")]}, "not one message in common"),
        ({"chosen": [user("a"), bot("x")], "rejected": [user("a"), CALL]}, "rejected ends with a call of tools"),
        ({"prompt": [user("a")], "chosen": [CALL], "rejected": [bot("x")]}, "chosen ends with a call of tools"),
        ({"chosen": [user("a"), bot("x")], "rejected": [user("a")]}, "rejected does not end with an assistant's message"),
        ({"chosen": [user("a"), bot("x")], "rejected": [user("a"), bot("x")]}, "are equal"),
        ({"prompt": [user("a")], "chosen": [bot("x")], "rejected": [user("y")]}, "rejected does not end with an assistant"),
        ({"prompt": [{"role": "x", "content": ""}], "chosen": "x", "rejected": "y"}, "has the role 'x'"),
        ({"prompt": 3, "chosen": "x", "rejected": "y"}, "prompt is 3, but must be a text or a conversation"),
    ],
)
def test_pairs_without_a_prompt_or_an_answer_are_told(row, told, tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"line 1: .*{told}"):
        read_preferences(tmp_path / "data.jsonl")


def test_ballots_samples_and_studies_keep_the_conversation(tmp_path):
    messages = [system("s"), user("a")]
    prompt = Prompt(transcript(messages), {"messages": messages})
    write_ballots(tmp_path / "b.jsonl", ballots_of([(prompt, "x"), (prompt, "y")], 2))
    (ballot,) = read_ballots(tmp_path / "b.jsonl")
    assert ballot.prompt == prompt.text and ballot.samples()[0].prompt.messages == messages
    row = json.loads((tmp_path / "b.jsonl").read_text())
    (tmp_path / "b.jsonl").write_text(json.dumps({**row, "best": 1}))
    (read,) = read_preferences(tmp_path / "b.jsonl").preferences
    assert read.items[0].context == messages and read.target == (0, 1)

    samples = [Sample(Request(prompt, i, i), output=text) for i, text in enumerate("xy")]
    write_outputs(tmp_path / "out", samples)
    for name in ("samples.parquet", "samples.jsonl"):
        assert [item.context for item in read_items(tmp_path / "out" / name)] == [messages] * 2
    (pair,) = labelled_pairs(samples, [0.0, 1.0], 1, StudySettings(samples=2))
    assert pair.items[0].context == messages
