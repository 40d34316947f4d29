"""A round of text in plain loops over transformers and peft: ``generate``, the reward, forward and backward, and nothing else.

Shared by the benchmarks as the denominator, as ``bare`` is for pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.text_models import Clock


@dataclass(frozen=True)
class TextWork:
    """How much a round does.

    Attributes:
        model: a transformers folder.
        prompts: texts with the template around them.
        k: completions of each.
        min_new_tokens: shortest completion; equal to ``max_new_tokens``, all have that length.
        max_new_tokens: longest completion.
        batch_size: completions that grow together.
        train_items: completions that are trained on.
        train_batch: of them in a step.
        epochs: passes over them.
        lr: learning rate.
        rank: of the adapters on every linear layer.
    """

    model: str
    prompts: tuple[str, ...]
    k: int
    min_new_tokens: int
    max_new_tokens: int
    batch_size: int
    train_items: int
    train_batch: int
    epochs: int
    lr: float
    rank: int

    @property
    def samples(self) -> int:
        return len(self.prompts) * self.k


@dataclass(frozen=True)
class Completion:
    """Token ids of a prompt and of what was drawn after it."""

    prompt: torch.Tensor
    tokens: torch.Tensor


def load(work: TextWork) -> tuple[Any, Any]:
    """(model with fresh adapters, tokenizer)."""
    from raft_core.machine.torchvision import ensure_importable

    ensure_importable()
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(work.model, padding_side="left")
    network: Any = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32)
    adapters = LoraConfig(r=work.rank, lora_alpha=2 * work.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(network, adapters).eval(), tokenizer


def bare_round(
    network: Any,
    tokenizer: Any,
    work: TextWork,
    reward: Callable[[list[str]], Sequence[float]],
    now: Callable[[], float],
) -> Clock:
    """One round; adapters are merged into the weights while it samples, as one who knows peft would do it.

    Args:
        reward: texts, prompt-major → their scores.
        now: tells the seconds.
    """
    clock = Clock(now)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=work.lr)
    with clock.phase("sample"):
        drawn = sample(network, tokenizer, work)
    with clock.phase("render"):
        texts = tokenizer.batch_decode([one.tokens for one in drawn], skip_special_tokens=True)
        scores = torch.tensor(reward(texts)).view(-1, work.k)
    with clock.phase("train"):
        best = scores.argmax(dim=1) + torch.arange(len(scores)) * work.k
        train(network, optimizer, [drawn[i] for i in best[: work.train_items].tolist()], work)
    return clock


@torch.no_grad()
def sample(network: Any, tokenizer: Any, work: TextWork) -> list[Completion]:
    """Completions, prompt-major, by transformers' own ``generate``."""
    found = []
    network.merge_adapter()
    at_once = max(1, work.batch_size // work.k)
    for start in range(0, len(work.prompts), at_once):
        part = tokenizer(list(work.prompts[start : start + at_once]), return_tensors="pt", padding=True)
        rows = network.generate(
            **part,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            num_return_sequences=work.k,
            min_new_tokens=work.min_new_tokens,
            max_new_tokens=work.max_new_tokens,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        )
        width = part["input_ids"].shape[1]
        masks = part["attention_mask"].bool().repeat_interleave(work.k, dim=0)
        for row, mask in zip(rows, masks, strict=True):
            found.append(Completion(row[:width][mask], up_to_end(row[width:], tokenizer.eos_token_id)))
    network.unmerge_adapter()
    return found


def up_to_end(tokens: torch.Tensor, end: int) -> torch.Tensor:
    """Without what was padded behind the end-of-text token."""
    ends = (tokens == end).nonzero()[:, 0]
    return tokens[: int(ends[0]) + 1] if len(ends) else tokens


def train(network: Any, optimizer: torch.optim.Optimizer, chosen: Sequence[Completion], work: TextWork) -> None:
    """``work.epochs`` shuffled passes of the masked likelihood, padded on the right."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    order = torch.cat([torch.randperm(len(chosen)) for _ in range(work.epochs)])
    for rows in order.split(work.train_batch):
        batch = [chosen[i] for i in rows.tolist()]
        ids = torch.nn.utils.rnn.pad_sequence([torch.cat([c.prompt, c.tokens]) for c in batch], batch_first=True)
        labels = torch.full_like(ids, -100)
        for label, c in zip(labels, batch, strict=True):
            label[len(c.prompt) : len(c.prompt) + len(c.tokens)] = c.tokens
        logits = network(input_ids=ids, use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum") / len(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
