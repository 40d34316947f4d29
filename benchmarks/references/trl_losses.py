"""Losses of TRL on fixed log-probs, recorded: DPO and its kin, GRPO and its kin, KTO, ORPO.

    python -m benchmarks.references.trl_losses     # in an environment with trl; writes benchmarks/references/trl.json

What is called is TRL's own code for the loss, the methods named in the record, with a stand-in for the network that returns
given log-probs. So the record is of TRL's arithmetic and of nothing else.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections import defaultdict
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from raft_core.machine.torchvision import ensure_importable

RECORD = Path(__file__).with_name("trl.json")
PROMPT = 2  # tokens before a completion
LENGTHS = (3, 5, 1, 4)
Rows = list[list[float]]


def log_probs(seed: int, lengths: tuple[int, ...] = LENGTHS) -> Rows:
    """Log-probs of tokens in nats, one row per completion."""
    generator = torch.Generator().manual_seed(seed)
    return [(-3 * torch.rand(n, generator=generator, dtype=torch.float64)).tolist() for n in lengths]


def near(rows: Rows, seed: int, width: float = 0.4) -> Rows:
    """The same log-probs after a few updates."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.tensor(row, dtype=torch.float64) + width * torch.randn(len(row), generator=generator)).tolist() for row in rows
    ]


def padded(rows: Rows) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.float64) for row in rows], batch_first=True)


def mask_of(rows: Rows) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[i < len(row) for i in range(longest)] for row in rows]).long()


class Accelerator:
    """What TRL asks of accelerate in one process."""

    device = torch.device("cpu")
    num_processes = 1
    sync_gradients = True

    @staticmethod
    def gather(value: torch.Tensor) -> torch.Tensor:
        return value

    gather_for_metrics = gather

    @staticmethod
    def reduce(value: torch.Tensor, reduction: str = "sum") -> torch.Tensor:  # noqa: ARG004 - TRL's signature
        return value


def stand_in(rows: Rows) -> Any:
    """A network whose completions have these log-probs, as TRL's fused head gives them."""
    table = torch.cat([torch.zeros(len(rows), PROMPT - 1), padded(rows)], dim=1)

    def network(**_: Any) -> Any:
        none = torch.zeros_like(table)
        return SimpleNamespace(
            log_probs=table, entropy=none, mean_logits=none, is_top1=none.bool(), log_sum_sq_probs=none, aux_loss=None
        )

    network.training = True  # type: ignore[attr-defined]
    return network


def dpo(policy: Rows, reference: Rows, **settings: Any) -> float:
    """``DPOTrainer._compute_loss`` of rows chosen + rejected."""
    from trl import DPOTrainer

    mask = mask_of(policy)
    whole = torch.cat([torch.zeros(len(policy), PROMPT, dtype=torch.long), mask], dim=1)
    trainer = SimpleNamespace(
        model=stand_in(policy),
        ref_model=stand_in(reference),
        accelerator=Accelerator(),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        loss_types=[settings["loss"]],
        loss_weights=[1.0],
        beta=settings["beta"],
        label_smoothing=settings.get("label_smoothing", 0.0),
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {"input_ids": torch.ones_like(whole), "attention_mask": torch.ones_like(whole), "completion_mask": whole}
    with (
        patch("trl.trainer.dpo_trainer.disable_gradient_checkpointing", lambda *_: nullcontext()),
        patch("trl.trainer.dpo_trainer.is_peft_model", lambda _: False),
    ):
        return float(DPOTrainer._compute_loss(trainer, trainer.model, inputs, False))


def grpo(policy: Rows, old: Rows, reference: Rows, advantages: list[float], **settings: Any) -> float:
    """``GRPOTrainer._compute_loss``."""
    from trl import GRPOTrainer

    mask = mask_of(policy)
    table = padded(policy)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=Accelerator(),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=settings.get("level", "token"),
        beta=settings.get("beta", 0.0),
        loss_type=settings["loss"],
        epsilon_low=settings.get("low", 0.2),
        epsilon_high=settings.get("high", 0.2),
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=settings.get("length"),
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (table, torch.zeros_like(table), None),
    )
    prompts = torch.zeros(len(policy), PROMPT, dtype=torch.long)
    inputs = {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": torch.zeros_like(mask),
        "completion_mask": mask,
        "advantages": torch.tensor(advantages, dtype=torch.float64),
        "old_per_token_logps": padded(old),
        "ref_per_token_logps": padded(reference),
        "num_items_in_batch": mask.sum(),
    }
    return float(GRPOTrainer._compute_loss(trainer, trainer.model, inputs))


