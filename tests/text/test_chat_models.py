"""Chats: what a model reads of a conversation, what it is taught to write, and where it ends, by templates of many shapes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from chat_templates import STYLES, chat_model, chat_tokenizer

from raft_cli import main
from raft_core.errors import ConfigError, DataError
from raft_core.prompts import read_prompts
from raft_core.sampling import requests
from raft_core.sources.from_table import FromTable
from raft_core.store.rounds import read_round
from raft_core.testing import close
from raft_core.types import Prompt, Request
from raft_text import CausalLM, Lora, Sampling
from raft_text.demonstrations import write_winners
from raft_text.model.encoding import PromptEncoder
from raft_text.options import Prompting


def system(text):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def bot(text, **more):
    return {"role": "assistant", "content": text, **more}


def talk(*messages, **meta):
    return Prompt("…", {"messages": list(messages), **meta})


def encoder(style, **prompting):
    tokenizer = chat_tokenizer(style)
    return PromptEncoder(tokenizer, Prompting(**{"chat": True, **prompting}), 512, 8, [tokenizer.eos_token_id], style)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("chat")
    return {style: chat_model(root / style, style) for style in ("gemma", "chatml", "qwen3")}


# ---------------------------------------------------------------------- what is read and taught


@pytest.mark.parametrize("style", STYLES)
def test_a_prompt_is_what_the_template_makes_of_it(style):
    encode = encoder(style)
    expected = encode.tokenizer.apply_chat_template([user("2 + 3?")], add_generation_prompt=True)["input_ids"]
    assert list(encode("2 + 3?")) == list(expected)
    assert list(encode(talk(user("2 + 3?")))) == list(expected)


@pytest.mark.parametrize("style", STYLES)
def test_a_response_ends_as_the_template_ends_a_turn(style):
    """Behind the prompt stands what the template writes, to the token that ends the turn and no further."""
    encode = encoder(style)
    taught = encode.tokenizer.decode(encode.completion("2 + 3?", "5."))
    assert taught.endswith(f"5.{STYLES[style].closing}")
    whole = encode.tokenizer.apply_chat_template([user("2 + 3?"), bot("5.")], tokenize=False)
    if style not in ("r1", "plain"):  # the one opens a thought that it does not write later, the other ends turns with a line
        assert whole.startswith(encode.tokenizer.decode(encode("2 + 3?")) + taught)
    end = encode.completion("2 + 3?", "5.")[-1]
    assert end in encode.ends(chat=True) and encode.text(encode.completion("2 + 3?", "5."))[-2:] == "5."


def test_a_plain_prompt_ends_with_the_end_of_the_text():
    encode = encoder("gemma", chat=False)
    eos = encode.tokenizer.eos_token_id
    assert encode.completion("a", "b")[-1] == eos and encode.ends(chat=False) == (eos,)
    conversation = talk(user("a"))  # goes through the template whatever the setting says
    assert encode.completion(conversation, "b")[-1] != eos and len(encode.ends(chat=True)) == 2


@pytest.mark.parametrize("style", ["chatml", "gemma", "llama3", "phi", "mistral"])
def test_turns_keep_their_roles_and_the_assistants_are_learned(style):
    encode = encoder(style)
    messages = [user("one"), bot("two"), user("three")]
    prompt = talk(*messages)
    contexts, turns = encode.contexts(prompt), encode.turns(prompt, "four")
    whole = encode.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert list(contexts[1]) == list(whole) == list(encode(prompt))
    assert [encode.text(turn).strip() for turn in turns] == ["two", "four"]
    assert list(contexts[1])[: len(contexts[0]) + len(turns[0])] == [*contexts[0], *turns[0]]  # one row holds both


@pytest.mark.parametrize(
    ("prompt", "learned"),
    [
        (talk(user("a"), bot("b"), user("c"), bot("d"), user("e")), ["b", "d", "f"]),
        (talk(user("a"), bot("b", weight=0), user("c"), bot("d"), user("e")), ["d", "f"]),
        (talk(user("a")), ["f"]),
    ],
)
def test_which_turns_are_learned(prompt, learned):
    encode = encoder("chatml")
    assert [encode.text(turn) for turn in encode.turns(prompt, "f")] == learned
    assert [encode.text(turn) for turn in encoder("chatml", learned_turns="last").turns(prompt, "f")] == ["f"]


def test_thoughts_are_taught_as_the_template_writes_them():
    def taught(text, **meta):
        prompt = talk(user("hi"), bot("<think>a</think>\n\nhello"), user("2 + 3?"), **meta)
        return [encode.tokenizer.decode(turn) for turn in encode.turns(prompt, text)]

    encode = encoder("qwen3")
    end = "<|im_end|>"
    own = {"role": "assistant", "content": "5.", "reasoning_content": "sum"}
    assert taught("5.") == [f"<think>\na\n</think>\n\nhello{end}", f"<think>\n\n</think>\n\n5.{end}"]
    assert taught("5.", reply=own) == [f"<think>\na\n</think>\n\nhello{end}", f"<think>\nsum\n</think>\n\n5.{end}"]
    assert "<think>" not in encode.tokenizer.decode(encode(talk(user("hi"), bot("<think>a</think>\n\nb"), user("c"))))
    encode = encoder("qwen3", chat_template_kwargs={"enable_thinking": False})
    assert encode.tokenizer.decode(encode("a")).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert encode.tokenizer.decode(encode.completion("a", "b")) == f"b{end}"
    on = Prompt("a", {"chat_template_kwargs": {"enable_thinking": True}})  # a prompt's own go first
    assert encode.tokenizer.decode(encode(on)).endswith("<|im_start|>assistant\n")
    encode = encoder("r1")  # opens the thought itself
    assert encode.tokenizer.decode(encode.completion("a", "<think>\nhm\n</think>\n\nb")) == "hm\n</think>\n\nb<|end|>"
    assert encode.tokenizer.decode(encode.completion("a", "b")) == "\n</think>\n\nb<|end|>"
    assert encode.tokenizer.decode(encode.completion("a", own)) == "sum\n</think>\n\n5.<|end|>"
    with pytest.raises(DataError, match="otherwise than it writes one that calls tools"):
        encode.completion("a", bot("b", tool_calls=[{"function": {"name": "f", "arguments": {}}}]))


def test_a_beginning_of_the_answer_is_gone_on_with():
    encode = encoder("llama3")
    prompt = talk(user("a"), bot("The answer"))
    assert encode.tokenizer.decode(encode(prompt)).endswith("assistant<|end_header_id|>\n\nThe answer")
    assert [encode.tokenizer.decode(turn) for turn in encode.turns(prompt, " is 5.")] == [" is 5.<|eot_id|>"]


def test_settings_are_put_into_the_conversation():
    encode = encoder("llama3", system="Be brief.", template="Q: {prompt}")
    text = encode.tokenizer.decode(encode(talk(user("a"), bot("b"), user("c"))))
    assert (
        "system<|end_header_id|>\n\nBe brief.<|eot_id|>" in text and "\n\nQ: c<|eot_id|>" in text and "\n\na<|eot_id|>" in text
    )
    own = encode.tokenizer.decode(encode(talk(system("Be long."), user("a"))))
    assert "Be long." in own and "Be brief." not in own
    encode = encoder("gemma", system="Be brief.", system_in_user=True)
    assert "user\nBe brief.\n\na<end_of_turn>" in encode.tokenizer.decode(encode("a"))


def test_a_tokenizer_that_puts_a_space_before_a_text_puts_none_into_its_midst():
    from tokenizers import Tokenizer, models, normalizers

    tokenizer = chat_tokenizer("plain")
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate("▁abc:\n")}, merges=[]))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = type(tokenizer)(tokenizer_object=raw, eos_token="c")
    encode = PromptEncoder(tokenizer, Prompting(), None, 8, [tokenizer.eos_token_id])
    assert tokenizer.convert_ids_to_tokens(list(encode.completion("a", "b"))) == ["b", "c"]


def test_what_a_conversation_is_cut_to():
    encode = encoder("chatml", max_tokens=6)
    messages = [system("s"), user("aa"), bot("bb"), user("cc"), bot("dd"), user("e")]
    assert encode.seen.messages(messages) == [system("s"), user("cc"), bot("dd"), user("e")]
    assert encode.seen.messages([system("s"), user("abcdefgh")]) == [system("s"), user("defgh")]
    assert encode.seen.messages(messages[:2]) == messages[:2]
    with pytest.raises(DataError, match="nothing by the user that could be cut"):
        encode.seen.messages([user("a"), {"role": "tool", "content": "x" * 20}])


# ---------------------------------------------------------------------- what is refused


def test_a_template_that_refuses_is_told_before_weights_load(folder):
    (told,) = policy(folder["gemma"], prompting=Prompting(chat=True, system="Be kind.")).check()
    assert "refuses a conversation of system, user: System role not supported" in told and "system_in_user: true" in told
    with pytest.raises(ConfigError, match="System role not supported"):
        policy(folder["gemma"], prompting=Prompting(chat=True, system="Be kind.")).load()
    assert policy(folder["gemma"], prompting=Prompting(chat=True, system="s", system_in_user=True)).check() == []

    strict = policy(folder["gemma"])
    bad = [talk(user("a"), user("b")), talk(user("c"), user("d")), talk(user("e"))]
    (told,) = strict.check_prompts(bad, [])
    assert "refuses a conversation of user, user: Conversation roles must alternate" in told
    assert strict.check_prompts(bad[2:], []) == []


def test_a_hub_models_prompts_are_checked_before_its_weights(folder, monkeypatch):
    """The Hub is asked for nothing while a configuration is checked; its tokenizer is there before its weights are."""
    from raft_text.model import loading

    strict = policy("org/name")
    assert strict.check_prompts([talk(user("a"), user("b"))], []) == []
    monkeypatch.setattr(loading, "locate", lambda _: ("hub", str(folder["gemma"])))
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(DataError, match="Conversation roles must alternate"):
        strict.load()


def test_arguments_that_a_template_never_reads_are_told(folder):
    typo = policy(folder["qwen3"], prompting=Prompting(chat=True, chat_template_kwargs={"enable_thinkin": False}))
    (told,) = typo.check()
    assert "'enable_thinkin', which the template of" in told and "did you mean 'enable_thinking'?" in told
    with pytest.raises(ConfigError, match="'add_generation_prompt', which is set here"):
        Prompting(chat=True, chat_template_kwargs={"add_generation_prompt": False})


def test_a_template_of_parts_and_a_model_without_one_are_told(tiny):
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
    )
    encode = PromptEncoder(tokenizer, Prompting(chat=True), None, 8, [tokenizer.eos_token_id], "m")
    assert "expects parts and not texts" in encode.chat.mistakes()[0]
    plain = policy(tiny("llama"), prompting=Prompting())
    (told,) = plain.check_prompts([talk(user("a"))], [])
    assert "the prompts are conversations, but the tokenizer of" in told and "has no chat template" in told


# ---------------------------------------------------------------------- the policy


def policy(model, kind=CausalLM, **settings):
    arguments = {"prompting": Prompting(chat=True), "sampling": Sampling(max_new_tokens=8, batch_size=4)} | settings
    return kind(str(model), lora=Lora(rank=2), device="cpu", **arguments)


def test_a_completion_ends_where_the_template_ends_a_turn(folder):
    """The model's own files name another token alone."""
    made = policy(folder["gemma"])
    made.load()
    end = made.encode.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert made.engine.ends == (made.encode.tokenizer.eos_token_id, end)
    with torch.no_grad():  # the end of the turn is what the prompt's last state foretells
        ids = torch.tensor([made.encode("a")])
        state = made.engine.network(ids, output_hidden_states=True).hidden_states[-1][0, -1]
        made.engine.network.lm_head.weight[end] = 20 * state / state.square().sum()
    (sample, *_) = made.render(made.sample(requests([Prompt("a")], 4, 0, 1)))
    assert sample.tensors["tokens"].tolist() == [end] and sample.meta["finish"] == "end" and sample.output == ""


