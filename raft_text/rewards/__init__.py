"""Rewards that read texts. Importing them is cheap; models are loaded by ``load()`` and shared within the process."""

from raft_text.rewards.embedding import EmbeddingSimilarity
from raft_text.rewards.instructions import VerifiableInstructions
from raft_text.rewards.length import Length
from raft_text.rewards.llm_judge import LlmJudge
from raft_text.rewards.pattern import Pattern
from raft_text.rewards.repetition import Repetition
from raft_text.rewards.reward_model import RewardModel
from raft_text.rewards.self_judge import SelfJudge
from raft_text.rewards.sentiment import Sentiment
from raft_text.rewards.steps import StepReward, StepRewardModel

__all__ = [
    "EmbeddingSimilarity",
    "Length",
    "LlmJudge",
    "Pattern",
    "Repetition",
    "RewardModel",
    "SelfJudge",
    "Sentiment",
    "StepReward",
    "StepRewardModel",
    "VerifiableInstructions",
]
