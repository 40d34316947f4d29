"""What a reward sees of a sample, as a digest: the same output for the same prompt, whenever and however it was made."""

from __future__ import annotations

import hashlib

from raft_core.media.medium import medium_of
from raft_core.types import Sample


def content_digest(sample: Sample) -> str:
    """32 hex digits of the prompt (text and facts) and the rendered output (text, or mode, size and pixels).

    Raises:
        TypeError: the output is of no known kind.
    """
    digest = hashlib.blake2b(sample.prompt.id.encode(), digest_size=16)
    digest.update(medium_of(sample.output).content(sample.output))
    return digest.hexdigest()
