"""The world's CLIP in open_clip's layout, and its text tower as Stable Diffusion's text encoder."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.world.tokenizer import CONTEXT, END, START, build_tokenizer

WIDTH = 128  # of the joint embedding and of the text tower
LAYERS, HEADS = 2, 4
RESOLUTION = 64


def model_config(vocabulary: int, name: str = "shapes-clip") -> dict:
    """open_clip's `model_cfg`: a small ResNet for pictures, two transformer layers for text."""
    return {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": RESOLUTION, "layers": [1, 1, 2, 1], "width": 16, "head_width": 64},
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": name,  # a local folder's own tokenizer files are used, whatever the name
            "width": WIDTH,
            "heads": HEADS,
            "layers": LAYERS,
        },
    }


def build_clip(tokenizer=None):
    """An untrained open_clip CLIP for a tokenizer's vocabulary, the shapes' if None."""
    ensure_importable()
    import open_clip

    return open_clip.CLIP(**model_config(len(tokenizer or build_tokenizer())))


def save_clip(clip, folder: Path, tokenizer=None) -> None:
    """Writes a folder that `open_clip` loads as `local-dir:FOLDER`."""
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or build_tokenizer()
    tokenizer.save_pretrained(folder)
    preprocess = {
        "size": [RESOLUTION, RESOLUTION],
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {"model_cfg": model_config(len(tokenizer), folder.name), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(halved(clip.state_dict()), folder / "open_clip_model.safetensors")


def halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as they ship: fp16 where they were fp32."""
    return {key: (v.half() if v.dtype == torch.float32 else v).contiguous().clone() for key, v in state.items()}


@dataclass(frozen=True)
class Clip:
    """A loaded CLIP with what it needs to read pictures and text."""

    model: torch.nn.Module
    preprocess: object
    tokenize: object


def load_clip(folder: Path) -> Clip:
    """The CLIP of an open_clip folder, in fp32, for use."""
    ensure_importable()
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")  # pyright: ignore[reportGeneralTypeIssues]
    return Clip(model.float().eval(), preprocess, open_clip.get_tokenizer(f"local-dir:{folder}"))


def as_text_encoder(clip, tokenizer=None):
    """The text tower as a transformers CLIPTextModel: the same hidden states from the same token ids."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = tokenizer or build_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT,
        hidden_act="gelu",
        bos_token_id=tokenizer.convert_tokens_to_ids(START),  # pyright: ignore[reportArgumentType]
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(END),  # pyright: ignore[reportArgumentType]
    )
    encoder = CLIPTextModel(config).eval()
    encoder.load_state_dict(_text_weights(clip.state_dict(), encoder.state_dict()))
    return encoder


def _text_weights(source, target):
    """open_clip's text tower under transformers' names; the projections of q, k and v come apart."""
    prefix = "text_model." if any(key.startswith("text_model.") for key in target) else ""
    weights = {
        "embeddings.token_embedding.weight": source["token_embedding.weight"],
        "embeddings.position_embedding.weight": source["positional_embedding"],
        "final_layer_norm.weight": source["ln_final.weight"],
        "final_layer_norm.bias": source["ln_final.bias"],
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    parts["attn.out_proj"] = "self_attn.out_proj"
    for layer in range(LAYERS):
        old, new = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            for a, b in parts.items():
                weights[f"{new}{b}.{kind}"] = source[f"{old}{a}.{kind}"]
            for name, piece in zip("qkv", source[f"{old}attn.in_proj_{kind}"].chunk(3), strict=True):
                weights[f"{new}self_attn.{name}_proj.{kind}"] = piece
    named = {prefix + key: value.clone() for key, value in weights.items()}
    return {key: named.get(key, value) for key, value in target.items()}
