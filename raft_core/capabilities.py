"""What a part may be able to do besides its role: one small protocol for each idea, asked for here and nowhere else.

A policy, a reward, an objective or a rule that has the methods has the capability; nothing has to inherit or register. The
functions below give the answer of a part that lacks one, so that callers never ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from raft_core.conversations import transcript

if TYPE_CHECKING:
    import torch

    from raft_core.protocols import Policy
    from raft_core.types import Message, Prompt, Request, Sample, Selection


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


# --- of a policy


@runtime_checkable
class Describes(Protocol):
    """Has figures of its own on a round's rendered samples."""

    def figures(self, samples: Sequence[Sample]) -> dict[str, float]: ...


@runtime_checkable
class ChecksTrace(Protocol):
    """Cannot be sampled with a trace under all of its settings."""

    def check_trace(self) -> list[str]:
        """Why ``step_log_probs`` could not replay what is sampled, in words; called before a weight is loaded."""
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
    """Takes responses that were written elsewhere, by a person or a teacher, as samples of its own."""

    def written(self, requests: Sequence[Request], texts: Sequence[str]) -> list[Sample]: ...


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


# --- of an objective or a source


@runtime_checkable
class Divides(Protocol):
    """A loss, or that of a round, whose batches are divided by something else than their number of items, such as tokens."""

    def divisor(self, samples: Sequence[Sample], part: Any) -> float:
        """What the sum of the losses of a whole batch ``part`` is divided by, however it is cut up or shared out; > 0."""
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


def check_policy(part: object, policy: Policy) -> list[str]:
    """Why an objective cannot train a policy, or a source not give it samples."""
    return list(part.suits(policy)) if isinstance(part, ChecksPolicy) else []


def check_trace(policy: Policy) -> list[str]:
    """Why a policy cannot be sampled with a trace."""
    return list(policy.check_trace()) if isinstance(policy, ChecksTrace) else []


def divisor(loss: object, samples: Sequence[Sample], part: Selection) -> float:
    """What the sum of a batch's losses is divided by."""
    return loss.divisor(samples, part) if isinstance(loss, Divides) else float(len(part))


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


def visible(policy: Policy, prompt: Prompt) -> str:
    """What a policy takes in of a prompt; of a conversation its transcript.

    Raises:
        DataError: it refuses the prompt.
    """
    if prompt.messages is None or not isinstance(policy, ReadsMessages):
        return policy.visible(prompt.text)
    return transcript(policy.visible_messages(prompt.messages))


def figures(policy: Policy, samples: Sequence[Sample]) -> dict[str, float]:
    """A policy's own figures of these samples."""
    return policy.figures(samples) if isinstance(policy, Describes) else {}
