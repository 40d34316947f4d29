"""Episodes: turns of a model with a tool between them, as one sample whose own tokens alone are learned."""

from __future__ import annotations

import math

import pytest
import torch
import yaml

from raft_cli import main
from raft_core.config.components import build
from raft_core.environment import Environment, Step
from raft_core.errors import ConfigError, DataError
from raft_core.sampling import requests
from raft_core.store.store import read_history, read_round
from raft_core.testing import close
from raft_core.types import Prompt
from raft_text import Sampling
from raft_text.environments.arithmetic import calculated
from raft_text.environments.calculator import Calculator
from raft_text.environments.functions import Functions
from raft_text.environments.interpreter import Interpreter, program_at_the_end
from raft_text.model.loading import load_model
from raft_text.reasoning.sandbox import Sandbox

PROMPTS = [Prompt("abc"), Prompt("a longer one")]
needs_sandbox = pytest.mark.skipif(bool(Sandbox.unsupported()), reason=f"no sandbox here: {Sandbox.unsupported()}")


# ---------------------------------------------------------------------- tools


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("48/2", "24"),
        ("48 ÷ 2 × 3", "72"),
        ("0.1 + 0.2", "0.3"),
        ("1/3", "0.333333"),
        ("-(2^10)", "-1024"),
        ("1,200 * 5%", "60"),
        ("7 // 2", "3"),
        ("1/0", None),
        ("9^9^9", None),
        ("2^64*2^64*2^64", str(2**192)),
        ("__import__('os')", None),
        ("x + 1", None),
        ("True + 1", None),
        ("(" * 150 + "1" + ")" * 150, None),
        ("", None),
    ],
)
def test_arithmetic(expression, value):
    assert calculated(expression) == value


def test_the_calculator_works_out_what_stands_between_its_marks():
    calculator = Calculator(calls=2)
    said = ["He has <<48/2=", "so a =", "<<1+1=2>> and =", "<<x=", "no mark <<3=3"]
    steps = calculator.step(calculator.reset([Prompt("a")] * 5), said)
    assert [step.reply for step in steps] == ["24>>", "", "", ">>", ""]
    assert [step.state for step in steps] == [1, 0, 0, 1, 0]
    plain = Calculator(opened=None, lead=" ", closed="")
    said = ["He has 8 + 3 =", "11. 11 + 1.5 =", "so x =", "then 7 =", "2 * (3 + 4) =", "5 / 0 ="]
    assert [step.reply for step in plain.step([0] * 6, said)] == [" 11", " 12.5", "", "", " 14", ""]
    (over,) = calculator.step([2], ["<<1+1="])
    assert over.reply is None


def test_a_program_is_what_the_last_block_holds():
    assert program_at_the_end("Now:\n```python\nprint(1)\n```\n") == "print(1)\n"
    assert program_at_the_end("```python\nprint(1)\n```") is None
    assert program_at_the_end("```python\na\n```\nand\n```output\n1\n```\n") is None


@needs_sandbox
def test_programs_are_run_in_the_sandbox():
    interpreter = Interpreter(calls=1, longest=20)
    programs = ["print(6 * 7)", "def solution():\n    return 3", "1 / 0", "open('x')", "print('a' * 50)"]
    said = [f"```python\n{program}\n```\n" for program in programs]
    steps = interpreter.step([0] * 6, [*said, "no program\n```\n"])
    told = [step.reply for step in steps]
    assert told[:2] == ["```output\n42\n```\n", "```output\n3\n```\n"]
    assert told[2].startswith("```output\nerror: ") and told[3].startswith("```output\nerror: ")
    assert told[4] == f"```output\n{'a' * 20} …\n```\n" and told[5] == ""
    assert [step.state for step in steps] == [1] * 5 + [0]
    assert interpreter.step([1], said[:1])[0].reply is None


def call(name, **arguments):
    import json

    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@needs_sandbox
def test_functions_are_called_by_name():
    functions = Functions(["calculator", "python"], calls=2)
    assert [tool["function"]["name"] for tool in functions.tools] == ["calculator", "python"]
    said = [
        f"Let me see. {call('calculator', expression='2*21')}",
        call("python", code="print(1)") + call("calculator", expression="1+1"),
        call("search", query="x"),
        call("calculator", code="1"),
        "<tool_call>{</tool_call>",
        "The answer is 4.",
        call("calculator", expression="nonsense"),
    ]
    steps = functions.step([0] * 7, said)
    told = [step.reply for step in steps]
    assert told[:2] == ["42", "1\n2"] and told[5] is None
    assert "there is no function of that name; there is calculator, python" in told[2]
    assert "needs the argument 'expression'" in told[3] and "no JSON" in told[4] and "no arithmetic" in told[6]
    assert [step.state for step in steps] == [1, 2, 1, 1, 1, 0, 1]
    assert functions.step([1], [said[1]])[0].reply is None  # two more calls would be three


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"environment\.functions has 'search'"):
        Functions(["search"])  # type: ignore[list-item] - as typed
    with pytest.raises(ConfigError, match="must not be empty"):
        Calculator(asked="")
    assert isinstance(build("environment", "Calculator"), Environment)


