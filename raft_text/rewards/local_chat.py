"""A causal language model in this process that answers conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raft_core.errors import ConfigError, ModelError
from raft_core.rewards.judge.chat import CUT_SHORT, Conversation, Unanswered
from raft_text.rewards.models import Dtype, Loaded, Source, by_length, inputs_of, load
from raft_text.rewards.texts import encodable


class LocalChat:
    """An instruction-tuned model of transformers, asked through its chat template, answering with its likeliest tokens.

    Args:
        model: a folder in transformers' layout, or a name on the Hub. Weights are read from safetensors alone.
        max_tokens: of an answer.
        batch_size: conversations per batch.
        dtype: ``auto`` = float32, on a GPU bfloat16 where it is native.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; the model sleeps on the CPU.
    """

    def __init__(self, model: str, max_tokens: int = 512, batch_size: int = 8, dtype: Dtype = "auto", device: str = "auto"):
        for name, value in (("max_tokens", max_tokens), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError(f"{name} is {value}, but must be at least 1")
        self.source = Source(model, "CausalLM", dtype, device)
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self._loaded: Loaded | None = None

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
        if not _ends(loaded):
            raise ModelError(f"the tokenizer of {self.source.name!r} has no end token: nobody could tell when it has answered")
        self._loaded = loaded

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
            rows = [self._encoded(loaded, conversation) for conversation in conversations]
            answers: list[str | Unanswered] = [self._too_long(loaded, row) for row in rows]
            fitting = [i for i, row in enumerate(rows) if self._fits(loaded, row)]
            for batch in by_length([rows[i] for i in fitting], self.batch_size):
                chosen = [fitting[i] for i in batch]
                for i, answer in zip(chosen, self._answers(loaded, [rows[i] for i in chosen]), strict=True):
                    answers[i] = answer
        return answers

    def _encoded(self, loaded: Loaded, conversation: Conversation) -> list[int]:
        text = loaded.tokenizer.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=True)
        return loaded.tokenizer(encodable(text), add_special_tokens=False)["input_ids"]  # the template writes them itself

    def _fits(self, loaded: Loaded, row: Sequence[int]) -> bool:
        return loaded.max_tokens is None or len(row) + self.max_tokens <= loaded.max_tokens

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
        ended = torch.isin(new, torch.tensor(_ends(loaded), dtype=new.dtype, device=new.device)).any(dim=1).tolist()
        return [text if whole else Unanswered(CUT_SHORT) for text, whole in zip(texts, ended, strict=True)]

    def _generation(self, loaded: Loaded) -> Any:
        """Greedy, and nothing of the sampling settings that the model's folder proposes."""
        from transformers import GenerationConfig

        ends, padding = _ends(loaded), loaded.model.config.get_text_config().pad_token_id
        if not loaded.pads:  # what follows the end of an answer must be a token that is skipped when it is read
            padding = ends[0]
        return GenerationConfig(max_new_tokens=self.max_tokens, do_sample=False, eos_token_id=ends, pad_token_id=padding)


def _ends(loaded: Loaded) -> list[int]:
    """Tokens that end an answer."""
    own = loaded.model.generation_config.eos_token_id
    ends = own if own is not None else loaded.tokenizer.eos_token_id
    return [] if ends is None else list(ends) if isinstance(ends, (list, tuple)) else [ends]