def kto(policy: Rows, reference: Rows, apart: tuple[Rows, Rows], good: list[bool], **settings: Any) -> float:
    """``KTOTrainer._compute_loss``; ``apart`` are the mismatched completions under policy and reference."""
    from trl import KTOTrainer

    mask = mask_of(policy)
    whole = torch.cat([torch.zeros(len(policy), PROMPT, dtype=torch.long), mask], dim=1)
    network, start = stand_in(policy), stand_in(reference)
    sums = {id(network): padded(apart[0]).sum(dim=1), id(start): padded(apart[1]).sum(dim=1)}
    trainer = SimpleNamespace(
        model=network,
        ref_model=start,
        accelerator=Accelerator(),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        calculate_KL=True,
        loss_type="kto",
        beta=settings["beta"],
        desirable_weight=settings.get("good_weight", 1.0),
        undesirable_weight=settings.get("bad_weight", 1.0),
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        _compute_kl_logps=lambda model, _: sums[id(model)],
    )
    inputs = {
        "input_ids": torch.ones_like(whole),
        "attention_mask": torch.ones_like(whole),
        "completion_mask": whole,
        "label": torch.tensor(good),
    }
    with (
        patch("trl.trainer.kto_trainer.disable_gradient_checkpointing", lambda *_: nullcontext()),
        patch("trl.trainer.kto_trainer.is_peft_model", lambda _: False),
    ):
        return float(KTOTrainer._compute_loss(trainer, network, inputs, False))


def orpo(chosen: list[float], rejected: list[float], beta: float) -> float:
    """``ORPOTrainer.odds_ratio_loss`` of mean log-probs, its mean, negative: the part of the loss beside the likelihood."""
    from trl.experimental.orpo import ORPOTrainer

    trainer = SimpleNamespace(beta=beta, accelerator=Accelerator())
    pair = (torch.tensor(values, dtype=torch.float64) for values in (chosen, rejected))
    return -float(ORPOTrainer.odds_ratio_loss(trainer, *pair)[0].mean())


def lines_of(module: Any, first: str, last: str) -> str:
    """The lines of a module's file from the first that has ``first`` up to the one before that which has ``last``."""
    text = Path(module.__file__).read_text().splitlines()
    start = next(i for i, line in enumerate(text) if first in line)
    end = next(i for i, line in enumerate(text) if last in line and i > start)
    return textwrap.dedent("\n".join(text[start:end]))


def advantages_of(scores: list[list[float | None]], scale: str) -> list[float]:
    """Of GRPO, by the deviation of the group, of the batch or none, or of RLOO; 0 where there is no score."""
    from trl.trainer import grpo_trainer, rloo_trainer
    from trl.trainer.utils import nanstd

    if scale == "rloo":
        lines = lines_of(rloo_trainer, "grouped_rewards = rewards.view(", "# Normalize advantages over")
    else:
        lines = lines_of(grpo_trainer, "mean_grouped_rewards = torch.nanmean(rewards.view(", "is_std_zero = ")
    values = [math.nan if score is None else score for row in scores for score in row]
    names: dict[str, Any] = {
        "torch": torch,
        "nanstd": nanstd,
        "self": SimpleNamespace(scale_rewards=scale),
        "num_generations": len(scores[0]),
        "rewards": torch.tensor(values, dtype=torch.float64),
    }
    exec(compile(lines, "recorded", "exec"), names)
    return torch.nan_to_num(names["advantages"], nan=0.0).tolist()


