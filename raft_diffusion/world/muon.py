"""Muon: momentum whose matrices are made orthogonal before each step; AdamW for vectors.

Per step it costs a tenth more than AdamW on the networks here, and it needs fewer steps.
"""

import math
from collections.abc import Iterable

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # drive singular values to about 1 in five steps
SCALE = 0.2  # brings the root mean square of an update to that of AdamW, so that one learning rate serves both


def orthogonalised(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The matrix [M, N] with its singular values moved to between 0.7 and 1.2, by Newton–Schulz iteration in bf16.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.T).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for weights of two and more dimensions (convolutions as matrices of their filters), AdamW for the rest.

    Source: Jordan et al. 2024; Liu et al. 2025, "Muon is scalable for LLM training" (scale of the update, weight decay).
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter],
        lr: float,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                update = self._matrix_update if parameter.ndim > 1 else self._vector_update
                parameter.sub_(update(parameter, group).view_as(parameter), alpha=group["lr"])
        return None if closure is None else closure()

    def _matrix_update(self, parameter, group):
        """The orthogonalised Nesterov momentum, [M, N]."""
        state = self.state[parameter]
        average = state.setdefault("average", torch.zeros_like(parameter))
        average.lerp_(parameter.grad, 1 - group["momentum"])
        direction = parameter.grad.lerp(average, group["momentum"]).flatten(1)
        return orthogonalised(direction) * (SCALE * math.sqrt(max(direction.shape)))

    def _vector_update(self, parameter, group):
        """AdamW's, [N]."""
        state, (first, second) = self.state[parameter], group["betas"]
        average = state.setdefault("average", torch.zeros_like(parameter))
        square = state.setdefault("square", torch.zeros_like(parameter))
        count = state.setdefault("count", torch.zeros(()))
        count += 1
        average.lerp_(parameter.grad, 1 - first)
        square.lerp_(parameter.grad.square(), 1 - second)
        scale = math.sqrt(1 - second ** count.item()) / (1 - first ** count.item())
        return average * scale / (square.sqrt() + 1e-8)