def test_conversations_and_texts_do_not_depend_on_their_company(folder):
    made = policy(folder["gemma"], prompting=Prompting())
    made.load()
    asked = requests([Prompt("hello"), talk(user("hello")), talk(user("a"), bot("b"), user("c"))], 2, 0, 1)
    together = made.sample(asked)
    for request, sample in zip(asked, together, strict=True):
        (alone,) = made.sample([request])
        assert torch.equal(alone.tensors["tokens"], sample.tensors["tokens"])


def test_conversations_and_texts_are_replayed_as_they_were_drawn(folder):
    """Before its least length a text may hold the end of a turn, and a turn may not."""
    sampling = Sampling(max_new_tokens=6, min_new_tokens=4, batch_size=4, temperature=0.8)
    made = policy(folder["gemma"], prompting=Prompting(), sampling=sampling)
    made.load()
    turn = made.encode.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    with torch.no_grad():  # all tokens but the end of a turn are about equally likely
        weight = made.engine.network.lm_head.weight
        weight[turn] += 0.5 * weight.abs().mean(dim=0)
        samples = made.sample(requests([Prompt("hello"), talk(user("hello"))], 3, 0, 1), trace=True)
        for drawn in (samples, samples[::-1]):
            replayed, mask = made.step_log_probs(drawn)
            for row, kept, sample in zip(replayed, mask, drawn, strict=True):
                close(row[kept], sample.tensors["step_log_probs"])
    assert not any(turn in s.tensors["tokens"][:4] for s in samples[3:])


