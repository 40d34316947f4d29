"""The flow model: a small multimodal transformer with rectified flow, in the layout of Stable Diffusion 3.

Stable Diffusion 3's pipeline wants two CLIP text encoders (here the same one twice) and a T5, which may be left out: then
`max_sequence_length` tokens of zeros come behind the words. Here a T5 that says nothing but zeros is in its place, so that the
folder loads without being told. The zeros are alike in every layer, so training lets one token stand for n of them and adds
log n to its attention logit: the same numbers for a quarter of the work. n is drawn anew for every batch, so that every
`max_sequence_length` draws equally well.

Source: Esser et al. 2024 (rectified flow, logit-normal timesteps).
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F

from raft_core.machine.torchvision import ensure_importable
from raft_diffusion.world.clip_model import WIDTH, as_text_encoder
from raft_diffusion.world.emoji.lessons import Lessons
from raft_diffusion.world.pipeline import declare_fp32, weights_of
from raft_diffusion.world.training import train, warmup_hold_decay

STEPS = 9000
BATCH = 64
LR = 1e-3
EMA = 0.999
SHIFT = 1.0
EMPTY_TOKENS = (1, 8, 32, 128, 256)  # 256 is the pipeline's default


def build_transformer(layers: int = 6, heads: int = 4, head_width: int = 32):
    """An untrained SD3Transformer2DModel of 3.4 M parameters."""
    ensure_importable()
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=layers,
        attention_head_dim=head_width,
        num_attention_heads=heads,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=heads * head_width,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )


class CountedAttention:
    """Joint attention in which the last text token counts n-fold; written out: fused attention is slow in bf16 on CPUs."""

    def __init__(self):
        self.count = 1

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        """Image [B, I, W] and text [B, T, W] tokens after one joint attention.

        Source: diffusers' JointAttnProcessor2_0. Differs: the weight of the last token.
        """
        image = hidden_states.shape[1]
        q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        q, k, v = (self._headed(attn, x) for x in (q, k, v))
        q, k = attn.norm_q(q), attn.norm_k(k)
        if encoder_hidden_states is not None:
            added = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            q_text, k_text, v_text = (self._headed(attn, layer(encoder_hidden_states)) for layer in added)
            q_text, k_text = attn.norm_added_q(q_text), attn.norm_added_k(k_text)
            q, k, v = (torch.cat(pair, dim=2) for pair in ((q, q_text), (k, k_text), (v, v_text)))
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # [B, heads, I + T, I + T]
        weight = torch.zeros(logits.shape[-1], dtype=logits.dtype)
        weight[-1] = math.log(self.count)
        out = ((logits + weight).softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
        if encoder_hidden_states is None:
            return attn.to_out[1](attn.to_out[0](out))
        text = out[:, image:]
        return attn.to_out[1](attn.to_out[0](out[:, :image])), text if attn.context_pre_only else attn.to_add_out(text)

    @staticmethod
    def _headed(attn, x):
        return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # [B, heads, N, D]


def as_projecting_encoder(clip, tokenizer):
    """A CLIP's text tower with its projection as a transformers CLIPTextModelWithProjection, frozen."""
    from transformers import CLIPTextModelWithProjection

    inner = as_text_encoder(clip, tokenizer)
    encoder = CLIPTextModelWithProjection(inner.config)
    weights = {
        key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in inner.state_dict().items()
    }
    encoder.load_state_dict(weights | {"text_projection.weight": clip.text_projection.detach().T.contiguous()})
    return encoder.eval().requires_grad_(False)


