"""Image rewards against their formulas, on CLIPs and heads of random weights in the published file layouts."""

from __future__ import annotations

import gc
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file

from raft_core.errors import ConfigError, DeviceError, ModelError, RewardError
from raft_core.machine.torchvision import ensure_importable
from raft_core.rewards.scoring import Scorer, score
from raft_core.testing import close
from raft_core.types import Prompt, Request, Sample
from raft_diffusion.rewards import Aesthetic, ClipScore, JpegCompressibility, JpegIncompressibility
from raft_diffusion.rewards import heads as heads_module
from raft_diffusion.rewards.clip import Clip, ClipSource, load_clip
from raft_diffusion.rewards.heads import OFFICIAL, parse_head
from raft_diffusion.rewards.pictures import ByIdentity

WIDTH, CONTEXT, SIZE = 12, 8, 32


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP of random weights in open_clip's folder layout."""
    ensure_importable()
    import open_clip

    config = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": SIZE, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    folder = tmp_path_factory.mktemp("clip")
    preprocess = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def picture(seed: int, size: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def samples_of(texts, images=None):
    images = images or [picture(i) for i in range(len(texts))]
    return [
        Sample(Request(Prompt(text), i, i), output=image) for i, (text, image) in enumerate(zip(texts, images, strict=True))
    ]


SAMPLES = samples_of(["a red circle", "a blue star", "a red circle"])


def v2_state(width: int = WIDTH, seed: int = 0) -> dict[str, torch.Tensor]:
    """LAION's v2 file: linear layers 0, 2, 4, 6 and 7 of a Sequential whose other entries are dropouts."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [width, 16, 8, 6, 4, 1]
    state = {}
    for n, i, o in zip([0, 2, 4, 6, 7], sizes, sizes[1:], strict=False):
        state[f"layers.{n}.weight"] = torch.randn(o, i, generator=generator)
        state[f"layers.{n}.bias"] = torch.randn(o, generator=generator)
    return state


def v1_state(width: int = WIDTH) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"weight": torch.randn(1, width, generator=generator), "bias": torch.randn(1, generator=generator)}


def saved(folder, state, name="head.pth"):
    path = folder / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return str(path)


def unit_features(folder, images):
    """[N, D] computed with open_clip alone."""
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    with torch.no_grad():
        raw = model.eval().encode_image(torch.stack([preprocess(image) for image in images]))
    return raw / raw.norm(dim=1, keepdim=True), raw


# --- CLIP score


def test_clip_score_is_100_cosine_of_open_clip(clip_folder):
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{clip_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{clip_folder}")([s.prompt.text for s in SAMPLES])
    with torch.no_grad():
        images = model.eval().encode_image(torch.stack([preprocess(s.output) for s in SAMPLES]))
        texts = model.encode_text(tokens)
    expected = 100 * torch.nn.functional.cosine_similarity(images, texts).numpy()

    scores = ClipScore(str(clip_folder), device="cpu")(SAMPLES)
    assert scores.shape == (3,)
    close(scores, expected)


def test_clip_score_does_not_depend_on_the_batch(clip_folder):
    whole = ClipScore(str(clip_folder), device="cpu")(SAMPLES)
    one = ClipScore(str(clip_folder), batch_size=1, device="cpu")(samples_of([s.prompt.text for s in SAMPLES]))
    close(one, whole)


def test_a_long_prompt_is_cut_at_the_context(clip_folder):
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    image = picture(0)
    long, cut, other = ClipScore(str(clip_folder), device="cpu")(
        samples_of([" ".join(words), " ".join([*words[:6], "else"]), "seven " + " ".join(words)], [image] * 3)
    )
    assert long == pytest.approx(cut)
    assert long != pytest.approx(other)


@pytest.mark.parametrize("written", ["{}", "local-dir:{}"])
def test_a_folder_may_stand_for_the_model_or_its_weights(clip_folder, written):
    name = written.format(clip_folder)
    sources = {ClipScore(name).source, ClipScore(pretrained=name).source, ClipSource.parse(name)}
    assert sources == {ClipSource(f"local-dir:{clip_folder}")}
    assert not ClipScore(name).check()


def test_a_model_with_a_tag():
    assert ClipSource.parse("ViT-H-14/laion2b_s32b_b79k") == ClipSource.of("ViT-H-14", "laion2b_s32b_b79k")
    assert ClipSource.parse("ViT-L-14") == ClipScore().source == ClipSource("ViT-L-14", "openai")
    assert ClipSource.parse("hf-hub:laion/some-clip") == ClipSource("hf-hub:laion/some-clip")
    assert ClipScore().check() == []


@pytest.mark.parametrize(
    ("model", "pretrained", "says"),
    [
        ("ViT-L-15", "openai", "did you mean 'ViT-L-1"),
        ("ViT-L-14", "opneai", "did you mean 'openai'?"),
        ("/nowhere/clip", "openai", "there is no CLIP folder /nowhere/clip"),
        ("bundled:no-such-clip", "openai", "there is no CLIP folder"),
    ],
)
def test_mistakes_in_the_source_are_found_without_loading(model, pretrained, says):
    [mistake] = ClipScore(model, pretrained).check()
    assert says in mistake
    with pytest.raises(ModelError, match="no"):
        ClipScore(model, pretrained, device="cpu").load()


def test_folders_that_are_no_clip(tmp_path, clip_folder):
    assert "open_clip_config.json cannot be read" in ClipSource.parse(str(tmp_path)).check()[0]
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert "no 'model_cfg'" in ClipSource.parse(str(tmp_path)).check()[0]
    (tmp_path / "open_clip_config.json").write_bytes((clip_folder / "open_clip_config.json").read_bytes())
    assert "holds no weights" in ClipSource.parse(str(tmp_path)).check()[0]
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"could not be loaded.*mend or replace the folder"):
        ClipScore(str(tmp_path), device="cpu").load()


def test_quickgelu_follows_the_weights(monkeypatch):
    """open_clip only warns when it loads OpenAI's ViT-L-14 with the wrong activation."""
    import open_clip

    asked = {}

    def create(*source, force_quick_gelu, **_):
        asked[source[1]] = force_quick_gelu
        raise RuntimeError("no network")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    for tag in ("openai", "laion2b_s32b_b82k"):
        with pytest.raises(ModelError, match=r"no network .*Hugging Face Hub.*give a folder"):
            ClipScore("ViT-L-14", tag, device="cpu").load()
    assert asked == {"openai": True, "laion2b_s32b_b82k": False}


# --- aesthetic heads


@pytest.mark.parametrize("name", ["head.pth", "head.safetensors"])
def test_v2_equals_its_collapsed_linear_form(clip_folder, tmp_path, name):
    state = v2_state()
    weight, bias = torch.eye(WIDTH, dtype=torch.float64), torch.zeros(WIDTH, dtype=torch.float64)
    for n in (0, 2, 4, 6, 7):
        layer = state[f"layers.{n}.weight"].double()
        weight, bias = layer @ weight, layer @ bias + state[f"layers.{n}.bias"].double()
    features, _ = unit_features(clip_folder, [s.output for s in SAMPLES])
    expected = (features.double() @ weight.T + bias).squeeze(1).numpy()

    reward = Aesthetic("v2", saved(tmp_path, state, name), str(clip_folder), device="cpu")
    assert reward.check() == []
    np.testing.assert_allclose(reward(SAMPLES), expected, rtol=1e-3, atol=1e-3)


def test_v1_is_linear_in_the_unit_length_embedding(clip_folder, tmp_path):
    state = v1_state()
    features, raw = unit_features(clip_folder, [s.output for s in SAMPLES])
    assert not torch.allclose(raw.norm(dim=1), torch.ones(3), atol=0.05)  # the test would not see a missing normalisation

    scores = Aesthetic("v1", saved(tmp_path, state), str(clip_folder), device="cpu")(SAMPLES)
    close(scores, (features @ state["weight"].T + state["bias"]).squeeze(1).numpy())


def test_a_folder_of_weights_names_its_clip(clip_folder, tmp_path):
    saved(tmp_path, {key: value.half() for key, value in v2_state().items()}, "taste.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"clip": str(clip_folder), "weights": "taste.safetensors"}))
    reward = Aesthetic(weights=str(tmp_path), device="cpu")
    assert reward.check() == []
    reward.load()
    other = Aesthetic(weights=saved(tmp_path, v2_state()), clip=str(clip_folder), device="cpu")
    np.testing.assert_allclose(reward(SAMPLES), other(SAMPLES), rtol=0.05, atol=0.1)  # fp16 weights


def test_a_head_of_another_width_is_refused_at_load(clip_folder, tmp_path):
    reward = Aesthetic("v2", saved(tmp_path, v2_state(width=768)), str(clip_folder), device="cpu")
    with pytest.raises(ModelError, match=f"width 768, but the CLIP .* makes {WIDTH}: give the CLIP"):
        reward.load()


@pytest.mark.parametrize(
    ("version", "state", "says"),
    [
        ("v1", v2_state(), "no aesthetic head of version v1.*'weight' and 'bias'"),
        ("v2", v1_state(), "no aesthetic head of version v2.*layers.N.weight"),
        ("v2", v2_state() | {"layers.4.weight": torch.zeros(6, 9)}, "12 → 16, 16 → 8, 9 → 6"),
        ("v1", {"weight": torch.zeros(2, WIDTH), "bias": torch.zeros(2)}, "do not lead from an embedding to one score"),
    ],
)
def test_files_that_hold_something_else(version, state, says):
    with pytest.raises(ModelError, match=says):
        parse_head(state, version, "head.pth")


class Payload:
    ran = False

    def __reduce__(self):
        return (setattr, (Payload, "ran", True))


def test_a_pickle_that_runs_code_is_refused(clip_folder, tmp_path):
    torch.save({"weight": Payload()}, tmp_path / "head.pth")
    with pytest.raises(ModelError, match="more than tensors"):
        Aesthetic("v1", str(tmp_path / "head.pth"), str(clip_folder), device="cpu").load()
    assert not Payload.ran


@pytest.mark.parametrize("name", ["head.pth", "head.safetensors"])
def test_damaged_and_missing_files(clip_folder, tmp_path, name):
    reward = Aesthetic("v1", str(tmp_path / name), str(clip_folder), device="cpu")
    assert "there is no aesthetic weight file" in reward.check()[0]
    with pytest.raises(ModelError, match="no weight file"):
        reward.load()
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match="no readable weight file"):
        reward.load()


def test_an_official_name_with_other_content_is_refused(clip_folder, tmp_path):
    weights = saved(tmp_path, v2_state(), OFFICIAL["v2"].filename)
    with pytest.raises(ModelError, match=r"sha256 .*rename it"):
        Aesthetic("v2", weights, str(clip_folder), device="cpu").load()
    assert OFFICIAL["v2"].filename == "sac+logos+ava1-l14-linearMSE.pth"


def test_official_weights_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def fail(url, *_, **options):
        assert (url, options["hash_prefix"]) == (OFFICIAL["v2"].url, OFFICIAL["v2"].sha256)
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError, match=r"no route.*give its path as `weights`"):
        Aesthetic(device="cpu").load()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids"):
        Aesthetic(device="cpu").load()


