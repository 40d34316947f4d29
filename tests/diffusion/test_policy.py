"""The Stable Diffusion policy on tiny SD 1.x, SD 2.x (v-prediction) and SDXL pipelines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from raft_core.errors import ConfigError, DeviceError, ModelError
from raft_core.protocols import Policy
from raft_core.sampling import requests
from raft_core.testing import close
from raft_core.types import Prompt
from raft_diffusion import DenoisingLoss, Lora, Memory, Sampling, StableDiffusion
from raft_diffusion.process import resolution

KINDS = ("sd1", "sd2", "sdxl")
PROMPTS = [Prompt("a red cat"), Prompt("dog")]

#: Batched and single evaluations differ by float32 rounding alone; SDXL's linear projections round differently by batch size.
BATCH_TOLERANCE = 1e-4


def asked(k=2, rnd=1):
    return requests(PROMPTS, k, 0, rnd)


def latents(samples):
    return torch.stack([sample.tensors["latents"] for sample in samples])


def perturb(policy, seed=0, size=0.2):
    """Make the adapters do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_does_not_depend_on_its_batch(fresh, kind):
    policy = fresh(kind)
    together = latents(policy.sample(asked()))
    alone = torch.cat([latents(policy.sample([request])) for request in asked()])
    assert (together - alone).abs().max() < BATCH_TOLERANCE
    assert len(together.flatten(1).unique(dim=0)) == 4  # four seeds, four pictures


@pytest.mark.parametrize("kind", ["sd2"])
def test_a_stochastic_scheduler_does_not_mix_the_noise_of_a_batch(load, kind):
    policy = load(kind, sampling={"scheduler": "euler_a"})
    together = latents(policy.sample(asked()))
    alone = torch.cat([latents(policy.sample([request])) for request in asked()[::-1]])
    assert (together - alone.flip(0)).abs().max() < BATCH_TOLERANCE


def test_global_random_state_neither_changes_a_sample_nor_is_changed(fresh):
    policy = fresh("sd1")
    torch.manual_seed(1)
    first = latents(policy.sample(asked()))
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert torch.equal(first, latents(policy.sample(asked())))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_is_that_of_the_diffusers_pipeline(load, kind):
    policy = load(kind, sampling={"scheduler": "dpm++", "steps": 4, "negative_prompt": "blurry", "guidance_rescale": 0.5})
    ours = latents(policy.sample(asked(k=1)))
    pipe = policy.engine.pipe
    pipe.set_progress_bar_config(disable=True)
    from diffusers import DPMSolverMultistepScheduler

    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    theirs = [
        pipe(
            request.prompt.text,
            negative_prompt="blurry",
            num_inference_steps=4,
            guidance_scale=3.0,
            guidance_rescale=0.5,
            generator=torch.Generator().manual_seed(request.seed),
            output_type="latent",
        ).images[0]
        for request in asked(k=1)
    ]
    close(ours, torch.stack(theirs))


def test_a_size_that_the_unet_halves_unevenly_is_drawn_and_learned(load, monkeypatch):
    step = resolution.pixels_per_latent(load("sd1").engine.pipe.vae.config)
    policy = load("sd1", sampling={"steps": 3, "width": 5 * step, "height": 7 * step})
    assert policy.check() == []
    samples = policy.sample(asked(k=1))
    assert samples[0].tensors["latents"].shape[1:] == (7, 5)
    pipe = policy.engine.pipe
    pipe.set_progress_bar_config(disable=True)
    from diffusers import DDIMScheduler

    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    request = asked(k=1)[0]
    monkeypatch.setattr(
        pipe, "check_inputs", lambda *_, **__: None
    )  # it wants multiples of 8, and this VAE has 2 pixels per latent
    theirs = pipe(
        request.prompt.text,
        num_inference_steps=3,
        guidance_scale=3.0,
        width=5 * step,
        height=7 * step,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="latent",
    )
    close(latents(samples)[0], theirs.images[0])
    loss = policy.nll(samples, policy.draw(samples, range(len(samples))))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and any(p.grad.abs().sum() > 0 for p in policy.trainable().values())


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_negative_prompt_is_the_pipelines_own(load, kind):
    policy = load(kind)
    ours = latents(policy.sample(asked(k=1)[:1]))[0]
    pipe = policy.engine.pipe
    pipe.set_progress_bar_config(disable=True)
    from diffusers import DDIMScheduler

    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    request = asked(k=1)[0]
    generator = torch.Generator().manual_seed(request.seed)
    theirs = pipe(request.prompt.text, num_inference_steps=3, guidance_scale=3.0, generator=generator, output_type="latent")
    close(ours, theirs.images[0])


