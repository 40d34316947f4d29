"""The names in kohya's spelling are those of sd-scripts' networks, for whole published models."""

from __future__ import annotations

import pytest
from real_configs import networks

from raft_diffusion.export.lora_formats import kohya_name
from raft_diffusion.model.lora_fit import weight_shapes

TRANSFORMER = ("proj_in", "proj_out")
ATTENTION = tuple(f"{attn}_{layer}" for attn in ("attn1", "attn2") for layer in ("to_q", "to_k", "to_v", "to_out_0"))
BLOCK = (*ATTENTION, "ff_net_0_proj", "ff_net_2")
CLIP = (*(f"self_attn_{name}_proj" for name in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2")


def transformer(place, depth):
    """sd-scripts adapts every linear layer and convolution of a Transformer2DModel."""
    blocks = [f"{place}_transformer_blocks_{number}_{layer}" for number in range(depth) for layer in BLOCK]
    return [*(f"{place}_{layer}" for layer in TRANSFORMER), *blocks]


def clip(prefix, layers):
    return [f"{prefix}_text_model_encoder_layers_{number}_{layer}" for number in range(layers) for layer in CLIP]


def diffusers_unet():
    """SD 1.x and 2.x in sd-scripts: (transformers, convolutions), by the names of diffusers."""
    attends, convs = [], []
    for side, blocks, layers in (("down", (1, 1, 1, 0), 2), ("up", (0, 1, 1, 1), 3)):
        for block, has_attention in enumerate(blocks):
            for layer in range(layers):
                attends += transformer(f"{side}_blocks_{block}_attentions_{layer}", 1) if has_attention else []
                convs += resnet(f"{side}_blocks_{block}_resnets_{layer}", block, layer, side)
            if block < 3:
                convs.append(f"{side}_blocks_{block}_{side}samplers_0_conv")
    attends += transformer("mid_block_attentions_0", 1)
    convs += [name for layer in (0, 1) for name in resnet(f"mid_block_resnets_{layer}", 0, layer, "mid")]
    return attends, convs


def resnet(place, block, layer, side):
    changes_width = side == "up" or (side == "down" and layer == 0 and block in (1, 2))
    return [f"{place}_{name}" for name in ("conv1", "time_emb_proj", "conv2", *(["conv_shortcut"] if changes_width else []))]


def sdxl_unet():
    """SDXL in sd-scripts: (transformers, convolutions), by the names of the original code: library/sdxl_original_unet.py."""
    attends, convs = [], []

    def original_resnet(place, changes_width):
        names = ("in_layers_2", "emb_layers_1", "out_layers_3", *(["skip_connection"] if changes_width else []))
        convs.extend(f"{place}_{name}" for name in names)

    depths = {4: 2, 5: 2, 7: 10, 8: 10}
    for number in (1, 2, 4, 5, 7, 8):
        original_resnet(f"input_blocks_{number}_0", number in (4, 7))
        attends += transformer(f"input_blocks_{number}_1", depths[number]) if number in depths else []
    convs += [f"input_blocks_{number}_0_op" for number in (3, 6)]
    original_resnet("middle_block_0", False)
    attends += transformer("middle_block_1", 10)
    original_resnet("middle_block_2", False)
    for number in range(9):
        original_resnet(f"output_blocks_{number}_0", True)
        attends += transformer(f"output_blocks_{number}_1", 10 if number < 3 else 2) if number < 6 else []
    convs += [f"output_blocks_{number}_2_conv" for number in (2, 5)]
    return attends, convs


#: Modules that sd-scripts reports when it makes a network: of the U-Net's transformers, and of the text encoders.
COUNTS = {"sd1": (192, 72), "sd2": (192, 138), "sdxl": (722, 264)}


@pytest.mark.parametrize("kind", COUNTS)
def test_names_are_those_of_sd_scripts(kind):
    attends, convs = sdxl_unet() if kind == "sdxl" else diffusers_unet()
    text = {"sd1": clip("lora_te", 12), "sd2": clip("lora_te", 23), "sdxl": clip("lora_te1", 12) + clip("lora_te2", 32)}[kind]
    assert (len(attends), len(text)) == COUNTS[kind]
    expected = {f"lora_unet_{name}" for name in attends + convs} | set(text)

    modules = networks(kind)
    inside = ("attentions.", "resnets.", "samplers.", "encoder.layers.")  # what sd-scripts adapts
    layers = [name for name, shape in weight_shapes(modules).items() if len(shape) > 1 and any(part in name for part in inside)]
    assert {kohya_name(layer, modules["unet"].config) for layer in layers} == expected


def test_attention_and_residual_blocks_of_sdxl_are_605_layers_of_which_all_are_found():
    """What `lora: {conv: true}` trains."""
    attends, convs = sdxl_unet()
    theirs = {f"lora_unet_{name}" for name in attends + convs}
    modules = networks("sdxl")
    targets = (".to_q", ".to_k", ".to_v", ".to_out.0", ".conv1", ".conv2", ".conv_shortcut")
    shapes = weight_shapes({"unet": modules["unet"]})
    ours = [kohya_name(layer, modules["unet"].config) for layer in shapes if layer.endswith(targets)]
    assert len(ours) == 605
    assert set(ours) <= theirs
