"""Losses of Diffusion-DPO and Diffusion-KTO on fixed denoising errors, recorded from the scripts of their authors.

    python -m benchmarks.references.diffusion_losses DIFFUSERS DIFFUSION_KTO      # two git repositories

DIFFUSERS is huggingface/diffusers, DIFFUSION_KTO jacklishufan/diffusion-kto, each with the commit below. What is run are the
lines of their training loops that turn errors into a loss, read from the repositories; nothing of them is kept here but the
numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

RECORD = Path(__file__).with_name("diffusion.json")
DPO_COMMIT, DPO_FILE = (
    "58eb52c0803ea9af3abec60841c2a093bdf1f951",
    "examples/research_projects/diffusion_dpo/train_diffusion_dpo.py",
)
KTO_COMMIT, KTO_FILE = "226bbd0", "train_kto_sd_v1.5.py"


def lines_between(repository: str, commit: str, file: str, first: str, last: str) -> str:
    """The lines from the one that has ``first`` up to the one before that which has ``last``."""
    text = subprocess.run(
        ["git", "-C", repository, "show", f"{commit}:{file}"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    start = next(i for i, line in enumerate(text) if first in line)
    end = next(i for i, line in enumerate(text) if last in line and i > start)
    return textwrap.dedent("\n".join(text[start:end]))


def executed(source: str, **names: Any) -> dict[str, Any]:
    """The names that are there after running the lines."""
    known = {"torch": torch, "F": torch.nn.functional, **names}
    exec(compile(source, "recorded", "exec"), known)
    return known


class Alone:
    """What the scripts ask of accelerate in one process."""

    num_processes = 1

    @staticmethod
    def reduce(value: torch.Tensor, reduction: str) -> torch.Tensor:  # noqa: ARG004 - accelerate's signature
        return value


def errors(seed: int) -> list[float]:
    """Four mean squared errors, which differ from those of the next seed by a few thousandths."""
    generator = torch.Generator().manual_seed(7)
    base = 0.05 + 0.1 * torch.rand(4, generator=generator, dtype=torch.float64)
    moved = 2e-3 * torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (base + moved).tolist()


def dpo(source: str, policy: list[float], reference: list[float], loss: str, beta: float) -> float:
    """Of errors chosen, chosen, rejected, rejected."""
    own, start = torch.tensor(policy, dtype=torch.float64).chunk(2), torch.tensor(reference, dtype=torch.float64).chunk(2)
    settings = SimpleNamespace(loss_type=loss, beta_dpo=beta, beta=beta)
    return float(executed(source, args=settings, model_diff=own[0] - own[1], ref_diff=start[0] - start[1])["loss"])


def kto(
    source: str, policy: list[float], reference: list[float], good: list[bool], beta: float, weights: tuple[float, float]
) -> float:
    """With the batch's own mean as the reference point, and its sigmoid."""
    settings = SimpleNamespace(
        beta_dpo=beta, bce_offset="batch", halo="sigmoid", loss="kto", lambda_d_kto=weights[0], lambda_u_kto=weights[1]
    )
    found = executed(
        source,
        args=settings,
        accelerator=Alone,
        batch={"labels": torch.tensor([1 if each else 0 for each in good])},
        model_losses=torch.tensor(policy, dtype=torch.float64),
        ref_loss=torch.tensor(reference, dtype=torch.float64),
    )
    return float(found["loss"])


def main(diffusers: str, diffusion_kto: str) -> None:
    dpo_lines = lines_between(diffusers, DPO_COMMIT, DPO_FILE, "logits = ref_diff - model_diff", "implicit_acc = ")
    kto_lines = lines_between(
        diffusion_kto, KTO_COMMIT, KTO_FILE, "policy_KL_logps = -model_losses", "accelerator.backward(loss)"
    )
    policy, reference, good = errors(1), errors(2), [True, False, True, False]
    record = {
        "by": "python -m benchmarks.references.diffusion_losses",
        "unit": "mean squared error over a latent's elements, without a factor of 1/2",
        "torch": torch.__version__,
        "dpo": {
            "call": f"huggingface/diffusers {DPO_COMMIT[:12]} {DPO_FILE}, final loss; of 2 chosen, 2 rejected",
            "policy": policy,
            "reference": reference,
            "cases": [
                {"loss": loss, "beta": beta, "value": dpo(dpo_lines, policy, reference, loss, beta)}
                for loss, beta in (("sigmoid", 2500.0), ("sigmoid", 500.0), ("hinge", 2500.0), ("ipo", 250.0))
            ],
        },
        "kto": {
            "call": f"jacklishufan/diffusion-kto {KTO_COMMIT} {KTO_FILE}, final loss; bce_offset batch, halo sigmoid",
            "policy": policy,
            "reference": reference,
            "good": good,
            "cases": [
                {"beta": beta, "weights": weights, "swapped": swapped, "value": kto(kto_lines, *pair, good, beta, weights)}
                for beta, weights, swapped in (
                    (1000.0, (1.0, 1.0), False),
                    (5000.0, (1.0, 0.5), False),
                    (1000.0, (1.0, 1.0), True),
                )
                for pair in [(reference, policy) if swapped else (policy, reference)]
            ],
        },
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {RECORD}")


if __name__ == "__main__":
    main(*sys.argv[1:])
