"""What a reward sees of a sample, as a digest: the same output for the same prompt, whenever and however it was made."""

from __future__ import annotations

import hashlib

from raft_core.types import Sample


def content_digest(sample: Sample) -> str:
    """32 hex digits of the prompt (text and facts) and the rendered output (text, or mode, size and pixels).

    Raises:
        TypeError: the output is neither a string nor a picture.
    """
    digest = hashlib.blake2b(sample.prompt.id.encode(), digest_size=16)
    output = sample.output
    if isinstance(output, str):
        digest.update(b"\x1ftext\x1f" + output.encode("utf-8", "surrogatepass"))
    elif hasattr(output, "tobytes") and hasattr(output, "mode"):
        palette = output.getpalette() if output.mode == "P" else None
        digest.update(f"\x1f{output.mode}\x1f{output.size}\x1f{palette}\x1f".encode() + output.tobytes())
    else:
        raise TypeError(f"a sample holds {type(output).__name__}, neither text nor a picture: render it first")
    return digest.hexdigest()
