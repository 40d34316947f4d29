"""Whether a model takes the prompts that it is to be asked, told from its tokenizer alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raft_core.errors import ConfigError, DataError, ModelError
from raft_core.types import Prompt
from raft_text.model.chat import kind_of, refusals
from raft_text.model.encoding import Ids, PromptEncoder, Tools
from raft_text.model.ends import stop_tokens
from raft_text.model.facts import exceeds_embedding, folder_mistakes, read_facts, room_mistakes
from raft_text.model.loading import load_tokenizer
from raft_text.model.places import locate
from raft_text.model.visible import CHAT_ROOM, surely_fit
from raft_text.options import Prompting, Sampling


def encoder_of(
    model: str, prompting: Prompting, sampling: Sampling, context: int | None = None, tools: Tools = None
) -> PromptEncoder:
    """An encoder on the tokenizer alone, for checks.

    Raises:
        ModelError: the tokenizer cannot be loaded.
    """
    tokenizer = load_tokenizer(model, chat=prompting.chat)
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    place, where = locate(model)
    vocabulary = None if place == "hub" else read_facts(Path(where)).vocabulary
    return PromptEncoder(tokenizer, prompting, context, sampling.max_new_tokens, ends, model, vocabulary, tools or ())


def prompt_mistakes(
    model: str,
    prompting: Prompting,
    sampling: Sampling,
    asked: Sequence[tuple[Prompt, str | None]],
    tools: Tools = None,
) -> list[str]:
    """Prompts that leave no room for a completion, and conversations that the chat template refuses, in words.

    Args:
        asked: prompts, each with what was written to it; None = completions are to be drawn.

    Raises:
        ModelError: the model's folder, or its tokenizer, cannot be read.
    """
    place, where = locate(model)
    context = None if place == "hub" else read_facts(Path(where)).context
    room = max([sampling.max_new_tokens, *(len(text.encode()) + CHAT_ROOM for _, text in asked if text is not None)])
    prompts = [prompt for prompt, _ in asked]
    if surely_fit(prompting, prompts, context, room) and not (place == "folder" and exceeds_embedding(Path(where))):
        if not prompting.chat and all(prompt.messages is None for prompt in prompts):
            return []
        # Whether a template takes a conversation is a matter of its roles: one of each kind will do.
        asked = list({(kind_of(prompt), text is None): (prompt, text) for prompt, text in reversed(asked)}.values())[::-1]
    encode = encoder_of(model, prompting, sampling, context, tools)
    if prompting.chat and encode.chat.mistakes():  # told with the model's, for it is not the prompts' doing
        return []

    def tokens(each: tuple[Prompt, str | None]) -> list[Ids]:
        prompt, text = each
        told = [encode.told("0", prompt, ended=True)] if tools is not None and encode.is_chat(prompt) else []
        return [encode(prompt), *told] if text is None else [encode(prompt), *told, *encode.turns(prompt, text)]

    return refusals(tokens, asked)


def model_mistakes(
    model: str, prompting: Prompting, sampling: Sampling, tools: Tools = None, *, chat: bool, stops: bool
) -> list[str]:
    """What is wrong with a model that is here, told without its weights; of one on the Hub nothing is known yet.

    Args:
        chat: whether plain prompts go through its chat template.
        stops: whether its tokenizer has to know the stop texts.
    """
    try:
        place, where = locate(model)
        if place == "hub":
            return []
        folder = Path(where)
        if mistakes := folder_mistakes(folder, chat=chat) or room_mistakes(read_facts(folder).context, sampling):
            return mistakes
        if stops and sampling.stop:
            stop_tokens(load_tokenizer(model, chat=chat), sampling.stop)
        return chat_mistakes(model, prompting, sampling, tools) if chat else []
    except (ModelError, ConfigError) as error:
        return [str(error)]


def chat_mistakes(model: str, prompting: Prompting, sampling: Sampling, tools: Tools) -> list[str]:
    """What a model's chat template refuses whatever the prompts; with an environment, that it cannot be told what that says.

    Raises:
        ModelError: the tokenizer cannot be loaded.
    """
    encode = encoder_of(model, prompting, sampling, tools=tools)
    if (mistakes := encode.chat.mistakes()) or tools is None:
        return mistakes
    return refusals(lambda prompt: encode.told("0", prompt, ended=True), [Prompt("0")])


class PromptCheck:
    """The check of prompts that a model is to be asked: at once if it is here, else as soon as its tokenizer is.

    Args:
        tools: that a chat is offered; None = no environment.
    """

    def __init__(self, model: str, prompting: Prompting, sampling: Sampling, tools: Tools = None):
        self._tools = tools
        self._model = model
        self._prompting = prompting
        self._sampling = sampling
        self._unchecked: list[tuple[Prompt, str | None]] = []

    def mistakes(self, asked: Sequence[tuple[Prompt, str | None]], *, besides: bool = False) -> list[str]:
        """Why prompts are refused, in words; of a Hub's model ``require`` tells it.

        Args:
            asked: prompts, each with what was written to it; None = completions are to be drawn.
            besides: what was asked about before, and could not be told, is not forgotten.
        """
        self._unchecked = [*(self._unchecked if besides else ()), *asked]
        try:
            return [] if locate(self._model)[0] == "hub" else self._told()
        except ModelError:  # told with the model's mistakes
            return []

    def require(self) -> None:
        """Check what could not be checked before the tokenizer was there.

        Raises:
            ConfigError: settings that the chat template does not take.
            DataError: prompts that are refused.
            ModelError: the tokenizer cannot be loaded.
        """
        parts = (self._model, self._prompting, self._sampling, self._tools)
        if self._prompting.chat and (mistakes := chat_mistakes(*parts)):
            raise ConfigError(mistakes)
        if self._unchecked and (mistakes := self._told()):
            raise DataError(mistakes[0])

    def _told(self) -> list[str]:
        """What was checked is not checked again."""
        asked, self._unchecked = self._unchecked, []
        return prompt_mistakes(self._model, self._prompting, self._sampling, asked, self._tools)
