"""How strongly the training acts: from the frozen start to what was trained, and beyond."""

from __future__ import annotations

import pytest
import torch

from raft_core.errors import ConfigError, ModelError
from raft_core.sampling import at_strength, requests
from raft_core.types import Prompt
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
    before, after = drawn(policy, reference=True), drawn(policy)
    found = {}
    for strength in (0.0, 0.5, 1.5):
        with at_strength(policy, strength):
            found[strength] = drawn(policy)
            assert torch.equal(drawn(policy, reference=True), before)  # of any strength, the start is the start
    assert (found[0.0] - before).abs().max() < 1e-5
    assert not torch.allclose(found[0.5], before) and not torch.allclose(found[0.5], after)
    assert not torch.allclose(found[1.5], after)
    assert torch.equal(drawn(policy), after)  # nothing is left of it


def test_a_lora_of_half_the_alpha_is_one_of_half_the_strength(load):
    whole, half = trained(load, lora=Lora(rank=4, alpha=4)), trained(load, lora=Lora(rank=4, alpha=2))
    with at_strength(whole, 0.5):
        assert torch.allclose(drawn(whole), drawn(half), atol=1e-5)


def test_the_strength_comes_back_after_an_error(load):
    policy = trained(load)
    after = drawn(policy)
    with pytest.raises(RuntimeError, match="in between"), at_strength(policy, 0.5):
        raise RuntimeError("in between")
    assert torch.equal(drawn(policy), after)


def test_a_strength_that_cannot_be_is_refused(load):
    with pytest.raises(ConfigError, match="strength is -1"):
        at_strength(load("sd1"), -1.0)
    with pytest.raises(ModelError, match=r"object cannot be sampled at strength 0\.5"):
        at_strength(object(), 0.5)  # type: ignore[arg-type] - it only lacks what is asked for


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
