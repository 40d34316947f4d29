"""The causal language model as a policy, on tiny Llama, GPT-2 and Qwen2 folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from raft_core.errors import ConfigError, DataError, DeviceError, ModelError
from raft_core.protocols import Policy
from raft_core.sampling import requests
from raft_core.testing import close
from raft_core.types import Prompt, Request
from raft_text import CausalLM, Lora, Memory, Prompting, Rejection, Sampling

KINDS = ("llama", "gpt2", "qwen2")
PROMPTS = [Prompt("a red cat sits"), Prompt("dog"), Prompt("what is it?")]
#: Full rows and token by token differ by float32 rounding alone.


def asked(k=2, rnd=1, prompts=PROMPTS):
    return requests(prompts, k, 0, rnd)


def perturb(policy, size=0.3):
    """Make the adapters do something."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def base_nll(folder, policy, samples):
    """Summed cross-entropy of the completions by transformers alone, one by one."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for sample in samples:
        prompt = list(policy.encode(sample.prompt.text))
        ids = torch.tensor([prompt + sample.tensors["tokens"].tolist()])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        with torch.no_grad():
            found.append(model(ids, labels=labels).loss * len(sample.tensors["tokens"]))
    return torch.stack(found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_likelihood_is_that_of_the_transformers_model(fresh, tiny, kind):
    policy = fresh(kind)
    assert isinstance(policy, Policy)
    samples = policy.sample(asked(), trace=True)
    with torch.no_grad():
        nll, reference = policy.nll(samples, None), policy.nll(samples, None, reference=True)
        log_probs, mask = policy.step_log_probs(samples)
    assert torch.equal(nll, reference)  # fresh adapters add nothing, to the bit
    close(nll, base_nll(tiny(kind), policy, samples))
    close(nll, -log_probs.sum(dim=1))
    assert mask.sum(dim=1).tolist() == [len(sample.tensors["tokens"]) for sample in samples]
    stored = torch.nn.utils.rnn.pad_sequence([s.tensors["step_log_probs"] for s in samples], batch_first=True)
    close(log_probs, stored)


def test_the_reference_is_the_model_without_what_was_trained(load, tiny):
    for arguments in ({}, {"lora": None}):
        policy = load("gpt2", **arguments)
        samples = policy.sample(asked())
        perturb(policy)
        with torch.no_grad():
            trained, reference = policy.nll(samples, None), policy.nll(samples, None, reference=True)
        assert (trained - reference).abs().min() > 0.1
        close(reference, base_nll(tiny("gpt2"), policy, samples))
        drawn = policy.sample(asked(), strength=0.0)
        assert all(torch.equal(a.tensors["tokens"], b.tensors["tokens"]) for a, b in zip(samples, drawn, strict=True))
        assert all(not torch.equal(policy.trainable()[name], 0 * value) for name, value in policy.trainable().items())


@pytest.mark.parametrize("kind", KINDS)
def test_packed_rows_do_not_see_each_other(fresh, load, kind):
    samples = fresh(kind).sample(asked())
    packed = load(kind, memory=Memory(packing=True))
    with torch.no_grad():
        close(packed.nll(samples, None), fresh(kind).nll(samples, None))


def test_a_large_vocabulary_is_read_in_small_parts_where_no_gradient_is_wanted(fresh, monkeypatch):
    policy, seen = fresh("llama"), []
    samples = policy.sample(asked(4))
    with torch.no_grad():
        whole = policy.nll(samples, None)
        longest = max(len(policy.encode(s.prompt.text)) + len(s.tensors["tokens"]) for s in samples)
        monkeypatch.setattr("raft_text.model.likelihood.MOST_PREDICTIONS", 2 * longest * policy.engine.vocabulary)
        count = lambda _, __, kwargs: seen.append(len(kwargs["input_ids"]))  # noqa: E731
        handle = policy.engine.network.register_forward_pre_hook(count, with_kwargs=True)
        parts = policy.nll(samples, None)
        handle.remove()
    close(whole, parts)
    assert sum(seen) == len(samples) and max(seen) == 2


def test_checkpointed_gradients_are_the_same(load):
    gradients = []
    for checkpointing in (False, True):
        policy = load("gpt2", memory=Memory(gradient_checkpointing=checkpointing))
        perturb(policy)
        samples = policy.sample(asked())  # with the cache, which checkpointing would switch off
        policy.nll(samples, None).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.trainable().values()]))
    close(*gradients)
    assert gradients[0].abs().max() > 0


def test_drawing_folds_the_adapters_in_and_takes_them_out_to_the_bit(load):
    policy = load("gpt2")
    perturb(policy, 0.1)
    before = {name: value.clone() for name, value in policy.engine.network.state_dict().items()}
    folded, traced = policy.sample(asked()), policy.sample(asked(), trace=True)
    assert all(torch.equal(a.tensors["tokens"], b.tensors["tokens"]) for a, b in zip(folded, traced, strict=True))
    assert all(torch.equal(before[name], value) for name, value in policy.engine.network.state_dict().items())


def test_a_step_makes_what_it_was_trained_on_likelier(load):
    policy = load("qwen2", lora=None)
    samples = policy.sample(asked())
    optimizer = torch.optim.SGD(policy.trainable().values(), lr=1e-3)
    before = policy.nll(samples, None).sum()
    before.backward()
    optimizer.step()
    assert policy.nll(samples, None).sum() < before


# ---------------------------------------------------------------------- prompts and outputs


def test_a_chat_prompt_is_what_the_template_makes_of_it(load):
    policy = load("llama", chat=True, prompting=Prompting(chat=True, system="Be brief.", template="Q: {prompt}"))
    ids = list(policy.encode("why?"))
    assert policy.encode.tokenizer.decode(ids) == "<|system|>Be brief.\n<|user|>Q: why?\n<|assistant|>"


def test_a_plain_prompt_begins_as_the_tokenizer_begins_texts(fresh):
    ids = list(fresh("llama").encode("why?"))
    assert fresh("llama").encode.tokenizer.convert_ids_to_tokens(ids) == ["<s>", "w", "h", "y", "?"]


def test_of_a_long_prompt_the_end_is_seen_and_one_that_leaves_no_room_is_refused(load):
    policy = load("llama", prompting=Prompting(max_tokens=4))
    assert policy.visible("abcdefgh") == "efgh" and policy.visible("abc") == "abc"
    assert len(policy.encode("abcdefgh")) == 5  # and the beginning of the text
    with pytest.raises(DataError, match=r"121 tokens, which with max_new_tokens 8 exceeds the model's context of 128: 'xxx"):
        load("llama").visible("x" * 120)


def test_outputs_end_before_the_end_token_and_before_a_stop_text(load):
    policy = load("llama", sampling={"stop": ["!"]})
    end = policy.encode.tokenizer.eos_token_id
    request = Request(PROMPTS[0], 0, 0)
    written = policy.written([request], ["well done"])[0]
    assert written.tensors["tokens"][-1] == end
    assert policy.render([written])[0].output == "well done"
    tokens = policy.encode.tokenizer("ab!")["input_ids"][1:]
    from raft_core.types import Sample

    stopped = Sample(request, tensors={"tokens": torch.tensor(tokens)}, meta={"finish": "stop"})
    assert policy.render([stopped])[0].output == "ab"


def test_texts_of_the_same_words_are_alike(fresh):
    policy = fresh("llama")
    samples = [policy.written([Request(PROMPTS[0], 0, 0)], [text])[0] for text in ("A b c", "a b c", "c b a", "x y z", "")]
    features = policy.embed(samples)
    similarity = features @ features.T
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert similarity[0, 1] == pytest.approx(1)
    assert 0.2 < similarity[0, 2] < 0.99
    assert abs(similarity[0, 3]) < 0.2


# ---------------------------------------------------------------------- saving


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers by an old name
def test_adapters_are_what_peft_loads(load, tiny, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    policy = load("gpt2", prompting=Prompting(template="Q: {prompt}"))
    perturb(policy)
    samples = policy.sample(asked())
    names = {path.name for path in policy.save(tmp_path)}
    assert names == {"adapter_model.safetensors", "adapter_config.json", "raft.json"}
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny("gpt2")), tmp_path).eval()
    ids = torch.tensor([policy.encode("why?")])
    with torch.no_grad():
        close(theirs(ids).logits, policy.engine.network(ids).logits)
    arguments = CausalLM.arguments_for(tmp_path)
    assert "model" not in arguments  # it lay on this machine, which is nobody's business
    again = built(arguments | {"model": policy.model})
    assert again.sampling.max_new_tokens == 8
    again.load_weights(tmp_path)
    with torch.no_grad():
        assert torch.equal(policy.nll(samples, None), again.nll(samples, None))


def built(arguments):
    sections = {"lora": Lora, "prompting": Prompting, "sampling": Sampling}
    made = {name: sections[name](**value) if name in sections and value else value for name, value in arguments.items()}
    policy = CausalLM(**made)
    policy.load()
    return policy


def test_an_adapter_of_another_program_names_its_model(load, tmp_path):
    policy = load("qwen2", lora=Lora(rank=3, alpha=6, targets=["q_proj", "v_proj"]))
    policy.save(tmp_path)
    (tmp_path / "raft.json").unlink()
    arguments = CausalLM.arguments_for(tmp_path)
    assert arguments == {"model": Path(policy.model).name, "lora": {"rank": 3, "alpha": 6.0, "targets": ["q_proj", "v_proj"]}}


def test_the_whole_model_is_a_transformers_folder(load, tmp_path):
    policy = load("qwen2", lora=None)  # tied embeddings
    perturb(policy)
    policy.save(tmp_path)
    assert CausalLM.arguments_for(tmp_path)["lora"] is None
    samples = policy.sample(asked())
    close(base_nll(tmp_path, policy, samples), policy.nll(samples, None).detach())
    other = load("qwen2", lora=None)
    other.load_weights(tmp_path)
    with torch.no_grad():
        assert torch.equal(policy.nll(samples, None), other.nll(samples, None))


def test_weights_of_something_else_are_refused(load, tmp_path):
    load("qwen2", lora=Lora(rank=2, targets=["q_proj"])).save(tmp_path / "q")
    with pytest.raises(ModelError, match=r"lacks .* it is for another model or other settings of lora"):
        load("qwen2").load_weights(tmp_path / "q")
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "adapter_model.bin").write_bytes(b"")
    for path in (tmp_path / "pickle", tmp_path / "pickle" / "adapter_model.bin"):
        with pytest.raises(ModelError, match="pickle"):
            CausalLM.arguments_for(path)
    with pytest.raises(ModelError, match="holds no weights"):
        CausalLM.arguments_for(tmp_path)


# ---------------------------------------------------------------------- bad input, before a weight is loaded


def edited(folder, tmp_path, name="config.json", **changes):
    """A copy of a model's folder with a JSON file changed; None removes an entry."""
    copy = tmp_path / "copy"
    if folder != copy:
        shutil.copytree(folder, copy)
    content = json.loads((copy / name).read_text()) | changes
    (copy / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return copy


def without_weights(folder):
    for path in folder.glob("*.safetensors"):
        path.write_bytes(b"never read")
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "holds a BertForMaskedLM, which is not causal"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "reads with an encoder"),
        ({"architectures": ["BertLMHeadModel"]}, "is no decoder"),
        ({"max_position_embeddings": 8}, "max_new_tokens is 128, but the model's context is 8"),
    ],
)
def test_a_model_that_cannot_be_used_is_told_by_its_configuration(tiny, tmp_path, changes, message):
    folder = without_weights(edited(tiny("llama"), tmp_path, **changes))
    (mistake,) = CausalLM(str(folder)).check()
    assert message in mistake
    with pytest.raises((ModelError, ConfigError), match=message):
        CausalLM(str(folder)).load()


