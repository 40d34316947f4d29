"""The work behind the page Text, in the worker's process."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from raft_core import capabilities
from raft_core.config.components import build
from raft_core.errors import ConfigError, ModelError
from raft_core.evaluation.evaluate import column_roles, scored_together
from raft_core.metrics.voting import Voter, groups
from raft_core.reporter import Silent
from raft_core.rewards.scoring import Scorer
from raft_core.soundness import failed_words, sound_of
from raft_core.types import Prompt, Sample
from raft_core.workflows.align import truncated
from raft_core.workflows.choose import Chosen, choose, voter_of
from raft_core.workflows.generate import generate
from raft_core.workflows.trained import Source, open_source
from raft_demo.shared import shelf
from raft_demo.shared.measures import measure_of, unscored
from raft_demo.shared.reporting import PageReporter
from raft_demo.shared.worker import Progress, tell
from raft_demo.text.pieces import pieces
from raft_demo.text.texts import ENDS, Accuracies, Asked, Chain, Completion, Completions, Party, Verdict, written

OWN = "own"  # key of the run's own reward among the rerankers
READER = "AnswerReward"  # reads answers where the run's own reward does not


def complete(asked: Asked) -> Iterator[Completions]:
    """Complete the prompt before and after training with the same seeds, score both; yields what there is after each part.

    The completions are those of ``raft generate`` with the same prompt, seed and settings.

    Raises:
        RaftError: a model that cannot be loaded or cannot write what is asked.
    """
    source, policy = _ready(asked)
    notes = truncated(policy, [asked.prompt])
    begun = time.perf_counter()
    before = _drawn(policy, [asked.prompt], asked, "before training", reference=True)
    first = Completions(asked, [_completion(policy, sample) for sample in before], notes=notes)
    yield first
    after = _drawn(policy, [asked.prompt], asked, "after training", reference=False)
    seconds = (time.perf_counter() - begun) / (2 * asked.k)
    sides = {"before training": before, "after training": after}
    notes = [*notes, *(f"{side}: {words}" for side, samples in sides.items() if (words := failed_words(samples)))]
    both = replace(first, after=[_completion(policy, sample) for sample in after], seconds=seconds, notes=notes)
    yield both
    tell(Progress("scoring", 1, 2))
    scored = _scored(source, policy, both, before, after)
    yield scored
    tell(Progress("comparing likelihoods", 1, 1))
    yield replace(
        scored, before=_with_log_probs(policy, scored.before, before), after=_with_log_probs(policy, scored.after, after)
    )


def reason(
    asked: Asked, reference: bool, reranker: str = "", spec: Mapping[str, Any] | None = None, answer: str = ""
) -> Iterator[Verdict]:
    """Let n chains of thought vote on the prompt's answer, and a reward choose among them.

    Args:
        reference: by the model as it was before training.
        reranker: key of a reward; "" = none.
        spec: of that reward, as in a configuration; the run's own is found in the run.
        answer: the right one, in a visitor's words; "" = as the run's table says, if it does.

    Raises:
        RaftError: a model or reward that cannot be loaded, or a reward that can score no chain.
    """
    source, policy = _ready(asked)
    voter, scorer = _voter(source), _reranker(source, policy, reranker, spec)
    if answer:
        asked = replace(asked, prompt=_told(asked.prompt, answer, voter))
    notes = truncated(policy, [asked.prompt])
    samples = _drawn(policy, [asked.prompt], asked, "thinking", reference=reference)
    reporter = PageReporter()
    chosen = choose(samples, asked.k, voter=voter, votes=True, scorer=scorer, reporter=reporter)
    yield _verdict(asked, samples, chosen, voter, [*notes, *reporter.warnings])


def measure(
    asked: Asked,
    prompts: Sequence[Prompt],
    reference: bool,
    reranker: str = "",
    spec: Mapping[str, Any] | None = None,
) -> Iterator[Accuracies]:
    """How often one chain, the vote of n and the reranking of n are right, over several prompts with known answers.

    Raises:
        RaftError: as ``reason``, and prompts whose right answer is not known.
    """
    source, policy = _ready(asked)
    voter, scorer = _voter(source), _reranker(source, policy, reranker, spec)
    if all(voter.reference(prompt) is None for prompt in prompts):
        raise ConfigError("the prompts' table gives no right answers, so there is nothing to measure: vote on one question")
    reporter = PageReporter()
    samples = _drawn(policy, prompts, asked, "thinking", reference=reference)
    chosen = choose(samples, asked.k, voter=voter, votes=True, scorer=scorer, reporter=reporter)
    rows = [(r.method, r.samples, r.questions, r.accuracy.value, r.accuracy.low, r.accuracy.high) for r in chosen.table]
    yield Accuracies(f"{asked.label}, {'before' if reference else 'after'} training", rows, reporter.warnings)


# ---------------------------------------------------------------------- the model


def _ready(asked: Asked) -> tuple[Source, Any]:
    """The policy with the model's weights and the settings that are asked for."""
    tell(Progress(f"loading {asked.label}"))
    source = open_source(asked.target, [])
    policy: Any = shelf.policy_of(source)[0]
    if policy.modality != "text" or not hasattr(policy, "sampling"):
        raise ModelError(f"{asked.label} writes no texts; pictures are compared on the page Compare")
    source.put_weights(policy, asked.checkpoint)
    longest = min(asked.tokens, policy.sampling.max_new_tokens)  # the model was loaded with room for so many
    policy.sampling = replace(policy.sampling, temperature=asked.temperature, max_new_tokens=longest)
    return source, policy


