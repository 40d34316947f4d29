"""``raft reward``: the family of commands, and the list."""

import pytest

from raft_cli.command import COMMANDS, SUBCOMMANDS, main


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
    assert "RemoteReward" in both and "RewardServer" not in out  # which has the looks of one, but scores nothing itself


def test_one_reward_is_explained(capsys):
    assert main(["reward", "list", "Weighted"]) == 0
    assert "weights" in capsys.readouterr().out


def test_a_reward_that_there_is_not(capsys):
    assert main(["reward", "list", "ClipScor"]) == 2
    assert "no reward is called 'ClipScor' (did you mean 'ClipScore'?)" in capsys.readouterr().err
    assert main(["reward", "list", "BestOfK"]) == 2  # a selector


def test_what_is_wrong_with_serving_is_told_before_anything_is_loaded(capsys, monkeypatch):
    monkeypatch.delenv("THE_KEY", raising=False)
    for words, message in (
        ([], "--reward is missing"),
        (["--reward", "FakeReward", "--port", "99999"], "must be from 0 to 65535"),
        (["--reward", "FakeReward", "--host", "0.0.0.0"], "protect it by a token"),
        (["--reward", "FakeReward", "--key_variable", "THE_KEY"], "is not set"),
        (["--reward", "FakeReward", "--max_mb", "0"], "--max_mb is 0"),
        (["FakeReward"], "'FakeReward' belongs to no option"),
        (["--reward", "SelfJudge"], "needs the policy itself"),
    ):
        assert main(["reward", "serve", *words]) == 2
        assert message in capsys.readouterr().err


def test_a_reward_is_served_until_an_interrupt(capsys, monkeypatch):
    import raft_core.rewards.service.serve

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(raft_core.rewards.service.serve.RewardServer, "serve_forever", interrupted)
    assert main(["reward", "serve", "--reward", "FakeReward", "--port", "0"]) == 130
    assert "mean answers on http://127.0.0.1:" in capsys.readouterr().out
