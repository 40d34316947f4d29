"""Supervised fine-tuning: responses that are written down, learned by the same loop; and a student of a run's winners."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
import yaml

from raft_cli import main
from raft_core.conversations import response
from raft_core.errors import ConfigError, DataError
from raft_core.prompts import read_prompts
from raft_core.rewards.given import Given
from raft_core.store.store import read_history, read_round
from raft_core.store.tables import write_samples
from raft_core.testing import FakePolicy
from raft_core.types import Prompt, Request, Sample, Scores
from raft_text import CausalLM, Sampling
from raft_text.demonstrations import ResponseLoss, write_winners

PAIRS = {"say one": "abab", "say two": "abab", "say three": "abab", "say four": "abab", "say five": "abab"}


@pytest.fixture
def recipe(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"prompt": prompt, "response": text, "answer_value": "2"}) for prompt, text in PAIRS.items()]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows) + "\n")
    arguments = {"model": str(tiny()), "lora": None, "sampling": {"max_new_tokens": 8, "temperature": 0.0}}
    raw = {
        "policy": {"class_path": "CausalLM", "init_args": arguments},
        "prompts": {"train": "pairs.jsonl"},
        "trainer": {"steps": 12, "batch_size": 4, "optimizer": {"lr": 2e-2}},
        "evaluation": {"k": 1},
        "trackers": [],
        "output": "run",
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path


def test_responses_are_learned_and_a_student_learns_them_from_the_run(recipe):
    assert main(["sft", "c.yaml"]) == 0
    run = recipe / "run"
    samples, scores, kept = read_round(run, 1, tensors=True)
    assert kept.all() and {sample.output for sample in samples} == {"abab"} and (scores.columns["given"] == 1).all()
    (row,) = read_history(run)
    assert row["train/loss_last"] < row["train/loss_first"] / 5
    table = json.loads((run / "report" / "report.json").read_text())["evaluations"]
    shown = {e["split"]: {c["name"]: c for c in e["comparisons"]} for e in table}
    assert shown["heldout"]["given"]["before"] == 0 and shown["heldout"]["given"]["after"] == 1
    loss = shown["heldout"]["response_loss"]
    assert loss["after"] < loss["before"] / 5 and not loss["higher_is_better"]
    assert row["judge/response_loss"] == pytest.approx(
        row["train/loss_first"] / 5, rel=0.2
    )  # the same, per token: abab and its end
    assert main(["sft", "c.yaml", "--winners", "run", "--output", "student", "--trainer.steps", "1"]) == 0
    student, _, _ = read_round(recipe / "student", 1)
    assert {sample.output for sample in student} == {"abab"}
    assert {sample.prompt.meta["answer_value"] for sample in student} == {"2"}  # what judges may ask for goes along


def test_several_responses_of_a_prompt_are_learned(recipe):
    rows = [{"prompt": prompt, "response": text} for prompt in PAIRS for text in ("abab", "baba", "abab")]
    (recipe / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["sft", "c.yaml", "--evaluation.prompts", "1", "--trainer.steps", "1"]) == 0
    samples, _, kept = read_round(recipe / "run", 1)
    assert sorted(s.output for s in samples) == ["abab"] * 4 + ["baba"] * 4 and kept.all()
    asked = [json.loads(line) for line in write_winners(recipe / "run", 2).read_text().splitlines()]
    assert [(row["prompt"], row["response"]) for row in asked] == [(s.prompt.text, s.output) for s in samples]
    assert len(write_winners(recipe / "run").read_text().splitlines()) == 4


def test_winners_are_the_best_different_ones_and_of_equals_the_earlier(tmp_path):
    scores = {1: [("x", 0.5), ("y", 0.9), ("y ", 0.9), ("z", 0.9)], 2: [("x", 1.0), ("w", np.nan), ("", 0.1), ("v", 0.2)]}
    for rnd, drawn in scores.items():
        samples = [
            Sample(Request(Prompt("p", {"answer": "?", "id": 3}), i, i), output=text) for i, (text, _) in enumerate(drawn)
        ]
        kept = np.array([text != "z" for text, _ in drawn])
        found = Scores("r", {"r": np.array([score for _, score in drawn])})
        write_samples(tmp_path / "rounds" / f"{rnd:04d}" / "samples.parquet", samples, found, kept, rnd=rnd)
    rows = [json.loads(line) for line in write_winners(tmp_path, 3).read_text().splitlines()]
    assert rows == [{"id": 3, "prompt": "p", "response": text} for text in ("x", "y", "v")]


def test_the_loss_is_that_of_the_side_that_is_compared(tiny):
    """Before and after differ by the weights alone, and a prompt without a response is not scored."""
    policy = CausalLM(str(tiny()), sampling=Sampling(max_new_tokens=2, batch_size=2))
    policy.load()
    judge = ResponseLoss()
    judge.attach(policy)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.3)
    prompts = [Prompt("say one", {"response": "abab"}), Prompt("say two")]
    asked = [Request(prompt, j, j) for prompt in prompts for j in range(2)]
    written = policy.written(asked[:1], ["abab"])
    found = []
    with torch.no_grad():
        for reference in (True, False):
            losses = judge(policy.render(policy.sample(asked, strength=0.0 if reference else 1.0)))
            expected = policy.nll(written, None, reference=reference).item() / len(written[0].tensors["tokens"])
            assert losses[:2] == pytest.approx([expected] * 2, rel=1e-5) and np.isnan(losses[2:]).all()
            found.append(losses[0])
    assert abs(found[0] - found[1]) > 0.01
    with pytest.raises(ConfigError, match="and not of FakePolicy"):
        judge.attach(FakePolicy())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_responses_are_read_from_any_table(tmp_path, suffix):
    path = tmp_path / f"pairs{suffix}"
    table = pa.table({"prompt": list(PAIRS), "response": list(PAIRS.values())})
    pa.csv.write_csv(table, path) if suffix == ".csv" else pa.parquet.write_table(table, path)
    assert {prompt.text: response(prompt) for prompt in read_prompts(str(path))} == PAIRS


def test_a_table_without_responses_is_told(recipe, capsys):
    (recipe / "pairs.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert main(["sft", "c.yaml", "--policy.sampling.max_new_tokens", "1"]) == 2
    assert "has no response to learn" in capsys.readouterr().err
    assert not (recipe / "run").exists()  # told before anything is loaded
    for words, told in (
        (["--per_prompt", "2"], "--per_prompt tells how many"),
        (["--winners", "run", "--per_prompt", "0"], "--per_prompt is 0"),
        (["--winners", "run"], "run holds no run"),
    ):
        assert main(["sft", "c.yaml", *words]) == 2
        assert told in capsys.readouterr().err


def test_a_response_longer_than_the_context_is_told(load):
    policy = load("llama")
    with pytest.raises(DataError, match="prompt and response have 134 tokens, but the model's context is 128"):
        policy.written([Request(Prompt("p"), 0, 0)], ["x" * 131])


def test_what_is_given_scores_one():
    prompts = [Prompt("p", {"response": "yes"}), Prompt("p", {"answer": "no"}), Prompt("p")]
    samples = [Sample(Request(prompt, 0, 0), output="yes ") for prompt in prompts]
    assert np.array_equal(Given()(samples), [1, 0, np.nan], equal_nan=True)
