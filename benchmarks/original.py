"""A round as RAFT's diffusion notebook does it, with the same small model: the procedure this toolkit replaces.

Pictures go through PNG files, the training data is re-encoded by the VAE and the text encoder at every step, and every round
starts a new training process, which hands its LoRA back through a file. Written anew from the description of the procedure.

``python -m benchmarks.original WORK.json FOLDER`` is that training process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.bare import Clock, Work, load, trained, write_pngs


def original_round(pipe: Any, work: Work, reward: Callable[[list[Image.Image]], torch.Tensor], folder: Path) -> Clock:
    """One round; the pipeline ends with the round's LoRA. ``clock["train_start"]`` is the new process until its first step."""
    clock = Clock()
    with clock.phase("sample"):
        files = []
        for index, prompt in enumerate(work.prompts):
            pictures = pipe(
                prompt,
                num_images_per_prompt=work.k,
                height=work.side,
                width=work.side,
                num_inference_steps=work.denoising_steps,
                guidance_scale=work.guidance_scale,
                generator=torch.Generator().manual_seed(index),
            ).images
            files += write_pngs(pictures, folder / f"prompt-{index:02d}")
    with clock.phase("render"):
        scores = torch.cat([reward([Image.open(file).convert("RGB")]) for file in files]).view(-1, work.k)
        best = [files[row * work.k + int(column)] for row, column in enumerate(scores.argmax(dim=1))]
    start = time.perf_counter()
    (folder / "winners.json").write_text(json.dumps([str(file) for file in best]))
    (folder / "work.json").write_text(json.dumps(asdict(work)))
    subprocess.run([sys.executable, "-m", "benchmarks.original", folder / "work.json", folder], check=True)
    pipe.load_lora_weights(folder)
    inside = json.loads((folder / "seconds.json").read_text())
    clock.seconds |= {"train": inside["train"], "train_start": time.perf_counter() - start - inside["train"]}
    return clock


def train_process(work: Work, folder: Path) -> None:
    """Load everything, train on the winners' PNG files, save the LoRA."""
    pipe = load(work)
    winners = [Path(file) for file in json.loads((folder / "winners.json").read_text())]
    optimizer = torch.optim.AdamW(trained(pipe), lr=work.lr)
    start = time.perf_counter()
    alpha_bar = pipe.scheduler.alphas_cumprod
    velocity = pipe.scheduler.config.prediction_type == "v_prediction"
    for step in range(work.train_steps):
        rows = [(step * work.train_batch + i) % len(winners) for i in range(work.train_batch)]
        pixels = torch.stack([_pixels(winners[row]) for row in rows])
        with torch.no_grad():
            x0 = pipe.vae.encode(pixels).latent_dist.sample() * pipe.vae.config.scaling_factor
            tokens = pipe.tokenizer(
                [work.prompts[row] for row in rows], padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids
            states = pipe.text_encoder(tokens)[0]
        noise, t = torch.randn_like(x0), torch.randint(len(alpha_bar), (len(x0),))
        signal, sigma = alpha_bar[t].sqrt().view(-1, 1, 1, 1), (1 - alpha_bar[t]).sqrt().view(-1, 1, 1, 1)
        predicted = pipe.unet(signal * x0 + sigma * noise, t, states, return_dict=False)[0]
        F.mse_loss(predicted, signal * noise - sigma * x0 if velocity else noise).backward()
        torch.nn.utils.clip_grad_norm_(trained(pipe), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - start
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipe.unet))
    pipe.save_lora_weights(folder, unet_lora_layers=state, safe_serialization=True)
    (folder / "seconds.json").write_text(json.dumps({"train": seconds}))


def _pixels(file: Path) -> torch.Tensor:
    """[3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    settings |= {"prompts": tuple(settings["prompts"]), "targets": tuple(settings["targets"])}
    train_process(Work(**settings), Path(sys.argv[2]))
