"""What a part may be able to do besides its role: one small protocol for each idea, asked for here and nowhere else.

A policy, a reward, an objective or a rule that has the methods has the capability; nothing has to inherit or register. The
functions below give the answer of a part that lacks one, so that callers never ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from raft_core.conversations import transcript

if TYPE_CHECKING:
    import numpy as np
    import torch

    from raft_core.protocols import Combinator, Policy, Reward, Selector
    from raft_core.types import Message, Prompt, Request, Sample, Selection


@dataclass(frozen=True)
class RunPlans:
    """What a source of samples is to go with; no weights are loaded.

    Attributes:
        policy: that is trained.
        reward: that selects.
        train: all training prompts.
        k: samples of a prompt and round.
        trace: whether the objective replays what was sampled.
    """

    policy: Policy
    reward: Reward | Combinator
    train: Sequence[Prompt]
    k: int
    trace: bool


# --- of any part


@runtime_checkable
class Checks(Protocol):
    """Says what is wrong with its settings before a weight is loaded."""

    def check(self) -> list[str]:
        """Mistakes in words; empty when there are none."""
        ...


@runtime_checkable
class ChecksPrompts(Protocol):
    """Needs something of the prompts that its samples answer, such as a reference answer."""

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """What these prompts lack, in words; called before a weight is loaded."""
        ...


@runtime_checkable
class Notes(Protocol):
    """Knows something that a person should know, though it is no mistake: of its settings, or once loaded of its weights."""

    def notes(self) -> list[str]:
        """In words; asked when a configuration is checked, and of a policy again when it has been loaded."""
        ...


@runtime_checkable
class Loads(Protocol):
    """Has weights to load, once, after the whole configuration has been checked."""

    def load(self) -> None: ...


@runtime_checkable
class Settles(Protocol):
    """Names a metric, and wants to know whether the run measures it and in which direction."""

    def settled(self, directions: Mapping[str, bool]) -> Any:
        """The same part, knowing metric → whether higher is better.

        Raises:
            ConfigError: the run measures no such metric.
        """
        ...


# --- of a reward


@runtime_checkable
class Sleeps(Protocol):
    """Gives the accelerator's memory back when it has scored: one model at a time is there."""

    def sleep(self) -> None: ...


@runtime_checkable
class AttachesPolicy(Protocol):
    """Needs the policy itself, not only its samples."""

    def attach(self, policy: Policy) -> None: ...


@runtime_checkable
class Recalls(Protocol):
    """A combinator that goes by earlier rounds, as running normalisation does. It does so where ``recalls`` is true.

    Whatever it has to know of the past follows from the score columns of all rounds before, oldest first, so that a resumed run
    knows the same.
    """

    recalls: bool

    def recall(self, earlier: Sequence[Mapping[str, Any]]) -> None: ...


@runtime_checkable
class FollowsJudge(Protocol):
    """Goes by the scores of one of the run's judges in earlier rounds.

    Attributes:
        follows: the judge's name.
        higher_is_better: which way it takes the judge to be better.
    """

    follows: str
    higher_is_better: bool


# --- of a policy


@runtime_checkable
class Describes(Protocol):
    """Has figures of its own on a round's rendered samples."""

    def figures(self, samples: Sequence[Sample]) -> dict[str, float]: ...


@runtime_checkable
class Estimates(Protocol):
    """Knows how much memory its weights take before any of them is there."""

    def estimate(self) -> str:
        """In words; "" when it does not know."""
        ...


@runtime_checkable
class ChecksTrace(Protocol):
    """Cannot be sampled with a trace under all of its settings."""

    def check_trace(self) -> list[str]:
        """Why ``step_log_probs`` could not replay what is sampled, in words; called before a weight is loaded."""
        ...


#: What ``nll`` is: a negative log-likelihood in nats, summed over the actions of a sample (tokens), or a squared error that
#: stands for one, mean over the elements of a sample.
NllUnit = Literal["nats", "error"]


@runtime_checkable
class MeasuresNll(Protocol):
    """Says in which unit its ``nll`` is, for losses to which that matters: the β of DPO, odds of a whole sample.

    Attributes:
        nll_unit: known before anything is loaded.
    """

    nll_unit: NllUnit

    def nll_terms(self, samples: Sequence[Sample]) -> list[int]:
        """[B] of how many terms each sample's ``nll`` is the sum, at least 1: its tokens; 1 where it is a mean."""
        ...


