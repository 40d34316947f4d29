"""What the rewards say when the Hub cannot be reached: that, and not that a file is missing."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from raft_core.errors import ModelError
from raft_core.machine.torchvision import ensure_importable
from raft_core.models.offline import causes, reason
from raft_diffusion.rewards.clip import ClipSource, load_clip
from raft_diffusion.rewards.weights import from_hub


def test_causes_go_back_to_the_first_and_end():
    first, second = LocalEntryNotFoundError("first"), OSError("second")
    second.__context__, first.__context__ = first, second  # a circle
    assert list(causes(second)) == [second, first]


def test_another_error_speaks_for_itself():
    assert reason(OSError("no such repository"), "owner/name") == "no such repository"


@pytest.mark.parametrize(
    ("source", "repository"),
    [
        (ClipSource("ViT-L-14", "laion2b_s32b_b82k"), "hf download laion/CLIP-ViT-L-14-laion2B-s32B-b82K"),
        (ClipSource("hf-hub:owner/clip"), "hf download owner/clip"),
    ],
)
def test_a_clip_without_a_network(monkeypatch, source, repository):
    ensure_importable()
    import open_clip

    def fail(*_, **__):
        try:
            raise LocalEntryNotFoundError("not in the disk cache")
        except LocalEntryNotFoundError:
            raise RuntimeError("failed to download weights")  # noqa: B904 - as open_clip does

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", fail)
    with pytest.raises(ModelError, match=rf"not in the cache .*{repository}"):
        load_clip(source)


def test_a_weight_file_without_a_network(monkeypatch):
    def fail(*_):
        raise LocalEntryNotFoundError("not in the disk cache")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(ModelError, match=r"not in the cache .*hf download owner/name.*give its path"):
        from_hub("hf-hub:owner/name/head.pth")
