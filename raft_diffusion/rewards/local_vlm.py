"""A vision-language model in this process that answers conversations with pictures."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raft_core.errors import ConfigError, DataError, DeviceError, MachineLack, ModelError
from raft_core.machine.devices import dtype_mistakes, pick_dtype, resolve_device
from raft_core.machine.torchvision import ensure_importable
from raft_core.media.picture import open_picture
from raft_core.models.quiet import quiet
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_core.rewards.judge.chat import CUT_SHORT, Conversation, Unanswered
from raft_core.sampling import chunks

if TYPE_CHECKING:
    from PIL.Image import Image

PROCESSOR = ("processor_config.json", "preprocessor_config.json")


class LocalVlm:
    """A chat model of transformers that sees pictures, asked through its template, answering with its likeliest tokens.

    Args:
        model: a folder in transformers' layout, or a name on the Hub: Qwen2.5-VL, Qwen3-VL, SmolVLM, LLaVA, InternVL and what
            else ``AutoModelForImageTextToText`` loads. Weights are read from safetensors alone.
        max_tokens: of an answer.
        batch_size: conversations per batch.
        dtype: ``auto`` = float32, on a GPU bfloat16 where it is native.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; the model sleeps on the CPU.
        chat_template_kwargs: arguments of the chat template, such as {enable_thinking: false}.
    """

    def __init__(
        self,
        model: str,
        max_tokens: int = 512,
        batch_size: int = 4,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        device: str = "auto",
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ):
        for name, value in (("max_tokens", max_tokens), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError(f"{name} is {value}, but must be at least 1")
        self.model = model
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self.dtype = dtype
        self.device = device
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        self._network: Any = None
        self._processor: Any = None
        self._ends: list[int] = []

    def check(self) -> list[str]:
        """Mistakes that show without a weight being read."""
        found = _folder_mistakes(Path(self.model).expanduser())
        try:
            return found + dtype_mistakes(self.dtype, resolve_device(self.device))
        except DeviceError as error:
            return [*found, MachineLack(error)]

    def load(self) -> None:
        """Load the model on the CPU, once.

        Raises:
            ModelError: it cannot be loaded, sees no pictures, or has no chat template.
        """
        if self._network is not None:
            return
        ensure_importable()
        from transformers import AutoModelForImageTextToText, AutoProcessor

        device = resolve_device(self.device)
        try:
            with quiet():
                processor: Any = AutoProcessor.from_pretrained(self.model)
                dtype = pick_dtype(self.dtype, device)
                loaded: Any = AutoModelForImageTextToText.from_pretrained(
                    self.model, dtype=dtype, use_safetensors=True, output_loading_info=True
                )
        except (OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError) as error:
            raise ModelError(f"the judge {self.model} could not be loaded: {' '.join(str(error).split())}") from error
        network, info = loaded
        if missing := sorted(info["missing_keys"]):  # the library would go on with random ones
            raise ModelError(f"the weights of the judge {self.model} lack {missing[0]!r} ({len(missing)} such tensors)")
        if not getattr(processor, "image_processor", None) or not processor.chat_template:
            raise ModelError(f"the processor of {self.model} takes no pictures or has no chat template: a judge needs both")
        self._ends = _ends_of(network, processor.tokenizer)
        if not self._ends:
            raise ModelError(f"the tokenizer of {self.model} has no end token: nobody could tell when it has answered")
        processor.tokenizer.padding_side = "left"  # the answer begins at the right end
        if processor.tokenizer.pad_token is None:  # what stands there is masked
            processor.tokenizer.pad_token = processor.tokenizer.convert_ids_to_tokens(self._ends[0])
        self._network, self._processor = network.eval().requires_grad_(False), processor

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self._network is not None:
            self._network.to("cpu")

    def ask_all(self, conversations: Sequence[Conversation]) -> list[str | Unanswered]:
        """One answer per conversation, in the same order."""
        self.load()
        network = self._network.to(resolve_device(self.device))
        answers: list[str | Unanswered] = []
        for part in chunks(list(conversations), self.batch_size):
            answers += self._answers(network, part)
        return answers

    def _answers(self, network: Any, conversations: Sequence[Conversation]) -> list[str | Unanswered]:
        import torch

        inputs = self._inputs(conversations).to(network.device, network.dtype)  # of numbers with a point alone
        longest = getattr(network.config.get_text_config(), "max_position_embeddings", None)
        width = inputs["input_ids"].shape[1]
        if longest is not None and width + self.max_tokens > longest:
            reason = f"{width} tokens and an answer of {self.max_tokens} are more than the {longest} that the judge takes"
            return [Unanswered(reason)] * len(conversations)
        with torch.inference_mode():
            tokens = network.generate(**inputs, generation_config=self._generation())[:, width:]
        texts = self._processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        ended = torch.isin(tokens, torch.tensor(self._ends, device=tokens.device)).any(dim=1).tolist()
        return [text if whole else Unanswered(CUT_SHORT) for text, whole in zip(texts, ended, strict=True)]

    def _inputs(self, conversations: Sequence[Conversation]) -> Any:
        """What the model reads: conversations by its template, and their pictures as its processor prepares them."""
        shown = [with_pictures(conversation) for conversation in conversations]
        settings = {"add_generation_prompt": True, "tokenize": False, **self.chat_template_kwargs}
        texts = [self._processor.apply_chat_template(messages, **settings) for messages, _ in shown]
        images = [pictures for _, pictures in shown]
        return self._processor(
            text=texts, images=images if any(images) else None, padding=True, add_special_tokens=False, return_tensors="pt"
        )

    def _generation(self) -> Any:
        """Greedy, and nothing of the sampling settings that the model's folder proposes."""
        from transformers import GenerationConfig

        padding = self._processor.tokenizer.pad_token_id
        return GenerationConfig(max_new_tokens=self.max_tokens, do_sample=False, eos_token_id=self._ends, pad_token_id=padding)


