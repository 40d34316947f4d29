"""ImageReward as its authors publish it, with random weights, and its arithmetic spelt out from the file's own names."""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F

VISION, HEADS, PATCH, SIZE, BLOCKS = 128, 2, 16, 32, 2  # heads of 64, as in BLIP base and large
TEXT = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    # What else is in the published file.
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "model_type": "bert",
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "encoder_width": 768,
    "add_cross_attention": True,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "circle", "star", *"bcdefghijklmn"]


def random_state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}

    def add(name, *shape, around=0.0, by=0.15):
        state[name] = around + by * torch.randn(*shape, generator=generator)

    def linear(name, out, inputs, by=0.15):
        add(f"{name}.weight", out, inputs, by=by)
        add(f"{name}.bias", out)

    def norm(name, width):
        add(f"{name}.weight", width, around=1.0)
        add(f"{name}.bias", width)

    v = "blip.visual_encoder."
    add(v + "cls_token", 1, 1, VISION)
    add(v + "pos_embed", 1, (SIZE // PATCH) ** 2 + 1, VISION)
    add(v + "patch_embed.proj.weight", VISION, 3, PATCH, PATCH, by=0.02)
    add(v + "patch_embed.proj.bias", VISION)
    for i in range(BLOCKS):
        block = f"{v}blocks.{i}."
        for name, out, inputs in (
            ("attn.qkv", 3 * VISION, VISION),
            ("attn.proj", VISION, VISION),
            ("mlp.fc1", 4 * VISION, VISION),
            ("mlp.fc2", VISION, 4 * VISION),
        ):
            linear(block + name, out, inputs)
        norm(block + "norm1", VISION)
        norm(block + "norm2", VISION)
    norm(v + "norm", VISION)

    t, width, inner = "blip.text_encoder.", TEXT["hidden_size"], TEXT["intermediate_size"]
    state[t + "embeddings.position_ids"] = torch.arange(64)[None]
    add(t + "embeddings.word_embeddings.weight", TEXT["vocab_size"], width, by=1.0)
    add(t + "embeddings.position_embeddings.weight", 64, width)
    norm(t + "embeddings.LayerNorm", width)
    for i in range(TEXT["num_hidden_layers"]):
        layer = f"{t}encoder.layer.{i}."
        for attention, source in (("attention", width), ("crossattention", VISION)):
            linear(f"{layer}{attention}.self.query", width, width)
            linear(f"{layer}{attention}.self.key", width, source)
            linear(f"{layer}{attention}.self.value", width, source)
            linear(f"{layer}{attention}.output.dense", width, width)
            norm(f"{layer}{attention}.output.LayerNorm", width)
        linear(layer + "intermediate.dense", inner, width)
        linear(layer + "output.dense", width, inner)
        norm(layer + "output.LayerNorm", width)
    # Heads of BLIP's pretraining, which the reward does not use.
    linear("blip.vision_proj", 16, VISION)
    linear("blip.text_proj", 16, width)
    for n, i, o in zip((0, 2, 4, 6, 7), (width, 16, 8, 6, 4), (16, 8, 6, 4, 1), strict=True):
        linear(f"mlp.layers.{n}", o, i, by=1.0)
    return state


def write(folder, state):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(TEXT))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


def raw_score(state, pixels, tokens, mask):
    """[B] before normalisation: BLIP's transformers written out on the names of the file."""

    def linear(name, x):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name, x, eps):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def attend(query, key, value, heads, mask=None):
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)

    v = "blip.visual_encoder."
    patches = F.conv2d(pixels, state[v + "patch_embed.proj.weight"], state[v + "patch_embed.proj.bias"], stride=PATCH)
    x = torch.cat([state[v + "cls_token"].expand(len(pixels), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    x = x + state[v + "pos_embed"]
    for i in range(BLOCKS):
        block = f"{v}blocks.{i}."
        qkv = linear(block + "attn.qkv", norm(block + "norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + linear(block + "attn.proj", attend(*qkv, HEADS))
        x = x + linear(block + "mlp.fc2", F.gelu(linear(block + "mlp.fc1", norm(block + "norm2", x, 1e-6))))
    seen = norm(v + "norm", x, 1e-6)

    t = "blip.text_encoder."
    h = state[t + "embeddings.word_embeddings.weight"][tokens]
    h = norm(t + "embeddings.LayerNorm", h + state[t + "embeddings.position_embeddings.weight"][: tokens.shape[1]], 1e-12)
    for i in range(TEXT["num_hidden_layers"]):
        layer = f"{t}encoder.layer.{i}."
        for attention, source, allowed in (("attention", None, mask[:, None, None].bool()), ("crossattention", seen, None)):
            name = layer + attention
            read = h if source is None else source
            found = attend(
                linear(f"{name}.self.query", h),
                linear(f"{name}.self.key", read),
                linear(f"{name}.self.value", read),
                TEXT["num_attention_heads"],
                allowed,
            )
            h = norm(f"{name}.output.LayerNorm", h + linear(f"{name}.output.dense", found), 1e-12)
        inner = F.gelu(linear(layer + "intermediate.dense", h))
        h = norm(layer + "output.LayerNorm", h + linear(layer + "output.dense", inner), 1e-12)
    score = h[:, 0]
    for n in (0, 2, 4, 6, 7):
        score = linear(f"mlp.layers.{n}", score)
    return score[:, 0]
