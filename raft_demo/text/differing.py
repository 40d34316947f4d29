"""What differs between two texts, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise

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
    """Which pieces of ``before`` are not in ``after`` and the other way round, by the longest common blocks.

    A common block that is no longer than the changes on either side of it is common by chance, such as a word amid a new
    sentence: it counts with them. (So in Google's diff-match-patch, which calls it semantic cleanup.)
    """
    removed, added = [True] * len(before), [True] * len(after)
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()  # the last one is empty
    i = j = 0  # where the change begins that goes before the block
    for block, following in pairwise(blocks):
        past, beyond = block.a + block.size, block.b + block.size
        earlier = max(_length(before[i : block.a]), _length(after[j : block.b]))
        later = max(_length(before[past : following.a]), _length(after[beyond : following.b]))
        if _length(before[block.a : past]) > min(earlier, later):
            removed[block.a : past] = [False] * block.size
            added[block.b : beyond] = [False] * block.size
            i, j = past, beyond
    return removed, added


def _length(parts: Sequence[str]) -> int:
    return sum(map(len, parts))
