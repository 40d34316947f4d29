"""Drawing completions: each by its own seed, each prompt read once, the same tokens whatever helps to draw them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raft_core.errors import ConfigError, ModelError, RewardError
from raft_core.protocols import RewardInfo
from raft_core.rewards.scoring import Scorer
from raft_core.sampling import requests, sampled
from raft_core.selectors.best_of_k import BestOfK
from raft_core.testing import close
from raft_core.types import Prompt
from raft_text import Rejection
from raft_text.model.likelihood import by_length
from raft_text.process.growing import first_stop
from raft_text.process.token_choice import inverse_cdf, uniforms

KINDS = ("llama", "gpt2", "qwen2")
PROMPTS = [Prompt("a red cat sits"), Prompt("dog"), Prompt("what is it?")]


def asked(k=2):
    return requests(PROMPTS, k, 0, 1)


def tokens(samples):
    return [sample.tensors["tokens"].tolist() for sample in samples]


class Bar:
    def advance(self, n):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_does_not_depend_on_its_batch(fresh, kind):
    policy = fresh(kind)
    together = tokens(policy.sample(asked()))
    alone = [tokens(policy.sample([request]))[0] for request in reversed(asked())]
    assert together == alone[::-1]
    assert len({tuple(row) for row in together}) == 6  # six seeds, six texts


def test_a_repetition_penalty_sees_no_padding(load):
    policy = load("gpt2", sampling={"repetition_penalty": 3.0, "top_k": 20, "top_p": 0.9, "temperature": 0.7})
    assert tokens(policy.sample(asked())) == [tokens(policy.sample([request]))[0] for request in asked()]


def test_global_random_state_neither_changes_a_sample_nor_is_changed(fresh):
    torch.manual_seed(1)
    first = tokens(fresh("llama").sample(asked()))
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert tokens(fresh("llama").sample(asked())) == first
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", KINDS)
def test_the_likeliest_tokens_are_those_of_generate(load, kind):
    settings = {"repetition_penalty": 1.5, "min_new_tokens": 3}
    policy = load(kind, sampling={"temperature": 0.0, **settings})
    for request, ours in zip(asked(1), tokens(policy.sample(asked(1))), strict=True):
        ids = torch.tensor([policy.encode(request.prompt.text)])
        theirs = policy.engine.network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=8,
            pad_token_id=policy.engine.ends[0],
            **settings,
        )
        assert ours == theirs[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_that_grows_token_by_token_changes_nothing(load, kind, monkeypatch):
    policy = load(kind, sampling={"max_new_tokens": 16})
    plain = policy.sample(asked(4), trace=True)
    monkeypatch.setattr("raft_text.process.cache.ROOM", 1)
    for ours, theirs in zip(policy.sample(asked(4), trace=True), plain, strict=True):
        assert torch.equal(ours.tensors["step_log_probs"], theirs.tensors["step_log_probs"])


def test_each_prompt_is_read_once_for_its_k_samples(load):
    policy = load("llama", sampling={"batch_size": 8})
    seen = []

    def note(_network, _args, kwargs):
        seen.append(kwargs["input_ids"].shape)

    handle = policy.engine.network.register_forward_pre_hook(note, with_kwargs=True)
    policy.sample(asked(2))
    handle.remove()
    longest = len(policy.encode(PROMPTS[0].text))
    assert seen[0] == (3, longest)  # three prompts, not six
    assert all(shape[1] == 1 and shape[0] <= 6 for shape in seen[1:])
    assert len(seen) <= 8  # the last token of a completion is not read


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_draft_changes_no_token_and_saves_passes_when_it_guesses_well(load, tiny, kind):
    settings = {"max_new_tokens": 16, "temperature": 0.5, "repetition_penalty": 1.1, "min_new_tokens": 2}
    plain = load(kind, sampling=settings).sample(asked(), trace=True)
    for seed, good in ((0, True), (1, False)):  # the model itself as its draft, and a stranger
        drafted = load(kind, sampling={**settings, "draft": str(tiny(kind, seed=seed)), "draft_tokens": 3})
        passes = []
        handle = drafted.engine.network.register_forward_pre_hook(lambda *_, p=passes: p.append(1))
        samples = drafted.sample(asked(), trace=True)
        handle.remove()
        assert tokens(samples) == tokens(plain)
        assert [s.meta["finish"] for s in samples] == [s.meta["finish"] for s in plain]
        for ours, theirs in zip(samples, plain, strict=True):
            close(ours.tensors["step_log_probs"], theirs.tensors["step_log_probs"])
        if good:
            assert len(passes) <= 2 * (1 + 16 / 4)  # two batches; a prompt, then four tokens a pass


def test_a_draft_of_another_vocabulary_is_refused(load, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    from raft_text.testing import tiny_tokenizer

    config = LlamaConfig(vocab_size=99, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="vocabulary of 99 tokens and the model one of 258"):
        load("llama", sampling={"draft": str(tmp_path)})


def test_a_completion_ends_at_its_end_token_at_a_stop_text_or_at_its_length(load):
    free = load("llama", sampling={"max_new_tokens": 16})
    whole = tokens(free.sample(asked(4)))
    tokenizer = free.encode.tokenizer
    ascii_pairs = [row[i : i + 2] for row in whole for i in range(2, 10) if tokenizer.decode(row[i : i + 2]).isascii()]
    stop = tokenizer.decode(ascii_pairs[0])
    end = next(row[3] for row in whole if row[3] not in ascii_pairs[0])
    free.engine.ends = (end,)
    cut = load("llama", sampling={"max_new_tokens": 16, "stop": [stop]})
    cut.engine.ends = (end,)
    samples = cut.render(cut.sample(asked(4)))
    for row, sample in zip(whole, samples, strict=True):
        text, ours = tokenizer.decode(row), sample.tensors["tokens"].tolist()
        assert ours == row[: len(ours)]
        if sample.meta["finish"] == "end":
            assert ours[-1] == end and end not in ours[:-1]
        elif sample.meta["finish"] == "stop":
            assert stop not in sample.output and sample.output + stop == text[: len(sample.output) + len(stop)]
        else:
            assert len(ours) == 16 and end not in ours and stop not in text
    assert {sample.meta["finish"] for sample in samples} >= {"end", "stop"}


# ---------------------------------------------------------------------- in-flight rejection


def letters(text):
    """How many characters are ASCII; of a completion that goes on there can only be more."""
    return sum(character.isascii() for character in text)


class FewLetters:
    info = RewardInfo("few_letters")

    def __call__(self, samples):
        return [-letters(sample.output) for sample in samples]


def bound(_prompts, beginnings):
    return [-letters(text) for text in beginnings]


def test_a_sound_rule_saves_tokens_and_changes_no_selection(load):
    settings = {"max_new_tokens": 48, "batch_size": 24}
    outcomes = []
    rule = None
    for _ in range(2):
        policy = load("llama", sampling=settings, rejection=rule)
        samples = policy.render(policy.sample(asked(8), purpose="round"))
        scores = Scorer(FewLetters())(samples)
        drawn = sum(sample.meta["tokens"] for sample in samples)
        outcomes.append((BestOfK()(scores.grid(8)).index.tolist(), drawn, policy.figures(samples), scores))
        # Sound: what falls below the worst of the prompts' winners is no winner.
        worst = float(np.nanmax(scores.grid(8), axis=1).min())
        rule = Rejection(bound=f"{__file__}:bound", below=worst, every=4)
    (free, all_tokens, _, _), (watched, fewer_tokens, figures, scores) = outcomes
    assert watched == free
    assert fewer_tokens < all_tokens
    assert figures["text/rejected"] > 0
    assert figures["text/tokens_saved_at_most"] >= all_tokens - fewer_tokens
    assert "given up by a rule" in scores.failures["few_letters"].first_error


def test_what_is_compared_is_never_given_up(load):
    policy = load("llama", rejection=Rejection(patterns=["(?s)."], every=1))
    assert {sample.meta["finish"] for sample in policy.sample(asked(), purpose="round")} == {"rejected"}
    assert "rejected" not in {sample.meta["finish"] for sample in sampled(policy, asked(), Bar())}


def test_a_bound_below_the_threshold_gives_up(load):
    path = f"{__file__}:bound"
    policy = load("llama", rejection=Rejection(bound=path, below=1.0, every=2))
    assert all(len(sample.tensors["tokens"]) <= 2 for sample in policy.sample(asked(), purpose="round"))
    policy = load("llama", rejection=Rejection(bound=path, below=-100.0, every=2))
    assert all(sample.meta["finish"] != "rejected" for sample in policy.sample(asked(), purpose="round"))


def broken(_prompts, _beginnings):
    return 1.0


def test_a_bound_that_fails_is_told(load):
    policy = load("llama", rejection=Rejection(bound=f"{__file__}:broken", below=0.0, every=1))
    with pytest.raises(RewardError, match="returned shape"):
        policy.sample(asked(), purpose="round")
    with pytest.raises(ConfigError, match="go together"):
        Rejection(bound="x.py:f")


# ---------------------------------------------------------------------- parts


def test_each_token_is_told_and_one_who_stops_listening_stops_the_drawing(load):
    policy = load("llama", sampling={"max_new_tokens": 5, "min_new_tokens": 5, "batch_size": 8})
    told = []
    policy.on_step = lambda done, most: told.append((done, most))
    policy.sample(asked())
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]

    def enough(done, _most):
        if done == 2:
            raise KeyboardInterrupt

    policy.on_step = enough
    with pytest.raises(KeyboardInterrupt):
        policy.sample(asked())


def test_a_token_is_the_inverse_of_the_cumulated_distribution():
    scores = torch.tensor([[0.0, -torch.inf, 0.0]]).repeat(4, 1)
    assert inverse_cdf(scores, torch.tensor([0.0, 0.49, 0.51, 1 - 1e-12], dtype=torch.float64)).tolist() == [0, 0, 2, 2]
    n = 4000
    drawn = inverse_cdf(torch.tensor([[0.1, 0.2, 0.7]]).log().repeat(n, 1), uniforms(range(n), 1)[:, 0])
    assert torch.allclose(drawn.bincount(minlength=3) / n, torch.tensor([0.1, 0.2, 0.7]), atol=0.03)


def test_a_longer_completion_begins_as_the_shorter_one():
    assert torch.equal(uniforms([3, 4], 100)[:, :7], uniforms([3, 4], 7))


def test_rows_of_similar_length_go_together():
    assert list(by_length([10, 3, 9, 2])) == [[0, 2], [1], [3]]
    assert list(by_length([])) == []


def test_the_first_of_several_stop_texts():
    assert first_stop("a.b!c", ["!", "."]) == 1
    assert first_stop("abc", ["!"]) is None
