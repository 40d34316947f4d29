"""Text to tokens and back: what the model reads of a prompt, and what a person reads of a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from raft_core.errors import DataError
from raft_text.options import PLACE, Prompting

#: Prompts whose tokens are kept, so that a round tokenises each of its own once.
REMEMBERED = 4096
#: Tokens that a tokenizer may put around a prompt, with its chat template and without.
CHAT_ROOM, PLAIN_ROOM = 512, 8


class PromptEncoder:
    """Prompts as the model reads them.

    Args:
        tokenizer: of the model.
        prompting: templates and the longest prompt.
        context: longest text in tokens that the model takes; None = no limit.
        room: tokens that must be left for the completion.
        ends: ids of end-of-text tokens.
    """

    def __init__(self, tokenizer: Any, prompting: Prompting, context: int | None, room: int, ends: Sequence[int]):
        self.tokenizer = tokenizer
        self._prompting = prompting
        self._context = context
        self._room = room
        self._ends = frozenset(ends)
        self._known: dict[str, tuple[int, ...]] = {}

    def __call__(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt, templates included, at least one.

        Raises:
            DataError: it leaves no room for a completion, or is empty.
        """
        if text not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[text] = self._encoded(text)
        return self._known[text]

    def _encoded(self, text: str) -> tuple[int, ...]:
        framed = self._prompting.template.replace(PLACE, self.visible(text))
        ids = self._chat(framed) if self._prompting.chat else self._plain(framed)
        if not ids:
            raise DataError(f"the prompt {shortened(text)!r} has no tokens, and the tokenizer adds none: nothing to continue")
        if self._context is not None and len(ids) + self._room > self._context:
            raise DataError(
                f"a prompt has {len(ids)} tokens, which with max_new_tokens {self._room} exceeds the model's context of "
                f"{self._context}: {shortened(text)!r}; shorten it, lower sampling.max_new_tokens, or set prompting.max_tokens"
            )
        return tuple(ids)

    def _plain(self, text: str) -> list[int]:
        ids = list(self._ids(text, add_special_tokens=True))
        while ids and ids[-1] in self._ends and len(ids) > 1:  # some tokenizers close every text; here it is to go on
            ids.pop()
        return ids

    def _chat(self, text: str) -> list[int]:
        system = [{"role": "system", "content": self._prompting.system}] if self._prompting.system is not None else []
        messages = [*system, {"role": "user", "content": text}]
        rendered = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(self._ids(rendered))  # the template brings its own special tokens

    def _ids(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids; what is too long is told by this class, in its own words."""
        return self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]

    def visible(self, text: str) -> str:
        """The part of a prompt that the model takes in: of one longer than ``max_tokens`` its end."""
        limit = self._prompting.max_tokens
        if limit is None:
            return text
        ids = self._ids(text)
        return text if len(ids) <= limit else self.tokenizer.decode(ids[-limit:])

    def completion(self, prompt: str, text: str) -> tuple[int, ...]:
        """Token ids of a completion that was written elsewhere, with an end-of-text token.

        Raises:
            DataError: prompt and completion together exceed the model's context.
        """
        end = self.tokenizer.eos_token_id
        ids = (*self._ids(text), min(self._ends) if end is None else end)
        length = len(self(prompt)) + len(ids)
        if self._context is not None and length > self._context:
            raise DataError(
                f"prompt and response have {length} tokens, but the model's context is {self._context}: {shortened(text)!r}; "
                "leave it out or shorten it"
            )
        return ids

    def text(self, tokens: Sequence[int] | torch.Tensor) -> str:
        """What a person reads of a completion's tokens."""
        return self.tokenizer.decode(torch.as_tensor(tokens).tolist(), skip_special_tokens=True)


def refusals(encode: PromptEncoder, texts: Sequence[str]) -> list[str]:
    """Why the first of the prompts that cannot be used is refused, and how many others are; empty when all can."""
    found = []
    for text in texts:
        try:
            encode(text)
        except DataError as error:
            found.append(str(error))
    more = f" ({len(found)} of {len(texts)} prompts are refused likewise)" if len(found) > 1 else ""
    return [found[0] + more] if found else []


def surely_fit(prompting: Prompting, texts: Sequence[str], context: int | None, room: int) -> bool:
    """Whether prompts leave room for their completions whatever the tokenizer: a token is a byte at least."""
    if context is None:
        return True
    around = prompting.template.replace(PLACE, "") + (prompting.system or "")
    longest = max((len(text.encode()) for text in texts), default=0) + len(around.encode())
    return longest + (CHAT_ROOM if prompting.chat else PLAIN_ROOM) + room <= context


def shortened(text: str, width: int = 60) -> str:
    """The text in one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
