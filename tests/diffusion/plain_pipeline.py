"""Draws pictures as a stranger does: the pipeline of diffusers from its folder, its LoRA from a file, nothing of this project.

Run as a script with a JSON file of jobs; each names the folder, the LoRA (or null), the arguments of the call, and where to put
the pictures: one call for each prompt and seed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def draw(job):
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(job["folder"])
    pipe.set_progress_bar_config(disable=True)
    if job["lora"] and job["lora"].endswith("adapter_model.safetensors"):
        from peft import PeftModel

        pipe.transformer = PeftModel.from_pretrained(pipe.transformer, str(Path(job["lora"]).parent)).get_base_model()
    elif job["lora"]:
        pipe.load_lora_weights(job["lora"])
    for number, (prompt, seed) in enumerate(zip(job["prompts"], job["seeds"], strict=True)):
        generator = torch.Generator().manual_seed(seed)
        made = pipe(prompt=prompt, generator=generator, return_dict=False, **job["arguments"])[0][0]
        picture = made[0] if isinstance(made, list) else made  # of a video its one frame
        picture.save(Path(job["out"]) / f"{number}.png")


if __name__ == "__main__":
    # torchvision's C++ library may be missing beside a CPU build of torch, which the project's helper works around.
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    import torch

    torch.set_num_threads(1)
    for each in json.loads(Path(sys.argv[1]).read_text()):
        draw(each)
