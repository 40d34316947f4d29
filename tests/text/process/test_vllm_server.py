"""A vLLM server as the engine: a small one that speaks its API draws with a model of its own, given the same adapters."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from raft_core.errors import ConfigError, DeviceError
from raft_core.objectives.sft import Sft
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt
from raft_text import CausalLM, Lora, Sampling, VllmServer
from raft_text.process.sampler import Task, draw

SETTINGS = {"max_new_tokens": 6, "batch_size": 4, "temperature": 0.9, "top_k": 40}
LORA = Lora(rank=2)
PROMPTS = [Prompt("say one"), Prompt("say two")]


class Served:
    """What ``vllm serve`` does with the requests that it gets, on a CPU: one model, and adapters that come and go."""

    def __init__(self, model: Path):
        self.model = model
        self.adapters: dict[str, CausalLM] = {}
        self.asked: list[tuple[str, dict]] = []
        self.log_prob: float | None = -1.0
        self.refuses_adapters = False
        self.base = self._policy(None)
        self._one_by_one = threading.Lock()

    def _policy(self, weights: str | None) -> CausalLM:
        policy = CausalLM(str(self.model), lora=LORA, sampling=Sampling(**SETTINGS), device="cpu")
        policy.load()
        if weights is not None:
            policy.load_weights(Path(weights))
        return policy

    def answer(self, path: str, content: dict) -> tuple[int, str, str]:
        with self._one_by_one:
            self.asked.append((path, content))
            if path == "/v1/models":
                loaded = [{"id": name, "parent": "base"} for name in self.adapters]
                return 200, "application/json", json.dumps({"data": [*loaded, {"id": "base", "parent": None}]})
            if path == "/v1/load_lora_adapter":
                if self.refuses_adapters:
                    return 404, "application/json", json.dumps({"detail": "Not Found"})
                self.adapters[content["lora_name"]] = self._policy(content["lora_path"])
                return 200, "text/plain", "Success: LoRA adapter added successfully."
            if path == "/v1/unload_lora_adapter":
                del self.adapters[content["lora_name"]]
                return 200, "text/plain", "Success: LoRA adapter removed successfully."
            return 200, "application/json", json.dumps(self._completion(content))

    def _completion(self, content: dict) -> dict:
        policy = self.base if content["model"] == "base" else self.adapters[content["model"]]
        keys = ("temperature", "top_p", "repetition_penalty")
        top_k = None if content["top_k"] == -1 else content["top_k"]
        sampling = Sampling(max_new_tokens=content["max_tokens"], top_k=top_k, **{k: content[k] for k in keys})
        task = Task(
            [content["prompt"]], [""], [content["seed"]], sampling, content["stop_token_ids"], decode=policy.encode.text
        )
        with torch.no_grad():
            (drawn,) = draw(policy.engine.network, task, policy.engine.device)
        assert content["return_token_ids"] and content["include_stop_str_in_output"]
        log_probs = {"token_logprobs": [self.log_prob] * len(drawn.tokens)}
        reason = "length" if drawn.finish == "length" else "stop"
        stop = None if reason == "length" else int(drawn.tokens[-1])
        choice = {"token_ids": drawn.tokens.tolist(), "finish_reason": reason, "stop_reason": stop, "logprobs": log_probs}
        return {"choices": [choice]}


@pytest.fixture
def served(tiny):
    """(a server that is up, its address)."""
    served = Served(tiny("llama"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._reply({})

        def do_POST(self):
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, content):
            status, kind, text = served.answer(self.path, content)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield served, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def loaded(model: Path, engine) -> CausalLM:
    policy = CausalLM(str(model), lora=LORA, sampling=Sampling(**SETTINGS, engine=engine), device="cpu")
    policy.load()
    return policy


def tokens(samples):
    return [sample.tensors["tokens"].tolist() for sample in samples]


def test_rounds_with_a_server_are_those_without(served, tiny):
    """The same tokens before any training, after it with the new adapters, and from the frozen start."""
    state, url = served
    remote, local = loaded(tiny("llama"), VllmServer(url)), loaded(tiny("llama"), "transformers")
    trainers = []
    for policy in (remote, local):
        trainers.append(Trainer(Optimizer(lr=0.05), batch_size=2, steps=2))
        trainers[-1].attach(policy, seed=0, rounds=2)
    drawn = []
    for rnd in (1, 2, 3):
        both = [policy.sample(requests(PROMPTS, 2, 0, rnd)) for policy in (remote, local)]
        assert tokens(both[0]) == tokens(both[1])
        assert [s.meta["finish"] for s in both[0]] == [s.meta["finish"] for s in both[1]]
        drawn.append(tokens(both[0]))
        for policy, trainer, samples in zip((remote, local), trainers, both, strict=True):
            selection = BestOfK()(torch.arange(4.0).reshape(2, 2).numpy())
            trainer.fit(policy, Sft(), samples, selection, rnd)
    start = [tokens(policy.sample(requests(PROMPTS, 2, 0, 3), strength=0)) for policy in (remote, local)]
    assert start[0] == start[1] != drawn[2]  # training has done something, and the server was told of it
    assert len(state.adapters) == 2  # those that are not drawn from any more are let go
    loads = [content["lora_name"] for path, content in state.asked if path == "/v1/load_lora_adapter"]
    assert len(loads) == len(set(loads)) == 3


def test_traced_samples_have_the_policys_own_log_probs(served, tiny):
    _, url = served
    policy = loaded(tiny("llama"), VllmServer(url))
    policy.sampling = Sampling(max_new_tokens=6, engine=VllmServer(url))
    samples = policy.sample(requests(PROMPTS, 1, 0, 1), trace=True)
    log_probs, mask = policy.step_log_probs(samples)
    for sample, row, there in zip(samples, log_probs, mask, strict=True):
        torch.testing.assert_close(sample.tensors["step_log_probs"], row[there].detach())


@pytest.mark.parametrize("log_prob", [None, -9999.0])
def test_completions_without_finite_probabilities_have_failed(served, tiny, log_prob):
    state, url = served
    state.log_prob = log_prob
    samples = loaded(tiny("llama"), VllmServer(url)).sample(requests(PROMPTS, 1, 0, 1))
    assert all("not finite" in sample.meta["failed"] for sample in samples)


def test_a_folder_that_the_server_sees_keeps_the_adapters(served, tiny, tmp_path):
    state, url = served
    policy = loaded(tiny("llama"), VllmServer(f"{url}/v1/", folder=str(tmp_path / "shared")))
    policy.sample(requests(PROMPTS, 1, 0, 1))
    (where,) = [Path(content["lora_path"]) for path, content in state.asked if path == "/v1/load_lora_adapter"]
    assert where.parent == tmp_path / "shared" and (where / "adapter_model.safetensors").exists()


def test_a_server_that_takes_no_adapters_is_told_in_words(served, tiny):
    state, url = served
    state.refuses_adapters = True
    with pytest.raises(DeviceError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"):
        loaded(tiny("llama"), VllmServer(url)).sample(requests(PROMPTS, 1, 0, 1))


def test_no_server_is_told_before_a_weight_is_loaded(tiny, monkeypatch):
    monkeypatch.setattr("raft_text.model.engine.Engine.load", None)  # must not be reached
    monkeypatch.setattr("raft_core.rewards.service.http.LONGEST_WAIT_S", 0.0)
    with pytest.raises(DeviceError, match="cannot be reached"):
        loaded(tiny("llama"), VllmServer("http://127.0.0.1:9"))


def test_an_address_and_a_full_model_are_refused(tiny):
    with pytest.raises(ConfigError, match="must begin with http"):
        Sampling(engine={"vllm": "localhost:8000"})
    policy = CausalLM(str(tiny("llama")), lora=None, sampling=Sampling(engine=VllmServer("http://localhost:8000")))
    assert any("takes new weights as a LoRA only" in mistake for mistake in policy.check())


def test_the_setting_is_read_from_a_configuration(tmp_path, tiny):
    from raft_core.config.run_config import check, overridden, parse_overrides

    (tmp_path / "p.txt").write_text("say one\nsay two\n")
    arguments = {
        "model": str(tiny("llama")),
        "sampling": {"engine": {"vllm": "http://127.0.0.1:8000"}, "max_new_tokens": 8},
        "device": "cpu",
    }
    raw = {
        "policy": {"class_path": "CausalLM", "init_args": arguments},
        "reward": "Length",
        "prompts": {"train": str(tmp_path / "p.txt")},
    }
    checked = check(raw, name="x", base=tmp_path)
    assert checked.config.policy.sampling.engine == VllmServer("http://127.0.0.1:8000")
    assert checked.plain["policy"]["init_args"]["sampling"]["engine"]["vllm"] == "http://127.0.0.1:8000"
    words = ["--policy.sampling.engine", "{vllm: 'http://other:1', folder: /shared}"]
    other = check(overridden(raw, parse_overrides(words)), name="x", base=tmp_path)
    assert other.config.policy.sampling.engine == VllmServer("http://other:1", folder="/shared")