@pytest.mark.parametrize("style", ["chatml", "qwen3"])
def test_the_likelihood_of_a_conversation_is_that_of_its_turns(folder, style):
    """In one row where the template leaves earlier turns alone, in several where it rewrites them: the same as turn by turn."""
    made = policy(folder[style])
    made.load()
    messages = [user("a"), bot("<think>x</think>\n\nbee"), user("c"), bot("dee"), user("e")]
    whole = made.written([Request(talk(*messages), 0, 0)], ["eff"])
    parts = made.written(
        [Request(talk(*messages[:i]), 0, 0) for i in (1, 3)] + [Request(talk(*messages), 0, 0)],
        ["<think>x</think>\n\nbee", "dee", "eff"],
    )
    last = policy(folder[style], prompting=Prompting(chat=True, learned_turns="last"))
    last.load()
    singles = last.written([sample.request for sample in parts], [sample.output for sample in parts])
    with torch.no_grad():
        together, alone = made.nll(whole, None), last.nll(singles, None)
        log_probs, mask = made.step_log_probs(whole)
    assert together.item() == pytest.approx(alone.sum().item(), rel=1e-4)
    assert mask.sum() == sum(len(s.tensors["tokens"]) for s in singles) == whole[0].meta["tokens"]
    assert log_probs[0].sum().item() == pytest.approx(-together.item(), rel=1e-5)
    assert made.render(whole)[0].output == ("eff" if style == "chatml" else "<think>\n\n</think>\n\neff")


