"""Rewards that are a large model, against their formulas: models of random weights in the published file layouts."""

from __future__ import annotations

import json

import blip_layout
import numpy as np
import pytest
import torch
from PIL import Image
from reward_samples import picture, samples_of

from raft_core.errors import ConfigError, ModelError
from raft_core.machine.torchvision import ensure_importable
from raft_core.rewards.scoring import Scorer, score
from raft_core.testing import close
from raft_diffusion.rewards import ClipScore, HpsV2, ImageReward, PickScore
from raft_diffusion.rewards.clip import ClipSource
from raft_diffusion.rewards.pick_score import preferences

SIZE = 32
MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711])


def normalised(image: Image.Image) -> torch.Tensor:
    """[3, H, W] of an RGB picture, by CLIP's constants."""
    return torch.from_numpy(((np.asarray(image) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)).float()


# --- HPS v2


@pytest.fixture(scope="module")
def hps(tmp_path_factory):
    """(name of the architecture, its model, a checkpoint in the published layout)."""
    ensure_importable()
    import open_clip

    folder = tmp_path_factory.mktemp("hps")
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": SIZE, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / "tiny-hps.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-hps.json")
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval()
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, folder / "HPS_v2_compressed.pt")
    return "tiny-hps", model, str(folder / "HPS_v2_compressed.pt")


def hps_cosines(model, images, texts):
    import open_clip

    with torch.no_grad():
        seen = model.encode_image(torch.stack([normalised(image) for image in images]))
        read = model.encode_text(open_clip.tokenize(texts, context_length=8))
    return torch.nn.functional.cosine_similarity(seen, read).numpy()


@pytest.mark.parametrize(("width", "height"), [(96, 48), (48, 96), (20, 10), (32, 32)])
def test_hps_is_the_cosine_of_the_whole_picture_on_black(hps, width, height):
    name, model, weights = hps
    images = [picture(i, width, height) for i in range(2)]
    scale = SIZE / max(width, height)
    size = round(width * scale), round(height * scale)
    padded = [Image.new("RGB", (SIZE, SIZE)) for _ in images]
    for canvas, image in zip(padded, images, strict=True):
        corner = (SIZE - size[0]) // 2, (SIZE - size[1]) // 2
        canvas.paste(image.resize(size, Image.Resampling.BICUBIC), corner)

    texts = ["a red circle", "stars"]
    scores = HpsV2("v2.0", weights, name, device="cpu")(samples_of(texts, images))
    close(scores, hps_cosines(model, padded, texts))


def test_hps_sees_what_a_crop_would_cut_off(hps):
    name, _, weights = hps
    plain = picture(0, 96, 32)
    marked = plain.copy()
    marked.paste((255, 0, 0), (0, 0, 16, 32))
    at_the_side, without = HpsV2(weights=weights, model=name, device="cpu")(samples_of(["x", "x"], [marked, plain]))
    assert at_the_side != pytest.approx(without, abs=1e-4)


def test_the_versions_of_hps_are_two_columns_and_two_files():
    old, new = HpsV2("v2.0"), HpsV2()
    assert (old.info.name, new.info.name) == ("hps_v2_0", "hps_v2_1")
    assert old.weights == "hf-hub:xswu/HPSv2/HPS_v2_compressed.pt"
    assert new.weights == "hf-hub:xswu/HPSv2/HPS_v2.1_compressed.pt"
    assert old.check() == new.check() == []
    with pytest.raises(ConfigError, match=r"'v3', but the published weights are 'v2.0' and 'v2.1'"):
        HpsV2("v3")  # type: ignore[arg-type]


