"""Ballots: made of samples, filled in by a reward or a person, read as preferences."""

import json
from dataclasses import replace

import numpy as np
import pytest

from raft_cli import main
from raft_core.errors import ConfigError, DataError, RewardError
from raft_core.preferences.ballots import Ballot, ballots_of, open_ones, read_ballots, read_samples, write_ballots
from raft_core.preferences.labeller import Labeller, asked
from raft_core.preferences.read import read_preferences
from raft_core.protocols import RewardInfo
from raft_core.reporter import Silent
from raft_core.rewards.scoring import Scorer
from raft_core.types import Prompt, Request, Sample
from raft_core.workflows.generate import write_outputs

FOUR = Ballot("say", ("a", "bbbb", "cc", "ddd"))
ONE, TWO = Prompt("one"), Prompt("two")


class Long:
    """The longer the better, or the worse; what begins with ? is not scored."""

    def __init__(self, higher_is_better=True):
        self.info = RewardInfo(name="long", higher_is_better=higher_is_better)

    def __call__(self, samples):
        return np.array([np.nan if s.output.startswith("?") else len(s.output) for s in samples], dtype=float)


def filled(ballots, temperature=0.0, seed=0, reward=None):
    return [b.best for b in Labeller(Scorer(reward or Long()), temperature, seed).filled(ballots, Silent())]


# ---------------------------------------------------------------------- from samples to preferences


def test_ballots_hold_different_candidates_of_one_prompt():
    outputs = [(ONE, "a"), (TWO, "x"), (ONE, "b"), (ONE, "a"), (TWO, "x"), (ONE, "c"), (ONE, "d"), (ONE, "e")]
    assert [(b.prompt, b.candidates) for b in ballots_of(outputs, 2)] == [("one", ("a", "b")), ("one", ("c", "d"))]
    assert ballots_of(outputs, 6) == []


def test_what_is_filled_in_is_read_as_preferences_and_the_rest_passed_over(tmp_path):
    ballots = [FOUR, Ballot("say", ("a", "b"), (1,)), Ballot("tell", ("a", "b", "c"), (0, 2))]
    write_ballots(tmp_path / "b.jsonl", ballots)
    assert json.loads((tmp_path / "b.jsonl").read_text().splitlines()[0])["best"] is None
    assert read_ballots(tmp_path / "b.jsonl") == ballots
    assert list(open_ones(ballots)) == [0]
    reading = read_preferences(tmp_path / "b.jsonl")
    assert [p.target for p in reading.preferences] == [(0, 1), (0.5, 0, 0.5)] and reading.unlabelled == 1
    write_ballots(tmp_path / "b.jsonl", [FOUR, FOUR])
    with pytest.raises(DataError, match="nobody has chosen in its 2 rows"):
        read_preferences(tmp_path / "b.jsonl")


def test_what_a_person_types_wrong_is_named_by_its_line(tmp_path):
    rows = [{"best": 4}, {"best": "2"}, {"best": [1, 1]}, {"candidates": ["a", "a"]}, {"candidates": ["a", "b"], "best": 1}]
    lines = [json.dumps({"prompt": "say", "candidates": list("abcd"), "best": 0} | row) for row in rows]
    (tmp_path / "b.jsonl").write_text("\n".join([*lines, "{", '{"prompt": "say"}']))
    with pytest.raises(DataError) as error:
        read_ballots(tmp_path / "b.jsonl")
    found = str(error.value)
    assert "line 1: best is 4, but there are 4 candidates: 0 to 3" in found and "line 5" not in found
    assert "line 2: best is '2'" in found and "line 3: best is [1, 1]" in found and "line 4: two candidates" in found
    assert "line 6: it is not JSON" in found and "line 7: the field 'best' is missing" in found


# ---------------------------------------------------------------------- a labeller


def test_a_sure_labeller_takes_the_best_and_tells_ties():
    assert filled([FOUR]) == [(1,)]
    assert filled([FOUR], reward=Long(higher_is_better=False)) == [(0,)]
    assert filled([Ballot("say", ("aa", "b", "cc"))]) == [(0, 2)]
    assert filled([]) == []


def test_what_cannot_be_scored_is_not_chosen_between():
    assert filled([FOUR, Ballot("say", ("?", "b"))]) == [(1,), ()]
    with pytest.raises(RewardError, match="'long' could score nothing"):
        filled([Ballot("say", ("?", "?b"))])


