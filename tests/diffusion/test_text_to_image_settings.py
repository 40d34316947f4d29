"""What can be set about a pipeline, what is refused in words, what is computed once, and steps that can be replayed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tiny_pipelines
import torch
from test_resume_diffusion import Interrupted, life
from test_text_to_image import FAMILIES, PROMPTS, SEEDS, SIDE, close, perturb, requests, settings

from raft_core.errors import ConfigError, ModelError
from raft_core.objectives.policy_gradient import PolicyGradient
from raft_core.store.checkpoint import checkpoint_folder
from raft_core.types import Advantages, Prompt
from raft_diffusion import (
    PipelineLoss,
    PipelineMemory,
    PipelineSampling,
    StableDiffusion,
    StochasticSteps,
    TextToImage,
    TransformerLora,
)

pytestmark = pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated")


@pytest.fixture(scope="session")
def sd3(tmp_path_factory):
    return tiny_pipelines.write(tmp_path_factory.mktemp("pipeline") / "sd3", "sd3")


def policy_on(folder, family="sd3", **more):
    sampling = settings(family, **more.pop("sampling", {}))
    policy = TextToImage(str(folder), **({"lora": TransformerLora(rank=2)} | more), sampling=sampling)
    assert policy.check() == []
    policy.load()
    return policy


# ---------------------------------------------------------------------- steps that are replayed


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "pixart_sigma"])  # which is no flow
def test_ratios_are_one_before_the_first_update(tmp_path, family):
    """With guidance of every kind; prompts of unequal length; a window of two steps of four."""
    folder = tiny_pipelines.write(tmp_path / family, family)
    sampling = {"steps": 4, "stochastic": StochasticSteps("flow_grpo", 0.7, 1, 2)}
    policy = perturb(policy_on(folder, family, sampling=sampling))
    samples = policy.sample(requests(), trace=True)
    log_probs, mask = policy.step_log_probs(samples)
    assert log_probs.shape == (2, 2)
    assert mask.all()
    kept = torch.stack([sample.tensors["step_log_probs"] for sample in samples])
    assert (log_probs - kept).abs().max() < 0.05  # nats, of sums over a thousand elements
    reference, _ = policy.step_log_probs(samples, reference=True)
    assert (reference - kept).abs().max() > 0.5
    log_probs.sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in policy.trainable().values())


@pytest.mark.parametrize("family", ["sd3", "flux_guided", "qwen_image", "lumina2", "z_image", "sana"])
def test_half_precision_is_served_too(tmp_path, family):
    """Times are rounded as the pipeline rounds them; adapters stay float32; the loss is that of float32 but for rounding."""
    folder = tiny_pipelines.write(tmp_path / family, family)
    whole, half = (perturb(policy_on(folder, family, dtype=dtype), 0.2) for dtype in ("float32", "bfloat16"))
    samples = half.sample(requests())
    assert all(parameter.dtype == torch.float32 for parameter in half.trainable().values())
    draw = half.draw(samples, SEEDS)
    close(half.nll(samples, draw).detach(), whole.nll(samples, draw).detach(), 0.1)
    (drawn, _) = half.render(samples)
    assert drawn.output.size == (SIDE, SIDE)


def test_a_policy_gradient_moves_steps_as_the_advantages_say(sd3):
    policy = policy_on(sd3, sampling={"stochastic": StochasticSteps("cps", 0.6)})
    samples = policy.sample(requests(("a cat", "a cat")), trace=True)
    part = Advantages(np.arange(2), np.array([1.0, -1.0]))
    optimizer = torch.optim.Adam(policy.trainable().values(), lr=1e-2)
    with torch.no_grad():
        before = policy.step_log_probs(samples)[0].sum(dim=1)
    for _ in range(4):
        optimizer.zero_grad()
        PolicyGradient()(policy, samples, part, [0, 0]).sum().backward()
        optimizer.step()
    with torch.no_grad():
        moved = policy.step_log_probs(samples)[0].sum(dim=1) - before
    assert moved[0] - moved[1] > 0.05


def test_a_trace_needs_noise_in_steps(sd3):
    policy = policy_on(sd3)
    with pytest.raises(ConfigError, match=r"sampling\.stochastic is null"):
        policy.sample(requests(), trace=True)
    assert (
        "takes its own steps"
        in TextToImage(str(sd3), sampling=PipelineSampling(scheduler="dpm++", stochastic=StochasticSteps())).check_trace()[0]
    )


# ---------------------------------------------------------------------- guidance, times, weights


def test_embedded_guidance_is_the_same_in_sampling_and_loss(tmp_path):
    """The network is told 3.5 in both; another scale gives another loss on the same draw."""
    folder = tiny_pipelines.write(tmp_path / "flux", "flux_guided")
    seen = []
    policy = policy_on(folder, "flux_guided")
    policy.engine.denoiser.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["guidance"].tolist()), with_kwargs=True
    )
    samples = policy.sample(requests())
    sampled = list(seen)
    seen.clear()
    policy.nll(samples, policy.draw(samples, SEEDS))
    assert {value for values in sampled + seen for value in values} == {3.5}
    assert policy.engine.calls.plain.parts == 1  # without the part that true guidance adds


def test_the_guided_prediction_can_be_trained(sd3):
    plain, guided = perturb(policy_on(sd3)), perturb(policy_on(sd3, loss=PipelineLoss(guided=True)))
    samples = plain.sample(requests())
    draw = plain.draw(samples, SEEDS)
    x0, noise, t = torch.stack([s.tensors["latents"] for s in samples]), draw.noise, draw.timestep[:, None, None, None]
    predict = guided.engine.calls.predictor([guided._wish(s.prompt) for s in samples], guided=True)
    predicted = predict((1 - t) * x0 + t * noise, 1000 * draw.timestep)
    close(guided.nll(samples, draw).detach(), (predicted - (noise - x0)).square().flatten(1).mean(dim=1).detach())
    assert not torch.allclose(guided.nll(samples, draw), plain.nll(samples, draw), rtol=0.01)


@pytest.mark.parametrize("weighting", ["sigma_sqrt", "cosmap", "clean"])
def test_weights_are_those_of_diffusers_scripts(sd3, weighting):
    from diffusers.training_utils import compute_loss_weighting_for_sd3

    plain, weighted = policy_on(sd3), policy_on(sd3, loss=PipelineLoss(weighting=weighting))
    samples = plain.sample(requests())
    draw = plain.draw(samples, SEEDS)
    sigma = draw.timestep
    weight = sigma**2 if weighting == "clean" else compute_loss_weighting_for_sd3(weighting, sigma)
    close(weighted.nll(samples, draw).detach(), (plain.nll(samples, draw) * weight).detach())


def test_times_of_inference_are_those_of_the_sampling(sd3):
    policy = policy_on(sd3, loss=PipelineLoss(times="inference"))
    samples = policy.sample(requests())
    sampled = [float(value) / 1000 for value in policy.engine.pipe.scheduler.timesteps]
    times = policy.draw(samples * 10, range(20)).timestep
    assert all(any(abs(float(time) - value) < 1e-5 for value in sampled) for time in times)
    assert len(set(times.tolist())) == len(sampled)


def test_dropped_captions_are_trained_as_the_empty_prompt(sd3):
    policy = policy_on(sd3, loss=PipelineLoss(caption_dropout=0.5))
    samples = policy.sample(requests())
    draws = [policy.draw(samples, (seed, seed + 100)) for seed in range(20)]
    draw = next(each for each in draws if each.dropped.tolist() == [True, False])
    mixed = policy.nll(samples, draw).detach()
    empty = [type(sample)(type(sample.request)(Prompt(""), 0, 1), tensors=sample.tensors) for sample in samples]
    none = type(draw)(draw.timestep, draw.noise, torch.zeros(2, dtype=torch.bool))
    close(mixed[0], policy.nll(empty, none).detach()[0])
    close(mixed[1], policy.nll(samples, none).detach()[1])


def test_another_scheduler_draws_with_a_flow(sd3):
    policy = policy_on(sd3, sampling={"scheduler": "dpm++"})
    config = policy.engine.pipe.scheduler.config
    assert (config.prediction_type, config.use_flow_sigmas, config.flow_shift) == ("flow_prediction", True, 3.0)
    (drawn,) = policy.render(policy.sample(requests()[:1]))
    assert drawn.output.size == (SIDE, SIDE)


@pytest.mark.parametrize("steps", [3, 20])
def test_few_steps_are_warned_about(sd3, steps):
    notes = TextToImage(str(sd3), sampling=PipelineSampling(steps=steps)).notes()
    assert ("blurs" in " ".join(notes)) == (steps == 3)


def test_a_distilled_model_is_warned_about(tmp_path):
    folder = tiny_pipelines.write(tmp_path / "klein", "flux2_klein")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"is_distilled": True}))
    policy = policy_on(folder, "flux2_klein", sampling={"steps": 12})
    assert "the model says that it is distilled" in policy.notes()[0]
    assert policy.engine.calls.guided.parts == 1  # such a pipeline does not guide


# ---------------------------------------------------------------------- computed once, and freed


def counted(policy):
    """How often a text encoder works from now on."""
    calls = []
    original = policy.engine.texts._encode
    policy.engine.texts._encode = lambda *args, **kwargs: calls.append(kwargs["prompt"]) or original(*args, **kwargs)
    return calls


def test_a_text_is_encoded_once_and_kept_on_disk(sd3, tmp_path):
    memory = PipelineMemory(prompt_cache=str(tmp_path / "cache"))
    policy = policy_on(sd3, memory=memory)
    calls = counted(policy)
    first = policy.sample(requests())
    policy.nll(first, policy.draw(first, SEEDS))
    once = len(calls)
    assert once > 0
    second = policy.sample(requests())
    policy.nll(second, policy.draw(second, SEEDS))
    assert len(calls) == once
    again = policy_on(sd3, memory=memory)
    calls = counted(again)
    third = again.sample(requests())
    assert calls == []
    assert torch.equal(third[0].tensors["latents"], first[0].tensors["latents"])
    file = max((tmp_path / "cache").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-10])  # cut short: encoded anew
    policy_on(sd3, memory=memory).sample(requests())


def test_embeddings_of_another_encoder_are_not_taken(sd3, tmp_path):
    other = tiny_pipelines.write(tmp_path / "other", "sd3", seed=1)
    memory = PipelineMemory(prompt_cache=str(tmp_path / "cache"))
    policy_on(sd3, memory=memory).sample(requests())
    policy = policy_on(other, memory=memory)
    calls = counted(policy)
    policy.sample(requests())
    assert calls


def test_text_encoders_are_given_back(sd3):
    """Only what is new has them loaded; pictures stay the same."""
    kept, freed = policy_on(sd3), policy_on(sd3, memory=PipelineMemory(text_encoders="free"))
    pipe = freed.engine.pipe
    assert (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3) == (None, None, None)
    for policy in (kept, freed):
        policy.sample(requests())
    assert pipe.text_encoder is None
    ours, theirs = (policy.sample(requests())[1].tensors["latents"] for policy in (freed, kept))
    assert torch.equal(ours, theirs)
    assert all(not name.startswith("text_encoder") for name in freed.trainable())


def test_prompts_that_are_foreseen_are_encoded_at_load(sd3):
    policy = TextToImage(str(sd3), sampling=settings("sd3"), memory=PipelineMemory(text_encoders="free"))
    assert policy.check_prompts([Prompt(PROMPTS[0])], [Prompt(PROMPTS[1])]) == []
    policy.load()
    calls = counted(policy)
    samples = policy.sample(requests())
    policy.nll(samples, policy.draw(samples, SEEDS))
    assert calls == []


def test_presets_say_what_they_set():
    assert PipelineMemory().resolved.quantization == "none"
    small = PipelineMemory(preset="8gb", vae_tiling=False).resolved
    assert (small.quantization, small.text_encoders, small.group_offload, small.vae_tiling) == ("nf4", "free", True, False)
    assert PipelineMemory(preset="80gb").resolved.offload is False
    assert PipelineMemory(preset="24gb").resolved.gradient_checkpointing is True


def test_checkpointed_gradients_are_the_same(sd3):
    grads = []
    for checkpointing in (False, True):
        policy = perturb(policy_on(sd3, memory=PipelineMemory(gradient_checkpointing=checkpointing)))
        samples = policy.sample(requests())
        policy.nll(samples, policy.draw(samples, SEEDS)).sum().backward()
        grads.append({n: p.grad for n, p in policy.trainable().items() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name in grads[0]:
        close(grads[1][name], grads[0][name])


def test_full_fine_tuning_comes_back(sd3, tmp_path):
    policy = perturb(policy_on(sd3, lora=None), 0.01)
    policy.save(tmp_path)
    assert TextToImage.arguments_for(tmp_path)["lora"] is None
    again = policy_on(sd3, lora=None)
    again.load_weights(tmp_path)
    (ours,), (theirs,) = (each.sample(requests()[:1]) for each in (policy, again))
    assert torch.equal(ours.tensors["latents"], theirs.tensors["latents"])
    (start,) = policy.sample(requests()[:1], strength=0)
    assert not torch.equal(start.tensors["latents"], ours.tensors["latents"])


# ---------------------------------------------------------------------- resume


@pytest.mark.parametrize("family", ["sd3", "flux", "qwen_image", "sana", "z_image"])
def test_an_interrupted_run_ends_in_the_same_lora(tmp_path, family):
    folder = tiny_pipelines.write(tmp_path / family, family)

    def policy():
        return policy_on(folder, family, sampling={"batch_size": 2, "steps": 2}, loss=PipelineLoss(caption_dropout=0.5))

    life(tmp_path / "whole", policy())
    for calls in (1, 5, 7):
        with pytest.raises(Interrupted):
            life(tmp_path / "interrupted", policy(), calls)
    life(tmp_path / "interrupted", policy())
    for rnd in range(3):
        for name in ("weights.safetensors", "trainer.safetensors"):
            whole, interrupted = (checkpoint_folder(tmp_path / run, rnd) / name for run in ("whole", "interrupted"))
            assert whole.read_bytes() == interrupted.read_bytes(), (rnd, name)


# ---------------------------------------------------------------------- refused, in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sampling": PipelineSampling(width=30)}, "draws multiples of 4 only"),
        ({"sampling": PipelineSampling(true_cfg_scale=3.0)}, "true_cfg_scale: StableDiffusion3Pipeline takes none"),
        ({"sampling": PipelineSampling(arguments={"max_sequence_lenght": 3})}, "takes no 'max_sequence_lenght'"),
        ({"sampling": PipelineSampling(scheduler="DDIMScheduler")}, "does not know flows"),
        ({"sampling": PipelineSampling(scheduler="NoScheduler")}, "diffusers has no 'NoScheduler'"),
        ({"sampling": PipelineSampling(options={"prediction_type": "epsilon"})}, "belongs to the model"),
        ({"lora": None, "memory": PipelineMemory(quantization="nf4")}, "quantised weights cannot be trained"),
        ({"lora": TransformerLora(init="/nowhere")}, "lora.init: there is no LoRA"),
    ],
)
def test_what_a_model_cannot_do_is_refused_before_its_weights_load(sd3, arguments, words):
    assert words in "; ".join(TextToImage(str(sd3), **arguments).check())


def edited(folder, tmp_path, change):
    copy = shutil.copytree(folder, tmp_path / "copy")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(change(index)))
    return copy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transformer_2": ["diffusers", "SD3Transformer2DModel"]}, "two denoisers"),
        ({"_class_name": "StableDiffusionPipeline"}, "use the policy StableDiffusion"),
        ({"_class_name": "NoSuchPipeline"}, "has no NoSuchPipeline"),
        ({"text_encoder": ["my_code", "Encoder"]}, "code that comes with a model is not run"),
        ({"vae": [None, None]}, "no text-to-image model: it has no vae"),
    ],
)
def test_a_pipeline_that_cannot_be_served_is_refused(sd3, tmp_path, change, words):
    folder = edited(sd3, tmp_path, lambda index: {**index, **change})
    assert words in "; ".join(TextToImage(str(folder)).check())


def test_stable_diffusion_names_the_policy_for_other_pipelines(sd3):
    assert "use the policy TextToImage" in "; ".join(StableDiffusion(str(sd3)).check())


def test_targets_that_are_none_are_refused(sd3):
    policy = TextToImage(str(sd3), lora=TransformerLora(targets=["attn.to_qq"]), sampling=settings("sd3"))
    with pytest.raises(ModelError, match="no linear layer of the denoiser is called"):
        policy.load()


def test_a_network_whose_calls_cannot_be_made_again_is_refused(sd3, monkeypatch):
    """One that answers otherwise every time, as with dropout or a cache of its own."""
    from diffusers import SD3Transformer2DModel

    forward, calls = SD3Transformer2DModel.forward, []

    def moody(self, *args, **kwargs):
        calls.append(1)
        return (forward(self, *args, **kwargs)[0] + 0.1 * len(calls),)

    monkeypatch.setattr(SD3Transformer2DModel, "forward", moody)
    with pytest.raises(ModelError, match="cannot be trained here: the network's call of step 1, made again, differs"):
        TextToImage(str(sd3), sampling=settings("sd3")).load()


def test_guidance_of_an_unknown_kind_is_refused(sd3, monkeypatch):
    from diffusers import StableDiffusion3Pipeline

    monkeypatch.setattr(StableDiffusion3Pipeline, "guidance_scale", property(lambda _: 2.5))
    with pytest.raises(ModelError, match="combines 2 predictions in a way that is no guidance known here"):
        TextToImage(str(sd3), sampling=settings("sd3", guidance_scale=6.0)).load()


def test_a_lora_of_another_family_is_refused(sd3, tmp_path):
    other = tiny_pipelines.write(tmp_path / "flux", "flux")
    policy_on(other, "flux").save(tmp_path / "lora")
    with pytest.raises(ModelError, match=r"another model|cannot read"):
        policy_on(sd3, lora=TransformerLora(init=str(tmp_path / "lora")))
    with pytest.raises(ModelError):
        policy_on(sd3).load_weights(tmp_path / "lora")
