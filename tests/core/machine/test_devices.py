"""Devices by name, and which of them has bfloat16 in hardware."""

import re
from pathlib import Path

import pytest
import torch

from raft_core.errors import DeviceError
from raft_core.machine import devices
from raft_core.machine.devices import dtype_mistakes, native_bf16, pick_dtype, resolve_device


def test_devices_by_name():
    assert resolve_device("cpu") == torch.device("cpu")
    assert isinstance(resolve_device("auto"), torch.device)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", ""])
def test_a_device_that_torch_does_not_know(name):
    with pytest.raises(DeviceError, match="use 'auto'"):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what is missing without a GPU")
def test_a_device_that_is_not_there():
    with pytest.raises(DeviceError, match="torch sees none"):
        resolve_device("cuda:1")
    assert not native_bf16("cuda")


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False, "cpu_name": "Xeon"}, False),
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_bf16_by_what_the_processor_says(monkeypatch, capabilities, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    devices._cpu_has_bf16.cache_clear()
    assert native_bf16("cpu") is native
    devices._cpu_has_bf16.cache_clear()


def test_apples_gpu_is_taken_where_torch_has_it(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps").type == "mps"
    assert pick_dtype("auto", torch.device("mps")) == torch.float32
    assert dtype_mistakes("float16", torch.device("mps")) == []


def test_float64_is_never_asked_of_a_device():
    """Apple's GPUs have none: what is computed in float64 goes to the CPU first."""
    root = Path(__file__).parents[3]
    files = [path for package in ("raft_core", "raft_diffusion", "raft_text") for path in (root / package).rglob("*.py")]
    asked = [
        f"{path.relative_to(root)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"(?<!cpu\(\))\.double\(\)|\.to\(torch\.float64|torch\.float64\).*device=", line)
    ]
    assert len(files) > 200 and not asked


def test_seeded_uniform_numbers_on_apples_gpu_are_float32(monkeypatch):
    from raft_text.process import token_choice

    moved = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, dtype: moved.append((str(device), dtype)) or self)
    token_choice.uniforms([1, 2], 3, "mps")
    assert moved == [("mps", torch.float32)]