@pytest.mark.parametrize("scheduler", ["dpm++", "euler", "unipc", "lcm", "ddpm", "heun", "DPMSolverSinglestepScheduler", None])
def test_schedulers_by_name(load, scheduler):
    policy = load(sampling={"scheduler": scheduler, "steps": 3})
    drawn = latents(policy.sample(asked(k=1)))
    assert torch.isfinite(drawn).all()
    assert torch.equal(drawn, latents(policy.sample(asked(k=1))))  # a scheduler's state is not carried over


def test_without_guidance_the_unconditional_pass_is_skipped(load):
    policy = load(sampling={"guidance_scale": 1.0})
    seen = []
    policy.engine.networks["unet"].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    policy.sample(asked(k=1))
    assert seen == [2, 2, 2]
    guided = load()
    guided.engine.networks["unet"].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    guided.sample(asked(k=1))
    assert seen[3:] == [4, 4, 4]


def test_each_prompt_is_encoded_once(load):
    policy = load()
    seen = []
    policy.engine.networks["text_encoder"].register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for _ in range(2):
        samples = policy.sample(asked(k=3))
        policy.nll(samples, policy.draw(samples, range(6)))
    assert seen == [1, 1, 1]  # two prompts and the empty one


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_width_and_height(load, kind):
    policy = load(kind, sampling={"width": 40, "height": 24})
    samples = policy.render(policy.sample(asked(k=1)))
    assert {sample.output.size for sample in samples} == {(40, 24)}
    assert {sample.output.mode for sample in samples} == {"RGB"}


def test_latents_stay_float32_on_the_cpu(fresh):
    (sample, *_) = fresh("sd1").sample(asked(k=1))
    assert sample.tensors["latents"].dtype == torch.float32
    assert sample.tensors["latents"].device.type == "cpu"
    assert not sample.tensors["latents"].requires_grad


@pytest.mark.parametrize(("kind", "guidance_scale"), [("sd1", 1.0), ("sd2", 3.0), ("sdxl", 3.0)])
def test_replayed_log_probs_are_the_stored_ones(load, kind, guidance_scale):
    policy = load(kind, sampling={"eta": 1.0, "guidance_scale": guidance_scale})
    samples = policy.sample(asked(k=1), trace=True)
    assert samples[0].tensors["trajectory"].shape == (4, 4, 16, 16)
    log_probs, mask = policy.step_log_probs(samples)
    stored = torch.stack([sample.tensors["step_log_probs"] for sample in samples])
    close(log_probs[mask], stored[mask])
    log_probs.sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in policy.trainable().values())


