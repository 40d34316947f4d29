"""What text rewards share: the strings of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from raft_core.errors import RewardError
from raft_core.types import Sample


def completions(samples: Sequence[Sample]) -> list[str]:
    """The outputs of rendered text samples, without their prompts.

    Raises:
        RewardError: an output that is no string.
    """
    for sample in samples:
        if not isinstance(sample.output, str):
            raise RewardError(
                f"text rewards score strings, but a sample holds {type(sample.output).__name__}: "
                "render the samples first, and use a text policy"
            )
    return [sample.output for sample in samples]


def is_truncated(sample: Sample) -> bool:
    """Whether a completion was cut off at its longest length; one that no policy drew is whole."""
    return sample.meta.get("finish") == "length"


def encodable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON files can hold and tokenizers refuse."""
    return text.encode("utf-8", "replace").decode("utf-8")


def joined(prompt: str, completion: str) -> str:
    """Prompt and completion as one text, with a space between them unless one of them brings its own."""
    touching = prompt and completion and not (prompt[-1].isspace() or completion[0].isspace())
    return f"{prompt} {completion}" if touching else prompt + completion
