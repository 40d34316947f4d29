"""vLLM as the engine, as far as it can be told without a GPU: what it is asked for, and what is made of its answers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from raft_core.errors import DeviceError, MissingDependency
from raft_text import Lora, Sampling
from raft_text.process.growing import Task
from raft_text.process.vllm_engine import VllmEngine

ENDS = (7, 9)


class Llm:
    """Answers every prompt with its own last token and the seed, and notes what it was asked for."""

    log_prob: float = -1.5

    def __init__(self, model, **settings):
        self.model, self.settings, self.calls = model, settings, []

    def generate(self, prompts, settings, *, lora_request, use_tqdm):
        assert not use_tqdm
        self.calls.append((prompts, settings, lora_request))
        finishes = (("stop", None), ("stop", "!"), ("length", None))
        return [
            SimpleNamespace(
                outputs=[
                    SimpleNamespace(
                        token_ids=(prompt["prompt_token_ids"][-1], one.seed),
                        finish_reason=reason,
                        stop_reason=stop,
                        cumulative_logprob=self.log_prob,
                    )
                ]
            )
            for prompt, one, (reason, stop) in zip(prompts, settings, finishes, strict=True)
        ]


@pytest.fixture
def vllm(monkeypatch):
    """A stand-in for the package, on a machine that says it has CUDA."""
    main, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    main.LLM, main.SamplingParams = Llm, SimpleNamespace
    request.LoRARequest = lambda name, number, path: SimpleNamespace(name=name, number=number, path=path)
    for module in (main, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def task(**settings):
    sampling = Sampling(max_new_tokens=5, engine="vllm", **settings)
    return Task([(1, 2), (1, 3), (4,)], ["a", "b", "c"], [10, 11, 12], sampling, ENDS, decode=str)


def saver(saved):
    def save(folder: Path):
        folder.mkdir()
        saved.append(folder)

    return save


@pytest.mark.usefixtures("vllm")
def test_samples_come_back_in_order_with_their_seeds_and_why_they_ended():
    engine = VllmEngine("model", Lora(rank=4), None, saver([]))
    drawn = engine.draw(task(top_k=3, top_p=0.9, stop=["!"]), None)
    assert [one.tokens.tolist() for one in drawn] == [[2, 10], [3, 11], [4, 12]]
    assert [one.finish for one in drawn] == ["end", "stop", "length"]
    assert all(one.log_probs is None and one.entropy is None for one in drawn)
    _, settings, lora = engine._llm.calls[0]
    assert lora is None  # the frozen start
    assert (settings[0].top_k, settings[0].top_p, settings[0].max_tokens) == (3, 0.9, 5)
    assert settings[0].stop == ["!"] and settings[0].stop_token_ids == list(ENDS)
    assert engine._llm.settings["max_lora_rank"] >= 4


@pytest.mark.usefixtures("vllm")
def test_completions_without_finite_probabilities_have_failed(monkeypatch):
    monkeypatch.setattr(Llm, "log_prob", float("nan"))
    engine = VllmEngine("model", Lora(), None, saver([]))
    assert [one.finish for one in engine.draw(task(), None)] == ["failed"] * 3


@pytest.mark.usefixtures("vllm")
def test_adapters_are_handed_over_when_they_change_and_not_before():
    saved: list[Path] = []
    engine = VllmEngine("model", Lora(), None, saver(saved))
    for version in ("one", "one", None, "two"):
        engine.draw(task(), version)
    requests = [call[2] for call in engine._llm.calls]
    assert [request and request.number for request in requests] == [1, 1, None, 2]  # vLLM caches adapters by number
    assert [Path(requests[0].path), Path(requests[3].path)] == saved


def test_without_a_gpu_or_the_package_it_says_so(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(DeviceError, match="works on CUDA alone, and torch sees no GPU"):
            VllmEngine("model", Lora(), None, saver([]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependency, match=r"raft-align\[vllm\]"):
        VllmEngine("model", Lora(), None, saver([]))