def test_stored_log_probs_are_those_of_a_gaussian(load):
    policy = load(sampling={"eta": 1.0, "guidance_scale": 1.0})
    (sample,) = policy.sample(asked(k=1)[:1], trace=True)
    # Every step's noise has unit variance after standardising, so a log-prob is −n/2·(1 + log 2π) − n·log σ up to √(n/2).
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_config(policy.engine.pipe.scheduler.config)
    scheduler.set_timesteps(3)
    n = sample.tensors["latents"].numel()
    for t, log_prob in zip(sample.tensors["timesteps"], sample.tensors["step_log_probs"], strict=True):
        variance = float(scheduler._get_variance(int(t), int(t) - 1000 // 3))
        expected = -n / 2 * (1 + np.log(2 * np.pi) + np.log(variance))
        assert abs(float(log_prob) - expected) < 5 * np.sqrt(n / 2)


def test_trajectories_end_in_the_latents(load):
    policy = load(sampling={"eta": 0.5})
    plain, traced = policy.sample(asked()), policy.sample(asked(), trace=True)
    assert torch.equal(latents(plain), latents(traced))
    assert torch.equal(traced[0].tensors["trajectory"][-1], traced[0].tensors["latents"])


def test_tracing_without_noise_is_refused(load):
    with pytest.raises(ConfigError, match=r"scheduler: ddim and eta: 1\.0"):
        load(sampling={"eta": 0.0}).sample(asked(), trace=True)


EVERYTHING = DenoisingLoss(min_snr_gamma=5.0, noise_offset=0.1, caption_dropout=0.5, guided_scale=3.0)


@pytest.mark.parametrize(
    ("kind", "loss"), [("sd1", DenoisingLoss()), ("sd1", EVERYTHING), ("sd2", EVERYTHING), ("sdxl", EVERYTHING)]
)
def test_training_lowers_the_loss_and_leaves_the_reference(load, kind, loss):
    policy = load(kind, lora=Lora(rank=4, conv=True), loss=loss)
    samples = policy.sample(asked())
    draw = policy.draw(samples, range(4))
    start = policy.nll(samples, draw)
    reference = policy.nll(samples, draw, reference=True)
    assert start.shape == (4,)
    assert not reference.requires_grad
    assert torch.equal(start.detach(), reference)  # fresh adapters change nothing
    optimiser = torch.optim.AdamW(policy.trainable().values(), lr=1e-2)
    for _ in range(5):
        optimiser.zero_grad()
        policy.nll(samples, draw).mean().backward()
        optimiser.step()
    assert policy.nll(samples, draw).mean() < 0.97 * start.mean()
    assert torch.equal(policy.nll(samples, draw, reference=True), reference)


def test_draws_depend_on_their_seed_alone(load):
    policy = load(loss=DenoisingLoss(caption_dropout=0.5, noise_offset=0.1))
    samples = policy.sample(asked())
    together = policy.draw(samples, [5, 6, 7, 8])
    alone = policy.draw(samples[2:3], [7])
    assert torch.equal(together.noise[2:3], alone.noise)
    assert torch.equal(together.timestep[2:3], alone.timestep)
    assert torch.equal(together.dropped[2:3], alone.dropped)


def test_gradients_are_the_same_with_checkpointing(load):
    gradients = []
    for memory in (Memory(), Memory(gradient_checkpointing=True)):
        policy = load(memory=memory)
        perturb(policy)
        samples = policy.sample(asked(k=1))
        policy.nll(samples, policy.draw(samples, [1, 2])).sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in policy.trainable().values()]))
    close(*gradients)


def test_a_dropped_caption_is_trained_on_the_empty_prompt(load):
    policy = load(loss=DenoisingLoss(caption_dropout=0.5))
    cat, dog = policy.sample(asked(k=1))
    renamed = replace(cat, request=dog.request)  # the same latents under another prompt
    draw = policy.draw([cat] * 8, range(8))
    assert 0 < draw.dropped.sum() < 8
    changed = (policy.nll([cat] * 8, draw) - policy.nll([renamed] * 8, draw)).abs() > 1e-7
    assert torch.equal(changed, ~draw.dropped)


def test_full_fine_tuning_trains_the_unet_and_keeps_the_start(load):
    policy = load(lora=None)
    assert {name.split(".")[0] for name in policy.trainable()} == {"unet"}
    before = latents(policy.sample(asked()))
    perturb(policy, size=0.05)
    assert not torch.allclose(before, latents(policy.sample(asked())), atol=1e-3)
    assert torch.equal(before, latents(policy.sample(asked(), strength=0.0)))
    moved = {name: parameter.detach().clone() for name, parameter in policy.trainable().items()}
    samples = policy.sample(asked(), strength=0.0)
    policy.nll(samples, policy.draw(samples, range(4)), reference=True)
    assert all(torch.equal(moved[name], parameter) for name, parameter in policy.trainable().items())


