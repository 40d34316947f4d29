"""``raft reward``: the family of commands, and the list."""

import pytest

from raft_core.cli import COMMANDS, SUBCOMMANDS, main


@pytest.mark.parametrize("command", SUBCOMMANDS["reward"])
def test_every_subcommand_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["reward", command, "--help"])
    assert ended.value.code == 0
    assert f"raft reward {command}" in capsys.readouterr().out


def test_without_a_subcommand_they_are_listed(capsys):
    assert main(["reward"]) == 2
    out = capsys.readouterr().out
    assert all(text in out for text in SUBCOMMANDS["reward"].values())
    assert main(["reward", "--help"]) == 0
    assert "reward" in COMMANDS


def test_a_subcommand_that_there_is_not(capsys):
    assert main(["reward", "lst"]) == 2
    assert "there is no command 'reward lst' (did you mean 'list'?)" in capsys.readouterr().err


def test_the_list_tells_rewards_by_what_they_score(capsys):
    assert main(["reward", "list"]) == 0
    out = capsys.readouterr().out
    pictures, rest = out.split("of text:")
    text, rest = rest.split("of both:")
    assert "ClipScore" in pictures and "Sentiment" in text
    both, combinators = rest.split("made of rewards:")
    assert "FunctionReward" in both and "Weighted" in combinators and "Weighted" not in both


def test_one_reward_is_explained(capsys):
    assert main(["reward", "list", "Weighted"]) == 0
    assert "weights" in capsys.readouterr().out


def test_a_reward_that_there_is_not(capsys):
    assert main(["reward", "list", "ClipScor"]) == 2
    assert "no reward is called 'ClipScor' (did you mean 'ClipScore'?)" in capsys.readouterr().err
    assert main(["reward", "list", "BestOfK"]) == 2  # a selector
