"""The gold judge's file, when it is none."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from raft_core.errors import ModelError
from raft_diffusion.world.gold import FOLDER, WEIGHTS, Gold


def test_a_judge_that_is_cut_off_or_another(tmp_path):
    (tmp_path / WEIGHTS).write_bytes((FOLDER / WEIGHTS).read_bytes()[:-8])
    with pytest.raises(ModelError, match=rf"{WEIGHTS} is damaged"):
        Gold(str(tmp_path)).load()
    save_file({"weight": torch.zeros(1)}, tmp_path / WEIGHTS)
    with pytest.raises(ModelError, match=rf"{WEIGHTS} holds no judge"):
        Gold(str(tmp_path)).load()