def test_text_encoders_can_learn_too(load):
    policy = load("sdxl", lora=Lora(rank=2, text_encoder=True))
    assert {name.split(".")[0] for name in policy.trainable()} == {"unet", "text_encoder", "text_encoder_2"}
    before = latents(policy.sample(asked()))
    samples = policy.sample(asked())
    optimiser = torch.optim.SGD(
        [parameter for name, parameter in policy.trainable().items() if name.startswith("text")], lr=100.0
    )
    policy.nll(samples, policy.draw(samples, range(4))).sum().backward()
    optimiser.step()
    assert not torch.equal(before, latents(policy.sample(asked())))  # no stale embedding
    assert torch.equal(before, latents(policy.sample(asked(), strength=0.0)))


def test_features_are_unit_vectors(fresh):
    policy = fresh("sd1")
    features = policy.embed(policy.render(policy.sample(asked())))
    assert features.shape[0] == 4
    assert np.allclose(np.linalg.norm(features, axis=1), 1)


def test_features_of_plain_pictures_are_defined():
    from PIL import Image

    from raft_diffusion.model.features import pixel_features

    grey, split = Image.new("RGB", (8, 8), (90, 90, 90)), Image.new("RGB", (8, 8), (200, 20, 20))
    split.paste((20, 20, 200), (0, 0, 4, 8))
    features = pixel_features([grey, grey, split, split.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    assert np.isfinite(features).all()
    assert features[0] @ features[1] == pytest.approx(1)
    assert features[2] @ features[3] < 0.5


def test_resident_phases(fresh):
    policy = fresh("sd1")
    for phase in ("sample", "render", "train"):
        with policy.resident(phase):
            pass


def test_describe_is_plain(fresh):
    import json

    policy = fresh("sd1")
    facts = json.loads(json.dumps(policy.describe()))
    assert facts["sampling"]["steps"] == 3
    assert facts["prediction"] == "epsilon"
    assert facts["trained_parameters"] == sum(parameter.numel() for parameter in policy.trainable().values())


def test_it_is_a_policy_and_loads_nothing_when_built():
    policy = StableDiffusion("somewhere/not-loaded")
    assert isinstance(policy, Policy)
    with pytest.raises(ModelError, match="call load"):
        policy.trainable()


def test_the_tokenizers_context_is_what_is_visible(fresh):
    policy = fresh("sd1")
    assert policy.visible("a red cat") == "a red cat"
    assert policy.visible("A  red cat on the mat") == "A  red cat on the ma"  # 14 letters fit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "sampling.steps is 0"),
        ({"batch_size": 0}, "sampling.batch_size is 0"),
        ({"eta": 1.0}, "only scheduler ddim knows eta"),
        ({"scheduler": "eulr"}, "did you mean 'euler'"),
        ({"guidance_rescale": 2.0}, r"must be in \[0, 1\]"),
        ({"guidance_scale": -1.0}, "must not be negative"),
    ],
)
def test_mistakes_in_sampling(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_snr_gamma": 0}, "must be positive"),
        ({"noise_offset": -1}, "must not be negative"),
        ({"caption_dropout": 1.0}, r"must be in \[0, 1\)"),
        ({"guided_scale": 1.0}, "guidance begins above 1"),
    ],
)
def test_mistakes_in_the_loss(arguments, message):
    with pytest.raises(ConfigError, match=message):
        DenoisingLoss(**arguments)