def with_pictures(conversation: Conversation) -> tuple[list[dict[str, Any]], list[Image]]:
    """A conversation as templates of transformers take it, a mark where each picture stands, and its pictures in order.

    Raises:
        DataError: a picture that cannot be decoded.
    """
    messages, pictures = [], []
    for message in conversation:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else []
        for part in [] if isinstance(content, str) else content:
            if part["type"] == "image_url":
                pictures.append(picture_of(part["image_url"]["url"]))
                parts.append({"type": "image"})
            else:
                parts.append(dict(part))
        messages.append({**message, "content": parts})
    return messages, pictures


def picture_of(uri: str) -> Image:
    """The picture of a ``data:`` address.

    Raises:
        DataError: it is none.
    """
    try:
        data = base64.b64decode(uri.partition(",")[2], validate=True)
    except binascii.Error:
        raise DataError("a picture is no base64") from None
    return open_picture(data, "what is judged")


def _ends_of(network: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer, by the model's own settings and its tokenizer."""
    found: set[int] = set()
    for said in (network.generation_config.eos_token_id, tokenizer.eos_token_id):
        found |= {said} if isinstance(said, int) else set(said or ())
    return sorted(found)


def _folder_mistakes(folder: Path) -> list[str]:
    """What is wrong with a folder as far as its files tell; nothing where it is none, which the Hub may know."""
    if not folder.is_dir():
        local = folder.is_absolute() or str(folder).startswith((".", "~")) or str(folder).count("/") > 1
        return [f"the judge {folder} does not exist; give a folder, or ORGANISATION/NAME on the Hub"] if local else []
    try:
        read_object(folder / "config.json", repeated_keys=True)
    except (OSError, Unreadable) as error:
        return [f"the judge {folder} is no model of transformers: config.json: {error}"]
    if not any(folder.glob("*.safetensors")):
        return [f"the judge {folder} has no weights (*.safetensors)"]
    if not any((folder / name).is_file() for name in PROCESSOR):
        return [f"the judge {folder} has no processor of pictures ({' or '.join(PROCESSOR)}): it is no vision-language model"]
    return []
