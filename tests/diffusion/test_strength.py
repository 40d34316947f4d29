"""How strongly the training acts: from the frozen start to what was trained, and beyond."""

from __future__ import annotations

import pytest
import torch

from raft_core.errors import ConfigError
from raft_core.reporter import Silent
from raft_core.sampling import requests
from raft_core.testing import close
from raft_core.types import Prompt
from raft_core.workflows.generate import generate
from raft_diffusion import Lora

ASKED = requests([Prompt("a red cat")], 2, 0, 1)


def drawn(policy, **arguments):
    return torch.stack([sample.tensors["latents"] for sample in policy.sample(ASKED, **arguments)])


def trained(load, **arguments):
    """A policy whose trained weights have moved away from the start."""
    policy = load("sd1", **arguments)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.mark.parametrize("arguments", [{}, {"lora": Lora(text_encoder=True)}, {"lora": None}], ids=["lora", "text", "full"])
def test_strength_leads_from_the_start_to_what_was_trained(load, arguments):
    policy = trained(load, **arguments)
    before, after = drawn(policy, strength=0.0), drawn(policy)
    found = {strength: drawn(policy, strength=strength) for strength in (1e-9, 0.5, 1.5)}
    assert (found[1e-9] - before).abs().max() < 1e-5
    assert not torch.allclose(found[0.5], before) and not torch.allclose(found[0.5], after)
    assert not torch.allclose(found[1.5], after)
    assert torch.equal(drawn(policy), after)  # nothing is left of it


def test_a_lora_of_half_the_alpha_is_one_of_half_the_strength(load):
    whole, half = trained(load, lora=Lora(rank=4, alpha=4)), trained(load, lora=Lora(rank=4, alpha=2))
    close(drawn(whole, strength=0.5), drawn(half))


def test_the_strength_comes_back_after_an_error(load):
    policy = trained(load)
    after = drawn(policy)

    def fail(*_):
        raise RuntimeError("in between")

    policy.on_step = fail
    with pytest.raises(RuntimeError, match="in between"):
        drawn(policy, strength=0.5)
    policy.on_step = None
    assert torch.equal(drawn(policy), after)


def test_a_strength_that_cannot_be_is_refused(load):
    with pytest.raises(ConfigError, match="strength is -1"):
        generate(load("sd1"), [Prompt("a red cat")], k=1, seed=0, reporter=Silent(), strength=-1.0)


def test_each_denoising_step_is_told(load):
    policy, told = load("sd1"), []
    policy.on_step = lambda done, total: told.append((done, total))
    policy.sample(ASKED)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_bundled_example_is_compared_like_any_run_and_never_written_to(tmp_path, monkeypatch, capsys):
    from raft_cli import main
    from raft_core.bundled import bundled_runs

    example = bundled_runs()["bundled:examples/resolution"]
    before = sorted(example.rglob("*"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.txt").write_text("a large red circle on the left, on a gray background\n")
    command = ["compare", "bundled:examples/resolution", "--prompts", "one.txt", "--k", "2", "--strength", "0.5"]
    assert main([*command, "--policy.sampling.steps", "2"]) == 0
    assert "aesthetic" in capsys.readouterr().out
    assert (tmp_path / "compare" / "resolution" / "before_after.png").is_file()
    assert sorted(example.rglob("*")) == before
