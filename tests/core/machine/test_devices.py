"""Devices by name, and which of them has bfloat16 in hardware."""

import pytest
import torch

from raft_core.errors import DeviceError
from raft_core.machine import devices
from raft_core.machine.devices import native_bf16, resolve_device


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
