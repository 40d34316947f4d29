"""How likely the model finds completions that are there: teacher-forced, the prompt masked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from raft_text.model.critic import ValueHead, hidden_states
from raft_text.process.sampler import takes_logits_to_keep

Row = tuple[Sequence[int], torch.Tensor]  # prompt's token ids, completion's tokens [T]
Both = tuple[torch.Tensor, torch.Tensor]  # log-probs [T], values [T]

#: A batch is cut where rows are shorter than this share of its longest.
LENGTH_RATIO = 0.7
#: Predictions (rows × tokens × vocabulary) held at once where no gradient is wanted: 1 GiB in float32.
MOST_PREDICTIONS = 2**28


def token_log_probs(network: Any, rows: Sequence[Row], device: torch.device, *, packed: bool = False) -> list[torch.Tensor]:
    """[T] log-probs in nats of each completion's tokens, given prompt and what goes before; differentiable.

    Args:
        network: a transformers causal LM.
        rows: prompts and completions.
        packed: lay all rows end to end in one, with positions that begin anew; attention does not cross from one to another.
            Otherwise rows of similar length are padded to the longest of them.
    """
    return [log_probs for log_probs, _ in _read(network, None, rows, device, packed)]


def token_log_probs_and_values(
    network: Any, critic: ValueHead, rows: Sequence[Row], device: torch.device, *, packed: bool = False
) -> list[Both]:
    """([T] log-probs, [T] the critic's estimate before each token) of each completion; as ``token_log_probs``."""
    return _read(network, critic, rows, device, packed)


def _read(network: Any, critic: ValueHead | None, rows: Sequence[Row], device: torch.device, packed: bool) -> list[Both]:
    """Without a critic the estimates are empty."""
    if packed:
        return _packed(network, critic, rows, device)
    found: dict[int, Both] = {}
    for part in by_length([len(prompt) + len(tokens) for prompt, tokens in rows]):
        found |= dict(zip(part, _padded(network, critic, [rows[i] for i in part], device), strict=True))
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


def _padded(network: Any, critic: ValueHead | None, rows: Sequence[Row], device: torch.device) -> list[Both]:
    """Padding stands at the end, where nothing looks at it: attention is causal, so no mask is needed."""
    longest = max(len(prompt) + len(tokens) for prompt, tokens in rows)
    ids = torch.stack([_joined(row, longest) for row in rows]).to(device)  # [B, L]
    first = min(len(prompt) for prompt, _ in rows) - 1  # whose logits predict the first completion token of any row
    logits, values = _predictions(network, critic, ids, None, longest - first)  # [B, L − first, V], [B, L − first]
    predicted = logits[:, :-1].float().log_softmax(dim=-1).gather(2, ids[:, first + 1 :, None])[..., 0]  # [B, L − first − 1]
    spans = [slice(len(p) - 1 - first, len(p) - 1 - first + len(t)) for p, t in rows]
    return [(row[span], value[span]) for row, value, span in zip(predicted, values, spans, strict=True)]


def _packed(network: Any, critic: ValueHead | None, rows: Sequence[Row], device: torch.device) -> list[Both]:
    lengths = [len(prompt) + len(tokens) for prompt, tokens in rows]
    ids = torch.cat([_joined(row, n) for row, n in zip(rows, lengths, strict=True)]).to(device)[None]  # [1, ΣL]
    places = torch.cat([torch.arange(n) for n in lengths]).to(device)[None]
    logits, values = _predictions(network, critic, ids, places, ids.shape[1])  # [1, ΣL, V], [1, ΣL]
    found, start = [], 0
    for (prompt, tokens), n in zip(rows, lengths, strict=True):
        here = slice(start + len(prompt) - 1, start + n - 1)
        log_probs = logits[0, here].float().log_softmax(dim=-1)
        found.append((log_probs.gather(1, tokens.to(device)[:, None])[:, 0], values[0, here]))
        start += n
    return found


def _joined(row: Row, length: int) -> torch.Tensor:
    prompt, tokens = row
    ids = torch.cat([torch.tensor(list(prompt), dtype=torch.int64), tokens.to(torch.int64)])
    return torch.nn.functional.pad(ids, (0, length - len(ids)), value=int(ids[0]))


def _predictions(
    network: Any, critic: ValueHead | None, ids: torch.Tensor, places: torch.Tensor | None, keep: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """([B, keep, V] the last logits, [B, keep] the estimates there, [B, 0] without a critic)."""
    if critic is None:
        return _logits(network, ids, places, keep), torch.empty(len(ids), 0, device=ids.device)
    with hidden_states(network) as seen:
        logits = _logits(network, ids, places, keep)
    return logits, critic(seen[-1][:, -keep:], ids, places)


def _logits(network: Any, ids: torch.Tensor, places: torch.Tensor | None, keep: int) -> torch.Tensor:
    """[B, keep, V] the last logits."""
    extra: dict[str, Any] = {"logits_to_keep": keep} if takes_logits_to_keep(network) else {}
    extra |= {} if places is None else {"position_ids": places}
    return network(input_ids=ids, use_cache=False, **extra).logits[:, -keep:]


def padded(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """([B, S] values with 0 where there is no token, [B, S] bool mask) of rows [T]."""
    values = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=values.device)
    return values, torch.arange(values.shape[1], device=values.device) < lengths[:, None]