# ---------------------------------------------------------------------- episodes


class Echo:
    """Tells the length of each turn, so that what is said depends on what was drawn; stops at the letters given."""

    tools = ()

    def __init__(self, stop=("e", "t"), most=3):
        self.stop = stop
        self.most = most

    def reset(self, prompts):
        return [prompt.text for prompt in prompts]

    def step(self, states, said):
        return [Step(f"{state}|{text}", None if state.count("|") >= self.most else f"[{len(text)}]") for state, text in
                zip(states, said, strict=True)]  # fmt: skip


@pytest.fixture
def talker(load):
    """A policy whose random bytes often hold one of the stops."""
    from raft_text.testing import tiny_model  # noqa: F401 - the model is what ``load`` makes

    def made(**arguments):
        sampling = {"max_new_tokens": 12, "batch_size": 3} | arguments.pop("sampling", {})
        stops = tuple("abcdefghijklmnopqrstuvwxyz0123456789")
        return load(environment=Echo(stops), sampling=sampling, **arguments)

    return made


def episode_rows(policy, sample):
    """(all token ids of an episode, which of them are the policy's own), rebuilt turn by turn."""
    own = sample.tensors["tokens"].split(sample.tensors["turns"].tolist())
    told = sample.tensors["told"].split(sample.tensors["told_lengths"].tolist())
    ids, mine = list(policy.encode(sample.prompt)), []
    for i, turn in enumerate(own):
        mine += range(len(ids), len(ids) + len(turn))
        ids += turn.tolist()
        if i < len(told):
            ids += told[i].tolist()
    return ids, mine


