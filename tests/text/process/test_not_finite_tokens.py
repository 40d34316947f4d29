"""Logits that are not finite: the completion has failed, and the others of its batch do not feel it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from raft_core.rewards.scoring import Scorer
from raft_core.sampling import requests
from raft_core.soundness import examined, failed_mask, render_sound
from raft_core.store.tensors import load_tensors, save_tensors
from raft_core.types import Prompt
from raft_text.process.growing import can_be_drawn_from
from raft_text.rewards.length import Length
from raft_text.rewards.self_judge import PolicyChat

REASON = "the next token's probabilities are not finite"


def asked(*texts, k=2):
    return requests([Prompt(text) for text in texts], k, 0, 1)


def embedding(policy):
    return policy.engine.network.get_input_embeddings().weight


@pytest.fixture
def broken(load):
    """A policy that cannot read the letter q: whatever comes after one is NaN."""

    def made(**arguments):
        policy = load("llama", **arguments)
        token = policy.encode.tokenizer("q", add_special_tokens=False)["input_ids"][0]
        with torch.no_grad():
            embedding(policy)[token] = math.nan
        return policy, token

    return made


def test_which_logits_give_probabilities():
    inf, nan = math.inf, math.nan
    logits = torch.tensor([[0.0, 1.0], [0.0, -inf], [-inf, -inf], [0.0, inf], [nan, 0.0], [1e38, 1e38]])
    assert can_be_drawn_from(logits).tolist() == [True, True, False, False, False, True]


@pytest.mark.parametrize(("temperature", "trace"), [(0.0, False), (1.0, False), (1.0, True)])
def test_a_completion_that_cannot_go_on_has_failed_and_the_others_do_not_feel_it(broken, fresh, temperature, trace):
    settings = {"temperature": temperature, "max_new_tokens": 30}
    policy, token = broken(sampling=settings)
    expected = fresh("llama")
    expected.sampling = replace(expected.sampling, **settings)
    samples = examined(policy.sample(asked("a cat", "a quail", "dog", k=4), trace=trace))
    whole = expected.sample(asked("a cat", "a quail", "dog", k=4), trace=trace)
    assert [s.failed for s in samples[4:8]] == [REASON] * 4  # the prompt itself has a q
    assert all(len(s.tensors["tokens"]) == 0 for s in samples[4:8])
    for sample, other in zip(samples[:4] + samples[8:], whole[:4] + whole[8:], strict=True):
        tokens, others = sample.tensors["tokens"].tolist(), other.tensors["tokens"].tolist()
        assert tokens == others[: len(tokens)]
        drew_q = token in others[:-1]
        assert bool(sample.failed) == drew_q and (tokens[-1] == token if drew_q else tokens == others)


def test_with_a_draft_model_what_is_sound_is_the_same(broken, tiny):
    """A guess that cannot be read may fail a completion that would not have drawn it; none is written from NaN."""
    plain, _ = broken()
    drafted, _ = broken(sampling={"draft": str(tiny("llama")), "draft_tokens": 3})
    first, second = (policy.sample(asked("a cat", "a quail", k=4)) for policy in (plain, drafted))
    assert {s.failed for s in second[4:]} == {REASON} and not all(s.failed for s in second[:4])
    for one, other in zip(first, second, strict=True):
        assert other.failed or one.tensors["tokens"].tolist() == other.tensors["tokens"].tolist()


def test_failed_completions_are_kept_without_a_text_or_a_score(broken, tmp_path):
    policy, _ = broken()
    wanted = asked("a cat", "a quail")
    samples = examined(policy.sample(wanted))
    save_tensors(tmp_path / "part.safetensors", samples, {})
    samples = load_tensors(tmp_path / "part.safetensors", wanted, {})
    rendered = render_sound(samples, policy.render)
    assert [s.output is None for s in rendered] == failed_mask(samples).tolist()
    assert failed_mask(samples).tolist()[2:] == [True, True]
    scores = Scorer(Length(), [])(rendered)
    assert [math.isnan(value) for value in scores.columns["length"]] == failed_mask(samples).tolist()
    figures = policy.figures([s for s in rendered if not s.failed])
    assert all(math.isfinite(value) for value in figures.values())


def test_a_judge_that_fails_gives_no_verdict(broken):
    policy, _ = broken()
    answers = PolicyChat(policy).ask_all([[{"role": "user", "content": "is this a quail?"}]])
    assert REASON in answers[0].reason
