"""Text rewards against their definitions, on tiny random models in the published file layouts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_text_models import bert_classifier, causal_classifier, random_chat, roberta_encoder

from raft_core.config.components import Walk
from raft_core.config.listing import public_names
from raft_core.errors import ConfigError, ModelError, RewardError
from raft_core.rewards.scoring import Scorer, score
from raft_core.testing import close
from raft_core.types import Prompt, Request, Sample
from raft_text.rewards import EmbeddingSimilarity, Length, Pattern, Repetition, RewardModel, Sentiment
from raft_text.rewards.local_chat import LocalChat
from raft_text.rewards.pattern import FORMS


def samples_of(*outputs, prompt="the question is", **meta):
    return [Sample(Request(Prompt(prompt, meta), i, i), output=output) for i, output in enumerate(outputs)]


def scored(reward, samples):
    """[N] scores as a run has them."""
    return score(reward, samples)[0][reward.info.name]


LENGTHS = ["good", "a good answer to the question", "bad", "one two three <end>", "the answer is four five six"]


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return causal_classifier(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return bert_classifier(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return roberta_encoder(tmp_path_factory.mktemp("encoder"))


def alone(folder, text, pair=None):
    """[labels] logits of one text by transformers alone, without padding."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**AutoTokenizer.from_pretrained(folder)(text, pair, return_tensors="pt")).logits[0].numpy()


# --- reward models


def test_a_reward_model_without_padding_token_scores_each_text_as_if_alone(causal):
    expected = [alone(causal, f"the question is {text}")[0] for text in LENGTHS]
    for batch_size in (1, 2, 16):
        scores = RewardModel(str(causal), batch_size=batch_size, device="cpu")(samples_of(*LENGTHS))
        close(scores, expected)
    assert len(set(np.round(expected, 4))) == len(LENGTHS)


def test_a_label_is_a_logit(bert):
    expected = np.array([alone(bert, f"the question is {text}") for text in LENGTHS])
    for label, number in (("positive", 2), (2, 2), ("negative", 0)):
        reward = RewardModel(str(bert), label, batch_size=3, device="cpu")
        assert reward.check() == []
        close(reward(samples_of(*LENGTHS)), expected[:, number])
    assert "positive" in RewardModel(str(bert), "positive").info.scale


@pytest.mark.parametrize(
    ("label", "said"),
    [(None, "choose one of negative, neutral, positive"), ("positiv", "did you mean 'positive'?"), (3, "does not have")],
)
def test_a_wrong_label_is_found_without_loading(bert, label, said):
    assert said in RewardModel(str(bert), label).check()[0]


def test_a_pair_is_the_tokenizers_two_texts(bert):
    scores = RewardModel(str(bert), 0, "pair", device="cpu")(samples_of(*LENGTHS))
    close(scores, [alone(bert, "the question is", text)[0] for text in LENGTHS])


def test_of_a_pair_that_is_too_long_the_prompt_gives_way(bert):
    reward = RewardModel(str(bert), 0, "pair", max_tokens=10, device="cpu")
    long = samples_of("a good answer", prompt="one two three four five six the question is")
    cut = samples_of("a good answer", prompt="six the question is")  # 10 less 3 special tokens and the answer's 3
    shorter = samples_of("a good answer", prompt="the question is")
    close(reward(long), reward(cut))
    assert abs(reward(long) - reward(shorter)) > 1e-2
    endless = samples_of(" ".join(["good"] * 50), prompt="one two")
    assert np.isfinite(reward(endless)).all()


def test_the_chat_template_is_used_when_there_is_one(tmp_path, causal):
    folder = causal_classifier(tmp_path / "chat", chat=True)
    expected = alone(folder, "user: the question is assistant: a good answer ")[0]
    for format in ("auto", "chat"):
        assert RewardModel(str(folder), format=format, device="cpu")(samples_of("a good answer"))[0] == pytest.approx(
            expected, rel=1e-4
        )
    plain = RewardModel(str(folder), format="plain", device="cpu")(samples_of("a good answer"))[0]
    close(plain, alone(folder, "the question is a good answer")[0])
    with pytest.raises(ModelError, match="no chat template"):
        RewardModel(str(causal), format="chat", device="cpu").load()


def test_other_ways_to_put_prompt_and_completion_together(causal):
    tricky = samples_of("a {prompt}", prompt="to {completion}")
    written = RewardModel(str(causal), format="one {prompt} two {completion} six", device="cpu")(tricky)[0]
    close(written, alone(causal, "one to {completion} two a {prompt} six")[0])
    only = scored(RewardModel(str(causal), format="completion", device="cpu"), samples_of("a good answer", ""))
    close(only[0], alone(causal, "a good answer")[0])
    assert np.isnan(only[1])  # not a single token