@runtime_checkable
class ReplaysSteps(Protocol):
    """Its actions are steps of many numbers each, which can be replayed apart: memory need hold one step's pass alone.

    Its ``step_log_probs`` also takes ``steps``, the places of the actions to replay, in whose order it answers.
    """

    def step_elements(self, samples: Sequence[Sample]) -> int:
        """Numbers of one action of these samples, over which its log-prob sums: those of a latent."""
        ...


@runtime_checkable
class PredictsSteps(Protocol):
    """A network predicts something at each of its steps, which can be compared with what the reference predicts there."""

    def step_predictions(
        self, samples: Sequence[Sample], *, reference: bool = False, steps: Sequence[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """([B, S] log-probs and [B, S] mask as of ``step_log_probs``, with [B, S, …] predictions between them)."""
        ...


@runtime_checkable
class ComparesLikelihoods(Protocol):
    """Samples from distributions whose likelihoods need no draws and are not those of ``nll``: at another temperature, say."""

    def log_ratios(self, samples: Sequence[Sample]) -> torch.Tensor:
        """[N] log π − log π_ref of each sample under the distributions that are sampled from; no gradient."""
        ...


@runtime_checkable
class ReadsMessages(Protocol):
    """Reads conversations with their roles; any other policy reads their transcripts."""

    def visible_messages(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The part of a conversation that the model takes in; all of it unless it is longer than it may be.

        Raises:
            DataError: the conversation is refused.
        """
        ...


@runtime_checkable
class Writes(Protocol):
    """Takes outputs that were made elsewhere, by a person or a teacher, as samples of its own.

    Attributes:
        traces_written: whether such samples can have what ``step_log_probs`` replays.
    """

    traces_written: bool

    def written(self, requests: Sequence[Request], outputs: Sequence[Any], *, trace: bool = False) -> list[Sample]:
        """Rendered samples of outputs of its modality, texts or PIL images; ``written`` is their ``finish`` in ``meta``.

        Raises:
            DataError: an output that it cannot take.
        """
        ...

    def fitted(self, request: Request, output: Any) -> Any:
        """An output as the policy could have made it: a picture in the size that it draws, a text as it is."""
        ...

    def check_written(self, prompts: Sequence[Prompt], outputs: Sequence[Any]) -> list[str]:
        """Which of these prompts with their outputs it does not take, in words; called before a weight is loaded."""
        ...


@runtime_checkable
class SamplesInStages(Protocol):
    """Can be asked on the way what its samples will be, and told to give some of them up."""

    def check_stages(self, at: Sequence[float]) -> list[str]:
        """Why it cannot be stopped at these points of the way, in words; called before a weight is loaded."""
        ...

    def sample_in_stages(
        self,
        requests: Sequence[Request],
        at: Sequence[float],
        goes_on: Callable[[Sequence[Sample]], Sequence[bool]],
        *,
        trace: bool = False,
    ) -> list[Sample]:
        """One sample per request for a round of training, as ``Policy.sample`` would draw it, or given up.

        One that was given up has ``rejected`` in its meta, and as its output what was last expected of it. ``evaluations`` in
        the meta counts the passes of the network that a sample took.

        Args:
            at: points of the way in (0, 1), ascending.
            goes_on: called at each of them with all samples that have not been given up, rendered as they would come out; says
                which go on. Finished ones are shown, too, and stay whatever it says.
        """
        ...


@runtime_checkable
class SharesLatents(Protocol):
    """Draws latents, which another policy can take over as they are if the two draw in the same space.

    Attributes:
        latent_space: the same text for the same space; known once the policy is loaded.
    """

    @property
    def latent_space(self) -> str: ...


@runtime_checkable
class Exports(Protocol):
    """Writes a model card beside the weights that it exports."""

    def write_card(self, run_folder: Path, folder: Path, place: str | None = None) -> Path:
        """Write the card of a run into ``folder``; ``place`` is OWNER/NAME on the Hub, if the weights will lie there."""
        ...


@runtime_checkable
class Imports(Protocol):
    """Takes trained weights from files, those of other programs included."""

    @staticmethod
    def arguments_for(path: Path) -> dict[str, Any]:
        """Constructor arguments under which it can take these weights, as far as the files tell them."""
        ...

    def load_weights(self, path: Path) -> None: ...


@runtime_checkable
class Merges(Protocol):
    """Writes the whole model with what was trained in it, for programs that know no adapters."""

    @staticmethod
    def merge_settings(dtype: str) -> Mapping[str, Any]:
        """Arguments, by dotted names, under which the policy is loaded to be merged into weights of this precision."""
        ...

    @staticmethod
    def merge_mistakes(path: Path) -> list[str]:
        """Why the whole model cannot be written there, told before anything is loaded."""
        ...

    def merge(self, path: Path, *, strength: float = 1.0, dtype: str = "float32") -> list[Path]:
        """Write the whole model, of a loaded policy, what was trained at this strength; returns what was written."""
        ...


@runtime_checkable
class Shards(Protocol):
    """Trains one network, whose weights may be spread over processes while it is trained.

    While they are, ``nll`` and ``step_log_probs`` run it equally often for equally many samples, whatever these are: a pass is
    one of all processes.
    """

    def shardable(self) -> torch.nn.Module:
        """The network.

        Raises:
            ConfigError: settings under which its weights cannot be spread.
        """
        ...

    def renew(self, parameters: Mapping[str, torch.nn.Parameter], *, sharded: bool) -> None:
        """Take these parameters in place of those of the same names: the same weights, spread over processes or whole again."""
        ...


# --- of a source of samples


@runtime_checkable
class Renders(Protocol):
    """Has the outputs of its samples itself, so that the policy need not make them."""

    def render_samples(self, policy: Policy, samples: Sequence[Sample]) -> list[Sample]:
        """As ``Policy.render``."""
        ...


@runtime_checkable
class ChecksRun(Protocol):
    """Knows whether it goes with the rest of a run, none of whose weights are loaded."""

    def check_run(self, plans: RunPlans) -> list[str]:
        """Why it does not, in words."""
        ...


@runtime_checkable
class Adapts(Protocol):
    """Asks for more than it makes: which of a round's requests are made follows from the scores of the first ones."""

    def first(self, asked: Sequence[Request]) -> np.ndarray:
        """[N] bool: those that are made first, and scored. Of each prompt they have the lowest indices."""
        ...

    def further(self, asked: Sequence[Request], scores: np.ndarray) -> np.ndarray:
        """[N] bool: those that are made besides; of each prompt the next indices.

        Args:
            scores: [N] of the reward that selects, turned so that higher is better; NaN = not scored, or not made.
        """
        ...


@runtime_checkable
class JudgesUnfinished(Protocol):
    """Has samples scored while they are made. It says how a round is cut into parts, for it may compare those of a prompt."""

    def parts(self, asked: Sequence[Request], size: int) -> Iterator[Sequence[Request]]:
        """Consecutive parts of about ``size`` requests, the same every time."""
        ...

    def judged_samples(
        self, policy: Policy, requests: Sequence[Request], score: Callable[[Sequence[Sample]], np.ndarray], *, trace: bool
    ) -> list[Sample]:
        """As ``Source.samples``, with the reward that selects at hand.

        Args:
            score: rendered samples → [M], higher is better, NaN = not scored.
        """
        ...


# --- of an objective


@runtime_checkable
class Divides(Protocol):
    """A loss, or that of a round, whose batches are divided by something else than their number of items, such as tokens."""

    def divisor(self, samples: Sequence[Sample], part: Any) -> float:
        """What the sum of the losses of a whole batch ``part`` is divided by, however it is cut up or shared out; > 0."""
        ...


@runtime_checkable
class TakesPasses(Protocol):
    """A loss that is a sum of losses, each of which is differentiated before the next is computed: memory holds one."""

    def passes(self, policy: Policy, samples: Sequence[Sample], part: Any) -> Sequence[Callable[..., torch.Tensor]]:
        """The summands for the items of ``part``, each to be called as a loss is; as many for any part of them."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A loss of an item that depends on the whole batch: it looks at that before it is asked for parts."""

    def prepare(self, policy: Policy, samples: Sequence[Sample], batch: Any, seeds: Sequence[int]) -> None:
        """Look at a batch, all processes' shares of it, before a step on it."""
        ...


@runtime_checkable
class NeedsBatch(Protocol):
    """A loss that means something in batches of some size only.

    Attributes:
        least_batch: items.
    """

    least_batch: int


@runtime_checkable
class ComparesGroups(Protocol):
    """A selector that compares the samples of a prompt, and has nothing to say of one alone.

    Attributes:
        least_k: samples of a prompt that it needs.
    """

    least_k: int


@runtime_checkable
class FollowsRounds(Protocol):
    """A selector that selects otherwise from round to round."""

    def at_round(self, rnd: int) -> Selector:
        """What selects in round ``rnd``, counted from 1."""
        ...


@runtime_checkable
class ChecksPolicy(Protocol):
    """Says why a policy, not yet loaded, will not do."""

    def suits(self, policy: Policy) -> list[str]: ...


# --- with an answer for whatever lacks them


def check(part: object) -> list[str]:
    """Mistakes of a part that can be seen without loading a weight."""
    return list(part.check()) if isinstance(part, Checks) else []


def check_prompts(part: object, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
    """What prompts lack that a part needs of them."""
    return list(part.check_prompts(train, held_out)) if isinstance(part, ChecksPrompts) else []


def notes(part: object) -> list[str]:
    """What a person should know of a part."""
    return list(part.notes()) if isinstance(part, Notes) else []


def check_run(source: object, plans: RunPlans) -> list[str]:
    """Why a source of samples does not go with the rest of a run."""
    return list(source.check_run(plans)) if isinstance(source, ChecksRun) else []


def renderer(source: object, policy: Policy) -> Callable[[Sequence[Sample]], list[Sample]]:
    """What makes the outputs of a source's samples: the source, or else the policy."""
    if isinstance(source, Renders):
        return lambda samples: source.render_samples(policy, samples)
    return policy.render


def check_policy(objective: object, policy: Policy) -> list[str]:
    """Why an objective cannot train a policy."""
    return list(objective.suits(policy)) if isinstance(objective, ChecksPolicy) else []


def nll_unit(policy: Policy) -> NllUnit | None:
    """The unit of a policy's ``nll``; None when it does not say."""
    return policy.nll_unit if isinstance(policy, MeasuresNll) else None


def check_trace(policy: Policy) -> list[str]:
    """Why a policy cannot be sampled with a trace."""
    return list(policy.check_trace()) if isinstance(policy, ChecksTrace) else []


def divisor(loss: object, samples: Sequence[Sample], part: Selection) -> float:
    """What the sum of a batch's losses is divided by."""
    return loss.divisor(samples, part) if isinstance(loss, Divides) else float(len(part))


def passes(loss: Any, policy: Policy, samples: Sequence[Sample], part: Selection) -> Sequence[Callable[..., torch.Tensor]]:
    """The losses that add up to a loss of these items; itself where it is one."""
    return loss.passes(policy, samples, part) if isinstance(loss, TakesPasses) else [loss]


def prepare(loss: object, policy: Policy, samples: Sequence[Sample], batch: Selection, seeds: Sequence[int]) -> None:
    """Show a loss the batch that a step will be taken on."""
    if isinstance(loss, Prepares):
        loss.prepare(policy, samples, batch, seeds)


def at_round(selector: Selector, rnd: int) -> Selector:
    """What selects in a round."""
    return selector.at_round(rnd) if isinstance(selector, FollowsRounds) else selector


def least_k(selector: object) -> int:
    """Samples of a prompt that a selector needs."""
    return selector.least_k if isinstance(selector, ComparesGroups) else 1


def least_batch(objective: object) -> int:
    """Items of a batch that an objective needs."""
    return objective.least_batch if isinstance(objective, NeedsBatch) else 1


def load(part: object) -> None:
    """Load a part's weights, if it has any."""
    if isinstance(part, Loads):
        part.load()


def sleep(part: object) -> None:
    """Have a part give the accelerator's memory back."""
    if isinstance(part, Sleeps):
        part.sleep()


def attach(parts: Iterable[object], policy: Policy) -> None:
    """Hand the policy to the parts that need it."""
    for part in parts:
        if isinstance(part, AttachesPolicy):
            part.attach(policy)


def latent_space(policy: Policy) -> str | None:
    """What tells the space of a loaded policy's latents from others; None where it has none to share."""
    return policy.latent_space if isinstance(policy, SharesLatents) else None


def visible(policy: Policy, prompt: Prompt) -> str:
    """What a policy takes in of a prompt; of a conversation its transcript.

    Raises:
        DataError: it refuses the prompt.
    """
    if prompt.messages is None or not isinstance(policy, ReadsMessages):
        return policy.visible(prompt.text)
    return transcript(policy.visible_messages(prompt.messages))


def estimate(policy: Policy) -> str:
    """How much memory a policy's weights take, in words; "" when it does not say."""
    return policy.estimate() if isinstance(policy, Estimates) else ""


def figures(policy: Policy, samples: Sequence[Sample]) -> dict[str, float]:
    """A policy's own figures of these samples."""
    return policy.figures(samples) if isinstance(policy, Describes) else {}
