"""Any sequence classifier as a reward: reward models with a scalar head, or one label of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from raft_core.errors import ConfigError, DataError, ModelError, RaftError, nearest
from raft_core.protocols import RewardInfo
from raft_core.rewards.scoring import told
from raft_core.types import Prompt, Sample
from raft_text.model.chat import finished, kind_of, refusals
from raft_text.model.loading import load_tokenizer
from raft_text.rewards.models import Dtype, Loaded, Source, by_length, inputs_of, load
from raft_text.rewards.texts import completions, encodable, joined

Side = Literal["left", "right"]
FORMATS = ("auto", "chat", "plain", "pair", "completion")


class RewardModel:
    """A model for sequence classification: its only output, or the logit of one label.

    Texts that are too long are cut, by default on the left: the end of the answer is what was written last. Batches are padded
    on the right, where causal and bidirectional models alike do not look.

    Args:
        model: a folder in transformers' layout, or a name on the Hub. Weights are read from safetensors alone.
        label: name or number of the label whose logit is the score; null for a model that has one output.
        format: how prompt and completion are put together. ``chat``: as a conversation (the prompt's own, or a user's message)
            by the tokenizer's chat template. ``plain``: one after the other. ``pair``: as the tokenizer's two texts, as
            BERT-like reward models want. ``completion``: without the prompt. ``auto``: ``chat`` if there is a template, else
            ``plain``. Or a text with ``{prompt}`` and ``{completion}`` in it.
        max_tokens: longer texts are cut; null = what the model takes.
        truncation_side: ``left`` drops the beginning of what is too long, ``right`` the end.
        chat_template_kwargs: arguments of the chat template, such as {enable_thinking: false}.
        name: column in the store and label in the report.
        batch_size: texts per forward pass.
        dtype: ``auto`` = float32, on a GPU bfloat16 where it is native.
        device: ``auto`` (this process's accelerator if there is one), ``cpu``, ``cuda`` or ``cuda:N``; the model sleeps on the
            CPU.
    """

    def __init__(
        self,
        model: str,
        label: str | int | None = None,
        format: str = "auto",
        *,
        max_tokens: int | None = None,
        truncation_side: Side = "left",
        chat_template_kwargs: Mapping[str, Any] | None = None,
        name: str = "reward_model",
        batch_size: int = 16,
        dtype: Dtype = "auto",
        device: str = "auto",
    ):
        mistakes = []
        if format not in FORMATS and not ("{prompt}" in format and "{completion}" in format):
            mistakes.append(
                f"format is {format!r}, but must be one of {', '.join(FORMATS)}, or a text with {{prompt}} and {{completion}}"
            )
        if batch_size < 1:
            mistakes.append(f"batch_size is {batch_size}, but must be at least 1")
        if max_tokens is not None and max_tokens < 8:
            mistakes.append(f"max_tokens is {max_tokens}, which leaves nothing to read; give at least 8, or null")
        if truncation_side not in ("left", "right"):
            mistakes.append(f"truncation_side is {truncation_side!r}, but must be 'left' or 'right'")
        if mistakes:
            raise ConfigError(mistakes)
        scale = "output of the reward model" if label is None else f"logit of {label}"
        self.info = RewardInfo(name=name, scale=scale, batch_size=64 * batch_size, gpu=device != "cpu")
        self.source = Source(model, "SequenceClassification", dtype, device)
        self.label = label
        self.format = format
        self.max_tokens = max_tokens
        self.truncation_side: Side = truncation_side
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        self.batch_size = batch_size
        self._loaded: Loaded | None = None
        self._output = 0

    def check(self) -> list[str]:
        if mistakes := self.source.check():
            return mistakes
        config = self.source.config()
        try:
            if config:
                column(labels_of(config), self.label)
        except RaftError as error:
            return [str(error)]
        return []

    def check_prompts(self, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[str]:
        """Prompts that the chat template refuses, as far as the model is in a folder; otherwise such samples are not scored."""
        if self.source.folder is None or self.format not in ("auto", "chat"):
            return []
        try:
            tokenizer = load_tokenizer(self.source.name, chat=self.format == "chat")
        except ModelError:  # told by ``check``
            return []
        if not tokenizer.chat_template:
            return []
        of_each_kind = {kind_of(prompt): prompt for prompt in reversed([*train, *held_out])}
        return refusals(lambda prompt: self._chat(tokenizer, prompt, "0"), list(of_each_kind.values())[::-1])

    def load(self) -> None:
        """Load the model, or take the one that another reward has loaded.

        Raises:
            ModelError: it cannot be loaded, or lacks the label or the chat template that is asked for.
        """
        if self._loaded is not None:
            return
        loaded = load(self.source)
        self._output = column(labels_of(loaded.model.config.to_dict()), self.label)
        if self.format == "chat" and not loaded.tokenizer.chat_template:
            raise ModelError(f"the tokenizer of {self.source.name!r} has no chat template: choose another format than 'chat'")
        self._loaded = loaded

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self._loaded is not None:
            self._loaded.sleep()

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """[N] scores.

        Raises:
            PartlyScored: some texts have not a single token to read, or the chat template refuses them.
        """
        self.load()
        assert self._loaded is not None
        with self._loaded.lock:
            rows = [self._readable(self._loaded, *pair) for pair in zip(samples, completions(samples), strict=True)]
            refused = next((row for row in rows if isinstance(row, str)), None)
            scores = self._scores(self._loaded, [{"input_ids": []} if isinstance(row, str) else row for row in rows])
            return told(scores, refused or "the text holds not a single token")

    def _readable(self, loaded: Loaded, sample: Sample, completion: str) -> Mapping[str, list[int]] | str:
        """Token ids of one sample, or why it cannot be read."""
        try:
            return self._encoded(loaded, sample.prompt, completion)
        except DataError as error:
            return str(error)

    def _scores(self, loaded: Loaded, rows: Sequence[Mapping[str, list[int]]]) -> np.ndarray:
        import torch

        scores = np.full(len(rows), np.nan)
        readable = [i for i, row in enumerate(rows) if row["input_ids"]]
        model = loaded.wake()
        with torch.inference_mode():
            for batch in by_length([rows[i]["input_ids"] for i in readable], self.batch_size):
                chosen = [readable[i] for i in batch]
                logits = model(**inputs_of([rows[i] for i in chosen], loaded)).logits  # [B, labels]
                scores[chosen] = logits[:, self._output].cpu().double().numpy()
        return scores

    def _encoded(self, loaded: Loaded, prompt: Prompt, completion: str) -> Mapping[str, list[int]]:
        """Token ids of one sample, cut to what the model takes.

        Raises:
            DataError: the chat template refuses it.
        """
        tokenizer, completion = loaded.tokenizer, encodable(completion)
        tokenizer.truncation_side = self.truncation_side
        limit = min((n for n in (self.max_tokens, loaded.max_tokens) if n is not None), default=None)
        cut = {"truncation": limit is not None, "max_length": limit}
        if self.format == "pair":
            # The prompt gives way first: what is judged is the completion.
            return _pair(tokenizer, encodable(prompt.text), completion, cut)
        text, special = self._text(tokenizer, prompt, completion)
        return tokenizer(text, add_special_tokens=special, **cut)

    def _chat(self, tokenizer: Any, prompt: Prompt, completion: str) -> str:
        return encodable(finished(tokenizer, prompt, completion, self.source.name, self.chat_template_kwargs))

    def _text(self, tokenizer: Any, prompt: Prompt, completion: str) -> tuple[str, bool]:
        """(the whole text, whether the tokenizer still has to add its special tokens)."""
        chat = self.format == "chat" or (self.format == "auto" and bool(tokenizer.chat_template))
        if chat:
            return self._chat(tokenizer, prompt, completion), False  # the template writes them itself
        asked = encodable(prompt.text)
        if self.format == "completion":
            return completion, True
        if self.format in ("auto", "plain"):
            return joined(asked, completion), True
        # Replaced in one pass: a prompt that holds "{completion}" is text like any other.
        before, _, rest = self.format.partition("{prompt}")
        pieces = [part.replace("{completion}", completion) for part in (before, rest)]
        return pieces[0] + asked + pieces[1], True


def _pair(tokenizer: Any, prompt: str, completion: str, cut: Mapping[str, Any]) -> Mapping[str, list[int]]:
    whole = tokenizer(prompt, completion)
    limit = cut["max_length"]
    if limit is None or len(whole["input_ids"]) <= limit:
        return whole
    answer = len(tokenizer(completion, add_special_tokens=False)["input_ids"])
    special = tokenizer.num_special_tokens_to_add(pair=True)
    return tokenizer(prompt, completion, truncation="only_first" if answer + special < limit else True, max_length=limit)


def labels_of(config: Mapping[str, Any]) -> list[str]:
    """The labels of a classifier by its config.json, in the order of its outputs; transformers' default is two."""
    names = config.get("id2label") or {}
    count = len(names) or config.get("num_labels") or 2
    by_number = {int(number): str(name) for number, name in names.items()}
    return [by_number.get(number, f"LABEL_{number}") for number in range(count)]


def column(labels: Sequence[str], label: str | int | None) -> int:
    """Which output is the score.

    Raises:
        ConfigError: an unknown label, or none given where there are several.
    """
    if label is None:
        if len(labels) != 1:
            raise ConfigError(f"label is not given, but the model has {len(labels)} outputs: choose one of {', '.join(labels)}")
        return 0
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    if str(label).isdigit() and int(label) < len(labels):
        return int(label)
    raise ConfigError(f"label is {label!r}, which the model does not have{nearest(str(label), labels)}")
