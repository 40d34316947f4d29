"""A generative reward model: a language model that judges in words, behind an endpoint or in this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raft_core.errors import ConfigError
from raft_core.protocols import RewardInfo
from raft_core.rewards.judge.chat import ChatEndpoint, Overheard
from raft_core.rewards.judge.verdicts import NO_VERDICT
from raft_core.rewards.scoring import told
from raft_core.types import Sample
from raft_text.rewards.judging import Judgement
from raft_text.rewards.local_chat import LocalChat


class LlmJudge:
    """A language model's verdict, as a number from a rubric or as the fraction of comparisons won.

    What it says is read strictly: an answer without a plain verdict leaves its sample unscored, and so does a question that
    was not answered. Comparisons are asked in both orders, so that a preference for what is read first cancels.

    Args:
        endpoint: an OpenAI-compatible endpoint. Give this or ``local``.
        local: a causal language model in this process.
        judgement: the mode (``score`` or ``pairwise``), the rubric, the scale, the votes.
        name: column in the store and label in the report.

    Source: Zheng et al. 2023 (2306.05685), the judge and its order bias; Mahan et al. 2024 (2410.12832), as a reward.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint | None = None,
        local: LocalChat | None = None,
        judgement: Judgement = Judgement(),  # noqa: B008 - frozen
        name: str = "llm_judge",
    ):
        if endpoint is not None and local is not None:
            raise ConfigError("endpoint and local are both given, but one judge answers: leave one of them out")
        chat = endpoint or local
        if chat is None:
            raise ConfigError("endpoint is not given and neither is local: one of them has to name the model that judges")
        self.endpoint = endpoint
        self.local = local
        self.judgement = judgement
        pairwise = judgement.mode == "pairwise"
        self.info = RewardInfo(
            name=name,
            scale=judgement.scale,
            batch_size=None if pairwise else 8 * (endpoint.parallel if endpoint else 8),  # comparisons need the whole group
            gpu=local is not None and local.source.device != "cpu",
            relative=pairwise,
            background=endpoint is not None and not pairwise,
        )
        self._chat: ChatEndpoint | LocalChat = chat

    def check(self) -> list[str]:
        return [*self._chat.check(), *self.judgement.vote_mistakes(self._chat)]

    def load(self) -> None:
        """Load the local model; an endpoint is not asked yet.

        Raises:
            ModelError: it cannot be loaded.
        """
        if self.local is not None:
            self.local.load()

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self.local is not None:
            self.local.sleep()

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]

        Raises:
            PartlyScored: some samples have no verdict that can be read.
            RewardError: not a single question was answered; says why.
        """
        chat = Overheard(self._chat)
        return told(self.judgement(chat, samples), chat.reason or NO_VERDICT)