def test_an_episode_is_one_sample_whose_own_tokens_alone_are_learned(talker, tiny):
    """Likelihoods against transformers' own forward on the whole row; the drawn log-probs are those of the replay."""
    policy = talker()
    samples = policy.render(policy.sample(requests(PROMPTS, 4, 0, 1), trace=True))
    assert sum("told" in sample.tensors for sample in samples) >= 3
    nll = policy.nll(samples, None)
    replayed, mask = policy.step_log_probs(samples)
    plain = load_model(str(tiny()), torch.float32)
    for sample, value, row, counts in zip(samples, nll, replayed, mask, strict=True):
        n = len(sample.tensors["tokens"])
        assert int(counts.sum()) == n == sample.meta["tokens"] and len(sample.tensors["step_log_probs"]) == n
        close(row[:n].detach(), sample.tensors["step_log_probs"])
        if "told" not in sample.tensors:
            assert sample.meta["turns"] == 1
            continue
        ids, mine = episode_rows(policy, sample)
        with torch.no_grad():
            log_probs = plain(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = torch.stack([log_probs[place - 1, ids[place]] for place in mine])
        close(-value.detach(), expected.sum())
        told = "".join(sample.meta["told"])
        turns = [policy.encode.text(part) for part in sample.tensors["tokens"].split(sample.tensors["turns"].tolist())]
        assert sample.meta["told"] == [f"[{len(turn)}]" for turn in turns[:-1]] and told
        assert sample.output.startswith(turns[0] + sample.meta["told"][0] + turns[1][:1])


def test_an_episode_depends_on_its_seed_alone(talker):
    policy = talker()
    asked = requests(PROMPTS, 4, 0, 1)
    together = policy.sample(asked)
    for request, sample in zip(asked, together, strict=True):
        (alone,) = policy.sample([request])
        assert alone.tensors.keys() == sample.tensors.keys() and alone.meta["told"] == sample.meta["told"]
        assert all(alone.tensors[name].equal(sample.tensors[name]) for name in alone.tensors)


def test_no_gradient_comes_of_what_the_environment_says(talker):
    """The gradient of the loss by the logits is zero where the next token is the environment's."""
    policy = talker()
    sample = next(s for s in policy.sample(requests(PROMPTS, 8, 0, 1)) if "told" in s.tensors)
    seen = []
    handle = policy.engine.network.lm_head.register_forward_hook(lambda _m, _i, out: (out.retain_grad(), seen.append(out))[0])
    try:
        policy.nll([sample], None).sum().backward()
    finally:
        handle.remove()
    ids, mine = episode_rows(policy, sample)
    first = len(policy.encode(sample.prompt))
    touched = seen[0].grad[0].abs().sum(dim=-1) > 0
    offset = len(ids) - len(touched)
    assert [i + offset + 1 for i in touched.nonzero()[:, 0].tolist()] == mine and mine[0] == first


def test_an_episode_ends_where_turns_or_the_context_do(talker):
    few = talker(sampling={"max_turns": 2}).sample(requests(PROMPTS, 6, 0, 1))
    assert {sample.meta["turns"] for sample in few} == {1, 2}
    tight = talker(sampling={"max_new_tokens": 60, "max_turns": 50})
    samples = tight.sample(requests([Prompt("a" * 60)], 6, 0, 1))
    assert any(sample.meta["finish"] == "length" for sample in samples)
    for sample in samples:
        rows = episode_rows(tight, sample)[0] if "told" in sample.tensors else sample.tensors["tokens"].tolist()
        assert len(rows) <= 128
    assert math.isfinite(float(tight.nll(samples, None).detach().sum()))


def test_a_chats_tool_speaks_as_its_template_writes():
    """Qwen's way: a tool's message between two turns; the row is what the template writes of the whole conversation."""
    from chat_templates import chat_tokenizer

    from raft_text.model.encoding import PromptEncoder
    from raft_text.options import Prompting

    tokenizer = chat_tokenizer("chatml")
    ends = [tokenizer.eos_token_id]
    encode = PromptEncoder(tokenizer, Prompting(chat=True), None, 8, ends)
    (end,) = set(encode.ends(chat=True)) - set(ends) or set(ends)
    said = [*tokenizer("let me see", add_special_tokens=False)["input_ids"], end]
    row = [*encode("2*21?"), *said, *encode.told("42", Prompt("2*21?"), ended=True)]
    talk = [
        {"role": "user", "content": "2*21?"},
        {"role": "assistant", "content": "let me see"},
        {"role": "tool", "content": "42"},
    ]
    whole = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(row) == whole
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role != 'tool' %}{{ m.role }}:{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    with pytest.raises(DataError, match="does not write a tool's message"):
        PromptEncoder(tokenizer, Prompting(chat=True), None, 8, ends).told("42", Prompt("a"), ended=True)


# ---------------------------------------------------------------------- in a run


@pytest.fixture
def recipe(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    environment = {"class_path": "Calculator", "init_args": {"opened": "a", "asked": "e", "closed": "!"}}
    arguments = {"model": str(tiny()), "lora": {"rank": 2}, "environment": environment}
    raw = {
        "policy": {"class_path": "CausalLM", "init_args": {**arguments, "sampling": {"max_new_tokens": 30, "max_turns": 3}}},
        "prompts": {"train": "prompts.txt"},
        "reward": "Length",
        "trainer": {"steps": 2, "batch_size": 2, "optimizer": {"lr": 1e-2}},
        "rounds": 2,
        "k": 4,
        "stop_when": [],
        "evaluation": {"k": 1, "prompts": 2},
        "trackers": [],
        "output": "run",
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path


def test_a_run_with_a_tool_is_resumed_to_the_bit(recipe):
    assert main(["align", "c.yaml"]) == 0
    whole = {rnd: read_round(recipe / "run", rnd, tensors=True)[0] for rnd in (1, 2)}
    assert any(sample.meta["turns"] > 1 for sample in whole[1]) and read_history(recipe / "run")[0]["text/turns"] > 1
    assert main(["align", "c.yaml", "--rounds", "1", "--output", "part"]) == 0
    assert main(["resume", "part", "--force", "--rounds", "2"]) == 0
    again, _, _ = read_round(recipe / "part", 2, tensors=True)
    for one, other in zip(whole[2], again, strict=True):
        assert one.output == other.output and one.meta == other.meta
        assert all(one.tensors[name].equal(other.tensors[name]) for name in one.tensors)
    exports = [(recipe / name / "export" / "adapter_model.safetensors").read_bytes() for name in ("run", "part")]
    assert exports[0] == exports[1]


def test_a_minimum_length_is_refused_with_an_environment(tiny):
    from raft_text import CausalLM

    policy = CausalLM(str(tiny()), environment=Calculator(), sampling=Sampling(min_new_tokens=2, max_new_tokens=4))
    assert any("min_new_tokens is for completions of one turn" in mistake for mistake in policy.check())


def test_a_conversation_whose_template_knows_no_tool_is_told_before_weights_load(tmp_path):
    """Prompts may be conversations where plain prompts are texts; then their template has to write what a tool says."""
    from chat_templates import chat_model

    from raft_text import CausalLM

    talk = Prompt("a", {"messages": [{"role": "user", "content": "a"}]})
    for style, refused in (("chatml", False), ("gemma", True)):
        policy = CausalLM(
            str(chat_model(tmp_path / style, style)), environment=Functions(), sampling=Sampling(max_new_tokens=8)
        )
        assert policy.check() == []
        told = policy.check_prompts([talk, talk], [])
        assert bool(told) == refused
        if refused:
            assert "roles must alternate" in told[0] or "does not write a tool's message" in told[0]


def test_an_environment_is_not_for_vllm(tiny):
    from raft_text import CausalLM

    policy = CausalLM(str(tiny()), environment=Calculator(), sampling=Sampling(engine="vllm", max_new_tokens=4))
    assert any("an environment needs the engine transformers" in mistake for mistake in policy.check())
