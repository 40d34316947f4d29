"""Completions of many prompts at once: each prompt is read once, its K samples go on from there, each by its own seed.

Between two batches the logits of a sample differ by rounding alone (below 1e-5 in float32 on models of a few layers). A token
is another only where its uniform number falls into that gap, about once in 10⁵ tokens.
"""

from __future__ import annotations

from typing import Any

import torch

from raft_text.model.facts import keeps_state
from raft_text.process.generated import draw_generated
from raft_text.process.growing import Drawn, Growing, Task
from raft_text.process.reader import Reader, left_padded
from raft_text.process.token_choice import Picker


@torch.no_grad()
def draw(network: Any, task: Task, device: torch.device, draft: Any = None) -> list[Drawn]:
    """A completion per prompt and seed.

    Args:
        network: a transformers causal LM in evaluation mode.
        draft: a smaller one with the same vocabulary that guesses ahead. A guess counts only where it is the token that the
            model draws with the same uniform number, so the completions are those of the model alone.
    """
    if keeps_state(network):
        return draw_generated(network, task, device)
    unique = list(dict.fromkeys(tuple(prompt) for prompt in task.prompts))
    numbers = {prompt: number for number, prompt in enumerate(unique)}
    rows = torch.tensor([numbers[tuple(prompt)] for prompt in task.prompts], device=device)
    ids, _ = left_padded(unique)
    reader = Reader(network, unique, rows, device)
    guesser = None if draft is None else Reader(draft, unique, rows, device)
    growing = Growing(task, ids.to(device)[rows], device)
    picker = Picker(task.sampling, task.ends)
    while len(growing):
        token, shaped = growing.pick(picker, reader.logits)
        growing.write(token, shaped, reader.logits, torch.ones_like(growing.alive))
        if task.on_step is not None:
            task.on_step(int(growing.count.max()), growing.tokens.shape[1])
        moved = growing.compacted()
        if moved is not None:
            if not len(moved):
                break
            token = token[moved]
            for each in (reader, guesser):
                if each is not None:
                    each.keep(moved)
        if guesser is None:
            reader.logits = reader.read(token[:, None])[:, -1]
        else:
            _guess_ahead(reader, guesser, growing, picker, token, task.sampling.draft_tokens)
    return growing.results()


def _guess_ahead(reader: Reader, guesser: Reader, growing: Growing, picker: Picker, token: torch.Tensor, n: int) -> None:
    """Let the guesser go on for ``n`` tokens after ``token`` [A], and write those that the model would have drawn."""
    alive = growing.alive
    if alive.any():  # no further than the longest completion may go
        n = min(n, growing.tokens.shape[1] - int(growing.count[alive].max()))
    guesses = [token]
    written, count = growing.tokens.clone(), growing.count
    for _ in range(n):
        guesser.logits = guesser.read(guesses[-1][:, None])[:, -1]
        guesses.append(growing.pick(picker, guesser.logits)[0])
        place = growing.count.clamp(max=written.shape[1] - 1)[:, None]
        growing.tokens.scatter_(1, place, guesses[-1][:, None])  # so that a repetition penalty sees it
        growing.count = growing.count + 1  # the uniform number that the model will use there
    guesser.read(guesses[-1][:, None])
    growing.tokens, growing.count = written, count
    block = torch.stack(guesses, dim=1)  # [A, 1 + n]
    logits = reader.read(block)  # [A, 1 + n, V]
    agreed = growing.alive.clone()
    kept = torch.ones_like(growing.count)  # of the block; the first is the token that was drawn
    for place in range(n):
        drawn, shaped = growing.pick(picker, logits[:, place])
        agreed = agreed & growing.alive & (drawn == block[:, place + 1])
        growing.write(drawn, shaped, logits[:, place], agreed)
        kept = kept + agreed
    reader.logits = logits.gather(1, (kept - 1)[:, None, None].expand(-1, 1, logits.shape[-1]))[:, 0]
    for each in (reader, guesser):
        each.forget(n + 1, kept)
