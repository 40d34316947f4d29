"""What only a CUDA device can show: half precision, quantised base weights, offloading."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from raft_core.sampling import requests
from raft_core.types import Prompt
from raft_text import Memory

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}  # nats per token


def asked():
    return requests([Prompt("a red cat"), Prompt("dog")], 2, 0, 1)


@pytest.mark.parametrize("dtype", ["auto", "float32"])
@pytest.mark.parametrize("arguments", [{}, {"lora": None}], ids=["lora", "full"])
def test_a_round_on_the_gpu(load, dtype, arguments):
    policy = load("llama", device="cuda", dtype=dtype, **arguments)
    samples = policy.sample(asked(), trace=True)
    log_probs, mask = policy.step_log_probs(samples)
    stored = torch.nn.utils.rnn.pad_sequence([s.tensors["step_log_probs"] for s in samples], batch_first=True)
    assert ((log_probs.cpu() - stored).abs() * mask.cpu()).max() < TOLERANCE[policy.engine.dtype]
    policy.nll(samples, None).sum().backward()
    assert all(p.dtype == torch.float32 and p.grad is not None for p in policy.trainable().values())


def test_frozen_weights_leave_the_gpu_while_samples_are_scored(load):
    policy = load("llama", device="cuda", memory=Memory(offload=True))
    with policy.resident("sample"):
        samples = policy.sample(asked())
    trained = {id(parameter) for parameter in policy.trainable().values()}
    frozen = [p for p in policy.engine.network.parameters() if id(p) not in trained]
    assert {p.device.type for p in frozen} == {"cpu"}
    with policy.resident("train"):
        policy.nll(samples, None).sum().backward()


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs the extra bitsandbytes")
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantised_base_weights_take_adapters(load, bits):
    policy = load("llama", device="cuda", memory=Memory(quantize=bits))
    samples = policy.sample(asked())
    policy.nll(samples, None).sum().backward()
    assert all(parameter.grad is not None for parameter in policy.trainable().values())
