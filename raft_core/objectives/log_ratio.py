"""How much likelier the policy finds samples than the reference does, in the unit of the policy's ``nll``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from raft_core import capabilities
from raft_core.capabilities import MeasuresNll
from raft_core.protocols import Policy
from raft_core.types import Sample

if TYPE_CHECKING:
    import torch


def log_ratios(policy: Policy, chosen: Sequence[Sample], seeds: Sequence[int], *, per_term: bool = False) -> torch.Tensor:
    """[B] log π − log π_ref of each sample: nll_ref − nll at the same draw; differentiable.

    For text it is in nats, summed over the tokens. For pictures it is the reference's denoising error minus the policy's, at
    the timestep and noise that the sample's seed names: samples with the same seed share them.

    Args:
        chosen: B samples.
        seeds: [B], one for each draw.
        per_term: divided by the number of terms that ``nll`` sums over, such as tokens.
    """
    draw = policy.draw(chosen, seeds)
    own = policy.nll(chosen, draw)
    ratios = policy.nll(chosen, draw, reference=True).detach() - own
    return ratios / ratios.new_tensor(cast(MeasuresNll, policy).nll_terms(chosen)) if per_term else ratios


def mean_log_probs(policy: Policy, chosen: Sequence[Sample], seeds: Sequence[int]) -> torch.Tensor:
    """[B] log-likelihood of each sample per term (token), nats; differentiable. For policies whose ``nll`` is in nats."""
    nll = policy.nll(chosen, policy.draw(chosen, seeds))
    return -nll / nll.new_tensor(cast(MeasuresNll, policy).nll_terms(chosen))


def unit_mistakes(policy: Policy, asker: str, need: str) -> list[str]:
    """Why a loss that needs log-likelihoods in nats, summed over tokens, cannot have them of a policy, in words.

    Args:
        asker: the loss, as it is named in the configuration.
        need: what it needs them for.
    """
    unit = capabilities.nll_unit(policy)
    if unit == "nats":
        return []
    name = type(policy).__name__
    found = "is a mean squared error of denoising" if unit == "error" else "has no declared unit (nll_unit)"
    return [f"{asker} needs {need} in nats, but the nll of the policy {name} {found}"]
