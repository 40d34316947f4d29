"""A causal language model in this process that answers conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raft_core.errors import ConfigError, DataError, ModelError
from raft_core.rewards.judge.chat import CUT_SHORT, Conversation, Unanswered
from raft_text.model.chat import Chat
from raft_text.model.template import render
from raft_text.options import Prompting
from raft_text.rewards.models import Dtype, Loaded, Source, by_length, inputs_of, load
from raft_text.rewards.texts import encodable


class LocalChat:
    """An instruction-tuned model of transformers, asked through its chat template, answering with its likeliest tokens.

    Args:
        model: a folder in transformers' layout, or a name on the Hub. Weights are read from safetensors alone.
        max_tokens: of an answer.
        batch_size: conversations per batch.
        chat_template_kwargs: arguments of the chat template, such as {enable_thinking: false}.
        dtype: ``auto`` = float32, on a GPU bfloat16 where it is native.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; the model sleeps on the CPU.
    """

    def __init__(
        self,
        model: str,
        max_tokens: int = 512,
        batch_size: int = 8,
        dtype: Dtype = "auto",
        device: str = "auto",
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ):
        for name, value in (("max_tokens", max_tokens), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError(f"{name} is {value}, but must be at least 1")
        self.source = Source(model, "CausalLM", dtype, device)
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        self._loaded: Loaded | None = None
        self._ends: list[int] = []

    def check(self) -> list[str]:
        return self.source.check()

    def load(self) -> None:
        """Load the model.

        Raises:
            ModelError: it cannot be loaded, or has no chat template.
        """
        if self._loaded is not None:
            return
        loaded = load(self.source)
        if not loaded.tokenizer.chat_template:
            raise ModelError(
                f"the tokenizer of {self.source.name!r} has no chat template: a judge is an instruction-tuned model"
            )
        self._ends = self._ends_of(loaded)
        if not self._ends:
            raise ModelError(f"the tokenizer of {self.source.name!r} has no end token: nobody could tell when it has answered")
        self._loaded = loaded

    def _ends_of(self, loaded: Loaded) -> list[int]:
        """Tokens that end an answer: those that end a text, and the one by which the template ends a turn."""
        own = loaded.model.generation_config.eos_token_id
        ends = own if own is not None else loaded.tokenizer.eos_token_id
        found = [] if ends is None else list(ends) if isinstance(ends, (list, tuple)) else [ends]
        prompting = Prompting(chat=True, chat_template_kwargs=self.chat_template_kwargs)
        try:
            turn = Chat(loaded.tokenizer, prompting, found, self.source.name).closing.end
        except DataError as error:
            raise ModelError(str(error)) from error
        return found if turn is None or turn in found else [*found, turn]

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self._loaded is not None:
            self._loaded.sleep()

    def ask_all(self, conversations: Sequence[Conversation]) -> list[str | Unanswered]:
        """One answer per conversation, in the same order."""
        self.load()
        loaded = self._loaded
        assert loaded is not None
        with loaded.lock:
            found = [self._encoded(loaded, conversation) for conversation in conversations]
            rows = {i: row for i, row in enumerate(found) if not isinstance(row, Unanswered)}
            answers: dict[int, str | Unanswered] = {i: row for i, row in enumerate(found) if isinstance(row, Unanswered)}
            for batch in by_length(list(rows.values()), self.batch_size):
                chosen = [list(rows)[i] for i in batch]
                answers |= zip(chosen, self._answers(loaded, [rows[i] for i in chosen]), strict=True)
        return [answers[i] for i in range(len(conversations))]

    def _encoded(self, loaded: Loaded, conversation: Conversation) -> list[int] | Unanswered:
        """Token ids of a question, or why it cannot be asked."""
        try:
            text = render(loaded.tokenizer, conversation, self.source.name, self.chat_template_kwargs, answer=True)
        except DataError as error:
            return Unanswered(str(error))
        row = loaded.tokenizer(encodable(text), add_special_tokens=False)["input_ids"]  # the template writes them itself
        fits = loaded.max_tokens is None or len(row) + self.max_tokens <= loaded.max_tokens
        return row if fits else self._too_long(loaded, row)

    def _too_long(self, loaded: Loaded, row: Sequence[int]) -> Unanswered:
        return Unanswered(
            f"{len(row)} tokens and an answer of {self.max_tokens} are more than the {loaded.max_tokens} that the judge takes"
        )

    def _answers(self, loaded: Loaded, rows: Sequence[list[int]]) -> list[str | Unanswered]:
        import torch

        with torch.inference_mode():
            inputs = inputs_of([{"input_ids": row} for row in rows], loaded, side="left")  # the answer begins at the right end
            tokens = loaded.wake().generate(**inputs, generation_config=self._generation(loaded))
        new = tokens[:, inputs["input_ids"].shape[1] :]  # [B, answer]
        texts = loaded.tokenizer.batch_decode(new, skip_special_tokens=True)
        ended = torch.isin(new, torch.tensor(self._ends, dtype=new.dtype, device=new.device)).any(dim=1).tolist()
        return [text if whole else Unanswered(CUT_SHORT) for text, whole in zip(texts, ended, strict=True)]

    def _generation(self, loaded: Loaded) -> Any:
        """Greedy, and nothing of the sampling settings that the model's folder proposes."""
        from transformers import GenerationConfig

        ends, padding = self._ends, loaded.model.config.get_text_config().pad_token_id
        if not loaded.pads:  # what follows the end of an answer must be a token that is skipped when it is read
            padding = ends[0]
        return GenerationConfig(max_new_tokens=self.max_tokens, do_sample=False, eos_token_id=ends, pad_token_id=padding)