def test_a_tokenizer_without_an_end_token_is_told(tiny, tmp_path):
    folder = edited(tiny("llama"), tmp_path, "tokenizer_config.json", eos_token=None)
    for name in ("config.json", "generation_config.json"):
        edited(folder, tmp_path, name, eos_token_id=None)
    (mistake,) = CausalLM(str(folder), sampling=Sampling(max_new_tokens=8)).check()
    assert "has no end-of-text token" in mistake


def test_no_padding_token_is_needed(tiny, load, tmp_path):
    assert load("llama").encode.tokenizer.pad_token is None  # as Llama's and GPT-2's have none
    padded = CausalLM(
        str(edited(tiny("llama"), tmp_path, "tokenizer_config.json", pad_token="</s>")),
        lora=Lora(rank=2),
        sampling=Sampling(max_new_tokens=8, batch_size=4),
    )
    padded.load()
    pairs = zip(padded.sample(asked()), load("llama").sample(asked()), strict=True)
    assert all(torch.equal(a.tensors["tokens"], b.tensors["tokens"]) for a, b in pairs)


def test_a_chat_template_that_is_not_there_is_told(tiny):
    policy = CausalLM(str(tiny("llama")), prompting=Prompting(chat=True), sampling=Sampling(max_new_tokens=8))
    (mistake,) = policy.check()
    assert "has no chat template" in mistake
    with pytest.raises(ModelError, match="no chat template"):
        policy.load()


