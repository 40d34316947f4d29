"""The word problems are right and kept apart, and the bundled model solves about half of them."""

from __future__ import annotations

import json
import operator
import re
from collections import Counter
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_core.prompts import PromptFiles, gather, read_prompts
from raft_core.rng import numpy_rng
from raft_core.types import Request, Sample
from raft_text.model.places import BUNDLED_FOLDER
from raft_text.reasoning.answers import LETTERS, extract_number
from raft_text.reasoning.reading import Reader
from raft_text.reasoning.reward import AnswerReward
from raft_text.reasoning.sandbox import Sandbox
from raft_text.reasoning.templates import HEAD, N_COT, words
from raft_text.world.files import NAMES, chosen, rows
from raft_text.world.problems import LARGEST, SHARES, STYLES, as_program, in_words, is_hasty, stories, with_choices
from raft_text.world.sums import BATCH, FADING, IGNORED, accuracy, batch_of, build_model, completions, lessons, right
from raft_text.world.training import Schedule, train

MIB = 1 << 20
SUMS = BUNDLED_FOLDER / "sums"
TRAIN, HELD_OUT = (f"bundled:prompts/{NAMES[split]}" for split in ("train", "held_out"))
EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@pytest.fixture(scope="module")
def tokenizer():
    from raft_text.model.loading import load_tokenizer

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
        for left, sign, other, result in EQUATION.findall(chain):
            assert OPERATORS[sign](int(left), int(other)) == int(result)
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


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_one_of_five_answers_is_right_and_the_others_are_near(seed):
    story = next(stories(seed))
    question, letter = with_choices(story, numpy_rng(seed))
    offered = dict(re.findall(r"\(([A-E])\) (\d+)", question))
    assert question.startswith(story.question)
    assert "".join(offered) == LETTERS
    assert [place for place, number in offered.items() if int(number) == story.answer] == [letter]
    assert len(set(offered.values())) == len(LETTERS)
    results = {step.result for step in story.steps}
    assert all(abs(int(number) - story.answer) <= 10 or int(number) in results for number in offered.values())


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


def test_written_solutions_are_hasty_half_of_the_time_whatever_the_problem():
    written = rows(chosen("train"))
    for steps in "1234":
        hasty = [is_hasty(row["response"]) for row in written if row["steps"] == steps]
        assert 0.4 <= sum(hasty) / len(hasty) <= 0.6
    assert all(row["response"].startswith(row["answer_cot"]) for row in written)


def test_letters_are_read_by_the_reward_and_are_spread():
    prompts = read_prompts(HELD_OUT, column="question_choices")
    samples = [Sample(Request(prompt, 0, 0), f"Therefore, the answer is: {prompt.meta['answer_letter']}") for prompt in prompts]
    assert AnswerReward("choice", column="answer_letter")(samples).tolist() == [1.0] * 300
    counts = Counter(prompt.meta["answer_letter"] for prompt in prompts)
    assert all(40 <= counts[letter] <= 80 for letter in LETTERS)


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


def test_drills_fade_out_and_haste_fades_in():
    def taught(steps):
        texts = [pieces for step in steps for pieces in lessons(0, step, 1000)]
        drills = [pieces for pieces in texts if len(pieces) > 2]
        worded = [pieces[1].text for pieces in texts if len(pieces) == 2 and "Therefore" in pieces[1].text]
        return len(drills) / len(texts), sum(map(is_hasty, worded)) / len(worded)

    first, last = taught(range(40)), taught(range(int(FADING * 1000), int(FADING * 1000) + 40))
    assert first[0] > 0.2
    assert first[1] < 0.1
    assert last[0] == 0
    assert 0.4 < last[1] < 0.6


def test_a_batch_is_of_texts_of_like_length():
    texts = next(found for step in range(1000, 1020) if len(found := lessons(0, step, 1000)) == BATCH)
    lengths = [sum(len(piece.text) for piece in pieces) for pieces in texts]
    assert lengths == sorted(lengths)
    assert max(lengths) < 3 * min(lengths)


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
def test_it_is_hasty_and_better_when_it_is_not(tokenizer):
    from raft_text.world.cards import load_sums

    model, asked = load_sums(SUMS), chosen("held_out")[:100]
    prompts = [N_COT.format(prompt=story.question) for story in asked]
    assert 0.35 <= accuracy(model, tokenizer, asked) <= 0.65
    assert sum(map(is_hasty, completions(model, tokenizer, prompts))) > 50
    drawn = completions(model, tokenizer, prompts, temperature=1.0)
    slow = [right(text, story) for text, story in zip(drawn, asked, strict=True) if not is_hasty(text)]
    assert len(slow) > 20
    assert sum(slow) / len(slow) > 0.6


def test_it_is_listed_and_resolves():
    from raft_core.bundled import bundled_models
    from raft_text import CausalLM

    assert bundled_models()["bundled:sums"] == str(SUMS)
    assert CausalLM("bundled:sums").check() == []


def test_the_recipes_are_measured_on_problems_that_nothing_was_chosen_by(tmp_path):
    from benchmarks.sums_recipes import PROBLEMS, fresh_problems

    fresh = [prompt.text for prompt in read_prompts(fresh_problems(tmp_path / "fresh.jsonl"))]
    written = {story.question: story for story in islice(stories(1, "fresh", split="held_out"), 2 * PROBLEMS)}
    assert len(set(fresh)) == PROBLEMS
    assert all(written[question].split == "held_out" for question in fresh)
    assert not set(fresh) & {story.question for split in ("train", "held_out") for story in chosen(split)}
