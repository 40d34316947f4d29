"""What differs between two texts, piece by piece."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import groupby, pairwise

LONGEST = 2000  # words of a text that is compared; the comparison takes time by the product of both lengths
LEAST_COMMON = 0.2  # of the shorter text; where less is common, they are other texts altogether

Marked = tuple[tuple[str, bool], ...]


def marked_words(before: str, after: str) -> tuple[Marked, Marked]:
    """Both texts in runs of (text, is it only in this one); joined, the runs are the text.

    Nothing is marked in texts of more than ``LONGEST`` words, which are not compared, and in texts that have next to nothing in
    common: all of them would be marked.
    """
    first, second = words(before), words(after)
    if max(len(first), len(second)) > LONGEST:
        return ((before, False),), ((after, False),)
    removed, added = differing(first, second)
    common = sum(len(word) for word, gone in zip(first, removed, strict=True) if not gone)
    if common < LEAST_COMMON * min(len(before), len(after)):
        return ((before, False),), ((after, False),)
    return runs(first, removed), runs(second, added)


def words(text: str) -> list[str]:
    """The text in words, each with the space behind it, and signs; joined they are the text."""
    return re.findall(r"\w+\s*|[^\w\s]\s*|\s+", text)


def runs(parts: Sequence[str], marks: Sequence[bool]) -> Marked:
    """Neighbours with the same mark as one text."""
    grouped = groupby(zip(parts, marks, strict=True), key=lambda pair: pair[1])
    return tuple(("".join(part for part, _ in group), mark) for mark, group in grouped)


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