def test_doubts_follow_the_softmax_and_the_ballot_alone():
    """Scores 1 and 2, deviation ½: the better is chosen with σ(2 / temperature), 0.731 at temperature 2."""
    pairs = [Ballot(f"say {i}", ("a", "bb")) for i in range(2000)]
    chosen = filled(pairs, 2.0)
    assert np.mean([best == (1,) for best in chosen]) == pytest.approx(1 / (1 + np.exp(-1)), abs=0.04)
    assert filled(pairs[::-1], 2.0) == chosen[::-1]
    assert filled(pairs, 2.0, seed=1) != chosen
    with pytest.raises(ConfigError, match="temperature is -1"):
        filled(pairs, -1)


def test_a_person_chooses_ties_passes_over_goes_back_and_ends():
    answers, told = iter(["2", "1 3", "nine", "u", "4", "", "q"]), []
    ballots = [Ballot("said", ("a", "b"), (0,)), FOUR, FOUR, FOUR, Ballot("say\x1b[2J", ("a", "b"))]
    states = list(asked(ballots, lambda _: next(answers), told.append))
    assert [b.best for b in states[-1]] == [(0,), (1,), (3,), (), ()]
    assert [b.best for b in states[1]] == [(0,), (1,), (0, 2), (), ()]
    assert any("'nine' is no choice" in line for line in told)
    assert not any("\x1b" in line for line in told)  # a text must not move the cursor


def test_an_end_of_input_loses_nothing():
    def ask(_):
        raise EOFError

    assert list(asked([FOUR], ask, lambda _: None)) == []


# ---------------------------------------------------------------------- the command


@pytest.fixture
def generated(tmp_path):
    """What ``raft generate`` writes: four samples of each of three prompts, two of them equal for the last."""
    rows = [{"prompt": f"say {i}", "text": "ab"[j % 2] * (j + 1 - (i == 2 and j == 3) * 2)} for i in range(3) for j in range(4)]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def label(*words):
    return main(["reward", "label", *map(str, words)])


def test_a_reward_labels_what_was_generated(generated, capsys):
    assert label(generated, "--labeller", "Length", "--labeller.unit", "characters") == 0
    assert "2 choices, 0 of them ties" in capsys.readouterr().out  # the third prompt has only three different ones
    assert [b.best for b in read_ballots(generated / "labels.jsonl")] == [(3,), (3,)]
    assert label(generated, "--blank") == 2
    assert "is there already: go on with it by" in capsys.readouterr().err


def test_a_blank_file_is_filled_in_and_what_is_chosen_stays(generated):
    assert label(generated, "--blank", "--candidates", 3, "--output", generated / "b.jsonl") == 0
    ballots = read_ballots(generated / "b.jsonl")
    assert [b.best for b in ballots] == [()] * 3
    write_ballots(generated / "b.jsonl", [Ballot(ballots[0].prompt, ballots[0].candidates, (0,)), *ballots[1:]])
    assert label(generated / "b.jsonl", "--labeller", "Length", "--labeller.unit", "characters") == 0
    assert [b.best for b in read_ballots(generated / "b.jsonl")] == [(0,), (2,), (2,)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["."], "there is nobody to ask"),
        ([".", "--blank", "--labeller", "Sentiment"], "give one of the two"),
        ([".", "--candidates", "1"], "--candidates is 1"),
        ([".", "--candidates", "5"], "of none of them 5 different ones"),
        ([".", "--labeller", "Sentimen"], "did you mean 'Sentiment'?"),
        ([".", "--labeler", "Sentiment"], "--labeler is not known here"),
        ([".", "--temperature", "1"], "none is given"),
        ([".", "--output", "labels.csv", "--blank"], "must end in .jsonl"),
        (["nothing.jsonl", "--blank"], "there is no file nothing.jsonl"),
        (["empty", "--blank"], "holds no samples.jsonl"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(generated, monkeypatch, capsys, words, message):
    monkeypatch.chdir(generated)
    (generated / "empty").mkdir()
    assert label(*words) == 2
    assert message in capsys.readouterr().err
    assert {path.name for path in generated.iterdir()} == {"samples.jsonl", "empty"}


def test_a_labeller_is_told_what_the_prompts_file_says_besides(tmp_path):
    request = Request(Prompt("one", {"answer": "2"}), 0, 0)
    write_outputs(tmp_path, [Sample(request, output="a"), Sample(replace(request, index=1), output="b")])
    (ballot,) = ballots_of(read_samples(tmp_path), 2)
    assert [sample.prompt.meta for sample in ballot.samples()] == [{"answer": "2"}] * 2
    (tmp_path / "samples.parquet").unlink()
    (ballot,) = ballots_of(read_samples(tmp_path), 2)
    assert [sample.prompt.meta for sample in ballot.samples()] == [{}] * 2
