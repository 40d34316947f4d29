"""A round of text: the toolkit's, and one in plain transformers and peft."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.phases import Phases, give_back
from raft_core.objectives.sft import Sft
from raft_core.sampling import requests
from raft_core.selectors.best_of_k import BestOfK
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt


@dataclass(frozen=True)
class TextWork:
    """How much a round does.

    Attributes:
        model: a transformers folder.
        dtype: of the frozen weights.
        prompts, k: completions are their product.
        tokens: of every completion.
        batch_size: completions that grow together.
        train_batch: completions in an optimiser step; a round is one pass over the best of each prompt.
    """

    model: Path
    dtype: str = "bfloat16"
    prompts: int = 16
    k: int = 8
    tokens: int = 128
    batch_size: int = 128
    train_batch: int = 8

    @property
    def texts(self) -> list[str]:
        return [f"Question {i}: what is {i} + {i}? Answer:" for i in range(10, 10 + self.prompts)]


def toolkit_round(work: TextWork, device: torch.device) -> dict[str, Any]:
    """The second round of a run, so that everything is warm."""
    from raft_text import CausalLM, Lora, Sampling

    sampling = Sampling(min_new_tokens=work.tokens, max_new_tokens=work.tokens, batch_size=work.batch_size)
    policy = CausalLM(str(work.model), Lora(rank=16), sampling=sampling, dtype=work.dtype, device=str(device))  # type: ignore[arg-type]
    policy.load()
    trainer = Trainer(Optimizer(lr=1e-4), batch_size=work.train_batch, epochs=1)
    trainer.attach(policy, seed=0, rounds=2)
    phases = Phases(device)
    for rnd in (1, 2):
        phases = Phases(device)
        with phases.phase("sample"), policy.resident("sample"):
            samples = policy.sample(requests([Prompt(text) for text in work.texts], work.k, 0, rnd), purpose="round")
        with phases.phase("decode"):
            samples = policy.render(samples)
        with phases.phase("score"):
            scores = np.array([len(set(sample.output)) for sample in samples], dtype=float)
        with phases.phase("train"), policy.resident("train"):
            trainer.fit(policy, Sft(), samples, BestOfK()(scores.reshape(-1, work.k)), rnd)
    return phases.plain()


def bare_round(work: TextWork, device: torch.device) -> dict[str, Any]:
    """The same by ``generate`` and cross-entropy, the second time."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(work.model, padding_side="left")
    network: Any = AutoModelForCausalLM.from_pretrained(work.model, dtype=getattr(torch, work.dtype)).to(device)
    adapters = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    network = get_peft_model(network, adapters).eval()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    phases = Phases(device)
    for _ in range(2):
        phases = _bare_turn(network, tokenizer, trained, optimizer, work, device)
    return phases.plain()


def _bare_turn(network: Any, tokenizer: Any, trained: list, optimizer: Any, work: TextWork, device: torch.device) -> Phases:
    phases, folds = Phases(device), work.dtype == "float32"
    half = torch.autocast(device.type, getattr(torch, work.dtype), enabled=not folds)
    end = tokenizer.eos_token_id
    tokenizer.pad_token = tokenizer.eos_token
    prompts = tokenizer([text for text in work.texts for _ in range(work.k)], return_tensors="pt", padding=True).to(device)
    width = prompts["input_ids"].shape[1]
    with phases.phase("sample"), torch.no_grad(), half:
        if folds:
            network.merge_adapter()
        length = {"min_new_tokens": work.tokens, "max_new_tokens": work.tokens}
        parts = [
            network.generate(input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, pad_token_id=end, **length)
            for ids, mask in zip(
                prompts["input_ids"].split(work.batch_size), prompts["attention_mask"].split(work.batch_size), strict=True
            )
        ]
        if folds:
            network.unmerge_adapter()
    rows = torch.cat(parts)
    with phases.phase("decode"):
        texts = tokenizer.batch_decode(rows[:, width:], skip_special_tokens=True)
    with phases.phase("score"):
        scores = torch.tensor([float(len(set(text))) for text in texts]).view(-1, work.k)
    with phases.phase("train"):
        best = (scores.argmax(dim=1) + torch.arange(len(scores)) * work.k).to(device)
        for part in best.split(work.train_batch):
            with half:
                logits = network(
                    input_ids=rows[part], attention_mask=_mask(prompts["attention_mask"][part], work), use_cache=False,
                    logits_to_keep=work.tokens + 1,
                ).logits[:, :-1]  # fmt: skip
            wanted = rows[part][:, width:]
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), reduction="sum") / len(
                part
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return phases


def _mask(prompts: torch.Tensor, work: TextWork) -> torch.Tensor:
    """[B, L] 1 where a row has a token: its prompt, padded on the left, and the whole completion."""
    return torch.cat([prompts, prompts.new_ones(len(prompts), work.tokens)], dim=1)


def both(work: TextWork, device: torch.device) -> dict[str, Any]:
    """The toolkit's round and the bare one, one after the other, each alone on the device."""
    found: dict[str, Any] = {}
    for name, made in (("toolkit", toolkit_round), ("bare", bare_round)):
        give_back()
        torch.manual_seed(0)
        found[name] = made(work, device)
    give_back()
    return found
