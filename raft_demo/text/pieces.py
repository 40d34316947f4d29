"""A text in the pieces that its tokens contribute."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\ufffd"  # what a decoder gives for a part of a character


def pieces(decode: Callable[[Sequence[int]], str], tokens: Sequence[int], text: str) -> list[str]:
    """The part of the text that each token contributes; joined they are the text.

    A token that ends within a character contributes nothing, and the one that completes it all of it; so does, with nothing, a
    token that is not shown or comes after a stop text.
    """
    found, begun = [], 0
    for count in range(1, len(tokens) + 1):
        seen = decode(tokens[:count])
        end = begun if seen.endswith(BROKEN) else max(begun, min(len(seen), len(text)))
        if count == len(tokens):
            end = len(text)
        found.append(text[begun:end])
        begun = end
    return found