def test_weights_from_the_hub(clip_folder, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda repo, file: asked.append((repo, file)) or saved(tmp_path, v1_state())
    )
    Aesthetic("v1", "hf-hub:someone/heads/folder/v1.pth", str(clip_folder), device="cpu").load()
    assert asked == [("someone/heads", "folder/v1.pth")]
    with pytest.raises(ModelError, match="hf-hub:OWNER/NAME/FILE"):
        heads_module.locate("hf-hub:someone/heads", "v1")


# --- nothing twice


def test_clip_score_and_aesthetic_share_one_clip_and_its_embeddings(clip_folder, tmp_path, monkeypatch):
    aesthetic = Aesthetic("v1", saved(tmp_path, v1_state()), str(clip_folder), device="cpu")
    clip_score = ClipScore(str(clip_folder), batch_size=2, device="cpu")
    aesthetic.load()
    clip_score.load()
    assert load_clip(clip_score.source) is load_clip(ClipSource.parse(str(clip_folder)))

    calls = {"images": 0, "texts": 0}
    original = Clip._embed_images, Clip._embed_texts
    monkeypatch.setattr(
        Clip,
        "_embed_images",
        lambda self, x, device: calls.update(images=calls["images"] + len(x)) or original[0](self, x, device),
    )
    monkeypatch.setattr(
        Clip,
        "_embed_texts",
        lambda self, x, device: calls.update(texts=calls["texts"] + len(x)) or original[1](self, x, device),
    )
    fresh = samples_of(["sun", "moon", "sun", "moon"], [picture(9), picture(10), picture(11), picture(11)])
    Scorer(aesthetic, [clip_score])(fresh)
    assert calls == {"images": 4, "texts": 2}


