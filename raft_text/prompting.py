"""Text to tokens and back: what the model reads of a prompt, and what a person reads of a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from raft_core.errors import DataError
from raft_text.options import PLACE, Prompting

#: Prompts whose tokens are kept, so that a round tokenises each of its own once.
REMEMBERED = 4096


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
        ids = list(self.tokenizer(text)["input_ids"])
        while ids and ids[-1] in self._ends and len(ids) > 1:  # some tokenizers close every text; here it is to go on
            ids.pop()
        return ids

    def _chat(self, text: str) -> list[int]:
        system = [{"role": "system", "content": self._prompting.system}] if self._prompting.system is not None else []
        messages = [*system, {"role": "user", "content": text}]
        rendered = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(self.tokenizer(rendered, add_special_tokens=False)["input_ids"])  # the template brings its own

    def visible(self, text: str) -> str:
        """The part of a prompt that the model takes in: of one longer than ``max_tokens`` its end."""
        limit = self._prompting.max_tokens
        if limit is None:
            return text
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return text if len(ids) <= limit else self.tokenizer.decode(ids[-limit:])

    def completion(self, prompt: str, text: str) -> tuple[int, ...]:
        """Token ids of a completion that was written elsewhere, with an end-of-text token.

        Raises:
            DataError: prompt and completion together exceed the model's context.
        """
        end = self.tokenizer.eos_token_id
        ids = (*self.tokenizer(text, add_special_tokens=False)["input_ids"], min(self._ends) if end is None else end)
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


def shortened(text: str, width: int = 60) -> str:
    """The text in one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
