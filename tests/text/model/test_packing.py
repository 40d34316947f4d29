"""Packed samples: that none sees another is proved with the model that is there, or packing is refused."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, family

from raft_core.errors import ModelError
from raft_core.types import Prompt, Request
from raft_text import CausalLM, Critic, Lora, Memory, Sampling
from raft_text.model.packing import Packing, find_packing

TEXTS = ("a red cat sits on the mat", "what is it", "dog")
MASKED = {"opt", "falcon", "mpt", "xglm", "biogpt", "gptoss"}
REFUSED = {"bloom", "falcon-alibi"}
ALL = sorted(FAMILIES)


def policy(folder, *, packing, critic=None):
    made = CausalLM(
        str(folder),
        lora=Lora(rank=2),
        sampling=Sampling(max_new_tokens=32),
        memory=Memory(packing=packing),
        critic=critic,
    )
    made.load()
    return made


def written(made, first="one thing"):
    texts = (first, "and another", "three")
    return made.written([Request(Prompt(text), 0, n) for n, text in enumerate(TEXTS)], texts)


@pytest.mark.parametrize("name", [name for name in ALL if name not in REFUSED])
def test_a_packed_sample_is_as_likely_as_alone_whatever_lies_before_it(tmp_path, name):
    folder = family(tmp_path, name)
    packed, padded = (policy(folder, packing=packing) for packing in (True, False))
    assert packed.engine.packing is not None and packed.engine.packing.masked == (name in MASKED)
    with torch.no_grad():
        values, alone = packed.nll(written(packed), None), padded.nll(written(padded), None)
        other = packed.nll(written(packed, "yet something else"), None)
    assert torch.allclose(values, alone, rtol=1e-5)
    assert torch.allclose(values[1:], other[1:], rtol=1e-6) and (values[0] - other[0]).abs() > 1


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_model_that_lets_them_see_each_other_is_refused_in_words(tmp_path, name):
    folder = family(tmp_path, name)
    with pytest.raises(ModelError, match=r"memory.packing is on, but in \w+ .* packed samples see each other"):
        policy(folder, packing=True)
    assert policy(folder, packing=False).nll(written(policy(folder, packing=False)), None).isfinite().all()


@pytest.mark.parametrize("name", ["opt", "gptoss", "mixtral"])
def test_a_critics_own_trunk_is_packed_as_the_model_is(tmp_path, name):
    folder = family(tmp_path, name)
    values = []
    for packing in (True, False):
        made = policy(folder, packing=packing, critic=Critic(separate=True))
        head = made._value_head
        assert head is not None
        with torch.no_grad():
            head.weight.copy_(torch.linspace(-1, 1, len(head.weight)))
            values.append(made.step_log_probs_and_values(written(made))[1])
    assert torch.allclose(*values, rtol=1e-4, atol=1e-5) and values[0].abs().max() > 0.1


def test_a_trunk_that_sees_through_is_refused_though_the_model_does_not(tmp_path):
    made = policy(family(tmp_path, "mistral"), packing=False)
    network, device = made.engine.network, made.engine.device

    def sound(ids, packed):
        return network(input_ids=ids, use_cache=False, **packed).logits

    def leaking(ids, packed):
        return sound(ids, packed) + network.get_input_embeddings()(ids).mean()

    assert find_packing(network, [sound], torch.float32, device) == Packing()
    with pytest.raises(ModelError, match="packed samples see each other"):
        find_packing(network, [sound, leaking], torch.float32, device)


def test_the_gradient_through_a_mask_is_that_of_single_rows(tmp_path):
    folder = family(tmp_path, "opt")
    gradients = []
    for packing in (True, False):
        made = policy(folder, packing=packing)
        with torch.no_grad():
            for number, parameter in enumerate(made.trainable().values()):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        made.nll(written(made), None).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in made.trainable().values() if p.grad is not None]))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-4 * gradients[1].abs().max()) and gradients[0].abs().max() > 0


def test_rows_are_no_longer_than_a_model_takes(tmp_path):
    folder = family(tmp_path, "mpt")
    packed, padded = (policy(folder, packing=packing) for packing in (True, False))
    assert packed.engine.packing is not None and packed.engine.packing.longest == 128  # its biases end there
    many = [sample for _ in range(4) for sample in written(packed)]
    with torch.no_grad():
        assert torch.allclose(packed.nll(many, None), padded.nll(many, None), rtol=1e-5)
    assert list(Packing(longest=8).rows([5, 4, 3, 9])) == [[0], [1, 2], [3]]
    assert list(Packing().rows([5, 4])) == [[0, 1]] and list(Packing().rows([])) == []


def test_a_mask_by_hand():
    packing = Packing(masked=True, kinds=("full_attention", "sliding_attention"), window=2)
    arguments = packing.arguments([3, 1], torch.device("cpu"))
    assert arguments["position_ids"].tolist() == [[0, 1, 2, 0]]
    seen = {kind: (mask[0, 0] == 0).int().tolist() for kind, mask in arguments["attention_mask"].items()}
    assert seen["full_attention"] == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert seen["sliding_attention"] == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