def test_a_trainers_precision_goes_before_the_frozen_weights():
    """And casts are never kept, whoever opened autocast."""
    from raft_diffusion.model.backbone import Predictor
    from raft_diffusion.model.encoding import Condition

    seen = []

    def unet(x, *_, **__):
        seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()))
        return (x,)

    x, condition = torch.zeros(1, 4, 2, 2), Condition(torch.zeros(1, 2, 2))
    for own in (torch.float32, torch.bfloat16, torch.float16):
        Predictor(unet, own)(x, torch.tensor([1]), condition)
        with torch.autocast("cpu", torch.bfloat16):
            Predictor(unet, own)(x, torch.tensor([1]), condition)
    assert seen[0][0] is False
    assert seen[2] == (True, torch.bfloat16, False)
    assert seen[4] == (True, torch.float16, False)
    assert seen[1] == seen[3] == seen[5] == (True, torch.bfloat16, False)


def test_the_start_of_full_fine_tuning_is_not_taken_for_the_policy_under_mixed_precision(load):
    policy = load(lora=None)
    perturb(policy, size=0.05)
    samples = policy.sample(asked(k=1))
    draw = policy.draw(samples, [1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        alone = policy.nll(samples, draw)
    with torch.autocast("cpu", torch.bfloat16):  # one context for both, as in a preference loss
        reference = policy.nll(samples, draw, reference=True)
        loss = policy.nll(samples, draw)
    assert torch.equal(alone, loss)
    assert not torch.allclose(reference, loss, rtol=1e-3)
    loss.sum().backward()
    assert all(parameter.grad is not None for parameter in policy.trainable().values())


def test_broken_xformers_are_an_error_in_words(load, monkeypatch):
    """Installed, but without kernels for this machine, or built for another torch."""
    from diffusers import UNet2DConditionModel

    def fail(*_):
        raise ModuleNotFoundError("xformers._C")

    monkeypatch.setattr("raft_diffusion.model.device.mistakes", lambda *_: [])
    monkeypatch.setattr(UNet2DConditionModel, "enable_xformers_memory_efficient_attention", fail)
    with pytest.raises(DeviceError, match=r"installed but does not work here \(ModuleNotFoundError: xformers._C\).*use sdpa"):
        load(memory=Memory(attention="xformers"))


def test_a_latent_consistency_model_is_told_the_guidance_scale(tiny, tmp_path):
    """One pass per step, as diffusers draws it."""
    import shutil

    from diffusers import LCMScheduler, UNet2DConditionModel

    folder = shutil.copytree(tiny(), tmp_path / "lcm")
    config = UNet2DConditionModel.load_config(folder / "unet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        UNet2DConditionModel.from_config(config, time_cond_proj_dim=8).save_pretrained(folder / "unet")
    policy = StableDiffusion(str(folder), sampling=Sampling(scheduler="lcm", steps=2, guidance_scale=6.0))
    policy.load()
    (request,) = asked(k=1)[:1]
    ours = policy.sample([request])[0]
    pipe = policy.engine.pipe
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    generator = torch.Generator().manual_seed(request.seed)
    theirs = pipe(request.prompt.text, num_inference_steps=2, guidance_scale=6.0, generator=generator, output_type="latent")
    close(ours.tensors["latents"], theirs.images[0])
    assert torch.isfinite(policy.nll([ours], policy.draw([ours], [1]))).all()


def test_half_precision_keeps_what_is_trained_in_float32(load, monkeypatch):
    """bfloat16, which this CPU may have to emulate: small enough here."""
    monkeypatch.setattr("raft_core.machine.devices.native_bf16", lambda _: True)
    policy = load(dtype="bfloat16", lora=Lora(rank=2, conv=True), sampling={"eta": 1.0})
    unet = policy.engine.networks["unet"]
    assert {value.dtype for name, value in unet.named_parameters() if "lora" not in name} == {torch.bfloat16}
    assert {parameter.dtype for parameter in policy.trainable().values()} == {torch.float32}
    samples = policy.sample(asked(k=1), trace=True)
    assert samples[0].tensors["latents"].dtype == torch.float32
    log_probs, _ = policy.step_log_probs(samples)
    close(log_probs, torch.stack([s.tensors["step_log_probs"] for s in samples]))
    draw = policy.draw(samples, [1, 2])
    with torch.autocast("cpu", torch.bfloat16):  # as a trainer with mixed precision does, the reference first
        reference = policy.nll(samples, draw, reference=True)
        loss = policy.nll(samples, draw)
    assert torch.equal(reference, loss.detach())
    loss.sum().backward()
    moved = [name for name, parameter in policy.trainable().items() if parameter.grad is not None and parameter.grad.any()]
    assert len(moved) == len(policy.trainable()) / 2  # up matrices; down matrices move once those are not zero
    assert policy.render(samples)[0].output.size == (32, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_negative_prompts_seeds_and_sizes_are_each_prompts_own(load, kind):
    """A table's rows drawn together are the pictures that policies with these very settings draw."""
    policy = load(kind)
    side = policy.engine.latent_shape(None, None)[-1] * policy.engine.pixels_per_latent
    rows = [{"seed": 5, "negative_prompt": "blurry"}, {"seed": 5}, {"seed": 6, "width": str(side), "height": side // 2}]
    drawn = policy.sample(requests([Prompt("a red cat", row) for row in rows], 1, 0, "generate"))
    assert [sample.seed for sample in drawn] == [5, 5, 6]
    assert (drawn[0].tensors["latents"] - drawn[1].tensors["latents"]).abs().max() > 10 * BATCH_TOLERANCE
    plain = [Prompt("a red cat", {"seed": row["seed"]}) for row in rows]
    for row, settings in enumerate(({"negative_prompt": "blurry"}, {}, {"width": side, "height": side // 2})):
        (alone,) = load(kind, sampling=settings).sample(requests(plain[row : row + 1], 1, 0, "generate"))
        assert (alone.tensors["latents"] - drawn[row].tensors["latents"]).abs().max() < BATCH_TOLERANCE
    assert [sample.output.size for sample in policy.render(drawn)] == [(side, side), (side, side), (side, side // 2)]


def test_a_prompts_negative_is_what_guided_training_and_replay_go_by(load):
    policy = load("sd1", sampling={"eta": 1.0}, loss=DenoisingLoss(guided_scale=3.0))
    other = load("sd1", sampling={"eta": 1.0, "negative_prompt": "blurry"}, loss=DenoisingLoss(guided_scale=3.0))
    own = policy.sample(requests([Prompt("dog", {"negative_prompt": "blurry"})], 1, 0, 1), trace=True)
    replayed, _ = policy.step_log_probs(own)
    torch.testing.assert_close(replayed[0], own[0].tensors["step_log_probs"], rtol=1e-3, atol=1e-2)
    draw = policy.draw(own, [3])
    torch.testing.assert_close(
        policy.nll(own, draw), other.nll([replace(own[0], request=requests(PROMPTS[1:], 1, 0, 1)[0])], draw)
    )
    assert (
        policy.nll(own, draw)
        - load("sd1", loss=DenoisingLoss(guided_scale=3.0)).nll(
            [replace(own[0], request=requests(PROMPTS[1:], 1, 0, 1)[0])], draw
        )
    ).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("rows", "sampling", "message"),
    [
        ([{"width": 33}], {}, "multiples of"),
        ([{"width": "wide"}], {}, "'wide' is no whole number"),
        ([{"height": 10**9}], {}, "a height of 1000000000"),
        ([{"width": 64}, {"width": 128}], {}, "2 sizes, but a run trains on one size"),
        ([{"negative_prompt": "blurry"}], {"guidance_scale": 1.0}, "without guidance it says nothing"),
    ],
)
def test_what_a_row_cannot_ask_for_is_told_before_a_weight_is_loaded(tiny, rows, sampling, message):
    policy = StableDiffusion(str(tiny("sd1")), sampling=Sampling(**sampling))
    prompts = [Prompt(f"prompt {n}", row) for n, row in enumerate(rows)]
    assert any(message in mistake for mistake in policy.check_prompts(prompts, []))
    assert bool(policy.check_prompts([], prompts)) == ("one size" not in message)
