"""Rewards of pictures that are learned from preferences, on a CLIP of random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from raft_cli import main
from raft_core.config.components import Walk
from raft_core.errors import ConfigError, ModelError, StoreError
from raft_core.machine.torchvision import ensure_importable
from raft_core.preferences.folder import read_recipe
from raft_core.preferences.preference import Item, Picture
from raft_core.preferences.read import read_preferences, split
from raft_core.preferences.reward import LearnedReward
from raft_core.testing import close
from raft_core.types import Prompt, Request, Sample
from raft_diffusion.rewards.clip import Clip
from raft_diffusion.rewards.embeddings import EmbeddingCache
from raft_diffusion.rewards.learned import ClipLearner, lora_targets

WIDTH, SIZE = 12, 16
CONFIG = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": SIZE, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def write_clip(folder, seed=0):
    ensure_importable()
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**CONFIG)
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


def picture(red: bool, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
    pixels[..., 0 if red else 2] += 180
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """40 pairs of a red picture, which is preferred, and a blue one."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for i in range(40):
        for name, red in (("red", True), ("blue", False)):
            picture(red, 2 * i + red).save(folder / f"{i}_{name}.png")
        rows.append({"prompt": f"prompt {i % 20}", "chosen": f"{i}_red.png", "rejected": f"{i}_blue.png", "group": f"g{i % 2}"})
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "pairs.jsonl"


@pytest.fixture(scope="module")
def trained(clip_folder, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "reward"
    assert train(data, folder, clip_folder, "--learner.cache", str(folder.parent / "cache.sqlite")) == 0
    return folder


def train(data, folder, clip, *more):
    words = ["reward", "train", str(data), "--output", str(folder), "--learner.clip", str(clip), "--device", "cpu"]
    words += ["--fit.epochs", "6", "--fit.batch_size", "4", "--fit.optimizer.lr", "0.005", "--fit.held_out_fraction", "0.2"]
    return main([*words, *more])


def samples(*pictures):
    return [Sample(Request(Prompt("prompt 1"), i, i), output=image) for i, image in enumerate(pictures)]


def test_its_folder_may_be_beside_the_configuration(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = {"class_path": "LearnedReward", "init_args": {"folder": trained.name, "device": "cpu"}}
    reward = Walk(base=trained.parent).component(raw, "reward", "reward").make()
    assert reward.folder == trained.resolve()


def test_what_is_preferred_scores_higher_and_a_folder_is_a_reward(trained, data):
    reward = (
        Walk()
        .component({"class_path": str(trained), "init_args": {"name": "mine", "device": "cpu"}}, "reward", "reward")
        .make()
    )
    assert isinstance(reward, LearnedReward)
    assert reward.info.name == "mine"
    assert reward.check() == []
    scores = reward(samples(picture(True, 1000), picture(False, 1001), picture(True, 1002).convert("RGBA")))
    assert scores[0] > scores[1] + 0.5
    assert scores[2] > scores[1] + 0.5
    one, other = reward(samples(picture(True, 1000), Image.new("F", (4, 4))))  # a picture that nobody can show
    close(one, scores[0], 1e-3)
    assert np.isnan(other)
    recipe = read_recipe(trained)
    assert recipe.training["held_out_accuracy"]["value"] == 1
    assert recipe.training["held_out_accuracy"]["n"] == 8
    # Without a reference of its own it is normalised on the candidates that it was trained on.
    learned_from, _ = split(read_preferences(data).preferences, 0.2, 0)
    seen = reward([sample for preference in learned_from for sample in preference.samples()])
    assert (seen.mean(), seen.var()) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))


def test_an_evaluation_says_what_there_is_to_say(trained, data, tmp_path, capsys):
    words = ["reward", "eval", str(data), "--reward", str(trained), "--reward.device", "cpu", "--reward", "JpegCompressibility"]
    assert main([*words, "--held_out", "0.2", "--output", str(tmp_path / "eval")]) == 0
    out = capsys.readouterr().out
    assert "learned" in out and "jpeg_compressibility" in out and "g0" in out
    found = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert found["preferences"] == 8
    learned, jpeg = found["verdicts"]
    assert learned["accuracy"]["value"] == 1
    assert learned["calibration"]["scale"] == pytest.approx(read_recipe(trained).preference_scale)
    assert jpeg["size_correlation"] == pytest.approx(-1)
    assert (tmp_path / "eval" / "reliability.svg").read_text().startswith("<?xml")


def test_embeddings_are_kept_by_content(trained, clip_folder, data, tmp_path, monkeypatch):
    cache = trained.parent / "cache.sqlite"
    learner = ClipLearner(str(clip_folder), cache=str(cache))
    learner.load("cpu")
    monkeypatch.setattr(Clip, "_embed_images", lambda *_: pytest.fail("embedded again"))
    (again,) = learner.encode([Item("p", Picture(path=data.parent / "0_red.png"))])
    monkeypatch.undo()
    learner.cache = None
    (fresh,) = learner.encode([Item("p", Picture(path=data.parent / "0_red.png"))])
    close(again[0], fresh[0])
    EmbeddingCache(cache).put("m", {"k": np.arange(3.0)})
    assert EmbeddingCache(cache).get("m", ["k", "other"])["k"].tolist() == [0, 1, 2]
    (tmp_path / "bad.sqlite").write_text("no database, and long enough to be none" * 10)
    with pytest.raises(StoreError, match="cannot be used"):
        EmbeddingCache(tmp_path / "bad.sqlite").get("m", ["k"])


