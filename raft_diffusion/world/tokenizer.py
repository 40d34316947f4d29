"""A small CLIP tokenizer: one token for every word of this world, letters for all other text.

Vocabulary in CLIP's own layout: 256 bytes, the same 256 ending a word, the merges, start and end. Any text tokenises.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from raft_diffusion.world.captions import PLACES, caption
from raft_diffusion.world.scenes import ATTRIBUTES, SHAPES, SIZES

CONTEXT = 32
START, END = "<|startoftext|>", "<|endoftext|>"
QUALITIES = (
    "a slightly very clean sharp picture of and two blurry smeared noisy cut eaten ragged melted muddled bled doubled "
    "faded stained glaring empty blank background nothing "
    "perfect good fair poor bad terrible broken messy nice ugly photo image"
)


def _corpus() -> list[str]:
    """Text with every word that a caption here can have."""
    scenes = [
        caption({"size": size, "colour": colour, "shape": shape, "background": background, "position": position})
        for size, colour, shape, background, position in itertools.product(
            SIZES, ATTRIBUTES["colour"], SHAPES, ATTRIBUTES["background"][:2], PLACES
        )
    ]
    return scenes + [caption({"colour": "red", "shape": "star", "background": b}) for b in ATTRIBUTES["background"]] + [
        QUALITIES, "an orange star, a red star on a navy background",
    ]  # fmt: skip


def learn_merges(words: dict[str, int], alphabet: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges until every word is one token, most frequent pair first; ties go to the earlier tokens.

    Args:
        words: how often each word occurs.
        alphabet: letters; the same letters ending a word come after them.

    Source: Sennrich et al. 2016, algorithm 1. (The trainer of `tokenizers` breaks ties at random: two processes would disagree
    about the ids of two words.)
    """
    rank = {token: index for index, token in enumerate([*alphabet, *(letter + "</w>" for letter in alphabet)])}
    split = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while True:
        counts: Counter[tuple[str, str]] = Counter()
        for word, pieces in split.items():
            for pair in itertools.pairwise(pieces):
                counts[pair] += words[word]
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], rank[pair[0]], rank[pair[1]]))
        merges.append(best)
        rank.setdefault("".join(best), len(rank))
        split = {word: _merged(pieces, best) for word, pieces in split.items()}


def _merged(pieces, pair):
    """The pieces of a word with every occurrence of the pair joined."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


@cache
def build_tokenizer():
    """A CLIPTokenizer that knows every word of the corpus; the same every time."""
    return tokenizer_of(_corpus())


def tokenizer_of(texts: Sequence[str]):
    """A CLIPTokenizer with one token for every word of the texts; the same every time."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    merges = learn_merges(Counter(re.findall(r"\w+|[^\w\s]+", " ".join(texts))), alphabet)
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(pair) for pair in merges] + [START, END]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)  # pyright: ignore[reportArgumentType]
