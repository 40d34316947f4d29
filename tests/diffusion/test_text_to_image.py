"""Each family of pipelines on a tiny random one: drawn as the plain pipeline draws, trained as its own forward says.

Adapters are perturbed until pictures change visibly: fresh ones are zero, and every equality would hold.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_pipelines
import torch
from PIL import Image

from raft_core.types import Prompt, Request

FAMILIES = list(tiny_pipelines.BUILDERS)
PROMPTS = ("a cat", "a much longer prompt of a dog")
SEEDS = (7, 8)
STEPS = 3
SIDE = 32

pytestmark = pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated")  # Chroma of diffusers uses its own old name


def settings(family, **more):
    from raft_diffusion import PipelineSampling

    arguments = tiny_pipelines.ARGUMENTS[family]
    chosen = {"steps": STEPS, "width": SIDE, "height": SIDE, "arguments": arguments, **tiny_pipelines.SAMPLING[family], **more}
    return PipelineSampling(**chosen)


def perturb(policy, size=0.5):
    """Adapters that do something, the same ones every time."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return functools.cache(lambda family: tiny_pipelines.write(root / family, family))


@pytest.fixture(scope="session")
def build(folders):
    """family → a loaded policy with perturbed adapters."""

    def built(family, *, sampling=None, **more):
        from raft_diffusion import TextToImage, TransformerLora

        more = {"lora": TransformerLora(rank=2)} | more
        policy = TextToImage(str(folders(family)), sampling=settings(family, **(sampling or {})), **more)
        assert policy.check() == []
        policy.load()
        return perturb(policy)

    return built


@pytest.fixture(scope="session")
def policies(build):
    """family → a policy that tests share: they leave its weights alone."""
    return functools.cache(build)


def requests(prompts=PROMPTS, seeds=SEEDS):
    return [Request(Prompt(text), 0, seed) for text, seed in zip(prompts, seeds, strict=True)]


def close(ours, theirs, tolerance=1e-4):
    scale = float(theirs.abs().max())
    assert float((ours - theirs).abs().max()) <= tolerance * scale, (ours, theirs)