def test_pickled_weights_and_missing_parts_are_told(tiny, tmp_path):
    folder = edited(tiny("llama"), tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    found = "\n".join(CausalLM(str(folder), sampling=Sampling(max_new_tokens=8)).check())
    assert "pickled weights (pytorch_model.bin)" in found and "no tokenizer" in found


def test_weights_that_lack_a_tensor_are_not_filled_with_random_ones(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = edited(tiny("llama"), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 'model.layers.1.mlp.up_proj.weight' \(1 such tensors\)"):
        CausalLM(str(folder), sampling=Sampling(max_new_tokens=8)).load()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("bundled:nothing", "no bundled language model is called 'nothing'"),
        ("./nowhere", "does not exist"),
        ("model.bin", "is a pickle"),
    ],
)
def test_models_that_are_not_there(model, message):
    assert message in CausalLM(model).check()[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what a machine without a GPU cannot do")
def test_what_needs_a_gpu_is_refused_without_one(tiny):
    policy = CausalLM(
        str(tiny("llama")),
        lora=None,
        sampling=Sampling(max_new_tokens=8, engine="vllm"),
        rejection=Rejection(patterns=["x"]),
        memory=Memory(quantize="4bit", attention="flash_attention_2"),
        dtype="float16",
    )
    found = "\n".join(policy.check())
    for message in (
        "sampling.engine is vllm, which works on CUDA alone",
        "memory.quantize is 4bit, which works on CUDA alone",
        "quantised weights cannot be trained in full",
        "memory.attention is flash_attention_2, which works on CUDA alone",
        "dtype is float16, which is for GPUs",
        "rejection needs the engine transformers",
    ):
        assert message in found
    with pytest.raises(DeviceError, match="vllm"):
        policy.load()


def test_settings_that_make_no_sense_are_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        Sampling(temperature=-1, top_p=0, top_k=0, min_new_tokens=200, stop=[""])
    assert len(caught.value.mistakes) == 5
    with pytest.raises(ConfigError, match="has to stand in it"):
        Prompting(template="no place")
    with pytest.raises(ConfigError, match="neither patterns nor a bound"):
        Rejection()
    with pytest.raises(ConfigError, match="no regular expression"):
        Rejection(patterns=["("])


def test_a_layer_that_is_not_there_is_told_with_the_nearest(load):
    with pytest.raises(ModelError, match=r"no layer of the model is called 'q_porj' \(did you mean 'q_proj'\?\)"):
        load("llama", lora=Lora(targets=["q_porj"]))


def test_a_policy_that_is_not_loaded_says_so(tiny):
    with pytest.raises(ModelError, match="call load"):
        CausalLM(str(tiny("llama"))).sample(asked())
