"""The gold judges as rewards: of both worlds, of other captions, and of a file that holds none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from raft_core.errors import ModelError
from raft_core.rewards.scoring import PartlyScored
from raft_core.types import Prompt, Request, Sample
from raft_diffusion.world.emoji.captions import caption
from raft_diffusion.world.emoji.scenes import draw_scene, render
from raft_diffusion.world.gold import WEIGHTS, Gold, GoldScore
from raft_diffusion.world.judge import BUNDLED

JUDGE = BUNDLED / "shapes-judge"


def test_a_judge_that_is_cut_off_or_another(tmp_path):
    (tmp_path / WEIGHTS).write_bytes((JUDGE / WEIGHTS).read_bytes()[:-8])
    with pytest.raises(ModelError, match=rf"{WEIGHTS} is damaged"):
        Gold(str(tmp_path)).load()
    save_file({"weight": torch.zeros(1)}, tmp_path / WEIGHTS)
    with pytest.raises(ModelError, match=rf"{WEIGHTS} holds no judge"):
        Gold(str(tmp_path)).load()


def emoji_samples():
    from PIL import Image

    names = [{"object": "cat", "background": "pink"}, {"object": "rocket", "background": "navy", "position": "left"}]
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(render([draw_scene(rng, {"size": "large", **each})], 128)[0]) for each in names]
    captions = [caption(names[0]), caption(names[1]), caption(names[1])]
    drawn = [pictures[0], pictures[1], pictures[0]]
    asked = [Request(Prompt(text), 0, i) for i, text in enumerate(captions)]
    return [Sample(request, output=picture) for request, picture in zip(asked, drawn, strict=True)]


def test_the_score_of_an_emoji_is_the_judges_certainty_of_what_the_caption_says():
    samples = emoji_samples()
    verdicts, scores = Gold("bundled:emoji-judge")(samples), GoldScore("bundled:emoji-judge")(samples)
    assert verdicts.tolist() == [1.0, 1.0, 0.0]
    assert (scores[:2] > -0.1).all() and scores[2] < -2
    judge = GoldScore("bundled:emoji-judge").judge()
    assert judge.attributes([sample.output for sample in samples])[1]["object"] == "rocket"


def test_a_caption_of_another_world_is_not_scored():
    sample = emoji_samples()[0]
    with pytest.raises(PartlyScored, match="none of the judge's world") as caught:
        GoldScore()([sample])  # the shapes' judge
    assert np.isnan(np.asarray(caught.value.values)).all()
