"""lm-eval's own harness on a policy: a task of one's own, before and after, and what it does not take."""

from __future__ import annotations

import importlib.util
import json
import os

import pytest
import torch

from raft_cli import main
from raft_core.errors import ConfigError, MissingDependency
from raft_text import CausalLM, Lora, Sampling
from raft_text.harness import Figure, Settings, figures, find_tasks, task_name

MISSING = importlib.util.find_spec("lm_eval") is None
needs_harness = pytest.mark.skipif(MISSING, reason="the extra `harness` is not installed")
QUESTIONS = ["1 + 1 =", "2 + 2 =", "3 + 3 =", "4 + 4 ="]
TASK = """
task: my_sums # one of one's own
dataset_path: json
dataset_kwargs:
  data_files: {test: DATA}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{label}}"
doc_to_choice: ["a", "bb", "ccc"]
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def test_it_is_not_missing_where_everything_is_to_be_tested():
    assert not (os.environ.get("CI") and MISSING), "CI is set, and the extra `harness` is not installed"


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    rows = [{"question": question, "label": i % 3} for i, question in enumerate(QUESTIONS)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(TASK.replace("DATA", str(tmp_path / "data.jsonl")))
    return tmp_path


@needs_harness
@pytest.mark.filterwarnings("default")  # of the harness and what it imports
def test_a_trained_model_is_measured_beside_its_base(task, tiny, capsys):
    """Against likelihoods that transformers computes: the most likely of three answers, for both."""
    folder, answers = str(tiny()), ["a", "bb", "ccc"]
    policy = CausalLM(folder, lora=Lora(rank=4), sampling=Sampling(max_new_tokens=8))
    policy.load()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in policy.trainable().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    policy.save(task / "adapter")
    expected = {}
    for side, reference in (("before", True), ("after", False)):
        picked = [best(policy, question, answers, reference) for question in QUESTIONS]
        expected[side] = sum(p == i % 3 for i, p in enumerate(picked)) / len(QUESTIONS)
    assert main(["eval", "adapter", "--tasks", "task.yaml", "--policy.model", folder, "--output", "out.json"]) == 0
    found = json.loads((task / "out.json").read_text())
    measured = {side: figures(found[side])[0].value for side in expected}
    assert measured == pytest.approx(expected)
    assert found["after"]["n-samples"]["my_sums"]["effective"] == len(QUESTIONS)
    said = capsys.readouterr().out
    assert "before" in said and "my_sums" in said and "acc" in said


def best(policy, question, answers, reference):
    """Which of the answers the model finds likeliest behind the question."""
    from raft_text.model.likelihood import token_log_probs

    encode = policy.encode
    prompt = encode.tokenizer(question)["input_ids"]
    rows = [(prompt, torch.tensor(encode.tokenizer(" " + a, add_special_tokens=False)["input_ids"])) for a in answers]
    with policy.engine.version(reference), torch.no_grad():
        sums = [row.sum().item() for row in token_log_probs(policy.engine.network, rows, policy.engine.device)]
    return max(range(len(answers)), key=sums.__getitem__)


@needs_harness
@pytest.mark.filterwarnings("default")
def test_what_cannot_be_run_is_told_in_words(task, tiny, capsys):
    assert main(["eval", str(tiny()), "--tasks", "gsm8kk"]) == 2
    assert "lm-eval has no task of the name 'gsm8kk'" in capsys.readouterr().err
    assert main(["eval", "bundled:shapes", "--tasks", "task.yaml", "--policy", "StableDiffusion"]) == 2
    assert "raft eval is for language models" in capsys.readouterr().err
    (task / "data.jsonl").unlink()
    assert main(["eval", str(tiny()), "--tasks", "task.yaml", "--policy.sampling.max_new_tokens", "8"]) == 2
    assert "lm-eval could not run my_sums" in capsys.readouterr().err


def test_a_file_names_its_task(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("include: other.yaml\nprocess: !function utils.process\ntask: 'mine-1'  # a remark\n")
    assert task_name(file) == "mine-1"
    file.write_text("nothing: here\n")
    with pytest.raises(ConfigError, match="names no task"):
        task_name(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        task_name(tmp_path / "absent.yaml")


def test_figures_are_read_with_their_errors():
    values = {"alias": "x", "acc,none": 0.5, "acc_stderr,none": 0.1, "em,strict": 1.0, "em_stderr,strict": "N/A", "n": "no"}
    found = figures({"results": {"t": values}, "higher_is_better": {"t": {"acc": True}}})
    assert found == [Figure("t", "acc", 0.5, 0.1, True), Figure("t", "em (strict)", 1.0, None, None)]
    assert figures({}) == []


def test_settings_and_a_missing_package_are_told(monkeypatch):
    with pytest.raises(ConfigError) as told:
        Settings(shots=-1, limit=0, batch_size=0)
    assert len(told.value.mistakes) == 3
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match=r"raft-align\[harness\]"):
        find_tasks(["gsm8k"])