@pytest.mark.parametrize(
    ("side", "kept"), [("left", "two three four five six a good answer"), ("right", "one two three four five six a good")]
)
def test_long_texts_are_cut_on_the_side_that_is_asked_for(causal, side, kept):
    reward = RewardModel(str(causal), max_tokens=8, truncation_side=side, device="cpu")
    long = reward(samples_of("a good answer", prompt="one two three four five six"))[0]
    close(long, alone(causal, kept)[0])


def test_texts_are_cut_at_what_the_model_takes(causal, bert):
    endless = samples_of(" ".join(WORD for _ in range(100) for WORD in ("good", "bad")))
    assert np.isfinite(RewardModel(str(causal), device="cpu")(endless)).all()
    assert np.isfinite(RewardModel(str(bert), 0, device="cpu")(endless)).all()


def test_half_a_surrogate_pair_is_text_like_any_other(bert):
    scores = RewardModel(str(bert), 0, device="cpu")(samples_of("good \ud800", "good [UNK]"))
    assert scores[0] == pytest.approx(scores[1])


def test_rewards_on_one_model_share_it(bert):
    first, second = RewardModel(str(bert), 0, device="cpu"), RewardModel(str(bert), 2, device="cpu")
    first.load()
    second.load()
    assert first._loaded is second._loaded
    first.sleep()
    assert np.isfinite(second(samples_of("good"))).all()


def emptied(folder):
    for file in folder.glob("*.safetensors"):
        file.unlink()


def broken_head(folder):
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if not k.startswith("score")}, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "must hold an object"),
        (emptied, "no .safetensors weights"),
        (
            lambda folder: (emptied(folder), (folder / "pytorch_model.bin").write_bytes(b"pickle")),
            "a pickle, which could run code",
        ),
        (lambda folder: [f.unlink() for f in folder.glob("tokenizer*")], "holds no tokenizer"),
        (lambda folder: ((folder / "config.json").unlink(), (folder / "adapter_config.json").write_text("{}")), "merge it"),
    ],
    ids=["not JSON", "no object", "no weights", "a pickle", "no tokenizer", "an adapter"],
)
def test_mistakes_of_a_folder_are_found_without_loading(tmp_path, spoil, said):
    folder = causal_classifier(tmp_path / "model")
    spoil(folder)
    assert said in " ".join(RewardModel(str(folder)).check())
    with pytest.raises(ModelError, match="model"):
        RewardModel(str(folder), device="cpu").load()


def test_a_model_without_its_head_is_refused(tmp_path):
    chat = random_chat(tmp_path / "chat")
    assert "GPT2LMHeadModel, not a model for SequenceClassification" in RewardModel(str(chat)).check()[0]
    folder = causal_classifier(tmp_path / "headless")
    broken_head(folder)
    with pytest.raises(ModelError, match="its scores would be random"):
        RewardModel(str(folder), device="cpu").load()


def test_damaged_weights_are_told_in_words(tmp_path):
    folder = causal_classifier(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ModelError, match="mend or replace the folder"):
        RewardModel(str(folder), device="cpu").load()


def test_settings_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        RewardModel("x", format="xml", batch_size=0, max_tokens=1, truncation_side="top")  # type: ignore[arg-type]
    assert len(caught.value.mistakes) == 4
    assert "no model folder" in RewardModel(str(tmp_path / "nowhere")).check()[0]
    assert "neither a folder nor a name" in RewardModel("what is this?").check()[0]
    assert "GPUs" in RewardModel("owner/name", dtype="float16", device="cpu").check()[0]
    assert RewardModel("owner/name", device="cpu").check() == []


def test_a_model_comes_out_of_a_configuration(bert):
    walk = Walk()
    raw = {"class_path": "RewardModel", "init_args": {"model": str(bert), "label": "positive", "device": "cpu"}}
    assert walk.component(raw, "reward", "reward").make().label == "positive"
    walk.component({**raw, "init_args": {**raw["init_args"], "label": 2}}, "reward", "reward").make()
    assert walk.mistakes == []


# --- embeddings


