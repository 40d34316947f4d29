"""The word problems are right and kept apart, and the bundled model solves about half of them."""

from __future__ import annotations

import json
import operator
import re
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_core.prompts import PromptFiles, gather, read_prompts
from raft_core.types import Request, Sample
from raft_text.loading import BUNDLED_FOLDER
from raft_text.reasoning.answers import extract_number
from raft_text.reasoning.reading import Reader
from raft_text.reasoning.reward import AnswerReward
from raft_text.reasoning.sandbox import Sandbox
from raft_text.reasoning.templates import HEAD, words
from raft_text.world.files import NAMES, chosen, rows
from raft_text.world.problems import LARGEST, SHARES, as_program, in_words, stories
from raft_text.world.sums import IGNORED, STYLES, accuracy, batch_of, build_model, lessons
from raft_text.world.training import Schedule, train

MIB = 1 << 20
SUMS = BUNDLED_FOLDER / "sums"
TRAIN, HELD_OUT = (f"bundled:prompts/{NAMES[split]}" for split in ("train", "held_out"))
EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@pytest.fixture(scope="module")
def tokenizer():
    from raft_text.loading import load_tokenizer

    return load_tokenizer("bundled:sums", chat=False)


# --- Problems ---------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_chains_in_words_lead_to_the_answer(seed):
    story = next(stories(seed))
    assert 1 <= len(story.steps) <= 4
    for style in STYLES:
        chain = in_words(story, style)
        assert extract_number(words(chain, str(story.answer))) == story.answer
        assert str(story.answer) in chain
        for left, sign, right, result in EQUATION.findall(chain):
            assert OPERATORS[sign](int(left), int(right)) == int(result)
    assert len(EQUATION.findall(in_words(story))) == len(EQUATION.findall(in_words(story, "equations"))) == len(story.steps)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_the_chain_needs_is_in_the_question(seed):
    story = next(stories(seed))
    told = re.findall(r"\d+", story.question)
    needed = [story.steps[0].left, *(step.right for step in story.steps)]
    for number in map(str, needed):
        assert number in told
        told.remove(number)
    assert len(told) <= 1  # of what does not matter
    assert all(2 <= step.result <= LARGEST for step in story.steps)
    assert all(step.left == before.result for before, step in zip(story.steps, story.steps[1:], strict=False))
    assert story.steps[-1].who in story.question.rstrip(".").rsplit(".", 1)[-1]


def test_programs_return_the_answer():
    asked = list(islice(stories(1, "programs"), 60))
    with Sandbox() as sandbox:
        reader = Reader("number", "program", sandbox)
        for named in (True, False):
            programs = [as_program(story, named=named) for story in asked]
            assert all(text.startswith(HEAD.format(prompt=s.question)) for text, s in zip(programs, asked, strict=True))
            assert reader(programs) == [story.answer for story in asked]


def test_stories_are_the_same_for_the_same_seed_and_vary():
    first, again, other = (list(islice(stories(*path), 200)) for path in ((0, "a"), (0, "a"), (0, "b")))
    assert first == again
    assert first != other
    assert len({story.question for story in first}) == 200
    assert {len(story.steps) for story in first} == {1, 2, 3, 4}
    assert {step.sign for story in first for step in story.steps} == set("+-*/")


# --- Splits and files -------------------------------------------------------------------------------------------------


def sum_of(story):
    return tuple((step.sign, step.left, step.right) for step in story.steps)


def test_splits_do_not_overlap():
    assert sum(SHARES.values()) == 100
    found = {split: list(islice(stories(2, split=split), 300)) for split in SHARES}
    for split, members in found.items():
        for other in set(SHARES) - {split}:
            assert not {sum_of(story) for story in members} & {sum_of(story) for story in found[other]}
            assert not {story.question for story in members} & {story.question for story in found[other]}


def test_files_are_what_the_script_writes_and_do_not_overlap():
    for split, name in NAMES.items():
        lines = (BUNDLED_FOLDER / "prompts" / name).read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == rows(chosen(split))
    gathered = gather(PromptFiles(train=TRAIN, held_out=HELD_OUT), seed=0)
    assert gathered.notes == []
    assert (len(gathered.train), len(gathered.held_out)) == (1200, 300)


def test_references_are_read_by_the_reward():
    prompts = read_prompts(HELD_OUT)[:50]
    samples = [Sample(Request(prompt, 0, 0), output=prompt.meta["response"]) for prompt in prompts]
    assert AnswerReward()(samples).tolist() == [1.0] * 50
    programs = [Sample(Request(prompt, 0, 0), output=prompt.meta["program"]) for prompt in prompts]
    reward = AnswerReward(reasoning="program")
    reward.load()
    try:
        assert reward(programs).tolist() == [1.0] * 50
    finally:
        reward.reader.sandbox.close()


# --- Lessons ----------------------------------------------------------------------------------------------------------


def test_only_completions_are_learnt(tokenizer):
    texts = next(found for step in range(20) if len((found := lessons(0, 1000 + step, 1000))[0]) == 2)
    tokens, mask, labels = batch_of(texts, tokenizer)
    for row, attended, label, pieces in zip(tokens, mask, labels, texts, strict=True):
        assert tokenizer.decode(row[label != IGNORED]) == pieces[1].text + tokenizer.eos_token
        assert tokenizer.decode(row[attended.bool()]) == pieces[0].text + pieces[1].text + tokenizer.eos_token


def test_training_goes_on_where_it_was_stopped(tokenizer, tmp_path):
    def run(steps, name, enough=2.0):
        model = build_model(tokenizer, seed=0)

        def loss(step):
            tokens, mask, labels = batch_of([pieces[:6] for pieces in lessons(0, step, 10)[:2]], tokenizer)
            return model(input_ids=tokens, attention_mask=mask, labels=labels).loss

        measured = iter([1.0] * 99)
        schedule = Schedule(steps=4, cycle=3, warmup=1, check_every=steps, enough=enough)
        return train(model, loss, lambda: next(measured), schedule, tmp_path / name)[0], model

    whole = run(4, "whole")
    assert run(2, "parts", enough=1.0)[0] == 2  # enough after two steps: stopped
    resumed = run(4, "parts")
    assert (whole[0], resumed[0]) == (4, 4)
    for one, two in zip(whole[1].parameters(), resumed[1].parameters(), strict=True):
        assert torch.equal(one, two)


# --- The model --------------------------------------------------------------------------------------------------------


def test_the_folder_is_an_ordinary_and_small_one(tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    model, loading = AutoModelForCausalLM.from_pretrained(SUMS, output_loading_info=True)
    assert isinstance(model, LlamaForCausalLM)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert 1e6 <= sum(p.numel() for p in model.parameters()) <= 4e6
    assert sum(path.stat().st_size for path in SUMS.iterdir()) <= 6 * MIB
    assert not [path for path in SUMS.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}]
    text = "Emma has 12 apples, über 3.5 ½ 漢字!\n    return 12"
    assert AutoTokenizer.from_pretrained(SUMS).decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.slow
def test_it_solves_about_half_of_what_it_has_not_seen(tokenizer):
    from raft_text.world.cards import load_sums

    assert 0.35 <= accuracy(load_sums(SUMS), tokenizer, chosen("held_out")[:100]) <= 0.65


def test_it_is_listed_and_resolves():
    from raft_core.listing import bundled_models
    from raft_text import CausalLM

    assert bundled_models()["bundled:sums"] == str(SUMS)
    assert CausalLM("bundled:sums").check() == []