def test_nothing_is_learned_of_what_others_say(folder):
    made = policy(folder["chatml"])
    made.load()
    sample = made.written([Request(talk(user("abc"), bot("x"), user("def")), 0, 0)], ["y"])[0]
    text = made.encode.tokenizer.decode(sample.tensors["tokens"])
    assert text == "x<|im_end|>y<|im_end|>" and sample.tensors["turns"].tolist() == [2, 2]


@pytest.fixture
def recipe(folder, tmp_path, monkeypatch):
    """A configuration of supervised fine-tuning on conversations of several turns; returns what writes its data."""
    monkeypatch.chdir(tmp_path)
    raw = {
        "policy": {
            "class_path": "CausalLM",
            "init_args": {
                "model": str(folder["gemma"]),
                "lora": None,
                "prompting": {"chat": True},
                "sampling": {"max_new_tokens": 8, "temperature": 0.0},
            },
        },
        "prompts": {"train": "data.jsonl"},
        "trainer": {"steps": 10, "batch_size": 4, "optimizer": {"lr": 2e-2}},
        "evaluation": {"k": 1},
        "trackers": [],
        "output": "run",
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    return lambda rows: (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_a_model_learns_chats_and_a_student_learns_them_from_its_run(recipe, tmp_path):
    recipe([{"messages": [user(f"say {n}"), bot("ab"), user("again"), bot("ab")]} for n in range(5)])
    assert main(["sft", "c.yaml"]) == 0
    samples, scores, kept = read_round(tmp_path / "run", 1, tensors=True)
    assert kept.all() and {s.output for s in samples} == {"ab"} and (scores.columns["given"] == 1).all()
    assert all(s.tensors["turns"].tolist() == [3, 3] for s in samples)
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text())["evaluations"]
    (held_out,) = [e for e in report if e["split"] == "heldout"]
    measured = {c["name"]: c for c in held_out["comparisons"]}
    assert measured["response_loss"]["after"] < measured["response_loss"]["before"] / 3
    assert measured["given"]["after"] == 1  # it ends its turn as well
    exported = json.loads((tmp_path / "run" / "export" / "generation_config.json").read_text())
    assert len(exported["eos_token_id"]) == 2

    rows = [json.loads(line) for line in write_winners(tmp_path / "run").read_text().splitlines()]
    assert rows[0]["prompt"][1] == bot("ab") and rows[0]["response"] == "ab"
    (first, *_) = read_prompts(tmp_path / "run" / "winners.jsonl")
    assert first.messages[1] == bot("ab", weight=0) and first.messages[::2] == list(samples[0].prompt.messages[::2])
    assert main(["sft", "c.yaml", "--winners", "run", "--output", "student", "--trainer.steps", "1"]) == 0
    student, _, _ = read_round(tmp_path / "student", 1, tensors=True)
    assert all("turns" not in s.tensors and s.output == "ab" for s in student)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"messages": [user("a")]}, {"messages": [user("b")]}], "a conversation has to end with an assistant's message"),
        ([{"messages": [user("a"), user("b"), bot("c")]}] * 2, "Conversation roles must alternate"),
        ([{"messages": [system("a"), user("b"), bot("c")]}] * 2, "System role not supported"),
        ([{"messages": [user("a"), bot("x" * 600)]}, {"messages": [user("b"), bot("c")]}], "but the model's context is 512"),
    ],
)
def test_data_that_cannot_be_learned_is_told_before_weights_load(recipe, rows, told, capsys, tmp_path, monkeypatch):
    from raft_text.model import loading

    monkeypatch.setattr(loading, "load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    recipe(rows)
    assert main(["sft", "c.yaml"]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_generate_reads_conversations_and_tells_what_is_refused(recipe, folder, capsys, tmp_path):
    recipe([{"messages": [user("a"), bot("b"), user("c")]}])
    words = ["--policy.prompting.chat", "true", "--policy.sampling.max_new_tokens", "4", "--output", "out"]
    assert main(["generate", str(folder["gemma"]), "--prompts", "data.jsonl", *words]) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert row["messages"] == [user("a"), bot("b"), user("c")] and row["prompt"].startswith("\n\nHuman: a")
    recipe([{"messages": [user("a"), user("b")]}])
    assert main(["generate", str(folder["gemma"]), "--prompts", "data.jsonl", *words[:-1], "other"]) == 2
    assert "refuses a conversation of user, user" in capsys.readouterr().err


def test_a_response_that_a_template_writes_more_into_is_kept_as_given(folder):
    made, source = policy(folder["qwen3"]), FromTable()
    made.load()
    asked = source.requests([Prompt("a", {"response": "b"})], 1, 0, 1)
    (sample,) = source.render_samples(made, source.samples(made, asked, trace=False))
    assert sample.output == "b" and np.isclose(sample.meta["tokens"], len(sample.tensors["tokens"]))
