"""Figures of texts against numbers that are counted by hand."""

from __future__ import annotations

import math

import pytest
import torch

from raft_core.types import Prompt, Request, Sample
from raft_text.metrics import distinct_n, drawn_figures, mean_length, msttr, perplexity, text_figures, unique_n

TEXTS = ["The cat the", "cat sat"]


def test_distinct_and_unique_ngrams_do_not_reach_from_text_to_text():
    assert distinct_n(TEXTS, 1) == pytest.approx(3 / 5)  # the, cat, sat of five words
    assert distinct_n(TEXTS, 2) == pytest.approx(3 / 3)  # the cat, cat the; cat sat: "the cat" across texts is none
    assert unique_n(TEXTS, 1) == 1  # sat
    assert unique_n(["a b a b", "a b"], 2) == 1  # "b a"; "a b" comes three times
    assert math.isnan(distinct_n(["one"], 2)) and unique_n(["one"], 2) == 0


def test_msttr_cuts_the_concatenation_and_drops_the_remainder():
    assert msttr(["a b a", "b c"], 2) == 1  # a b | a b, and c is dropped
    assert msttr(["a a b", "b c c d"], 3) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert math.isnan(msttr(["a b"], 100))
    hundred = " ".join(str(i % 50) for i in range(150))
    assert msttr([hundred]) == 0.5


def test_lengths_are_words():
    assert mean_length(TEXTS) == 2.5
    assert math.isnan(mean_length([]))


def test_figures_that_are_not_defined_are_left_out():
    assert set(text_figures(["one"])) == {"length", "distinct_1", "unique_1", "unique_2"}
    assert drawn_figures([]) == {}


def test_what_the_sampler_says():
    def sample(**meta):
        return Sample(Request(Prompt("p"), 0, 0), meta=meta)

    figures = drawn_figures(
        [
            sample(tokens=2, finish="end", entropy=1.0),
            sample(tokens=6, finish="rejected", entropy=2.0, rejected=True, tokens_saved_at_most=10),
        ]
    )
    assert figures == {"tokens": 4.0, "ended": 0.5, "entropy": 1.75, "rejected": 0.5, "tokens_saved_at_most": 10.0}


def test_perplexity_is_per_token():
    class Uniform:
        """Every token has probability 1/8."""

        batch_size = 2

        def nll(self, samples, draw, *, reference=False):
            return torch.tensor([len(sample.tensors["tokens"]) * math.log(8.0) for sample in samples])

    samples = [Sample(Request(Prompt("p"), i, 0), tensors={"tokens": torch.zeros(i + 1)}) for i in range(3)]
    assert perplexity(Uniform(), samples) == pytest.approx(8)
    assert math.isnan(perplexity(Uniform(), []))
