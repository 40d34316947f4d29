"""Samples as the rows that the model reads: one for each turn that counts, joined where one goes on from another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

from raft_core.errors import DataError
from raft_core.types import Sample
from raft_text.model.encoding import Ids, PromptEncoder
from raft_text.model.likelihood import Row

T = TypeVar("T")
#: A sample's tensor [n] int64: how many of its tokens belong to each of several turns. Without it all belong to one.
TURNS = "turns"
#: A sample's tensors of what an environment said between its turns: [n] int64, and [turns − 1] how many of them behind each.
TOLD, TOLD_LENGTHS = "told", "told_lengths"


class Passages:
    """What of the samples the model reads, in rows of which parts count.

    A conversation whose template leaves earlier turns as they were is one row, of which the assistant's turns count. Where it
    rewrites them (Qwen3 drops earlier thoughts), each turn is a row behind what goes before it, as it would be drawn.

    Args:
        encode: prompts to tokens.
        samples: with their ``tokens``.

    Attributes:
        rows: (what stands before, all tokens behind it) of each.
        chats: whether each is of a conversation.
    """

    def __init__(self, encode: PromptEncoder, samples: Sequence[Sample]):
        self.rows: list[Row] = []
        self.chats: list[bool] = []
        self._spans: list[list[tuple[int, slice]]] = []  # of each sample: row, and which of its tokens count
        for sample in samples:
            spans: list[tuple[int, slice]] = []
            for row, parts in _joined(_turns(encode, sample)):
                spans += [(len(self.rows), part) for part in parts]
                self.rows.append(row)
                self.chats.append(encode.is_chat(sample.prompt))
            self._spans.append(spans)

    def of_samples(self, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """[T] of each sample's own tokens, from [T] of all tokens of each row."""
        return [
            torch.cat([values[row][part] for row, part in spans]) if len(spans) > 1 else values[spans[0][0]][spans[0][1]]
            for spans in self._spans
        ]


def _turns(encode: PromptEncoder, sample: Sample) -> list[tuple[Ids, list[int]]]:
    """(context, tokens) of each turn that counts."""
    tokens: list[int] = sample.tensors["tokens"].tolist()
    if TURNS not in sample.tensors:
        return [(encode(sample.prompt), tokens)]
    lengths = sample.tensors[TURNS].tolist()
    if TOLD in sample.tensors:
        return list(_with_told(encode(sample.prompt), sample))
    contexts = encode.contexts(sample.prompt)
    if len(contexts) != len(lengths):
        raise DataError(
            f"a sample holds {len(lengths)} turns of a conversation of which {len(contexts)} are learned: "
            "prompting.learned_turns has changed since it was made"
        )
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return [(c, tokens[start : start + n]) for c, start, n in zip(contexts, starts, lengths, strict=True)]


def _with_told(prompt: Ids, sample: Sample) -> Iterator[tuple[Ids, list[int]]]:
    """(context, tokens) of each turn of an episode: all that was said before, by whomever."""
    own = [part.tolist() for part in sample.tensors["tokens"].split(sample.tensors[TURNS].tolist())]
    told = [part.tolist() for part in sample.tensors[TOLD].split(sample.tensors[TOLD_LENGTHS].tolist())]
    context = list(prompt)
    for turn, reply in zip(own, [*told, []], strict=True):
        yield tuple(context), turn
        context += [*turn, *reply]


def _joined(turns: Sequence[tuple[Ids, list[int]]]) -> Iterator[tuple[Row, list[slice]]]:
    """Rows of turns, each with the parts of its tokens that count.

    Contexts (1, 2) and (1, 2, 3, 4, 5), tokens (3, 4) and (6): one row (1, 2), (3, 4, 5, 6) with 0:2 and 3:4.
    """
    before, tokens = turns[0]
    parts = [slice(0, len(tokens))]
    for context, own in turns[1:]:
        if list(context[: len(before) + len(tokens)]) == [*before, *tokens]:
            tokens = [*context[len(before) :], *own]
            parts.append(slice(len(tokens) - len(own), len(tokens)))
        else:
            yield (before, torch.tensor(tokens, dtype=torch.int64)), parts
            before, tokens, parts = context, own, [slice(0, len(own))]
    yield (before, torch.tensor(tokens, dtype=torch.int64)), parts
