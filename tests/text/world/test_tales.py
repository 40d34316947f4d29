"""The tales are varied, of every mood and kept apart, and the bundled model writes tales that are as varied and as moody."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raft_core.prompts import PromptFiles, gather, read_prompts
from raft_core.rng import numpy_rng
from raft_core.types import Prompt, Request, Sample
from raft_text.metrics import distinct_n
from raft_text.model.places import BUNDLED_FOLDER
from raft_text.rewards.sentiment import Sentiment
from raft_text.world.sums import IGNORED, batch_of
from raft_text.world.tales import SHARES, roll_call, tales
from raft_text.world.tales_files import NAMES, chosen_tales, tale_rows
from raft_text.world.tales_form import people, well_formed, well_formed_share
from raft_text.world.tales_model import BATCH, foreseen, lesson, pieces, some_tales, told
from raft_text.world.tales_plots import PLOTS

MIB = 1 << 20
TALES = BUNDLED_FOLDER / "tales"
CONFIG = Path(__file__).parents[3] / "configs" / "text" / "tales_sentiment.yaml"
TRAIN, HELD_OUT = (f"bundled:prompts/{NAMES[split]}" for split in ("train", "held_out"))


@pytest.fixture(scope="module")
def tokenizer():
    from raft_text.model.loading import load_tokenizer

    return load_tokenizer("bundled:tales", chat=False)


@pytest.fixture(scope="module")
def model():
    from raft_text.model.loading import load_model

    return load_model("bundled:tales", torch.float32)


def sentiment(texts):
    return Sentiment()([Sample(Request(Prompt("_"), 0, 0), output=text) for text in texts])


# --- The tales --------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_tale_is_whole_sentences_about_its_people(seed):
    tale = next(tales(seed))
    plot, thing, hero, friend = tale.cast
    assert hero != friend and people(tale.text) == {hero, friend}
    assert thing in PLOTS[plot].things and thing in tale.opening
    assert not re.search(r"[\[\]{}|]|  ", tale.text)
    assert not re.search(r"(?:^|\. )[a-z]", tale.text)  # a sentence begins with a capital
    assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n (?!hour)[^aeiou]", tale.text)
    assert tale.opening.count(". ") == 1 and 3 <= len(re.findall(r"[.!?](?= |$)", tale.rest)) <= 8


def test_every_wording_is_as_good_as_its_mood():
    """A good event must not sound bad to the reward, nor a bad one good."""
    moods = {"good": [], "plain": [], "bad": []}
    for tale in islice(tales(0, "moods"), 3000):
        if len(set(tale.moods)) == 1:
            moods[tale.moods[0]].append(tale.rest)
    means = {mood: sentiment(texts) for mood, texts in moods.items()}
    assert (means["good"] > 0.5).mean() > 0.95
    assert (means["bad"] < -0.5).mean() > 0.85
    assert abs(means["plain"].mean()) < 0.2


def test_sentiment_is_spread_from_end_to_end():
    scores = sentiment([tale.rest for tale in islice(tales(1, "spread"), 2000)])
    assert -0.05 < scores.mean() < 0.2
    assert (scores > 0.5).mean() > 0.3 and (scores < -0.5).mean() > 0.3


def test_tales_are_the_same_for_the_same_seed_and_vary():
    first, again, other = (list(islice(tales(*path), 300)) for path in ((0, "a"), (0, "a"), (0, "b")))
    assert first == again and first != other
    assert len({tale.text for tale in first}) == len({tale.opening for tale in first}) == 300
    assert {tale.cast[0] for tale in first} == set(PLOTS)
    assert distinct_n([tale.rest for tale in first], 2) > 0.3


def test_what_is_well_formed_is_told_from_what_is_garbled():
    assert well_formed_share([tale.rest for tale in islice(tales(3, "form"), 400)]) > 0.995
    assert well_formed("The sky was grey, but it was dry. He was fatch and. Anna ended the the day.") == (1, 3)
    assert well_formed('"Well done," said Ben. "You are the best of all." Then it got dark, and they went home.') == (2, 2)
    assert well_formed("") == (0, 0)


def test_roll_calls_speak_of_two_people_and_one_thing():
    called = [roll_call(numpy_rng(seed)) for seed in range(50)]
    assert all(1 <= len(people(text)) <= 2 for text in called)
    assert not any(re.search(r"[\[\]{}|]|the the", text) for text in called)


# --- Splits and files -------------------------------------------------------------------------------------------------


def test_splits_do_not_overlap():
    assert sum(SHARES.values()) == 100
    found = {split: {tale.cast for tale in islice(tales(2, split=split), 400)} for split in SHARES}
    for split, casts in found.items():
        assert not casts & set().union(*(found[other] for other in set(SHARES) - {split}))
    read = {cast for step in range(640, 660) for cast in (tale.cast for tale in _read(step))}
    assert not read & {tale.cast for split in NAMES for tale in chosen_tales(split)}


def _read(step):
    return islice(tales(0, "lesson", step, split="read"), BATCH)


def test_files_are_what_the_script_writes_and_do_not_overlap():
    for split, name in NAMES.items():
        lines = (BUNDLED_FOLDER / "prompts" / name).read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == tale_rows(chosen_tales(split))
    gathered = gather(PromptFiles(train=TRAIN, held_out=HELD_OUT), seed=0)
    assert gathered.notes == []
    assert (len(gathered.train), len(gathered.held_out)) == (1200, 300)


# --- Lessons ----------------------------------------------------------------------------------------------------------


def test_roll_calls_fade_out(tokenizer):
    def calls(steps):
        return sum(len(lesson(0, step, 100)[0]) == 1 for step in steps)

    assert calls(range(10)) >= 5 and calls(range(40, 100)) == 0
    tokens, _, labels = batch_of(lesson(0, 50, 100), tokenizer)
    assert (labels[:, 0] == tokens[:, 0]).all()  # openings are learnt, too
    tale = some_tales("check", 1)[0]
    tokens, _, labels = batch_of([pieces(tale, opening=False)], tokenizer)
    assert tokenizer.decode(tokens[labels != IGNORED]) == f" {tale.rest}{tokenizer.eos_token}"


# --- The model --------------------------------------------------------------------------------------------------------


def test_the_folder_is_an_ordinary_and_small_one(tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(TALES, output_loading_info=True)
    model, loading = loaded
    assert isinstance(model, LlamaForCausalLM)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert 1e6 <= sum(p.numel() for p in model.parameters()) <= 1.5e6
    assert sum(path.stat().st_size for path in TALES.iterdir()) <= 4 * MIB
    assert not [path for path in TALES.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}]
    text = "Emma baked 12 pies, über 3.5 ½ 漢字!\n    The end."
    assert AutoTokenizer.from_pretrained(TALES).decode(tokenizer(text)["input_ids"]) == text


def test_it_is_listed_and_resolves():
    from raft_core.bundled import bundled_models
    from raft_text import CausalLM

    assert bundled_models()["bundled:tales"] == str(TALES)
    assert CausalLM("bundled:tales").check() == []


def test_it_writes_tales_of_every_mood_about_the_people_of_the_opening(model, tokenizer):
    asked = some_tales("held_out", 96, seed=3)
    written = told(model, tokenizer, [tale.opening for tale in asked])
    scores = sentiment(written)
    assert abs(scores.mean()) < 0.35
    assert (scores > 0.5).mean() > 0.2 and (scores < -0.5).mean() > 0.2
    named = [(people(text), set(tale.cast[2:])) for tale, text in zip(asked, written, strict=True)]
    assert np.mean([found <= cast for found, cast in named]) > 0.7  # 2 of 32 names by chance
    assert distinct_n(written, 2) > 0.9 * distinct_n([f" {tale.rest}" for tale in asked], 2)
    assert well_formed_share(written) > 0.85
    assert all(text.startswith(" ") and text.endswith((".", '."')) for text in written)


def test_it_finds_held_out_tales_likely(model, tokenizer):
    right, perplexity = foreseen(model, tokenizer, some_tales("held_out", 64))
    assert right > 0.8 and perplexity < 1.8


# --- The recipe -------------------------------------------------------------------------------------------------------


def test_the_recipe_checks_and_names_what_it_keeps_an_eye_on():
    from raft_core.config.run_config import check, read_yaml

    checked = check(read_yaml(CONFIG), base=CONFIG.parent)
    assert vars(checked.config.policy)["references"] == HELD_OUT
    assert {"sentiment", "length"} <= set(checked.config.scorer.infos)


def test_a_short_alignment_makes_the_tales_happier(tmp_path):
    from raft_cli import main
    from raft_core.evaluation.files import read_results
    from raft_core.store.store import read_history

    words = {"rounds": 2, "prompts.per_round": 48, "k": 3, "evaluation.prompts": 40, "trainer.optimizer.lr": 2e-3}
    words |= {"policy.references": "null", "trackers": "[]", "output": str(tmp_path / "run"), "policy.sampling.batch_size": 48}
    assert main(["align", str(CONFIG), *(part for key, value in words.items() for part in (f"--{key}", str(value)))]) == 0
    results = read_results(tmp_path / "run")
    assert results is not None
    (held_out,) = (each for each in results.evaluations if each.split == "heldout")
    (scored,) = (each for each in held_out.comparisons if each.name == "sentiment")
    assert scored.after > scored.before + 0.1
    assert all(np.isfinite(row["reward/mean"]) for row in read_history(tmp_path / "run"))


def test_references_are_read_as_the_model_writes_them(tokenizer):
    prompt = read_prompts(HELD_OUT)[0]
    together = tokenizer(prompt.text + prompt.meta["response"])["input_ids"]
    apart = tokenizer(prompt.text)["input_ids"] + tokenizer(prompt.meta["response"])["input_ids"]
    assert together == apart
