"""From rewards and value estimates to what PPO trains on. Rows are padded with zeros behind their last action."""

from __future__ import annotations

import torch

TINY = 1e-8


def action_rewards(kl: torch.Tensor, score: torch.Tensor, lengths: torch.Tensor, beta: float) -> torch.Tensor:
    """[N, S] −β·kl of each action, and the score on the last.

    Worked example: kl (0.5, −1, 2), score 1, β 0.1: rewards (−0.05, 0.1, 0.8).

    Args:
        kl: [N, S] log π_old − log π_ref of each action, nats, 0 behind the last.
        score: [N] of the whole sample, reward units.
        lengths: [N] int64, actions of each sample, ≥ 1.
        beta: reward units per nat.

    Source: Ziegler et al. 2019 (1909.08593), eq. 2; ReFT (2401.08967), section 3.2. Differs: the log-ratio of the action that
    was taken stands for the divergence of the whole distribution, as in the code of both.
    """
    rewards = -beta * kl
    rewards[torch.arange(len(score)), lengths - 1] += score
    return rewards


def gae(rewards: torch.Tensor, values: torch.Tensor, gamma: float, lam: float) -> torch.Tensor:
    """[N, S] generalised advantage estimates Σ_l (γλ)^l δ_{t+l} with δ_t = r_t + γ·V_{t+1} − V_t, and V = 0 after the end.

    Worked example, γ 0.9, λ 0.5, r = (0, 0, 1), V = (0.5, 0.4, 0.6): δ = (−0.14, 0.14, 0.4), so the advantages are
    0.4, 0.14 + 0.45·0.4 = 0.32 and −0.14 + 0.45·0.32 = 0.004.

    Args:
        rewards: [N, S], 0 behind the last action.
        values: [N, S] estimate before each action, 0 behind the last.
        gamma: discount per action, in [0, 1].
        lam: λ in [0, 1]: 0 trusts the next estimate alone, 1 the rewards alone.

    Source: Schulman et al. 2016 (1506.02438), eq. 16; ReFT (2401.08967), section 3.2.
    """
    advantages = torch.zeros_like(rewards)
    ahead = values.new_zeros(len(values))
    after = values.new_zeros(len(values))
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * after - values[:, t]
        ahead = advantages[:, t] = delta + gamma * lam * ahead
        after = values[:, t]
    return advantages


def whitened(values: torch.Tensor, mask: torch.Tensor, *, centred: bool = True) -> torch.Tensor:
    """[N, S] (x − mean) / deviation over the masked entries, 0 elsewhere; of one value alone, 0.

    Args:
        values: [N, S].
        mask: [N, S] bool.
        centred: take the mean off; otherwise only divide, so that signs stay.

    Source: Ziegler et al. 2019, code. The variance divides by n.
    """
    chosen = values[mask]
    scaled = (values - chosen.mean()) * (chosen.var(correction=0) + TINY).rsqrt()
    return torch.where(mask, scaled if centred else values * (chosen.var(correction=0) + TINY).rsqrt(), 0.0)


def clipped_value_loss(
    value: torch.Tensor, old_value: torch.Tensor, returned: torch.Tensor, clip: float | None
) -> torch.Tensor:
    """½·max((V − R)², (V_old + clip(V − V_old, ±clip) − R)²) of each action.

    Worked example, clip 0.2, V_old 0, V 0.5, R 1: the estimate has moved further than 0.2 towards R, so it counts as 0.2:
    ½·0.8² = 0.32 without a gradient.

    Args:
        value: [...] present estimate.
        old_value: [...] that of the start of the round; no gradient.
        returned: [...] advantage + old value, the target; no gradient.
        clip: trust region of the estimate, in reward units; None = half the squared error.

    Source: ReFT (2401.08967), the value loss, whose clip(R − V, A ± ε) is the same with R = A + V_old.
    """
    error = (value - returned) ** 2
    if clip is None:
        return error / 2
    near = old_value + (value - old_value).clamp(-clip, clip)
    return error.maximum((near - returned) ** 2) / 2