def test_lora_learns_on_a_copy_and_comes_back(clip_folder, data, tmp_path):
    ensure_importable()
    learner = ClipLearner(str(clip_folder), lora_rank=2)
    learner.load("cpu")
    shared = learner._clip.model.visual
    before = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
    assert list(lora_targets(shared)) == ["conv1", "transformer.resblocks.0.mlp.c_fc", "transformer.resblocks.0.mlp.c_proj"]
    assert train(data, tmp_path / "lora", clip_folder, "--learner.lora_rank", "2") == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in shared.state_dict().items())
    weights = load_file(tmp_path / "lora" / "weights.safetensors")
    assert any("lora_B" in name and tensor.abs().sum() > 0 for name, tensor in weights.items())
    reward = LearnedReward(str(tmp_path / "lora"), device="cpu")
    scores = reward(samples(picture(True, 1000), picture(False, 1001)))
    assert scores[0] > scores[1]


def test_another_clip_below_is_noticed(trained, clip_folder, tmp_path):
    moved = tmp_path / "reward"
    moved.mkdir()
    for file in trained.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    config = json.loads((moved / "config.json").read_text())
    config["learner"]["clip"] = str(write_clip(tmp_path / "other", seed=1))
    (moved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="has changed since"):
        LearnedReward(str(moved), device="cpu").load()
    config["learner"] |= {"clip": str(clip_folder), "hidden": 8}
    (moved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="do not fit"):
        LearnedReward(str(moved), device="cpu").load()
    (moved / "weights.safetensors").unlink()
    assert LearnedReward(str(moved)).check() == [f"the learned reward {moved} is not complete: weights.safetensors is missing"]


def test_mistakes_are_listed_before_work_starts(clip_folder, data, tmp_path, capsys):
    assert train(data, tmp_path / "r", clip_folder, "--learner.hiden", "3", "--fit.patience", "0") == 2
    err = capsys.readouterr().err
    assert "learner.hiden is not known (did you mean 'hidden'?)" in err
    assert "patience is 0" in err
    assert train(data, tmp_path / "r", clip_folder, "--lerner.hidden", "3") == 2
    assert not (tmp_path / "r").exists()
    with pytest.raises(ConfigError, match="head is 'big'"):
        ClipLearner(head="big")  # type: ignore[arg-type]


def brightness(_prompts, outputs):
    """The gold: how bright a picture is. Named by the study's configuration."""
    return [np.asarray(output).mean() for output in outputs]


def test_a_study_shows_proxy_and_gold_against_distance(clip_folder, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {i}" for i in range(6)))
    config = {
        "policy": {"class_path": "raft_core.testing.FakePolicy", "init_args": {"modality": "image"}},
        "prompts": {"train": str(tmp_path / "prompts.txt"), "held_out_fraction": 0},
        "reward": f"{__file__}:brightness",
        "k": 2,
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(config))
    words = ["reward", "study", str(tmp_path / "task.yaml"), "--gold", f"{__file__}:brightness", "--labels", "10", "40"]
    words += ["--samples", "8", "--pool", "8", "--raft_rounds", "1", "--output", str(tmp_path / "study"), "--device", "cpu"]
    words += [
        "--learner.clip",
        str(clip_folder),
        "--learner.cache",
        "null",
        "--fit.epochs",
        "3",
        "--fit.held_out_fraction",
        "0.3",
    ]
    assert main(words) == 0
    assert "best of n: gold (proxy)" in capsys.readouterr().out
    found = json.loads((tmp_path / "study" / "study.json").read_text())
    few, many, gold = found["best_of"]
    assert (few["label"], many["label"], gold["label"]) == ("10 labels", "40 labels", "gold itself")
    assert few["steps"] == [1, 2, 4, 8]
    assert few["distance"][2] == pytest.approx(np.sqrt(np.log(4) - 3 / 4))
    assert few["gold"][0] == many["gold"][0] == pytest.approx(0, abs=1e-9)  # the reference policy's own
    assert gold["gold"] == sorted(gold["gold"]) and gold["gold"][-1] > 1
    assert all(proxy["proxy"] == sorted(proxy["proxy"]) for proxy in (few, many))
    assert all(proxy["gold"][-1] <= gold["gold"][-1] + 1e-9 for proxy in (few, many))
    assert [curve["steps"] for curve in found["raft"]] == [[0, 1], [0, 1]]
    assert (tmp_path / "study" / "study.svg").is_file()
    assert read_recipe(tmp_path / "study" / found["proxies"][1]["folder"]).training["preferences"] < 40
