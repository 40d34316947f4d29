"""One of several samples: the majority's answer and a reward's favourite, from the command line and by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from raft_cli import main
from raft_core.errors import RewardError
from raft_core.metrics.voting import Vote
from raft_core.protocols import RewardInfo
from raft_core.reporter import Silent
from raft_core.rewards.scoring import Scorer
from raft_core.types import Prompt, Request, Sample
from raft_core.workflows.choose import choose, write_chosen

SIGN = '''
from raft_core.protocols import RewardInfo

class Sign:
    """1 where the sign of the first number is the right one."""

    info = RewardInfo("sign")

    def __init__(self, column: str = "sign"):
        self.column = column

    def answers(self, samples):
        return ["-" if sample.output.startswith("-") else "+" for sample in samples]

    def reference(self, prompt):
        return prompt.meta.get(self.column)

    def same(self, one, other):
        return one == other

    def __call__(self, samples):
        pairs = zip(self.answers(samples), samples, strict=True)
        return [float(self.same(answer, self.reference(sample.prompt))) for answer, sample in pairs]

def first(prompts, outputs):
    return [float(output.split(",")[0]) for output in outputs]
'''


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose reward reads answers, and a table of prompts of which two have the right one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SIGN)
    rows = [{"prompt": "a", "sign": "+"}, {"prompt": "b", "sign": "-"}, {"prompt": "c"}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = {
        "policy": "FakePolicy",
        "reward": "mine.py:Sign",
        "prompts": {"train": "p.jsonl", "held_out_fraction": 0.0},
        "rounds": 1,
        "k": 2,
        "trainer": {"steps": 1},
        "evaluation": {"k": 1},
        "trackers": [],
        "stop_when": [],
        "output": "run",
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(raw))
    assert main(["align", "task.yaml"]) == 0
    return tmp_path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_vote_and_rerank_from_the_command_line(run, capsys):
    capsys.readouterr()
    words = ["--vote", "5", "--rerank", "mine.py:first", "--output", "out"]
    assert main(["generate", "run", "--prompts", "p.jsonl", *words]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    samples, chosen = lines(run / "out/samples.jsonl"), lines(run / "out/chosen.jsonl")
    assert len(samples) == 15 and [row["prompt"] for row in chosen] == ["a", "b", "c"]
    accuracy = {"top-1": [], "vote": [], "rerank": []}
    for number, row in enumerate(chosen):
        mine = samples[5 * number : 5 * number + 5]
        firsts = [float(sample["text"].split(",")[0]) for sample in mine]
        signs = ["-" if value < 0 else "+" for value in firsts]
        assert [sample["answer"] for sample in mine] == signs and [sample["first"] for sample in mine] == firsts
        majority, best = max("+-", key=signs.count), int(np.argmax(firsts))
        assert row["vote"]["answer"] == majority and row["vote"]["votes"] == signs.count(majority) and row["vote"]["of"] == 5
        assert row["vote"]["text"] == mine[signs.index(majority)]["text"]
        assert row["rerank"] == {"first": firsts[best], "answer": signs[best], "index": best, "text": mine[best]["text"]}
        assert [sample["chosen"] for sample in mine] == [j == best for j in range(5)]
        if "reference" in row:
            accuracy["top-1"].append(signs.count(row["reference"]) / 5)
            accuracy["vote"].append(majority == row["reference"])
            accuracy["rerank"].append(signs[best] == row["reference"])
    table = {line[0]: line[1:4] for line in shown if line and line[0] in accuracy}
    assert {name: row[1:] for name, row in table.items()} == {
        name: ["2", f"{100 * np.mean(values):.1f}%"] for name, values in accuracy.items()
    }
    assert pq.read_table(run / "out/samples.parquet")["kept"].to_pylist() == [sample["chosen"] for sample in samples]


def test_a_vote_chooses_its_first_voter_and_needs_no_reference(run, capsys):
    words = ["--vote", "3", "--voter", "mine.py:Sign", "--voter.column", "other", "--output", "out"]
    assert main(["generate", "run", "--prompts", "p.jsonl", *words]) == 0
    assert "the samples of 3 of 3 prompts state an answer" in " ".join(capsys.readouterr().out.split())
    for number, row in enumerate(lines(run / "out/chosen.jsonl")):
        mine = lines(run / "out/samples.jsonl")[3 * number : 3 * number + 3]
        assert "reference" not in row and [s["chosen"] for s in mine].index(True) == row["vote"]["index"]


def test_voting_draws_the_samples_that_k_draws(run):
    assert main(["generate", "run", "--prompts", "p.jsonl", "--k", "3", "--output", "plain"]) == 0
    assert main(["generate", "run", "--prompts", "p.jsonl", "--vote", "3", "--output", "voted"]) == 0
    plain, voted = lines(run / "plain/samples.jsonl"), lines(run / "voted/samples.jsonl")
    assert [row["text"] for row in plain] == [row["text"] for row in voted]
    assert set(plain[0]) == {"prompt", "index", "seed", "text"} and not (run / "plain/chosen.jsonl").exists()


def test_pictures_are_reranked_too(run):
    raw = yaml.safe_load((run / "task.yaml").read_text()) | {"reward": "FakeReward", "output": "pictures"}
    raw["policy"] = {"class_path": "FakePolicy", "init_args": {"modality": "image"}}
    (run / "task.yaml").write_text(yaml.safe_dump(raw))
    assert main(["align", "task.yaml"]) == 0
    words = ["--k", "3", "--rerank", "FakeReward", "--rerank.name", "bright", "--output", "out"]
    assert main(["generate", "pictures", "--prompts", "p.jsonl", *words]) == 0
    samples, chosen = lines(run / "out/samples.jsonl"), lines(run / "out/chosen.jsonl")
    for number, row in enumerate(chosen):
        mine = samples[3 * number : 3 * number + 3]
        assert row["rerank"]["bright"] == max(sample["bright"] for sample in mine) and "vote" not in row
        assert mine[row["rerank"]["index"]]["chosen"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vote", "0"], "--vote is 0"),
        (["--vote", "4", "--k", "2"], "--vote is 4 and --k is 2"),
        (["--rerank", "FakeReward"], "only 1 is drawn"),
        (["--k", "2", "--rerank", "FakeRewar"], "there is no reward called 'FakeRewar'"),
        (["--k", "2", "--rerank", "FakeReward", "--rerank.nam", "x"], "rerank.nam is not known"),
        (["--k", "2", "--rerank.name", "x"], "--rerank.name belongs to no --rerank"),
        (["--vote", "2", "--voter", "FakeReward"], "reads no answers"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(run, capsys, words, message):
    assert main(["generate", "run", "--prompts", "p.jsonl", "--output", "out", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split()) and not (run / "out").exists()


# ---------------------------------------------------------------------- by hand


class Reads:
    """Answers are outputs, "" is none and "?" could not be read."""

    def answers(self, samples):
        return [{"": None, "?": math.nan}.get(sample.output, sample.output) for sample in samples]

    def reference(self, prompt):
        return prompt.meta.get("right")

    def same(self, one, other):
        return isinstance(one, str) and one == other


class Lengths:
    """The shorter the better."""

    info = RewardInfo("length", higher_is_better=False)

    def __call__(self, samples):
        return [math.nan if sample.output == "?" else float(len(sample.output)) for sample in samples]


def asked(*rows):
    return [Sample(Request(prompt, j, j), output=text) for prompt, texts in rows for j, text in enumerate(texts)]


def test_choosing_by_hand(tmp_path):
    samples = asked((Prompt("p", {"right": "xx"}), ["yyy", "xx", "xx", ""]), (Prompt("q", {"right": "z"}), ["?", "", "?", ""]))
    chosen = choose(samples, 4, voter=Reads(), votes=True, scorer=Scorer(Lengths()), reporter=Silent())
    assert chosen.votes == [Vote("xx", 1, 2, 3), None]
    assert chosen.best == [3, 1]  # the shortest, the first of equals; what is not scored never wins
    assert [(row.method, row.accuracy.value) for row in chosen.table] == [("top-1", 0.25), ("vote", 0.5), ("rerank", 0.0)]
    assert np.flatnonzero(chosen.flags(4, 2)).tolist() == [3, 5]
    first, second = lines(write_chosen(tmp_path, samples, 4, chosen))
    assert first["vote"] == {"answer": "xx", "votes": 2, "of": 3, "index": 1, "text": "xx"}
    assert first["rerank"] == {"length": 0.0, "answer": None, "index": 3, "text": ""}
    assert second["vote"] is None


def test_a_reward_that_scores_nothing_chooses_nothing():
    with pytest.raises(RewardError, match="none can be chosen"):
        choose(asked((Prompt("p"), ["?", "?"])), 2, voter=None, votes=False, scorer=Scorer(Lengths()), reporter=Silent())
