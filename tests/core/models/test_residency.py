"""Which networks are on a GPU in which phase, told from what would be moved; no GPU is needed for that."""

from __future__ import annotations

import pytest
import torch

from raft_core.models import residency
from raft_core.models.residency import Residency

CUDA = torch.device("cuda")


@pytest.fixture
def moved(monkeypatch):
    """name of a tensor → device it was sent to last, instead of sending it."""
    places = {}

    def send(tensors, device):
        places.update({tensor.label: device.type for tensor in tensors})

    monkeypatch.setattr(residency, "send", send)
    return places


def network(name, trained=False):
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.label = name
    module.weight.requires_grad_(trained)
    module.register_buffer("table", torch.zeros(1))
    module.table.label = f"{name}.table"
    return module


def test_one_network_is_resident_at_a_time(moved):
    modules = {name: network(name) for name in ("unet", "vae", "text_encoder")}
    place = Residency(modules, [], CUDA, offload=True)
    assert moved == {}
    with place("unet"):
        assert moved == {"unet": "cuda", "unet.table": "cuda"}
        with place("text_encoder"):
            assert moved["text_encoder"] == "cuda"
        assert (moved["text_encoder"], moved["unet"]) == ("cpu", "cuda")
        with place("unet"):
            pass
        assert moved["unet"] == "cuda"  # still held outside
    with place("vae"):
        assert (moved["vae"], moved["unet"]) == ("cuda", "cpu")


def test_what_is_trained_stays_on_the_device(moved):
    modules = {"unet": network("unet", trained=True)}
    place = Residency(modules, [modules["unet"].weight], CUDA, offload=True)
    assert moved == {"unet": "cuda"}
    modules["unet"].weight.requires_grad_(False)  # as when adapters are switched off for the reference
    with place("unet"):
        pass
    assert moved == {"unet": "cuda", "unet.table": "cpu"}


def test_without_offloading_everything_goes_there_once(moved):
    modules = {name: network(name) for name in ("unet", "vae")}
    place = Residency(modules, [], CUDA, offload=False)
    assert set(moved.values()) == {"cuda"}
    moved.clear()
    with place("unet"):
        pass
    assert moved == {}


def test_an_error_inside_gives_the_place_back(moved):
    place = Residency({"unet": network("unet")}, [], CUDA, offload=True)
    with pytest.raises(RuntimeError, match="out of memory"), place("unet"):
        raise RuntimeError("out of memory")
    assert moved["unet"] == "cpu"