@pytest.fixture(scope="session")
def plainly_drawn(policies, folders, tmp_path_factory):
    """family → (pictures with the LoRA that was saved, without), drawn by the plain pipeline in another process."""
    root = tmp_path_factory.mktemp("plain")
    jobs = []
    for family in FAMILIES:
        saved = policies(family).save(root / family)
        arguments = {
            "num_inference_steps": STEPS,
            "width": SIDE,
            "height": SIDE,
            **tiny_pipelines.ARGUMENTS[family],
            **tiny_pipelines.SAMPLING[family],
            **tiny_pipelines.PLAIN.get(family, {}),
        }
        for name, lora in (("with", str(saved[-1])), ("without", None)):
            out = root / family / name
            out.mkdir(parents=True)
            jobs.append(
                {
                    "folder": str(folders(family)),
                    "lora": lora,
                    "arguments": arguments,
                    "prompts": PROMPTS,
                    "seeds": SEEDS,
                    "out": str(out),
                }
            )
    (root / "jobs.json").write_text(json.dumps(jobs))
    script = [sys.executable, str(Path(__file__).with_name("plain_pipeline.py")), str(root / "jobs.json")]
    done = subprocess.run(script, capture_output=True, text=True, env=dict(os.environ), timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    def pictures(family, name):
        return [np.asarray(Image.open(root / family / name / f"{number}.png")).astype(int) for number in range(len(PROMPTS))]

    return lambda family: (pictures(family, "with"), pictures(family, "without"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_pipeline_draws_the_same_pixels_with_the_saved_lora(policies, plainly_drawn, family):
    """Each prompt by itself, as a stranger draws it; strength 0 is the pipeline without the LoRA."""
    policy = policies(family)
    adapted, base = plainly_drawn(family)
    for number, request in enumerate(requests()):
        for strength, expected in ((1.0, adapted), (0.0, base)):
            (drawn,) = policy.render(policy.sample([request], strength=strength))
            assert np.array_equal(np.asarray(drawn.output).astype(int), expected[number]), (number, strength)
        assert np.abs(adapted[number] - base[number]).mean() > 1  # of 255: the LoRA is seen


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_does_not_depend_on_its_batch(policies, family):
    """Nor on the length of another prompt."""
    policy = policies(family)
    together = policy.sample(requests())
    for request, sample in zip(requests(), together, strict=True):
        (alone,) = policy.sample([request])
        close(sample.tensors["latents"], alone.tensors["latents"])
    draw = policy.draw(together, SEEDS)
    both = policy.nll(together, draw).detach()
    for place, sample in enumerate(together):
        close(both[place : place + 1], policy.nll([sample], policy.draw([sample], SEEDS[place : place + 1])).detach())


class _StopError(Exception):
    pass


def forward_of_the_pipeline(folder, lora, family, prompt, x):
    """What the plain pipeline gives its scheduler in its second step, had it come to latents x without guidance, and when."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    if lora.endswith("adapter_model.safetensors"):
        from peft import PeftModel

        pipe.transformer = PeftModel.from_pretrained(pipe.transformer, str(Path(lora).parent)).get_base_model()
    else:
        pipe.load_lora_weights(lora)
    seen = []

    def step(prediction, t, sample, *_args, **_kwargs):
        if seen:
            seen.append((prediction, t, sample))
            raise _StopError
        seen.append(None)
        return (x.to(sample.dtype),)

    pipe.scheduler.step = step
    arguments = {"width": SIDE, "height": SIDE, **tiny_pipelines.ARGUMENTS[family], **tiny_pipelines.PLAIN.get(family, {})}
    arguments |= tiny_pipelines.UNGUIDED[family]
    with pytest.raises(_StopError):
        pipe(prompt=prompt, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(0), **arguments)
    prediction, t, sample = seen[1]
    assert torch.equal(sample.float(), x)
    return prediction.float(), float(t)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_the_pipelines_own_forward(policies, folders, tmp_path, family):
    """Diffusers' scripts: x = (1 − σ)x₀ + σε, squared error against ε − x₀; PixArt's: against ε at a timestep."""
    from raft_diffusion.policy import Draw

    policy = policies(family)
    lora = str(policy.save(tmp_path)[-1])
    samples = policy.sample(requests())
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(2, *samples[0].tensors["latents"].shape, generator=generator)
    process = policy.engine.process
    t = [float(value) for value in policy.engine.pipe.scheduler.timesteps][1]  # of the second step
    flow = policy.engine.is_flow
    time = torch.tensor([t / 1000 if flow else t] * 2)
    draw = Draw(time if flow else time.long(), noise, torch.zeros(2, dtype=torch.bool))
    ours = policy.nll(samples, draw).detach()
    for place, prompt in enumerate(PROMPTS):
        clean, eps = samples[place].tensors["latents"][None], noise[place : place + 1]
        if flow:
            x, wanted = (1 - time[0]) * clean + time[0] * eps, eps - clean
        else:
            power = policy.engine.pipe.scheduler.alphas_cumprod[int(t)]
            x, wanted = power.sqrt() * clean + (1 - power).sqrt() * eps, eps
        predicted, told = forward_of_the_pipeline(folders(family), lora, family, prompt, x)
        assert told == pytest.approx(float(process.network_times(draw.timestep)[0]), rel=1e-6)
        close(ours[place], (predicted - wanted).square().mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_without_adapters_the_loss_is_the_starts(policies, build, family):
    from raft_diffusion import TransformerLora

    policy, start = policies(family), build(family, lora=TransformerLora(rank=2, seed=9))
    with torch.no_grad():
        for parameter in start.trainable().values():
            parameter.zero_()
    samples = policy.sample(requests())
    draw = policy.draw(samples, SEEDS)
    close(policy.nll(samples, draw, reference=True), start.nll(samples, draw).detach(), 1e-5)
    assert not torch.allclose(policy.nll(samples, draw), policy.nll(samples, draw, reference=True), rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_weights_come_back(policies, build, tmp_path, family):
    from raft_diffusion import TextToImage, TransformerLora

    policy = policies(family)
    file = policy.save(tmp_path)[-1]
    arguments = TextToImage.arguments_for(tmp_path)
    assert arguments["lora"]["rank"] == 2
    again = build(family, lora=TransformerLora(**arguments["lora"]))
    again.load_weights(tmp_path)
    for name, parameter in policy.trainable().items():
        assert torch.equal(parameter, again.trainable()[name])
    going_on = build(family, lora=TransformerLora(init=str(file)))  # perturbed again: back to what it began with
    going_on.load_weights(file)
    (ours,), (theirs,) = (each.sample(requests()[:1]) for each in (policy, going_on))
    close(theirs.tensors["latents"], ours.tensors["latents"])
