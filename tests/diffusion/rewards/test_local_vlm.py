"""A vision-language model in this process as a judge: a LLaVA of random weights, built here."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from reward_samples import samples_of

from raft_core.config.components import Walk
from raft_core.errors import ConfigError, DataError
from raft_core.machine.torchvision import ensure_importable
from raft_core.rewards.judge.chat import CUT_SHORT, Unanswered
from raft_core.rewards.scoring import score
from raft_diffusion.rewards.local_vlm import LocalVlm, picture_of
from raft_diffusion.rewards.vlm_judge import PictureJudgement, VlmJudge, png_uri

ensure_importable()

WORDS = ["<pad>", "<unk>", "</s>", "<image>", "user:", "assistant:", "Score:", "7", "verdict:", "a", "b", "picture", "prompt"]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {% for part in m.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
SAYS = ["assistant:", "Score:", "7", "</s>"]  # each the next one's beginning


def llava(folder, *, verdict: bool):
    """A LLaVA of one layer a side; with ``verdict`` it says ``Score: 7`` whatever it sees, else what its random weights say."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, extra_special_tokens={"image_token": "<image>"}, **names)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=16, **sizes)
    text = LlamaConfig(vocab_size=len(WORDS), eos_token_id=2, pad_token_id=0, bos_token_id=None, **sizes)
    text.initializer_range = 0.6
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=3, vision_feature_layer=-1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = 2
    if verdict:
        with torch.no_grad():
            for layer in model.model.language_model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            words = torch.eye(len(WORDS), 32)
            model.get_input_embeddings().weight.copy_(words)
            model.lm_head.weight.zero_()
            for before, after in itertools.pairwise(SAYS):
                model.lm_head.weight[WORDS.index(after)] = words[WORDS.index(before)]
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return functools.cache(lambda verdict: llava(tmp_path_factory.mktemp("llava"), verdict=verdict))


def noise(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8))


def conversation(image, text="judge"):
    return [{"role": "user", "content": [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": image}}]}]


def test_its_verdicts_become_scores(folder):
    judge = VlmJudge(local=LocalVlm(str(folder(True)), max_tokens=8))
    assert judge.check() == [] and not judge.info.background
    assert score(judge, samples_of(["a"] * 3, [noise(0), noise(1), noise(2)]))[0]["vlm_judge"].tolist() == [7, 7, 7]
    pairwise = VlmJudge(local=judge.local, judgement=PictureJudgement(mode="pairwise"))
    assert np.isnan(score(pairwise, samples_of(["a"] * 2, [noise(0), noise(1)]))[0]["vlm_judge"]).all()
    judge.sleep()


def test_it_answers_as_the_model_does_that_it_is(folder):
    """Against transformers' processor and ``generate``, one conversation at a time; in a batch the same as alone."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    local = LocalVlm(str(folder(False)), max_tokens=6, batch_size=3)
    asked = [(noise(0), "a"), (noise(1), "a b a b picture"), (noise(2), "prompt")]
    answers = local.ask_all([conversation(png_uri(image, 64), text) for image, text in asked])
    model = AutoModelForImageTextToText.from_pretrained(folder(False))
    processor = AutoProcessor.from_pretrained(folder(False))
    for (image, text), answer in zip(asked, answers, strict=True):
        inputs = processor(text=[f"user: {text} <image> assistant:"], images=[[image]], return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        said = processor.tokenizer.decode(tokens, skip_special_tokens=True)
        assert answer == (said if 2 in tokens else Unanswered(CUT_SHORT))
    texts = [local._processor.tokenizer.decode(row) for row in first_tokens(local, [noise(seed) for seed in range(8)])]
    assert len(set(texts)) > 1  # what it says depends on the picture


def first_tokens(local, images):
    rows = []
    for image in images:
        inputs = local._inputs([conversation(png_uri(image, 64), "a")])
        with torch.no_grad():
            rows.append(local._network(**inputs).logits[0, -1].topk(5).indices)
    return rows


def test_what_cannot_judge_is_told_before_weights_load(folder, tmp_path):
    assert "does not exist" in LocalVlm(str(tmp_path / "absent")).check()[0]
    (tmp_path / "config.json").write_text("{}")
    assert "has no weights" in LocalVlm(str(tmp_path)).check()[0]
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert "has no processor of pictures" in LocalVlm(str(tmp_path)).check()[0]
    with pytest.raises(ConfigError, match="max_tokens is 0"):
        LocalVlm("x", max_tokens=0)
    with pytest.raises(ConfigError, match="one of them has to name the model"):
        VlmJudge()
    with pytest.raises(DataError, match="no base64"):
        picture_of("data:image/png;base64,???")
    walk = Walk()
    raw = {"class_path": "VlmJudge", "init_args": {"local": {"model": str(folder(True))}}}
    judge = walk.component(raw, "reward", "reward").make()
    assert walk.mistakes == [] and judge.local.model == str(folder(True))
