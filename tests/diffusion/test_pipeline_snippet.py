"""The lines that a card shows draw the picture that ``TextToImage`` has drawn."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_pipelines
from test_text_to_image import perturb, requests, settings

from raft_diffusion import TextToImage, TransformerLora
from raft_diffusion.export.pipeline_snippet import snippet
from raft_diffusion.export.snippet import Trained
from raft_diffusion.model.lora_file import DIFFUSERS_FILE


@pytest.mark.parametrize(
    ("family", "sampling", "lora"),
    [
        ("sd3", {"scheduler": "dpm++", "guidance_scale": 3.0, "negative_prompt": "blue"}, TransformerLora(rank=2)),
        ("qwen_image", {}, TransformerLora(rank=2)),
        ("wan", {}, TransformerLora(rank=2)),
        ("pixart_sigma", {}, TransformerLora(rank=2)),
        ("lumina2", {}, None),
    ],
)
def test_the_lines_draw_the_picture(tmp_path, family, sampling, lora):
    folder = tiny_pipelines.write(tmp_path / family, family)
    policy = TextToImage(str(folder), lora=lora, sampling=settings(family, **sampling))
    policy.load()
    perturb(policy, 0.5 if lora else 0.02)
    request = requests()[1]
    (drawn,) = policy.render(policy.sample([request]))
    policy.save(tmp_path / "export")
    lines = snippet(
        policy.describe(),
        Trained(str(tmp_path / "export"), DIFFUSERS_FILE if lora else None),
        request.prompt.text,
        request.seed,
    )
    lines = lines.replace(f"path/to/{folder.name}", str(folder))
    names = {}
    exec(compile(lines, "card", "exec"), names)
    assert np.array_equal(np.asarray(names["image"]), np.asarray(drawn.output)), lines