def test_clips_sleep_on_the_cpu_once_a_round_is_scored(clip_folder, monkeypatch):
    one, two = (ClipScore(str(clip_folder), name=name, batch_size=1, device="cpu") for name in ("one", "two"))
    scorer = Scorer(one, [two])
    scorer.load()
    moves = []
    original = torch.nn.Module.to
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, where: moves.append(where) or original(self, where))
    monkeypatch.setattr("raft_diffusion.rewards.cosine.resolve_device", lambda _: torch.device("cpu", 0))
    scores = scorer(samples_of(["a", "b"], [picture(20), picture(21)]))
    assert not scores.failures
    assert moves[0] == torch.device("cpu", 0)
    assert moves[-1] == "cpu"
    assert moves.index("cpu") >= len(moves) - 2  # not between the batches


def test_embeddings_die_with_their_pictures(clip_folder):
    reward = ClipScore(str(clip_folder), device="cpu")
    reward.load()
    kept = load_clip(reward.source)._pictures
    gc.collect()
    before = len(kept)
    samples = samples_of(["a", "b"])
    reward(samples)
    assert len(kept) == before + 2
    del samples
    gc.collect()
    assert len(kept) == before


def test_an_unused_clip_is_freed(clip_folder):
    reward = ClipScore(str(clip_folder), device="cpu")
    reward.load()
    from raft_diffusion.rewards.clip import _loaded

    assert reward.source in _loaded
    del reward
    gc.collect()
    assert ClipSource.parse(str(clip_folder)) not in _loaded


