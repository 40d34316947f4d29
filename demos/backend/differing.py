"""What differs between two texts, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

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


def differing(before: Sequence[str], after: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Which of ``before`` are not in ``after`` and the other way round, by the longest common blocks.

    White space between two pieces that differ counts with them: it would only break one change into two.
    """
    removed, added = [True] * len(before), [True] * len(after)
    for block in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks():
        if not block.size:
            continue
        is_between = min(block.a, block.b) > 0 and block.a + block.size < len(before) and block.b + block.size < len(after)
        if is_between and not "".join(before[block.a : block.a + block.size]).strip():
            continue
        removed[block.a : block.a + block.size] = [False] * block.size
        added[block.b : block.b + block.size] = [False] * block.size
    return removed, added