def test_similarity_is_the_cosine_of_mean_states(encoder):
    from transformers import AutoModel, AutoTokenizer

    model, tokens = AutoModel.from_pretrained(encoder, add_pooling_layer=False).eval(), AutoTokenizer.from_pretrained(encoder)

    def mean(text):
        with torch.no_grad():
            return model(**tokens(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)

    expected = [torch.cosine_similarity(mean(text), mean("the answer is four"), dim=0) for text in LENGTHS]
    for batch_size in (1, 64):
        reward = EmbeddingSimilarity(str(encoder), batch_size=batch_size, device="cpu")
        assert reward.check() == []
        close(reward(samples_of(*LENGTHS, reference="the answer is four")), expected)
    assert reward(samples_of("the answer is four", reference="the answer is four"))[0] == pytest.approx(1)


def test_what_a_completion_is_compared_with(encoder):
    prompted = EmbeddingSimilarity(str(encoder), to="prompt", device="cpu")
    assert prompted(samples_of("the question is", "bad"))[0] == pytest.approx(1)
    reward = EmbeddingSimilarity(str(encoder), device="cpu")
    scores = scored(reward, [*samples_of("good"), *samples_of("good", reference="good")])
    assert "no field 'reference'" in score(reward, samples_of("good"))[1]["embedding_similarity"].first_error
    assert np.isnan(scores[0])
    assert scores[1] == pytest.approx(1)
    assert np.isnan(scored(reward, samples_of("good"))).all()


def test_an_encoder_takes_long_texts(encoder):
    long = " ".join(["good bad"] * 50)
    assert EmbeddingSimilarity(str(encoder), device="cpu")(samples_of(long, reference=long))[0] == pytest.approx(1)


def test_what_sentence_transformers_states_is_minded(tmp_path):
    folder = roberta_encoder(tmp_path / "encoder")
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Pooling"}]')
    (folder / "1_Pooling").mkdir()
    stated = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(stated))
    assert "set pooling to 'cls'" in EmbeddingSimilarity(str(folder)).check()[0]
    assert EmbeddingSimilarity(str(folder), pooling="cls").check() == []
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    assert "dense layer" in EmbeddingSimilarity(str(folder)).check()[0]


# --- without a model


def test_sentiment_is_vaders_compound():
    texts = ["VADER is smart, handsome, and funny.", "Today SUX!", "", "The cat sat on the mat."]
    np.testing.assert_allclose(Sentiment()(samples_of(*texts)), [0.8316, -0.5461, 0, 0])  # the first two from its README
    together = Sentiment(with_prompt=True)(samples_of("smart.", prompt="He is not"))
    assert together[0] < 0 < Sentiment()(samples_of("smart."))[0]


def test_length_is_the_distance_to_the_limits():
    words = samples_of("one", "one two three", "one two three four five six", "")
    np.testing.assert_array_equal(Length()(words), [1, 3, 6, 0])
    np.testing.assert_array_equal(Length(2, 4)(words), [-1, 0, -2, -2])
    np.testing.assert_array_equal(Length(3, 3)(words), [-2, 0, -3, -3])
    np.testing.assert_array_equal(Length(at_most=2)(words), [0, -1, -4, 0])
    np.testing.assert_array_equal(Length(at_least=4, unit="characters")(words), [-1, 0, 0, -4])
    drawn = [Sample(s.request, s.output, meta={"tokens": n}) for s, n in zip(words, [3, 5, 9, 1], strict=True)]
    np.testing.assert_array_equal(Length(at_most=4, unit="tokens")(drawn), [0, -1, -5, 0])
    with pytest.raises(RewardError, match="count words"):
        Length(unit="tokens")(words)
    with pytest.raises(ConfigError) as caught:
        Length(5, -1, unit="lines")  # type: ignore[arg-type]
    assert len(caught.value.mistakes) == 3


def test_repetition_is_the_share_of_repeated_ngrams():
    texts = samples_of("a b c a b c", "a b c d", "A a a A", "a b", "")
    np.testing.assert_allclose(Repetition(3)(texts), [1 / 4, 0, 1 / 2, 0, 0])
    np.testing.assert_allclose(Repetition(1)(texts), [1 / 2, 0, 3 / 4, 0, 0])
    assert not Repetition().info.higher_is_better
    with pytest.raises(ConfigError, match="at least 1 word"):
        Repetition(0)


@pytest.mark.parametrize(
    ("settings", "right", "wrong"),
    [
        ({"pattern": r"\d{4}"}, ["in 1984", "2001"], ["in 84", ""]),
        ({"pattern": r"\d{4}", "match": "whole"}, ["2001"], ["in 1984"]),
        ({"pattern": r"(?i)sorry", "forbid": True}, ["Here you are."], ["Sorry, I cannot", "so sorry"]),
        ({"pattern": "form:json"}, ['{"a": [1, 2]}', "3"], ["{a: 1}", "", "NaN", "[" * 100_000]),
        ({"pattern": "form:one_line"}, ["one line"], ["two\nlines", ""]),
        (
            {"pattern": "form:think_answer"},
            ["<think>so\nso</think>\n<answer>4</answer>"],
            ["<answer>4</answer>", "<think><think></think></think><answer>4</answer>", "<think>a</think><answer>4</answer>!"],
        ),
        ({"pattern": "form:boxed"}, ["so it is\n\\boxed{4}."], ["so it is 4"]),
        ({"pattern": "form:bullets"}, ["- one\n- two", "* one"], ["one\n- two", "-"]),
    ],
    ids=["anywhere", "whole", "forbidden", "json", "one line", "think, answer", "boxed", "bullets"],
)
def test_a_pattern_is_matched_or_not(settings, right, wrong):
    scores = Pattern(**settings)(samples_of(*right, *wrong))
    assert list(scores) == [1] * len(right) + [0] * len(wrong)


