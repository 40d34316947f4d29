"""Rewards made of rewards: the parts are scored once each and kept, then combined by arithmetic."""

from raft_core.rewards.combine.adjust import Clipped, Noisy
from raft_core.rewards.combine.brake import Braked
from raft_core.rewards.combine.distinct import Distinct
from raft_core.rewards.combine.ensemble import Ensemble
from raft_core.rewards.combine.kl import KLPenalised
from raft_core.rewards.combine.rank import RankAggregate
from raft_core.rewards.combine.veto import Threshold
from raft_core.rewards.combine.weighted import Weighted

__all__ = ["Braked", "Clipped", "Distinct", "Ensemble", "KLPenalised", "Noisy", "RankAggregate", "Threshold", "Weighted"]
