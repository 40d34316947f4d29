"""Whether a model takes the prompts that it is to be asked, told from its tokenizer alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raft_core.types import Prompt
from raft_text.model import loading
from raft_text.model.chat import kind_of, refusals
from raft_text.model.encoding import CHAT_ROOM, Ids, PromptEncoder, surely_fit
from raft_text.options import Prompting, Sampling


def encoder_of(model: str, prompting: Prompting, sampling: Sampling, context: int | None = None) -> PromptEncoder:
    """An encoder on the tokenizer alone, for checks.

    Raises:
        ModelError: the tokenizer cannot be loaded.
    """
    tokenizer = loading.load_tokenizer(model, chat=prompting.chat)
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    place, where = loading.locate(model)
    vocabulary = None if place == "hub" else loading.read_facts(Path(where)).vocabulary
    return PromptEncoder(tokenizer, prompting, context, sampling.max_new_tokens, ends, model, vocabulary)


def prompt_mistakes(
    model: str, prompting: Prompting, sampling: Sampling, asked: Sequence[tuple[Prompt, str | None]]
) -> list[str]:
    """Prompts that leave no room for a completion, and conversations that the chat template refuses, in words.

    Args:
        asked: prompts, each with what was written to it; None = completions are to be drawn.

    Raises:
        ModelError: the model's folder, or its tokenizer, cannot be read.
    """
    place, where = loading.locate(model)
    context = None if place == "hub" else loading.read_facts(Path(where)).context
    room = max([sampling.max_new_tokens, *(len(text.encode()) + CHAT_ROOM for _, text in asked if text is not None)])
    prompts = [prompt for prompt, _ in asked]
    if surely_fit(prompting, prompts, context, room) and not (place == "folder" and loading.exceeds_embedding(Path(where))):
        if not prompting.chat and all(prompt.messages is None for prompt in prompts):
            return []
        # Whether a template takes a conversation is a matter of its roles: one of each kind will do.
        asked = list({(kind_of(prompt), text is None): (prompt, text) for prompt, text in reversed(asked)}.values())[::-1]
    encode = encoder_of(model, prompting, sampling, context)
    if prompting.chat and encode.chat.mistakes():  # told with the model's, for it is not the prompts' doing
        return []

    def tokens(each: tuple[Prompt, str | None]) -> list[Ids]:
        prompt, text = each
        return [encode(prompt)] if text is None else [encode(prompt), *encode.turns(prompt, text)]

    return refusals(tokens, asked)
