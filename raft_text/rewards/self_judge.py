"""Self-rewarding: the policy judges its own samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raft_core.errors import ConfigError, DataError, RewardError
from raft_core.protocols import Policy, RewardInfo
from raft_core.rewards.judge.chat import CUT_SHORT, Conversation, Overheard, Unanswered
from raft_core.rewards.judge.verdicts import NO_VERDICT
from raft_core.rewards.scoring import told
from raft_core.rng import seed_for
from raft_core.sampling import chunks
from raft_core.soundness import examined
from raft_core.types import Prompt, Request, Sample
from raft_text.rewards.judging import Judgement


class SelfJudge:
    """The verdict of the policy itself, asked as ``LlmJudge`` asks; it needs an instruction-tuned policy.

    The policy answers with its own sampling settings, so its ``max_tokens`` have to leave room for a verdict; verdicts are
    averaged over ``draws``. What they mean moves with the policy: compare them within a round, and have a judge that does not
    move.

    Args:
        judgement: the mode (``score`` or ``pairwise``), the rubric, the scale.
        draws: answers per question.
        reference: whether the frozen start judges in place of the policy as it is now.
        name: column in the store and label in the report.

    Source: Yuan et al. 2024, Self-Rewarding Language Models (2401.10020). Differs: the scale is the judgement's, not 0–5.
    """

    def __init__(
        self,
        judgement: Judgement = Judgement(),  # noqa: B008 - frozen
        draws: int = 3,
        reference: bool = False,
        name: str = "self_judge",
    ):
        if draws < 1:
            raise ConfigError(f"draws is {draws}, but a verdict takes at least 1")
        if judgement.votes > 1:
            raise ConfigError(
                f"judgement.votes is {judgement.votes}: of a policy that judges itself give their number as draws"
            )
        self.judgement = judgement
        self.draws = draws
        self.reference = reference
        self.info = RewardInfo(
            name=name, scale=f"{judgement.scale}, by the policy itself", gpu=True, relative=judgement.mode == "pairwise"
        )
        self._chat: PolicyChat | None = None

    def attach(self, policy: Policy) -> None:
        """Take on the policy that judges.

        Raises:
            ConfigError: a policy that makes no text.
        """
        if policy.modality != "text":
            raise ConfigError(f"{self.info.name!r} has the policy judge in words, but it makes {policy.modality}s: use another")
        self._chat = PolicyChat(policy, self.reference)

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N]

        Raises:
            PartlyScored: some samples have no verdict that can be read.
            RewardError: no policy is attached, or not a single question could be asked.
        """
        if self._chat is None:
            raise RewardError(
                f"the reward {self.info.name!r} has the policy judge its own samples, and there is no policy here: "
                "use LlmJudge with a model of its own"
            )
        chat = Overheard(self._chat)
        return told(self.judgement(chat, samples, self.draws), chat.reason or NO_VERDICT)


class PolicyChat:
    """A text policy that answers conversations of one message.

    Args:
        policy: loaded.
        reference: whether its frozen start answers.
    """

    def __init__(self, policy: Policy, reference: bool = False):
        self.policy = policy
        self.reference = reference

    def ask_all(self, conversations: Sequence[Conversation]) -> list[str | Unanswered]:
        """One answer per conversation, in the same order; the same one for the n-th time that a text is asked."""
        texts = [str(conversation[-1]["content"]) for conversation in conversations]
        fits = {text: self._fits(text) for text in dict.fromkeys(texts)}
        answers: list[str | Unanswered] = [Unanswered("the question is longer than the policy takes in") for _ in texts]
        asked = [i for i, text in enumerate(texts) if fits[text]]
        for i, answer in zip(asked, self._answers(_requests([texts[i] for i in asked])), strict=True):
            answers[i] = answer
        return answers

    def _fits(self, text: str) -> bool:
        """Whether the policy takes in the whole of a text, and has room left for an answer."""
        try:
            return self.policy.visible(text) == text
        except DataError:
            return False

    def _answers(self, requests: Sequence[Request]) -> list[str | Unanswered]:
        with self.policy.resident("sample"):
            drawn = [answer for part in chunks(requests, max(self.policy.batch_size, 1)) for answer in self._drawn(part)]
        answered = [sample for sample in drawn if isinstance(sample, Sample)]
        with self.policy.resident("render"):
            parts = chunks(answered, max(self.policy.batch_size, 1))
            texts = iter([str(sample.output) for part in parts for sample in self.policy.render(part)])
        return [next(texts) if isinstance(sample, Sample) else sample for sample in drawn]

    def _drawn(self, requests: Sequence[Request]) -> list[Sample | Unanswered]:
        try:
            drawn = self.policy.sample(requests, strength=0.0 if self.reference else 1.0)
            return [_answer(sample) for sample in examined(drawn)]
        except DataError as error:  # a question that leaves no room for an answer must not take the others with it
            if len(requests) == 1:
                return [Unanswered(str(error))]
        return [answer for request in requests for answer in self._drawn([request])]


def _answer(sample: Sample) -> Sample | Unanswered:
    """The sample, if it is a whole answer."""
    if sample.failed:
        return Unanswered(f"the answer failed: {sample.failed}")
    return Unanswered(CUT_SHORT) if sample.meta.get("finish") == "length" else sample


def _requests(texts: Sequence[str]) -> list[Request]:
    """One request per text; the seed depends on the text and on how often it has been asked, not on what else is asked."""
    times: dict[str, int] = {}
    requests = []
    for text in texts:
        number = times[text] = times.get(text, -1) + 1
        requests.append(Request(Prompt(text), number, seed_for("self-judge", text, number)))
    return requests