DPO_CASES: list[dict[str, Any]] = [
    {"loss": "sigmoid", "beta": 0.1},
    {"loss": "sigmoid", "beta": 1.5},
    {"loss": "sigmoid_norm", "beta": 2.0},
    {"loss": "robust", "beta": 0.5, "label_smoothing": 0.2},
    {"loss": "hinge", "beta": 0.5},
    {"loss": "ipo", "beta": 0.3},
]
GRPO_CASES: list[dict[str, Any]] = [
    {"loss": "grpo"},
    {"loss": "grpo", "beta": 0.04},
    {"loss": "dapo", "low": 0.2, "high": 0.28},
    {"loss": "dapo", "beta": 0.1, "low": 0.1, "high": 0.1},
    {"loss": "dr_grpo", "length": 8},
    {"loss": "grpo", "level": "sequence", "low": 3e-2, "high": 4e-2},
    {"loss": "grpo", "level": "sequence", "beta": 0.1},
]


SCORES: list[list[float | None]] = [[1.0, 0.25, None, 3.5], [0.0, 0.0, 1.0, 1.0], [2.0, None, None, -1.5], [5.0, 4.0, 4.5, 9.0]]
KTO_CASES: list[dict[str, Any]] = [
    {"beta": 0.1},
    {"beta": 1.0, "good_weight": 1.33, "bad_weight": 0.5},
    {"beta": 1.0, "swapped": True},
]


def swap(mismatched: dict[str, Rows], case: dict[str, Any]) -> tuple[Rows, Rows]:
    """Of policy and of reference; exchanged where the case says so, so that z is 0 in one of the two."""
    names = ("reference", "policy") if case.get("swapped") else ("policy", "reference")
    return mismatched[names[0]], mismatched[names[1]]


def main() -> None:
    ensure_importable()
    drawn = log_probs(1)
    policy, reference = near(drawn, 2), near(drawn, 3)
    advantages = [1.2, -0.7, 0.4, -1.0]
    good = [True, False, False, True]
    mismatched = {"policy": near(log_probs(4), 5), "reference": near(log_probs(4), 6)}
    means = [sum(row) / len(row) for row in policy]
    record = {
        "by": "python -m benchmarks.references.trl_losses",
        "trl": version("trl"),
        "torch": version("torch"),
        "dpo": {
            "call": "trl.DPOTrainer._compute_loss; rows are chosen, chosen, rejected, rejected",
            "policy": policy,
            "reference": reference,
            "cases": [{**case, "value": dpo(policy, reference, **case)} for case in DPO_CASES],
        },
        "grpo": {
            "call": "trl.GRPOTrainer._compute_loss",
            "policy": policy,
            "old": drawn,
            "reference": reference,
            "advantages": advantages,
            "cases": [{**case, "value": grpo(policy, drawn, reference, advantages, **case)} for case in GRPO_CASES],
        },
        "kto": {
            "call": "trl.KTOTrainer._compute_loss; swapped: policy and reference of the mismatched ones exchanged",
            "policy": policy,
            "reference": reference,
            "good": good,
            "mismatched": mismatched,
            "cases": [{**case, "value": kto(policy, reference, swap(mismatched, case), good, **case)} for case in KTO_CASES],
        },
        "advantages": {
            "call": "lines of trl.trainer.grpo_trainer and rloo_trainer from rewards to advantages; null = no score",
            "scores": SCORES,
            "cases": {scale: advantages_of(SCORES, scale) for scale in ("group", "batch", "none", "rloo")},
        },
        "orpo": {
            "call": "trl.experimental.orpo.ORPOTrainer.odds_ratio_loss",
            "policy": policy,
            "beta": 0.3,
            "value": orpo(means[:2], means[2:], 0.3),
        },
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {RECORD}")


if __name__ == "__main__":
    main()
