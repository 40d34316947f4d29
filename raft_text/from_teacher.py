"""Samples that another language model writes, all of them or a share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from raft_core import sampling
from raft_core.capabilities import RunPlans
from raft_core.errors import ConfigError
from raft_core.protocols import Policy
from raft_core.rng import numpy_rng
from raft_core.types import Prompt, Request, Sample
from raft_text.policy import CausalLM
from raft_text.process.completions import Completions
from raft_text.teacher import Teacher


class FromTeacher:
    """K samples of every prompt, of which the teacher writes a share and the policy the rest; each by its own seed.

    With ``Distillation`` it is the share of GKD's data that is not on-policy; with a selector and ``Sft``, learning from the
    best of what a stronger model writes. The teacher's are told by ``teacher`` in their meta.

    Args:
        teacher: a causal model with the same tokenizer: bundled:NAME, a folder, or ORGANISATION/NAME on the Hub; or what was
            trained from one, the folder of an adapter or of a run.
        share: of the samples that it writes, in (0, 1].
        dtype: of its weights; auto = as a policy's.

    Source: GKD (2306.13649), algorithm 1, whose λ is 1 − share. Differs: drawn for each sample and not for each batch.
    """

    def __init__(self, teacher: str, share: float = 1.0, dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"):
        if not 0 < share <= 1:
            raise ConfigError(f"samples.share is {share}, but must be in (0, 1]; without a share leave samples out")
        self.share = share
        self.teacher = Teacher(teacher, dtype, None, "samples.teacher")

    def check_run(self, plans: RunPlans) -> list[str]:
        """Why a policy will not do, in words."""
        policy = plans.policy
        if not isinstance(policy, CausalLM):
            return [f"FromTeacher gives samples to language models, and not to the policy {type(policy).__name__}"]
        return self.teacher.mistakes(policy.model, policy.device)

    def attach(self, policy: Policy) -> None:
        """Load the teacher beside the policy.

        Raises:
            ModelError: it cannot be loaded, or has another tokenizer.
        """
        assert isinstance(policy, CausalLM)  # checked by ``check_run``
        self.teacher.load(policy.model, policy.device)

    def requests(self, prompts: Sequence[Prompt], k: int, seed: int, rnd: int) -> list[Request]:
        """P·K requests, prompt-major."""
        return sampling.requests(prompts, k, seed, rnd)

    def samples(self, policy: Policy, requests: Sequence[Request], *, trace: bool) -> list[Sample]:
        """One sample per request, in the same order."""
        assert isinstance(policy, CausalLM)  # checked by ``check_run``
        theirs = [numpy_rng(request.seed, "teacher").random() < self.share for request in requests]
        asked = [request for request, by in zip(requests, theirs, strict=True) if by]
        rest = [request for request, by in zip(requests, theirs, strict=True) if not by]
        written = iter(self._written(policy, asked, trace) if asked else [])
        own = iter(policy.sample(rest, purpose="round", trace=trace) if rest else [])
        return [next(written if by else own) for by in theirs]

    def _written(self, policy: CausalLM, asked: Sequence[Request], trace: bool) -> list[Sample]:
        """What the teacher writes to the prompts as the policy reads them; traced, with the policy's own log-probs."""
        completions = Completions(policy.engine, policy.sampling, None, self.teacher.draw, policy.on_step, policy.environment)
        samples = [replace(s, meta={**s.meta, "teacher": self.teacher.name}) for s in completions(asked, "round", trace=False)]
        return policy.replay.traced(samples, reference=False) if trace else samples
