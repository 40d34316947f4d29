"""Rewards made of rewards: the parts are scored once each and kept, then combined by arithmetic."""

from raft_core.combinators.adjust import Clipped, Noisy
from raft_core.combinators.distinct import Distinct
from raft_core.combinators.ensemble import Ensemble
from raft_core.combinators.kl import KLPenalised
from raft_core.combinators.rank import RankAggregate
from raft_core.combinators.veto import Threshold
from raft_core.combinators.weighted import Weighted

__all__ = ["Clipped", "Distinct", "Ensemble", "KLPenalised", "Noisy", "RankAggregate", "Threshold", "Weighted"]
