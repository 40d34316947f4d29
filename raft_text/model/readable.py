"""Whether a model takes the prompts that it is to be asked, told from its tokenizer alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raft_core.conversations import response
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
    model: str, prompting: Prompting, sampling: Sampling, prompts: Sequence[Prompt], *, responses: bool
) -> list[str]:
    """Prompts that leave no room for a completion, and conversations that the chat template refuses, in words.

    Args:
        responses: whether what their table says is to be answered is read too.

    Raises:
        ModelError: the model's folder, or its tokenizer, cannot be read.
    """
    place, where = loading.locate(model)
    context = None if place == "hub" else loading.read_facts(Path(where)).context
    written = [text for prompt in prompts if responses and (text := response(prompt)) is not None]
    room = max([sampling.max_new_tokens, *(len(text.encode()) + CHAT_ROOM for text in written)])
    if surely_fit(prompting, prompts, context, room) and not (place == "folder" and loading.exceeds_embedding(Path(where))):
        if not prompting.chat and all(prompt.messages is None for prompt in prompts):
            return []
        # Whether a template takes a conversation is a matter of its roles: one of each kind will do.
        prompts = list({kind_of(prompt): prompt for prompt in reversed(prompts)}.values())[::-1]
    encode = encoder_of(model, prompting, sampling, context)
    if prompting.chat and encode.chat.mistakes():  # told with the model's, for it is not the prompts' doing
        return []

    def tokens(prompt: Prompt) -> list[Ids]:
        text = response(prompt) if responses else None
        return [encode(prompt)] if text is None else [encode(prompt), *encode.turns(prompt, text)]

    return refusals(tokens, prompts)
