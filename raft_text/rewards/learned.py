"""Rewards of text that are learned from preferences: any model of transformers with one output, by LoRA or in full."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from raft_core.errors import ConfigError, ModelError, RewardError
from raft_core.machine.devices import pick_dtype, resolve_device
from raft_core.machine.torchvision import ensure_importable
from raft_core.preferences.preference import Item
from raft_text.model.chat import finished, kind_of, refusals
from raft_text.model.loading import load_tokenizer
from raft_text.rewards.models import UNUSED, Loaded, Source, inputs_of, quiet
from raft_text.rewards.texts import joined

if TYPE_CHECKING:
    import torch

Format = Literal["auto", "chat", "plain"]


class TextLearner:
    """``AutoModelForSequenceClassification`` with one output and a fresh head, on any model of transformers.

    Dropout is off throughout, so that a training is the same for the same seed.

    Args:
        model: a folder in transformers' layout, or a name on the Hub: a language model, an encoder, or a reward model to go on
            with. Weights are read from safetensors alone.
        format: how prompt and completion are put together: ``chat``, by the tokenizer's chat template; ``plain``, one after the
            other, as HH-RLHF wants it; ``auto``, ``chat`` if there is a template.
        chat_template_kwargs: arguments of the chat template, such as {enable_thinking: false}.
        lora_rank: rank of LoRA on all linear layers; 0 trains all weights.
        max_tokens: longer texts lose their beginning, for the end of the answer was written last; null = what the model takes.
        batch_size: texts per forward pass when nothing is trained.
        dtype: of the frozen weights; ``auto`` = float32, on a GPU bfloat16 where it is native. What is trained is float32.
        gradient_checkpointing: less memory, a third more time.
        seed: of the initial weights.
    """

    modality: ClassVar[str] = "text"

    def __init__(
        self,
        model: str,
        format: Format = "auto",
        lora_rank: int = 16,
        max_tokens: int | None = 1024,
        batch_size: int = 16,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        gradient_checkpointing: bool = False,
        seed: int = 0,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ):
        mistakes = []
        if format not in ("auto", "chat", "plain"):
            mistakes.append(f"format is {format!r}, but must be 'auto', 'chat' or 'plain'")
        if lora_rank < 0:
            mistakes.append(f"lora_rank is {lora_rank}, but must not be negative; 0 trains all weights")
        if max_tokens is not None and max_tokens < 8:
            mistakes.append(f"max_tokens is {max_tokens}, which leaves nothing to read; give at least 8, or null")
        if batch_size < 1:
            mistakes.append(f"batch_size is {batch_size}, but must be at least 1")
        if mistakes:
            raise ConfigError(mistakes)
        self.model = model
        self.format = format
        self.lora_rank = lora_rank
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self.dtype: Literal["auto", "float32", "bfloat16"] = dtype
        self.gradient_checkpointing = gradient_checkpointing
        self.seed = seed
        self.chat_template_kwargs = dict(chat_template_kwargs or {})

    @property
    def lr(self) -> float:
        """The learning rate to begin with."""
        return 2e-4 if self.lora_rank else 1e-5

    def settings(self) -> dict[str, Any]:
        folder = Source(self.model, "Encoder").folder
        return {
            "model": str(folder.resolve()) if folder else self.model,
            "format": self.format,
            "lora_rank": self.lora_rank,
            "max_tokens": self.max_tokens,
            "batch_size": self.batch_size,
            "dtype": self.dtype,
            "gradient_checkpointing": False,
            "seed": self.seed,
            "chat_template_kwargs": self.chat_template_kwargs,
        }

    def check(self) -> list[str]:
        # Any model that transformers knows will do for a base: the head is made anew.
        return Source(self.model, "Encoder", self.dtype).check()

    def load(self, device: str = "auto") -> None:
        """Load the base and make its head and LoRA.

        Raises:
            ModelError: what is wrong with the base, or why it could not be loaded or downloaded.
        """
        source = Source(self.model, "Encoder", self.dtype, device)
        if mistakes := source.check():
            raise ModelError("; ".join(mistakes))
        self._loaded: Loaded
        self._loaded, new = load_base(source, self.seed)
        model = self._loaded.model
        if self.format == "chat" and not self._loaded.tokenizer.chat_template:
            raise ModelError(f"the tokenizer of {self.model!r} has no chat template: use --learner.format plain")
        if self.lora_rank:
            add_lora(model, self.lora_rank, self.seed, new)
        for name, parameter in model.named_parameters():
            if not self.lora_rank or "lora_" in name or name in new or not _in_base(model, name):
                parameter.data = parameter.data.float()
                parameter.requires_grad_(True)
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.train()  # transformers checkpoints in training mode alone
            switch_off_dropout(model)

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return {name: p for name, p in self._loaded.model.named_parameters() if p.requires_grad}

    def encode(self, items: Sequence[Item]) -> list[Mapping[str, list[int]]]:
        """Token ids of each, cut to what the model takes.

        Raises:
            DataError: a conversation that the chat template refuses.
            RewardError: a sample without a single token.
        """
        tokenizer = self._loaded.tokenizer
        tokenizer.truncation_side = "left"
        limit = min((n for n in (self.max_tokens, self._loaded.max_tokens) if n is not None), default=None)
        chat = self._is_chat(tokenizer)
        rows = []
        for item in items:
            text = self._conversation(tokenizer, item) if chat else joined(item.asked().text, item.output)
            # A chat template writes the special tokens itself.
            rows.append(tokenizer(text, add_special_tokens=not chat, truncation=limit is not None, max_length=limit))
            if not rows[-1]["input_ids"]:
                raise RewardError("a sample has neither a prompt nor a completion: there is no token to score")
        return rows

    def _is_chat(self, tokenizer: Any) -> bool:
        return self.format == "chat" or (self.format == "auto" and bool(tokenizer.chat_template))

    def _conversation(self, tokenizer: Any, item: Item) -> str:
        return finished(tokenizer, item.asked(), item.output, self.model, self.chat_template_kwargs)

    def check_items(self, items: Sequence[Item]) -> list[str]:
        """Conversations that the chat template refuses, before a weight is loaded.

        Raises:
            ModelError: the tokenizer cannot be loaded.
        """
        tokenizer = load_tokenizer(self.model, chat=self.format == "chat")
        if not self._is_chat(tokenizer):
            return []
        of_each_kind = {kind_of(item.asked()): item for item in reversed(items)}
        return refusals(lambda item: self._conversation(tokenizer, item), list(of_each_kind.values())[::-1])

    def __call__(self, encoded: Sequence[Mapping[str, list[int]]]) -> torch.Tensor:
        import torch

        model, device = self._loaded.wake(), self._loaded.device
        half = pick_dtype(self.dtype, device) == torch.bfloat16
        with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
            return model(**inputs_of(encoded, self._loaded)).logits[:, 0].float()

    def sleep(self) -> None:
        self._loaded.sleep()


def load_base(source: Source, seed: int) -> tuple[Loaded, frozenset[str]]:
    """A classifier with one output on a model of transformers, all frozen, and the names of weights that are new.

    What the model lacks of a head, a pooling layer with it, is made by the seed.

    Raises:
        ModelError: it could not be loaded or downloaded, or lacks more than the head.
    """
    ensure_importable()
    import torch
    import transformers

    device = resolve_device(source.device)
    place = str(source.folder or source.name)
    dtype = torch.bfloat16 if source.dtype == "bfloat16" else pick_dtype(source.dtype, device)
    dtype = torch.float32 if dtype == torch.float16 else dtype  # would need its losses scaled
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tokenizer = transformers.AutoTokenizer.from_pretrained(place)
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                place, num_labels=1, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:
        remedy = "mend or replace the folder" if source.folder else "without a network, give a folder"
        raise ModelError(f"the model {source.name!r} could not be loaded: {error} ({remedy})") from error
    new = frozenset(info["missing_keys"])
    if missing := sorted(name for name in new if _in_base(model, name) and not UNUSED.search(name)):
        raise ModelError(f"{source.name!r} lacks weights ({', '.join(missing[:3])}): what is learned on it would be random")
    return Loaded(model, tokenizer, device), new


def _in_base(model: Any, name: str) -> bool:
    """Whether a weight belongs to the pretrained model and not to the head on it."""
    return name.startswith(f"{model.base_model_prefix}.")


def add_lora(model: Any, rank: int, seed: int, new: frozenset[str]) -> None:
    """Put LoRA on all linear layers of the pretrained model but those whose weights are ``new``, in place."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    targets = [name for name in linear_layers(model) if f"{name}.weight" not in new]
    transposed = any(type(model.get_submodule(name)).__name__ == "Conv1D" for name in targets)  # GPT-2's own linear layer
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, fan_in_fan_out=transposed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)


def linear_layers(model: Any) -> Iterator[str]:
    """Names of the linear layers of the pretrained model."""
    import torch

    for name, module in model.named_modules():
        if _in_base(model, name) and (isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"):
            yield name


def switch_off_dropout(model: Any) -> None:
    """Dropout draws from global state; without it a training is the same for the same seed."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
