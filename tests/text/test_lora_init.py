"""Going on from an adapter that exists: of peft, of a run, of the Hub; held to it or to its base; of another base refused."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
import yaml

from raft_cli import main
from raft_core.errors import ConfigError, ModelError
from raft_core.machine.torchvision import ensure_importable
from raft_core.sampling import requests
from raft_core.testing import close
from raft_core.types import Prompt
from raft_text import CausalLM, Lora, Sampling
from raft_text.model.loading import load_model

ensure_importable()

PROMPTS = [Prompt("abc"), Prompt("a longer one")]
SAMPLING = Sampling(max_new_tokens=8, batch_size=4)


@pytest.fixture(scope="module")
def foreign(tiny, tmp_path_factory):
    """A function that writes an adapter by peft itself, with values that matter; returns its folder."""
    from peft import LoraConfig, get_peft_model

    def written(**settings):
        folder = tmp_path_factory.mktemp("peft")
        network = load_model(str(tiny()), torch.float32)
        settings = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"]} | settings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
            made = get_peft_model(network, LoraConfig(**settings))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        made.save_pretrained(folder)
        return folder

    return written


def by_peft(tiny, folder):
    """The base with an adapter, as peft loads it."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        return PeftModel.from_pretrained(load_model(str(tiny()), torch.float32), folder).eval()


def policy_on(tiny, lora, **settings):
    policy = CausalLM(str(tiny()), lora=lora, sampling=SAMPLING, **settings)
    assert policy.check() == []
    policy.load()
    return policy


def likelihoods(network, policy, samples):
    """[N] sums of log-probs of the samples' tokens by transformers' own forward."""
    sums = []
    for sample in samples:
        prompt, tokens = policy.encode(sample.prompt), sample.tensors["tokens"].tolist()
        with torch.no_grad():
            log_probs = network(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        sums.append(log_probs.gather(1, torch.tensor(tokens)[:, None]).sum())
    return torch.stack(sums)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}])
def test_it_begins_as_peft_has_it_and_is_held_to_that(tiny, foreign, settings):
    folder = foreign(**settings)
    policy = policy_on(tiny, Lora(init=str(folder)))
    samples = policy.sample(requests(PROMPTS, 2, 0, 1))
    theirs = by_peft(tiny, folder)
    with torch.no_grad():
        own, reference = policy.nll(samples, None), policy.nll(samples, None, reference=True)
    close(-own, likelihoods(theirs, policy, samples))
    close(own, reference)
    assert policy.engine.lora.rank == 3 and set(policy.engine.lora.targets) == {"q_proj", "v_proj"}
    base = policy_on(tiny, Lora(init=str(folder), before="base"))
    with torch.no_grad():
        before = base.nll(samples, None, reference=True)
    close(-before, likelihoods(load_model(str(tiny()), torch.float32), policy, samples))
    assert (before - own).abs().max() > 0.1