def test_mistakes_in_hps_are_found_without_loading(hps, tmp_path):
    name, _, weights = hps
    assert HpsV2(weights=weights, model=name).check() == []
    assert "there is no weight file /nowhere.pt" in HpsV2(weights="/nowhere.pt").check()[0]
    assert "hf-hub:OWNER/NAME/FILE" in HpsV2(weights="hf-hub:xswu/HPSv2").check()[0]
    assert "did you mean 'ViT-H-1" in HpsV2(weights=weights, model="ViT-H-15").check()[0]
    with pytest.raises(ModelError, match="no weight file"):
        HpsV2(weights="/nowhere.pt", device="cpu").load()
    torch.save({"state_dict": {"head": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"is .*other.pt a weight file of tiny-hps\?"):
        HpsV2(weights=str(tmp_path / "other.pt"), model=name, device="cpu").load()


# --- PickScore, and any CLIP in the layout of transformers


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP of random weights as transformers saves it, with its processor."""
    ensure_importable()
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    from raft_diffusion.testing import CONTEXT, tiny_tokenizer

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = tiny_tokenizer()
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shared = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**shared, **tokens, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT},
        vision_config={**shared, "image_size": SIZE, "patch_size": 8},
        projection_dim=12,
        logit_scale_init_value=4.6,
        initializer_factor=30.0,  # else all embeddings are nearly the same
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def logits(folder, samples):
    """[N] by transformers alone: what its CLIP calls logits_per_image."""
    from transformers import CLIPModel, CLIPTokenizer

    tokens = CLIPTokenizer.from_pretrained(folder)([s.prompt.text for s in samples], padding=True, return_tensors="pt")
    pixels = torch.stack([normalised(s.output.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for s in samples])
    with torch.no_grad():
        return CLIPModel.from_pretrained(folder)(**tokens, pixel_values=pixels).logits_per_image.diagonal().numpy()


def test_pick_score_is_the_scaled_cosine(clip_folder):
    samples = samples_of(["a circle", "stars", "a star"])
    expected = logits(clip_folder, samples)
    assert expected.std() > 0.5  # the test would not see a wrong order

    reward = PickScore(str(clip_folder), device="cpu")
    assert reward.check() == []
    close(reward(samples), expected)
    clip_score = ClipScore(str(clip_folder), device="cpu")
    close(clip_score(samples), 100 * expected / np.exp(4.6))


def test_the_softmax_of_pick_scores_is_the_preference():
    np.testing.assert_allclose(preferences(np.array([21.0, 20.0])), [0.7310586, 0.2689414], atol=1e-6)
    np.testing.assert_allclose(preferences(np.array([[20.0, 20.0], [5000.0, 0.0]])), [[0.5, 0.5], [1.0, 0.0]])


def test_pick_score_crops_and_cuts_as_clip_does(clip_folder):
    reward = PickScore(str(clip_folder), device="cpu")
    wide = picture(0, 96, 32)
    long = "abcdefghijklmnopqrstuvwxyz"
    whole, cropped, longer = reward(samples_of(["a", "a", "a"], [wide, wide.crop((32, 0, 64, 32)), picture(1)]))
    close(whole, cropped)
    assert whole != pytest.approx(longer, abs=0.1)
    cut, same = reward(samples_of([long, long[:14] + "zzz"], [wide, wide]))
    close(cut, same)


@pytest.mark.parametrize("size", [(384, 513), (513, 384), (512, 512), (224, 225), (1024, 571), (30, 47)])
def test_pictures_are_prepared_as_transformers_does(size):
    """Where what is cropped away is an odd number of pixels, torchvision's crop lies one pixel beside it."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from raft_diffusion.rewards.hf_clip import preprocessing

    processor = CLIPImageProcessorPil()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    expected = torch.as_tensor(np.asarray(processor(image)["pixel_values"][0]))
    torch.testing.assert_close(preprocessing(processor.to_dict())(image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"do_center_crop": False}, {"size": {"height": 224, "width": 224}}, {"crop_size": {"height": 336, "width": 336}}]
)
def test_a_processor_that_is_not_clips_is_refused(change):
    from transformers import CLIPImageProcessor

    from raft_diffusion.rewards.hf_clip import preprocessing

    with pytest.raises(ModelError, match=r"preprocessor_config\.json is not that of a CLIP"):
        preprocessing(CLIPImageProcessor().to_dict() | change)


def test_the_published_pick_score_takes_the_processor_of_its_ancestor(clip_folder, tmp_path):
    assert PickScore().source == ClipSource(
        "transformers:yuvalkirstain/PickScore_v1", processor="laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    )
    assert PickScore().check() == []
    assert PickScore(str(clip_folder)).source == ClipSource(f"transformers:{clip_folder}")
    for file in ("config.json", "model.safetensors"):  # a model without its processor
        (tmp_path / file).write_bytes((clip_folder / file).read_bytes())
    samples = samples_of(["a circle"])
    beside = PickScore(str(tmp_path), str(clip_folder), device="cpu")
    assert beside.check() == []
    assert beside(samples) == pytest.approx(PickScore(str(clip_folder), device="cpu")(samples))
    assert PickScore(str(tmp_path)).source.processor == "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    [mistake] = PickScore(str(clip_folder), str(tmp_path)).check()
    assert "no CLIP processor: preprocessor_config.json, tokenizer.json or vocab.json missing" in mistake


def test_folders_of_transformers_that_are_no_clip(clip_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    assert "should have the model_type 'clip'" in ClipSource.parse(f"transformers:{tmp_path}").check()[0]
    (tmp_path / "config.json").write_bytes((clip_folder / "config.json").read_bytes())
    assert "holds no weights" in ClipSource.parse(str(tmp_path)).check()[0]
    state = load_file(clip_folder / "model.safetensors")
    lacking = {name: value for name, value in state.items() if name != "visual_projection.weight"}
    save_file(lacking, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack visual_projection.weight .*mend or replace the folder"):
        PickScore(str(tmp_path), str(clip_folder), device="cpu").load()


# --- ImageReward


@pytest.fixture(scope="module")
def image_reward_folder(tmp_path_factory):
    return blip_layout.write(tmp_path_factory.mktemp("image_reward"), blip_layout.random_state())


def image_reward_by_hand(samples):
    state = blip_layout.random_state()
    ids = {word: i for i, word in enumerate(blip_layout.WORDS)}
    rows = [["[CLS]", *s.prompt.text.split()[:33], "[SEP]"] for s in samples]
    tokens = torch.tensor([[ids[word] for word in row] + [0] * (35 - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (35 - len(row)) for row in rows])
    pixels = torch.stack([normalised(s.output.resize((32, 32), Image.Resampling.BICUBIC)) for s in samples])
    return ((blip_layout.raw_score(state, pixels, tokens, mask) - 0.16717362830052426) / 1.0333394966054072).numpy()


def test_image_reward_is_its_authors_arithmetic(image_reward_folder):
    samples = samples_of(["a red circle", "a star", "a blue star", " ".join(["red"] * 50)])
    expected = image_reward_by_hand(samples)
    assert expected.std() > 0.05

    reward = ImageReward(str(image_reward_folder), device="cpu", batch_size=3)
    assert reward.check() == []
    reward.load()
    close(reward(samples), expected)
    close(reward(samples[1:2]), expected[1:2])  # the padding of a batch changes nothing
    assert reward([]).shape == (0,)


def test_image_reward_looks_at_the_picture_and_reads_the_prompt(image_reward_folder):
    reward = ImageReward(str(image_reward_folder), device="cpu")
    one, other_picture, other_prompt = reward(
        samples_of(["a red circle", "a red circle", "a blue circle"], [picture(0), picture(1), picture(0)])
    )
    assert one != pytest.approx(other_picture, abs=1e-3)
    assert one != pytest.approx(other_prompt, abs=1e-3)


def test_image_reward_sees_the_central_square(image_reward_folder):
    reward = ImageReward(str(image_reward_folder), device="cpu")
    wide = picture(0, 96, 32)
    whole, cropped = reward(samples_of(["a star", "a star"], [wide, wide.crop((32, 0, 64, 32))]))
    close(whole, cropped)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("blip.visual_encoder.blocks.1.attn.qkv.bias"), "encoder.layers.1.self_attn.qkv.bias"),
        (lambda state: state.pop("blip.visual_encoder.pos_embed"), "a BLIP without 'pos_embed'"),
        (lambda state: state.pop("blip.text_encoder.encoder.layer.0.crossattention.self.key.weight"), "crossattention"),
        (lambda state: state.update({"blip.visual_encoder.blocks.0.gate": torch.zeros(1)}), "blocks.0.gate"),
        (lambda state: state.pop("mlp.layers.7.bias"), "no aesthetic head|should hold"),
        (
            lambda state: state.update({"mlp.layers.0.weight": torch.zeros(16, 768)}),
            "reads 768 numbers, but its text encoder gives 32",
        ),
    ],
)
def test_a_checkpoint_of_another_layout_is_refused(tmp_path, change, says):
    state = blip_layout.random_state()
    change(state)
    with pytest.raises(ModelError, match=says):
        ImageReward(str(blip_layout.write(tmp_path, state)), device="cpu").load()


class Payload:
    ran = False

    def __reduce__(self):
        return (setattr, (Payload, "ran", True))


def test_mistakes_in_image_reward(image_reward_folder, tmp_path):
    assert ImageReward().check() == []
    assert "hf-hub:OWNER/NAME" in ImageReward("hf-hub:THUDM/ImageReward/ImageReward.pt").check()[0]
    assert "there is no folder /nowhere" in ImageReward("/nowhere").check()[0]
    assert "ImageReward.pt, med_config.json missing" in ImageReward(str(tmp_path)).check()[0]
    with pytest.raises(ModelError, match="no folder of ImageReward"):
        ImageReward(str(tmp_path), device="cpu").load()

    blip_layout.write(tmp_path, blip_layout.random_state())
    (tmp_path / "med_config.json").write_text("{}")
    with pytest.raises(ModelError, match="lacks vocab_size, hidden_size"):
        ImageReward(str(tmp_path), device="cpu").load()
    torch.save({"blip": Payload()}, tmp_path / "ImageReward.pt")
    with pytest.raises(ModelError, match="more than tensors"):
        ImageReward(str(tmp_path), device="cpu").load()
    assert not Payload.ran
    with pytest.raises(ModelError, match=r"tokenizer '/nowhere' could not be loaded.*give its folder as `tokenizer`"):
        ImageReward(str(image_reward_folder), "/nowhere", device="cpu").load()


def test_image_reward_fetches_both_files_from_the_hub(image_reward_folder, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub,
        "hf_hub_download",
        lambda repo, file: asked.append((repo, file)) or str(image_reward_folder / file),
    )
    ImageReward(device="cpu").load()
    assert asked == [("THUDM/ImageReward", "ImageReward.pt"), ("THUDM/ImageReward", "med_config.json")]


# --- all of them


def every_model(hps, clip_folder, image_reward_folder):
    name, _, weights = hps
    return [
        HpsV2(weights=weights, model=name, device="cpu"),
        PickScore(str(clip_folder), device="cpu"),
        ClipScore(str(clip_folder), device="cpu"),
        ImageReward(str(image_reward_folder), device="cpu"),
    ]


def test_a_bad_picture_costs_only_its_own_score(hps, clip_folder, image_reward_folder):
    samples = samples_of(["a star", "a star", "a star"], [picture(0), Image.new("RGB", (0, 4)), picture(1)])
    for reward in every_model(hps, clip_folder, image_reward_folder):
        columns, _ = score(reward, samples)
        scores = columns[reward.info.name]
        np.testing.assert_array_equal(np.isnan(scores), [False, True, False])
        close(scores[[0, 2]], reward([samples[0], samples[2]]))
        _, failures = score(reward, samples[1:2])
        assert "0×4 pixels has nothing to score" in failures[reward.info.name].first_error


def test_they_score_side_by_side_and_sleep_on_the_cpu(hps, clip_folder, image_reward_folder, monkeypatch):
    reward, *judges = every_model(hps, clip_folder, image_reward_folder)
    scorer = Scorer(reward, judges)
    assert scorer.check() == []
    scorer.load()
    moves = []
    original = torch.nn.Module.to
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, where: moves.append(where) or original(self, where))
    scores = scorer(samples_of(["a star", "a circle"]))
    assert not scores.failures
    assert set(scores.columns) == {"hps_v2_1", "pick_score", "clip_score", "image_reward"}
    assert moves[-1] == "cpu"


@pytest.mark.parametrize("make", [HpsV2, PickScore, ImageReward])
def test_arguments_are_checked_by_the_constructor(make):
    with pytest.raises(ConfigError, match="batch_size is 0, but must be at least 1"):
        make(batch_size=0)
    assert make().info.gpu
    assert not make(device="cpu").info.gpu
