"""How likely the model finds completions that are there: teacher-forced, the prompt masked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from raft_text.model.critic import ValueHead, hidden_states
from raft_text.model.packing import Packing
from raft_text.process.reader import takes_logits_to_keep
from raft_text.process.token_choice import Picker

Row = tuple[Sequence[int], torch.Tensor]  # prompt's token ids, completion's tokens [T]
Both = tuple[torch.Tensor, torch.Tensor]  # log-probs [T], values [T]
#: (which of the rows, [T, V] float32 logits that predict its completion) → [T] what they say of its tokens.
Scoring = Callable[[int, torch.Tensor], torch.Tensor]

#: A batch is cut where rows are shorter than this share of its longest.
LENGTH_RATIO = 0.7
#: Predictions (rows × tokens × vocabulary) held at once where no gradient is wanted: 1 GiB in float32.
MOST_PREDICTIONS = 2**28


def token_log_probs(
    network: Any,
    rows: Sequence[Row],
    device: torch.device,
    *,
    packing: Packing | None = None,
    scoring: Scoring | None = None,
    at_once: bool = False,
) -> list[torch.Tensor]:
    """[T] log-probs in nats of each completion's tokens, given prompt and what goes before; differentiable.

    Args:
        network: a transformers causal LM.
        rows: prompts and completions.
        packing: how rows are laid end to end without seeing each other; None = rows of similar length are padded to the longest
            of them.
        scoring: what is read off the logits; None = the model's own log-probs.
        at_once: in one pass, however their lengths differ.
    """
    ratio = 0.0 if at_once else LENGTH_RATIO
    return [log_probs for log_probs, _ in _read(network, None, rows, device, packing, scoring, ratio)]


def token_log_probs_and_values(
    network: Any,
    critic: ValueHead,
    rows: Sequence[Row],
    device: torch.device,
    *,
    packing: Packing | None = None,
    scoring: Scoring | None = None,
) -> list[Both]:
    """([T] log-probs, [T] the critic's estimate before each token) of each completion; as ``token_log_probs``."""
    return _read(network, critic, rows, device, packing, scoring)


def chosen_log_probs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """[T] log softmax(logits [T, V]) at tokens [T], in nats."""
    return logits.log_softmax(dim=-1).gather(1, tokens.to(logits.device)[:, None])[:, 0]


class DrawnScoring:
    """Log-probs of completions under the distributions that their tokens are drawn from, and not the model's own.

    Args:
        picker: how tokens are drawn.
        rows: that are read.
        cut: only among the tokens that top-k and top-p leave when the rows are read for the first time.
    """

    def __init__(self, picker: Picker, rows: Sequence[Row], *, cut: bool = False):
        self._picker = picker
        self._rows = rows
        self._cuts = cut and picker.cuts_off
        self._kept: dict[int, torch.Tensor] = {}

    def __call__(self, index: int, logits: torch.Tensor) -> torch.Tensor:
        """[T] log-probs of a row's tokens in nats, from the model's logits [T, V]."""
        prompt, tokens = self._rows[index]
        shaped = self._picker.shaped(logits, prompt, tokens)
        if self._cuts:
            if index not in self._kept:
                self._kept[index] = self._picker.kept(shaped, tokens)
            shaped = shaped.masked_fill(~self._kept[index], -torch.inf)
        return chosen_log_probs(shaped, tokens)


def _read(
    network: Any,
    critic: ValueHead | None,
    rows: Sequence[Row],
    device: torch.device,
    packing: Packing | None,
    scoring: Scoring | None,
    ratio: float = LENGTH_RATIO,
) -> list[Both]:
    """Without a critic the estimates are empty."""
    lengths = [len(prompt) + len(tokens) for prompt, tokens in rows]
    parts = by_length(lengths, ratio) if packing is None else packing.rows(lengths)
    found: dict[int, Both] = {}
    for part in parts:
        together = [rows[i] for i in part]
        read = (
            _padded(network, critic, together, device)
            if packing is None
            else _packed(network, critic, together, device, packing)
        )
        for index, (logits, values) in zip(part, read, strict=True):
            tokens = rows[index][1]
            found[index] = (scoring(index, logits) if scoring else chosen_log_probs(logits, tokens)), values
    return [found[i] for i in range(len(rows))]


def by_length(lengths: Sequence[int], ratio: float = LENGTH_RATIO) -> Iterator[list[int]]:
    """Indices in groups of similar length, the longest first.

    Lengths 10, 3, 9, 2 and a ratio of 0.7: [0, 2], [1], [3] with 2 < 0.7·3.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if group and lengths[index] < ratio * lengths[group[0]]:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def rows_at_once(rows: Sequence[Row], vocabulary: int) -> int:
    """How many of these rows can be read together without a gradient, at least 1: large vocabularies make large logits.

    A prompt of 10 tokens with a completion of 90 and a vocabulary of 2**17: 2**28 / (100 · 2**17) = 20.
    """
    longest = max((len(prompt) + len(tokens) for prompt, tokens in rows), default=1)
    return max(1, MOST_PREDICTIONS // (longest * vocabulary))


def _padded(network: Any, critic: ValueHead | None, rows: Sequence[Row], device: torch.device) -> Iterator[Both]:
    """([T, V] float32 logits, [T] values) of each row.

    Padding stands at the end, where nothing looks at it: attention is causal, so no mask is needed.
    """
    longest = max(len(prompt) + len(tokens) for prompt, tokens in rows)
    ids = torch.stack([_joined(row, longest) for row in rows]).to(device)  # [B, L]
    first = min(len(prompt) for prompt, _ in rows) - 1  # whose logits predict the first completion token of any row
    logits, values = _predictions(network, critic, ids, {}, longest - first)  # [B, L − first, V], [B, L − first]
    # Unbound and not indexed: the gradient of each index would be as large as all of them together.
    for (prompt, tokens), row, value in zip(rows, logits.unbind(), values.unbind(), strict=True):
        here = slice(len(prompt) - 1 - first, len(prompt) - 1 - first + len(tokens))
        yield row[here].float(), value[here]


def _packed(
    network: Any, critic: ValueHead | None, rows: Sequence[Row], device: torch.device, packing: Packing
) -> Iterator[Both]:
    """([T, V] float32 logits, [T] values) of each row."""
    lengths = [len(prompt) + len(tokens) for prompt, tokens in rows]
    ids = torch.cat([_joined(row, n) for row, n in zip(rows, lengths, strict=True)]).to(device)[None]  # [1, ΣL]
    arguments = packing.arguments(lengths, device)
    logits, values = _predictions(network, critic, ids, arguments, ids.shape[1])  # [1, ΣL, V], [1, ΣL]
    samples = logits[0].split(lengths), values[0].split(lengths) if critic else [values[0]] * len(rows)
    for (prompt, tokens), row, value in zip(rows, *samples, strict=True):
        here = slice(len(prompt) - 1, len(prompt) - 1 + len(tokens))
        yield row[here].float(), value[here]


def _joined(row: Row, length: int) -> torch.Tensor:
    prompt, tokens = row
    ids = torch.cat([torch.tensor(list(prompt), dtype=torch.int64), tokens.to(torch.int64)])
    return torch.nn.functional.pad(ids, (0, length - len(ids)), value=int(ids[0]))


def _predictions(
    network: Any, critic: ValueHead | None, ids: torch.Tensor, packed: Mapping[str, Any], keep: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """([B, keep, V] the last logits, [B, keep] the estimates there, [B, 0] without a critic)."""
    if critic is None:
        return _logits(network, ids, packed, keep), torch.empty(len(ids), 0, device=ids.device)
    with hidden_states(network) as seen:
        logits = _logits(network, ids, packed, keep)
    return logits, critic(seen[-1][:, -keep:], ids, packed)


def _logits(network: Any, ids: torch.Tensor, packed: Mapping[str, Any], keep: int) -> torch.Tensor:
    """[B, keep, V] the last logits."""
    extra: dict[str, Any] = {"logits_to_keep": keep} if takes_logits_to_keep(network) else {}
    return network(input_ids=ids, use_cache=False, **extra, **packed).logits[:, -keep:]


def padded(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """([B, S] values with 0 where there is no token, [B, S] bool mask) of rows [T]."""
    values = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=values.device)
    return values, torch.arange(values.shape[1], device=values.device) < lengths[:, None]