def test_by_identity_tells_equal_pictures_apart():
    cache, one, two = ByIdentity[int](), picture(0), picture(0)
    cache[one] = 1
    assert one == two
    assert one in cache
    assert two not in cache


def test_no_samples_no_scores(clip_folder, tmp_path):
    for reward in (
        ClipScore(str(clip_folder), device="cpu"),
        Aesthetic("v1", saved(tmp_path, v1_state()), str(clip_folder), device="cpu"),
        JpegCompressibility(),
    ):
        assert np.asarray(reward([])).shape == (0,)


# --- JPEG


def test_jpeg_rewards_are_kilobytes_at_quality_95():
    buffer = io.BytesIO()
    SAMPLES[0].output.save(buffer, "JPEG", quality=95)
    expected = len(buffer.getvalue()) / 1000
    assert JpegIncompressibility()(SAMPLES)[0] == expected
    assert JpegCompressibility()(SAMPLES)[0] == -expected
    plain, noisy = samples_of(["", ""], [Image.new("RGBA", (48, 48)), picture(0)])
    assert JpegCompressibility()([plain])[0] > JpegCompressibility()([noisy])[0]


# --- the bundled world


def test_bundled_heads_name_their_clip_and_prefer_whole_pictures():
    from raft_diffusion.world.captions import caption
    from raft_diffusion.world.scenes import render
    from raft_diffusion.world.splits import draw_scenes

    scenes = draw_scenes(np.random.default_rng(0), 8)
    texts = [caption(scene.attributes()) for scene in scenes]
    whole = samples_of(texts, [Image.fromarray(pixels) for pixels in render(scenes, 64)])
    smeared = samples_of(texts, [s.output.filter(ImageFilter.GaussianBlur(5)) for s in whole])
    for name in ("shapes-aesthetic", "shapes-taste"):
        aesthetic = Aesthetic(weights=f"bundled:{name}", device="cpu")
        assert aesthetic.check() == []
        assert aesthetic(whole).mean() > aesthetic(smeared).mean() + 1
    clip_score = ClipScore("bundled:shapes-clip", device="cpu")
    others = samples_of([*texts[1:], texts[0]], [s.output for s in whole])
    assert clip_score(whole).mean() > clip_score(others).mean() + 10


# --- misuse


@pytest.mark.parametrize("make", [ClipScore, Aesthetic])
def test_arguments_are_checked_by_the_constructor(make):
    with pytest.raises(ConfigError, match="batch_size is 0, but must be at least 1"):
        make(batch_size=0)


def test_an_unknown_version_is_refused():
    with pytest.raises(ConfigError, match="'v3', but LAION's heads are 'v1' and 'v2'"):
        Aesthetic("v3")  # type: ignore[arg-type]


def test_devices(clip_folder):
    with pytest.raises(DeviceError, match="torch does not know"):
        ClipScore(str(clip_folder), device="gpu9").load()
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="use 'auto'"):
            ClipScore(str(clip_folder), device="cuda").load()
    assert ClipScore(device="auto").info.gpu
    assert not ClipScore(device="cpu").info.gpu


def test_text_samples_are_unscored_and_say_why():
    with pytest.raises(RewardError, match="sample holds str"):
        JpegCompressibility()(samples_of(["a"], ["not a picture"]))
    _, failures = score(JpegCompressibility(), samples_of(["a"], ["not a picture"]))
    assert "render the samples first" in failures["jpeg_compressibility"].first_error


def test_importing_rewards_is_cheap():
    code = "import sys, raft_diffusion.rewards; print({'torch', 'open_clip', 'transformers', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
