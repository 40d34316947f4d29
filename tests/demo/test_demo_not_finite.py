"""Samples that failed, in the app: they are said to have failed, and nothing stands in their place."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from raft_core.errors import NotFiniteError
from raft_core.store.rounds import round_folder
from raft_core.store.tables import write_samples
from raft_core.types import Prompt, Request, Sample, Scores
from raft_demo.compare import view as compare_view
from raft_demo.compare import work as compare_work
from raft_demo.compare.comparison import Asked, Column, Comparison, facts, row_png
from raft_demo.preferences.pool import pool_of
from raft_demo.shared import gallery, run_view
from raft_demo.text import texts
from raft_demo.text import view as text_view
from raft_demo.text import work as text_work

REASON = "pixels are <not> finite"
EXAMPLE = "bundled:examples/resolution"


def asked(**changes) -> Asked:
    return replace(Asked([("mine", EXAMPLE, None)], "a small red circle", 2, 7, 4, 1.5, 32, 32), **changes)


def comparison(strengths=(0.0, 1.0)) -> Comparison:
    """Of two pictures the second has failed, after training alone."""
    picture = Image.new("RGB", (8, 8), "red")
    columns = [
        Column(
            f"at {strength:g}", "m", "runs/mine", None, strength, 0, [picture, picture if strength == 0 else None], {}, failed
        )
        for strength in strengths
        for failed in [["", "" if strength == 0 else REASON]]
    ]
    return Comparison(asked(), columns)


@pytest.mark.parametrize("strengths", [(0.0, 1.0), (0.0, 0.5, 1.0)], ids=["pairs", "strip"])
def test_a_picture_that_failed_is_said_to_have_failed(strengths):
    page = compare_view.shown(comparison(strengths))
    assert page.count("failed: pixels are &lt;not&gt; finite") == len(strengths) - 1
    assert page.count("<img") == 1 + len(strengths)  # the first of each, and the second before training


def test_the_file_of_a_row_holds_what_is_sound_and_tells_the_rest():
    found = comparison()
    assert Image.open(io.BytesIO(row_png(found, 0))).size == (8 + 4 + 8, 8)
    png = Image.open(io.BytesIO(row_png(found, 1)))
    assert isinstance(png, PngImageFile) and png.size == (8, 8)
    told = json.loads(png.text["raft"])["pictures"]
    assert [each.get("failed") for each in told] == [None, REASON] == [e.get("failed") for e in facts(found, 1)["pictures"]]


def break_decoding(monkeypatch, broken):
    """Pictures at the places ``broken`` of each batch have pixels that are not finite."""
    from raft_diffusion.model.engine import Engine

    decode = Engine.decode
    monkeypatch.setattr(Engine, "decode", lambda self, x: [None if i in broken else p for i, p in enumerate(decode(self, x))])


def test_a_comparison_goes_on_with_the_pictures_that_are_sound(monkeypatch):
    break_decoding(monkeypatch, {1})
    *_, last = compare_work.compare(asked())
    for column in last.columns:
        assert [image is None for image in column.pictures] == [False, True] == [bool(reason) for reason in column.failed]
        assert all(math.isfinite(values[0]) and math.isnan(values[1]) for values in column.scores.values())
    assert "before: 1 of 2 samples failed: pixels are not finite, though the latents are" in last.notes
    assert "failed: pixels" in compare_view.shown(last)


def test_a_model_that_draws_nothing_sound_is_told_in_words(monkeypatch):
    break_decoding(monkeypatch, {0, 1})
    with pytest.raises(NotFiniteError, match="2 of 2 samples failed"):
        list(compare_work.compare(asked()))


def write_run(folder: Path, *, is_text: bool) -> Path:
    """A round of four samples, of which the second has failed."""
    output = (lambda i: f"text {i}") if is_text else (lambda i: Image.new("RGB", (8, 8), (40 * i, 0, 0)))
    samples = [Sample(Request(Prompt("p"), i, i), output=output(i)) for i in range(4)]
    samples[1] = samples[1].as_failed(REASON)
    scores = Scores("r", {"r": np.array([0.0, np.nan, 2.0, 3.0])})
    write_samples(round_folder(folder, 1) / "samples.parquet", samples, scores, np.arange(4) == 3, rnd=1)
    return folder


@pytest.mark.parametrize("is_text", [False, True])
def test_stored_samples_that_failed_are_shown_with_the_reason_and_not_offered_for_a_choice(tmp_path, is_text):
    run = write_run(tmp_path / "run", is_text=is_text)
    cards = gallery.cards(run, 1, gallery.chosen(gallery.facts(run, 1), order=gallery.DRAWN))
    assert [card.failed for card in cards] == ["", REASON, "", ""]
    page = run_view.cards_html(cards)
    assert page.count("failed: pixels are &lt;not&gt; finite") == 1 and page.count("<img") == (0 if is_text else 3)
    pool = pool_of(run)
    assert [row for _, row in pool.keys] == [0, 2, 3]
    assert all(pool.output(i) for i in range(3))


def test_a_completion_that_failed_has_no_text_and_says_why():
    failed = Sample(Request(Prompt("p"), 0, 0)).as_failed(REASON)
    shown = text_work._completion(None, failed)
    assert (shown.text, list(shown.pieces)) == ("", []) and REASON in shown.finish
    wanted = texts.Asked("mine", "t", None, Prompt("p"), 1, 0, 1.0, 8)
    page = text_view.shown(texts.Completions(wanted, [shown], [shown]))
    assert "failed: pixels are &lt;not&gt; finite" in page and "(nothing)" in page


def test_completions_that_are_sound_are_scored_and_compared_beside_one_that_failed(monkeypatch):
    made = text_work.generate
    monkeypatch.setattr(text_work, "generate", lambda *a, **b: [made(*a, **b)[0].as_failed(REASON), *made(*a, **b)[1:]])
    prompt = Prompt("Ida has 3 hats. She gets 4 hats. How many hats does Ida have now?", {"answer": "7"})
    wanted = texts.Asked("sums_raft", "bundled:examples/sums_raft", None, prompt, 3, 0, 1.0, 96)
    *_, last = text_work.complete(wanted)
    assert f"after training: 1 of 3 samples failed: {REASON}" in last.notes
    for side, scores in ((last.before, last.scores_before), (last.after, last.scores_after)):
        assert [len(each.before) == len(each.pieces) for each in side] == [True] * 3
        assert not side[0].pieces and all(each.pieces for each in side[1:])
        assert all(math.isnan(values[0]) for values in scores.values())
    [verdict] = text_work.reason(wanted, False)
    assert sorted(chain.number for party in verdict.parties for chain in party.chains) == [1, 2, 3]
    assert text_view.verdict(verdict).count("failed: pixels") == 1