def _drawn(policy: Any, prompts: Sequence[Prompt], asked: Asked, what: str, *, reference: bool) -> list[Sample]:
    """Rendered completions, prompt-major."""
    parts = math.ceil(len(prompts) * asked.k / policy.sampling.batch_size)
    begun, last = 0, math.inf

    def on_step(tokens: int, longest: int) -> None:
        nonlocal begun, last
        begun, last = begun + (tokens <= last), tokens
        part = f", part {begun} of {parts}" if parts > 1 else ""
        tell(Progress(f"{what}{part}: {tokens} tokens", (begun - 1) * longest + tokens, parts * longest))

    policy.on_step = on_step
    try:
        return generate(policy, prompts, k=asked.k, seed=asked.seed, reporter=Silent(), strength=0.0 if reference else 1.0)
    finally:
        policy.on_step = None


def _completion(policy: Any, sample: Sample) -> Completion:
    if sample.failed:
        return Completion("", [], f"failed: {sample.failed}")
    finish = str(sample.meta.get("finish", ""))
    found = pieces(policy.encode.text, sample.tensors["tokens"].tolist(), sample.output)
    return Completion(sample.output, found, ENDS.get(finish, finish))


def _with_log_probs(policy: Any, completions: Sequence[Completion], samples: Sequence[Sample]) -> list[Completion]:
    with torch.no_grad():
        sides = [policy.token_log_probs(sound_of(samples), reference=reference)[0].tolist() for reference in (True, False)]
    rows = zip(*sides, strict=True)
    told = [([], []) if sample.failed else next(rows) for sample in samples]
    return [
        replace(each, before=before[: len(each.pieces)], after=after[: len(each.pieces)])
        for each, (before, after) in zip(completions, told, strict=True)
    ]


# ---------------------------------------------------------------------- rewards


def _scored(
    source: Source, policy: Any, completions: Completions, before: Sequence[Sample], after: Sequence[Sample]
) -> Completions:
    """With every score of the run's reward and judges; weights that come without a run have none."""
    if "reward" not in source.raw:
        return completions
    scorer = shelf.scorer_of(source)
    scorer.attach(policy)
    first, second = scored_together(scorer, before, after)
    names = list(column_roles(scorer))
    return replace(
        completions,
        measures=[measure_of(scorer, name, name) for name in names],
        scores_before={name: first.columns[name].tolist() for name in names},
        scores_after={name: second.columns[name].tolist() for name in names},
        notes=[*completions.notes, *unscored([first, second])],
    )


def _voter(source: Source) -> Voter:
    """Who reads answers: the run's own reward where it can, loaded."""
    voter = voter_of(source) or _built({"class_path": READER})
    capabilities.load(voter)
    return voter


def _reranker(source: Source, policy: Any, key: str, spec: Mapping[str, Any] | None) -> Scorer | None:
    if not key:
        return None
    if key == OWN:
        scorer = Scorer(shelf.scorer_of(source).reward)
    else:
        scorer = Scorer(_built(spec or {}))
        scorer.load()
    scorer.attach(policy)
    return scorer


def _built(spec: Mapping[str, Any]) -> Any:
    return build("reward", spec)


def _told(prompt: Prompt, answer: str, voter: Voter) -> Prompt:
    """The prompt with a visitor's right answer.

    Raises:
        ConfigError: nobody here takes one, or it cannot be read.
    """
    column = getattr(voter, "column", None)
    told = Prompt(prompt.text, {**prompt.meta, str(column): answer})
    if column is None or voter.reference(told) is None:
        raise ConfigError(f"the right answer {answer[:50]!r} cannot be read: give it as the model would, a number or a letter")
    return told


# ---------------------------------------------------------------------- the vote


def _verdict(asked: Asked, samples: Sequence[Sample], chosen: Chosen, voter: Voter, notes: Sequence[str]) -> Verdict:
    answers, reference, won = chosen.answers[0], chosen.references[0], chosen.votes[0]
    best = chosen.best[0] if chosen.best else None
    scores = [math.nan] * len(samples)
    if chosen.scores is not None:
        scores = chosen.scores.columns[chosen.scores.reward].tolist()
    finishes = [f"failed: {s.failed}" if s.failed else ENDS.get(str(s.meta.get("finish")), "") for s in samples]
    chains = [Chain(i + 1, sample.output or "", finishes[i], scores[i]) for i, sample in enumerate(samples)]
    parties = []
    for members in sorted(groups(answers, voter.same), key=len, reverse=True):
        answer = answers[members[0]]
        parties.append(
            Party(
                answer=written(answer),
                chains=[chains[i] for i in members],
                right=None if reference is None else voter.same(answer, reference),
                elected=won is not None and won.index in members,
                best=best in members,
            )
        )
    voting = {i for members in groups(answers, voter.same) for i in members}
    silent = [chain for i, chain in enumerate(chains) if i not in voting]
    if silent:
        parties.append(Party("", silent, None if reference is None else False, best=best is not None and best not in voting))
    name = chosen.scores.reward if chosen.scores else ""
    return Verdict(asked, parties, "" if reference is None else written(reference), name, notes)