def test_a_run_goes_on_from_a_run_and_exports_a_plain_adapter(tiny, foreign, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    raw = {
        "policy": {
            "class_path": "CausalLM",
            "init_args": {"model": str(tiny()), "lora": {"init": str(foreign())}, "sampling": {"max_new_tokens": 6}},
        },
        "prompts": {"train": "prompts.txt"},
        "reward": "Length",
        "trainer": {"steps": 2, "batch_size": 2, "optimizer": {"lr": 1e-2}},
        "rounds": 1,
        "k": 4,
        "evaluation": {"k": 1, "prompts": 1},
        "trackers": [],
        "output": "first",
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    assert main(["align", "c.yaml"]) == 0
    assert main(["align", "c.yaml", "--policy.lora.init", "first", "--output", "second", "--trainer.steps", "1"]) == 0
    first, second = (json.loads((tmp_path / run / "metrics.jsonl").read_text().splitlines()[0]) for run in ("first", "second"))
    assert first["kl"] == second["kl"] == 0  # each is compared with what it goes on from
    going_on = policy_on(tiny, Lora(init=str(tmp_path / "first")))
    samples = going_on.sample(requests(PROMPTS, 2, 0, 1))
    exported = by_peft(tiny, tmp_path / "first" / "export")
    with torch.no_grad():
        close(-going_on.nll(samples, None), likelihoods(exported, going_on, samples))
    note = json.loads((tmp_path / "second" / "export" / "raft.json").read_text())
    assert note["lora"]["rank"] == 3 and note["lora"]["init"] is None
    assert main(["generate", "second/export", "--prompt", "a", "--policy.model", str(tiny())]) == 0
    merged = tmp_path / "merged"
    assert main(["export", "second", "--merge", str(merged)]) == 0
    plain = load_model(str(merged), torch.float32)
    whole = by_peft(tiny, tmp_path / "second" / "export")
    close(likelihoods(plain, going_on, samples), likelihoods(whole, going_on, samples))


def test_of_the_hub_two_files_are_fetched(tiny, foreign, monkeypatch):
    import huggingface_hub

    folder, asked = foreign(), []
    lora = Lora(init="somebody/adapter")
    policy = CausalLM(str(tiny()), lora=lora, sampling=SAMPLING)
    assert policy.check() == []

    def fetch(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    policy.load()
    assert set(asked[0][1]) == {"adapter_config.json", "adapter_model.safetensors"} and asked[0][0] == "somebody/adapter"
    assert policy.engine.lora.rank == 3 and policy.describe()["goes_on_from"] == "somebody/adapter"

    def refuse(*_, **__):
        raise OSError("no such repository")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError, match=r"somebody/adapter could not be fetched: no such repository; without a network"):
        CausalLM(str(tiny()), lora=lora, sampling=SAMPLING).load()


def edited(folder, target, **changes):
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps(config | changes))
    return target


def test_what_cannot_be_taken_up_is_told_before_weights_load(tiny, foreign, tmp_path, monkeypatch):
    from raft_text.model import loading
    from raft_text.testing import tiny_model

    monkeypatch.setattr(loading, "load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    folder = foreign()
    wide = tiny_model(tmp_path / "wide", width=64)
    told = CausalLM(str(wide), lora=Lora(init=str(folder)), sampling=SAMPLING).check()
    assert "was made for another model than" in told[0] and "has shape" in told[0]
    gpt2 = CausalLM(str(tiny("gpt2")), lora=Lora(init=str(folder)), sampling=SAMPLING).check()
    assert "was made for another model than" in gpt2[0] and "no layer of the model is called 'q_proj'" in gpt2[0]
    for changes, message in (
        ({"use_dora": True}, "sets use_dora, which is more than a plain LoRA"),
        ({"peft_type": "LOHA"}, "is of the type LOHA"),
        ({"bias": "all"}, "trains biases"),
        ({"r": "3"}, "cannot be read"),
    ):
        bad = edited(folder, tmp_path / message[:8].replace(" ", ""), **changes)
        (mistake,) = CausalLM(str(tiny()), lora=Lora(init=str(bad)), sampling=SAMPLING).check()
        assert mistake.startswith("lora.init: ") and message in mistake
    pickled = edited(folder, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    (mistake,) = CausalLM(str(tiny()), lora=Lora(init=str(pickled)), sampling=SAMPLING).check()
    assert "holds a pickle (adapter_model.bin)" in mistake
    (mistake,) = CausalLM(str(tiny()), lora=Lora(init=str(tmp_path)), sampling=SAMPLING).check()
    assert "holds no adapter" in mistake


def test_settings_that_contradict_the_file_are_refused():
    with pytest.raises(ConfigError) as told:
        Lora(init="a/b", rank=4, targets=["q_proj"])
    assert len(told.value.mistakes) == 2 and "lora.init brings its own" in str(told.value)
    with pytest.raises(ConfigError, match=r"lora.before is 'base', but without lora.init"):
        Lora(before="base")