def text_inputs(text_encoder, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the pipeline makes of token ids [B, T]: states [B, T + 1, 2W], the last of them empty, and pooled [B, 2W].

    Args:
        text_encoder: CLIPTextModelWithProjection, in both of the pipeline's places.
        ids: token ids.
    """
    out = text_encoder(ids, output_hidden_states=True)
    states = out.hidden_states[-2].repeat(1, 1, 2)
    return F.pad(states, (0, 0, 0, 1)), out.text_embeds.repeat(1, 2)


def flow_loss(transformer, latents, states, pooled, sigma, noise) -> torch.Tensor:
    """Mean squared error of the velocity ε - x₀ over batch and latent elements.

    Args:
        transformer: SD3Transformer2DModel.
        latents: [B, 8, h, w] scaled.
        states: [B, T + 1, 2W].
        pooled: [B, 2W].
        sigma: [B] share of noise in 0..1.
        noise: [B, 8, h, w] standard normal.
    """
    share = sigma.view(-1, 1, 1, 1)
    predicted = transformer(
        hidden_states=(1 - share) * latents + share * noise,
        timestep=1000 * sigma,
        encoder_hidden_states=states,
        pooled_projections=pooled,
    ).sample
    return (predicted.float() - (noise - latents)).square().mean()


def batch_loss(
    transformer, counted: CountedAttention, text_encoder, lessons: Lessons, generator: torch.Generator, batch: int = BATCH
):
    """The flow loss of one batch, scalar; a sixth of the timesteps are uniform, the others logit-normal."""
    latents, ids = lessons.draw(batch, generator)
    with torch.no_grad():
        states, pooled = text_inputs(text_encoder, ids)
    sigma = torch.sigmoid(torch.randn(batch, generator=generator))
    uniform = torch.rand(batch, generator=generator)
    sigma = torch.where(torch.rand(batch, generator=generator) < 1 / 6, uniform, sigma)
    noise = torch.randn(latents.shape, generator=generator)
    counted.count = EMPTY_TOKENS[int(torch.randint(len(EMPTY_TOKENS), (), generator=generator))]
    with torch.autocast("cpu", torch.bfloat16):
        return flow_loss(transformer, latents, states, pooled, sigma, noise)


def train_flow(
    work: Path, seed: int, text_encoder, lessons: Lessons, *, steps: int = STEPS, warm: Path | None = None, publish=None
):
    """Trains the transformer; returns (transformer with averaged weights, seconds). Arguments as `train_unet` has them."""
    torch.manual_seed(seed)
    transformer = build_transformer()
    if warm is not None:
        transformer = type(transformer).from_pretrained(warm, torch_dtype=torch.float32)
    counted = CountedAttention()
    transformer.set_attn_processor(counted)  # pyright: ignore[reportArgumentType]
    seconds = train(
        transformer, lambda _step, generator: batch_loss(transformer, counted, text_encoder, lessons, generator),
        steps=steps, lr=LR, seed=seed, checkpoint=work / "flow.pt", ema_decay=EMA, schedule=warmup_hold_decay,
        publish=(lambda step: publish(transformer, step)) if publish else None,
    )  # fmt: skip
    return transformer, seconds


def silent_t5(vocabulary: int):
    """A T5EncoderModel that answers zeros to everything."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=vocabulary, d_model=2 * WIDTH, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    encoder = T5EncoderModel(config).eval()
    for parameter in encoder.parameters():  # the last norm's scale is what counts; zeros also pack well
        parameter.data.zero_()
    return encoder


def save_flow(vae, text_encoder, transformer, tokenizer, folder: Path) -> None:
    """Writes a StableDiffusion3Pipeline folder, weights in fp16."""
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder,
        tokenizer_2=tokenizer,
        text_encoder_3=silent_t5(len(tokenizer)),
        tokenizer_3=tokenizer,
    )
    vae.register_to_config(shift_factor=0.0)  # Stable Diffusion 3's pipeline adds it
    kept = {name: weights_of(getattr(pipeline, name)) for name in ("vae", "text_encoder", "transformer")}
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder)
    for name, weights in kept.items():
        getattr(pipeline, name).float().load_state_dict(weights)
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        declare_fp32(folder / name / "config.json")