def test_a_pattern_that_never_ends_leaves_the_text_unscored(monkeypatch):
    monkeypatch.setattr("raft_text.rewards.pattern.TIMEOUT_S", 0.05)
    scores = scored(Pattern(r"(?:a|aa)+", "whole"), samples_of("a" * 60 + "!", "aaa"))
    assert np.isnan(scores[0])
    assert scores[1] == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pattern": "(("}, "no regular expression"),
        ({"pattern": "form:jsn"}, "did you mean 'json'?"),
        ({"pattern": "a", "match": "x"}, "whole"),
    ],
)
def test_a_wrong_pattern_is_refused(settings, said):
    with pytest.raises(ConfigError) as caught:
        Pattern(**settings)
    assert said in str(caught.value)


# --- all of them


@pytest.mark.parametrize("reward", [Sentiment(), Length(), Repetition(), Pattern("a")], ids=lambda reward: reward.info.name)
def test_what_is_no_text_is_refused_and_nothing_gives_nothing(reward):
    with pytest.raises(RewardError, match="text rewards score strings"):
        reward(samples_of("text", 3))
    assert reward([]).shape == (0,)


def test_one_that_fails_leaves_the_others_alone(tmp_path):
    good, bad = Length(), RewardModel(str(tmp_path / "nowhere"), device="cpu")
    scores = Scorer(good, [bad])(samples_of("one two", "three"))
    np.testing.assert_array_equal(scores.columns["length"], [2, 1])
    assert np.isnan(scores.columns["reward_model"]).all()
    assert "there is no model folder" in scores.failures["reward_model"].first_error


def test_they_are_listed_and_cheap_to_import():
    names = {"EmbeddingSimilarity", "Length", "LlmJudge", "Pattern", "Repetition", "RewardModel", "SelfJudge", "Sentiment"}
    names |= {"VerifiableInstructions"}
    assert names <= set(public_names("reward"))
    heavy = "[m for m in ('torch', 'transformers', 'httpx', 'vaderSentiment') if m in sys.modules]"
    code = f"import sys, raft_text.rewards; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# --- a language model in this process


def test_a_local_model_answers_each_conversation_as_if_alone(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = random_chat(tmp_path / "chat")
    texts = ["one", "a good answer to the question", "bad bad"]
    model, tokens = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    def answer(text):
        inputs = tokens(f"user: {text} assistant:", return_tensors="pt")
        made = model.generate(**inputs, do_sample=False, temperature=1.0, max_new_tokens=6, pad_token_id=4)
        return made[0, inputs["input_ids"].shape[1] :].tolist()

    model.generation_config.eos_token_id = sorted({answer(text)[-1] for text in texts})  # so that every answer has an end
    model.generation_config.save_pretrained(folder)
    expected = [tokens.decode(answer(text), skip_special_tokens=True) for text in texts]
    asked = [[{"role": "user", "content": text}] for text in texts]
    for batch_size in (1, 8):
        assert LocalChat(str(folder), max_tokens=6, batch_size=batch_size, device="cpu").ask_all(asked) == expected


def test_a_conversation_that_is_too_long_is_not_answered_by_half(tmp_path):
    chat = LocalChat(str(random_chat(tmp_path / "chat", positions=32)), max_tokens=8, device="cpu")
    short, long = chat.ask_all([[{"role": "user", "content": text}] for text in ("one", "one " * 30)])
    assert "cut off" in short.reason  # type: ignore[union-attr] - this model never ends by itself
    assert "more than the 32" in long.reason  # type: ignore[union-attr]


def test_a_model_without_a_chat_template_is_no_judge(tmp_path):
    with pytest.raises(ModelError, match="no chat template"):
        LocalChat(str(random_chat(tmp_path / "plain", chat=False)), device="cpu").load()


# --- their page


PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "rewards_text.md").read_text(encoding="utf-8")


def test_the_table_names_every_reward_of_text():
    import raft_text.rewards

    table = PAGE.split("## Texts\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == set(raft_text.rewards.__all__)
    assert set(re.findall(r"^\| `form:(\w+)` \|", PAGE, re.M)) == set(FORMS)


def test_the_configurations_of_the_page_lack_nothing_but_the_models():
    for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S):
        walk, example = Walk(), yaml.safe_load(block)
        for raw in (example["reward"], *example["judges"]):
            walk.component(raw, "reward", "reward").make()
        assert walk.mistakes
        assert all("there is no model folder /models/" in mistake for mistake in walk.mistakes)
