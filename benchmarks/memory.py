"""Peak memory of methods on one model, trained in full: RAFT, the policy gradient, PPO with a critic.

    python -m benchmarks.memory                       a Llama of 26 million random weights, on a CPU
    python -m benchmarks.memory --layers 12 --width 1024 --device cuda --json benchmarks/results/memory.json

Each method works in a process of its own: two rounds of sampling, scoring and training, the peak of the second by phase, less
what the process had before the model was loaded. The same samples, batch and tokens for all. What a method keeps beside the
policy is in the numbers: RAFT a copy of the start (on the CPU, for comparisons), PPO with its price of divergence reads that
copy, and a critic of its own is a second network with gradients and moments.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from benchmarks.text_models import random_llama

PHASES = ("sample", "train")


@dataclass(frozen=True)
class Method:
    """How a method is made of the loop's parts.

    Attributes:
        objective, selector: make one.
        critic: null, "shared" or "separate".
    """

    objective: Callable[[], Any]
    selector: Callable[[], Any]
    critic: str | None = None


def _raft() -> Any:
    from raft_core.objectives.sft import Sft

    return Sft()


def _gradient() -> Any:
    from raft_core.objectives.policy_gradient import PolicyGradient

    return PolicyGradient()


def _ppo() -> Any:
    from raft_core.objectives.kl_control import KlPenalty
    from raft_core.objectives.ppo import Ppo

    return Ppo(kl=KlPenalty(0.05))


def _best() -> Any:
    from raft_core.selectors.best_of_k import BestOfK

    return BestOfK()


def _every() -> Any:
    from raft_core.selectors.every_score import EveryScore

    return EveryScore()


def _advantages() -> Any:
    from raft_core.selectors.reinforce_rej import ReinforceRej

    return ReinforceRej()


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "RAFT": Method(_raft, _best),
        "policy gradient (Reinforce-Rej)": Method(_gradient, _advantages),
        "PPO, critic on the policy's trunk": Method(_ppo, _every, "shared"),
        "PPO, critic of its own": Method(_ppo, _every, "separate"),
    }
)


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--micro_batch_size", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)  # of the process of one method
    parser.add_argument("--method", choices=list(METHODS), help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.method:
        found = one(arguments)
        print(json.dumps(found))
        return found
    with tempfile.TemporaryDirectory() as folder:
        model = random_llama(Path(folder), layers=arguments.layers, width=arguments.width)
        methods = {name: _in_process(arguments, name, model) for name in METHODS}
    sizes = {name: getattr(arguments, name) for name in ("layers", "width", "tokens", "prompts", "k", "micro_batch_size")}
    found = {"work": sizes, "methods": methods}
    print(table(found))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return found


def _in_process(arguments: argparse.Namespace, name: str, model: Path) -> dict[str, Any]:
    own = {"model": model, "method": name, "device": arguments.device}
    own |= {key: getattr(arguments, key) for key in ("tokens", "prompts", "k", "micro_batch_size")}
    words = [word for key, value in own.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "benchmarks.memory", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def one(arguments: argparse.Namespace) -> dict[str, Any]:
    """Bytes by phase of one method, and of its weights alone."""
    import gc

    from raft_core.machine.peak_memory import peak_memory
    from raft_core.objectives.sft import Sft
    from raft_core.sampling import requests
    from raft_core.training.optim import Optimizer
    from raft_core.training.trainer import Trainer
    from raft_core.types import Prompt
    from raft_text import CausalLM, Critic, Sampling

    method = METHODS[arguments.method]
    Trainer(), Sft()
    with peak_memory() as before:
        import peft  # noqa: F401 - the libraries' own memory is none of the method's
        import transformers  # noqa: F401
    sampling = Sampling(min_new_tokens=arguments.tokens, max_new_tokens=arguments.tokens, batch_size=16)
    critic = None if method.critic is None else Critic(separate=method.critic == "separate")
    policy = CausalLM(str(arguments.model), lora=None, sampling=sampling, critic=critic, device=arguments.device)
    policy.load()
    objective = method.objective()
    batch = arguments.prompts
    trainer = Trainer(Optimizer(lr=1e-5), batch_size=batch, micro_batch_size=min(arguments.micro_batch_size, batch), steps=2)
    trainer.attach(policy, seed=0, rounds=2)
    prompts = [Prompt(f"a prompt of number {i}") for i in range(arguments.prompts)]
    peaks: dict[str, int] = {}
    for rnd in (1, 2):
        gc.collect()
        with peak_memory() as peak, policy.resident("sample"):
            samples = policy.sample(requests(prompts, arguments.k, 0, rnd), purpose="round", trace=objective.needs_trace)
        peaks["sample"] = peak.bytes
        samples = policy.render(samples)
        scores = torch.tensor([float(i % arguments.k) for i in range(len(samples))])
        selection = method.selector()(scores.numpy().reshape(-1, arguments.k))
        with peak_memory() as peak, policy.resident("train"):
            trainer.fit(policy, objective, samples, selection, rnd)
        peaks["train"] = peak.bytes
    weights = 4 * sum(parameter.numel() for parameter in policy.engine.network.parameters())
    base = 0 if peak.on_device else before.bytes
    return {"weights_bytes": weights, **{f"{phase}_bytes": size - base for phase, size in peaks.items()}}


def table(found: Mapping[str, Any]) -> str:
    first = next(iter(found["methods"].values()))
    lines = [
        f"weights of the policy: {first['weights_bytes'] / 2**20:.0f} MiB",
        f"{'':<36}" + "".join(f"{p:>12}" for p in PHASES),
    ]
    for name, row in found["methods"].items():
        sizes = [row[f"{phase}_bytes"] for phase in PHASES]
        ratio = max(sizes) / max(first[f"{phase}_bytes"] for phase in PHASES)
        lines.append(f"{name:<36}" + "".join(f"{size / 2**20:>8.0f} MiB" for size in sizes) + f"   {ratio:.2f} × RAFT")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
