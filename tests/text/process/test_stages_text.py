"""Completions that are looked at on the way: those of a prompt together, and those that go on are drawn as ever."""

from __future__ import annotations

import pytest

from raft_core.sampling import requests
from raft_core.types import Prompt
from raft_text import CausalLM, Rejection, Sampling
from raft_text.process.stages import stage_tokens

PROMPTS = [Prompt("say one thing"), Prompt("two"), Prompt("and a third one")]


def test_points_of_the_way_are_lengths_below_the_longest():
    assert stage_tokens((0.25, 0.5, 0.75), 96) == [24, 48, 72]
    assert stage_tokens((0.01, 0.99), 8) == [1, 7]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_those_that_go_on_are_drawn_as_ever(load, kind):
    policy = load(kind, sampling={"max_new_tokens": 12, "batch_size": 8})
    asked = requests(PROMPTS, 4, 0, 1)
    expected = {r.seed: s.tensors["tokens"].tolist() for r, s in zip(asked, policy.sample(asked), strict=True)}
    seen = []

    def goes_on(previews):
        prompts = [p.prompt.text for p in previews]
        seen.append(prompts)
        assert all(prompts.count(name) in (2, 4) for name in prompts)  # a prompt's samples are not torn apart
        return [prompts[:place].count(name) < prompts.count(name) / 2 for place, name in enumerate(prompts)]

    samples = policy.sample_in_stages(asked, (0.25, 0.75), goes_on)
    assert [s.request for s in samples] == asked
    for sample in samples:
        whole, own = expected[sample.seed], sample.tensors["tokens"].tolist()
        assert own == (whole[: len(own)] if sample.meta.get("rejected") else whole)
        assert sample.meta["evaluations"] == len(own)
        if sample.meta.get("rejected"):
            assert len(own) in (3, 9) and sample.meta["finish"] == "rejected"
    for group in range(3):
        left = [s for s in samples[4 * group : 4 * group + 4] if not s.meta.get("rejected")]
        assert left and left[0].request.index == 0


def test_what_has_come_to_its_end_is_shown_and_stays(load):
    """A stop text ends some before the look; they compete with the others and are finished whatever is said."""
    policy = load("llama", sampling={"max_new_tokens": 12, "batch_size": 8})
    asked = requests(PROMPTS[:1], 8, 0, 1)
    whole = policy.render(policy.sample(asked))
    letter = next(c for c in "".join(s.output[:4] for s in whole) if not all(c in s.output[:4] for s in whole))
    stopping = load("llama", sampling={"max_new_tokens": 12, "batch_size": 8, "stop": [letter]})
    shown = []

    def goes_on(previews):
        shown.append([(p.request.index, p.output) for p in previews])
        return [False] * len(previews)

    samples = stopping.sample_in_stages(asked, (0.5,), goes_on)
    done = [s for s in samples if s.meta["finish"] == "stop"]
    assert done and [index for index, _ in shown[0]] == list(range(8))
    assert all(not s.meta.get("rejected") for s in done)
    assert all(s.meta.get("rejected") and len(s.tensors["tokens"]) == 6 for s in samples if s not in done)
    texts = dict(shown[0])
    assert all(texts[s.request.index] == s.output for s in stopping.render(done))


def test_what_cannot_be_stopped_is_told(tiny):
    def told(**settings):
        sampling = Sampling(**{"max_new_tokens": 8, **settings.pop("sampling", {})})
        return CausalLM(str(tiny()), sampling=sampling, **settings).check_stages((0.25, 0.5, 0.75))

    assert told() == []
    assert "too few for 3 looks" in told(sampling={"max_new_tokens": 3})[0]
    assert "leave sampling.draft out" in told(sampling={"draft": "x"})[0]
    assert "which the engine vllm does not allow" in told(sampling={"engine": "vllm"})[0]
    assert "choose one of them" in told(rejection=Rejection(patterns=["a"]))[0]
