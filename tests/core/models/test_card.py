"""What is put into a card is shown as it is: nothing becomes HTML, a picture, a link, or a column of a table."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from raft_core.models.card import component, escaped, public_path, verbatim
from raft_core.models.public_name import is_local, public_name

HOSTILE = [
    '<img src="https://evil.example/x.png" onerror=alert(1)>',
    "![x](https://evil.example/track.png)",
    "[click](javascript:alert(1))",
    "<javascript:alert(1)>",
    "https://evil.example and www.evil.example and a@evil.example",
    "a | b | c",
    "`code` ``and`` ```more```",
    "**bold** _under_ ~~gone~~ $x$ # head",
    "&lt;b&gt; &copy; \\| \\",
    "<!-- -->\n\n# A heading\r- a list\n| --- |",
]


def rendered(text):
    """Tokens of GitHub's Markdown, links in plain text included."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return parser.parse(text)


def texts(tokens):
    """What a reader sees, of a paragraph's or a cell's inline tokens; fails where there is more than text."""
    inline = [child for token in tokens if token.type == "inline" for child in token.children]
    assert {child.type for child in inline} <= {"text", "text_special"}, [child.type for child in inline]
    return "".join(child.content for child in inline)


def one_line(text):
    return "".join(letter if letter.isprintable() else " " for letter in text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text):
    assert texts(rendered(f"such as {escaped(text)}.")) == f"such as {one_line(text)}."
    for address in ("://", "www."):
        assert address not in escaped(text)  # which GitHub makes links of


@given(st.text(max_size=40))
def test_any_text_is_shown_as_it_is(text):
    shown = one_line(text).strip()
    assert texts(rendered(f"x{escaped(text)}y")).split() == f"x{one_line(text)}y".split()
    table = rendered(f"| a | b |\n|---|---|\n| {escaped(text)} | end |\n")
    cells = [token.children for token in table if token.type == "inline"]
    assert len(cells) == 4
    assert "".join(child.content for child in cells[2]).split() == shown.split()
    assert cells[3][0].content == "end"


@given(st.text(max_size=60))
def test_a_text_of_several_lines_stays_in_its_block(text):
    tokens = rendered(f"Before:\n\n{verbatim(text, 100)}\n\nAfter")
    assert [token.type for token in tokens if token.type not in ("paragraph_open", "paragraph_close", "inline")] in (
        ["code_block"],
        [],  # nothing but white space
    )
    assert "<" not in "".join(html.escape(token.content) for token in tokens)


def test_components_are_named_without_this_machine():
    entry = {
        "class_path": "raft_core.rewards.combine.weighted.Weighted",
        "init_args": {
            "parts": [
                {"class_path": "ClipScore", "init_args": {"model": "/home/me/models/clip", "name": "a|b", "device": "auto"}},
                {"class_path": "raft_core.rewards.function.FunctionReward", "init_args": {"path": "/home/me/bright.py:light"}},
                {"class_path": "/home/me/warm.py:Warmth"},
            ],
            "weights": {"a|b": 0.5},
        },
    }
    assert component(entry) == "Weighted(parts=[ClipScore(model=clip, name=a|b), bright.py:light, Warmth], weights={a|b: 0.5})"
    assert component("BestOfK") == "BestOfK"
    assert component(None) == "none"
    assert public_path("~/x/y.pth") == "y.pth"


def test_public_names(tmp_path):
    assert public_name("owner/name") == "owner/name"
    assert public_name("bundled:shapes") == "bundled:shapes"
    assert public_name(str(tmp_path / "models/mine.safetensors")) == "mine.safetensors"
    assert is_local("./a") and is_local("a.safetensors") and is_local("a/b/c") and not is_local("owner/name")
