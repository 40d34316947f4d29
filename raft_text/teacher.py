"""A language model that another one learns from: it reads the same tokens, and says what it would have gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch

from raft_core.bundled import bundled_runs
from raft_core.errors import DeviceError, ModelError
from raft_core.machine.devices import dtype_mistakes, resolve_device
from raft_core.store.manifest import RUN
from raft_text.export.files import arguments_for
from raft_text.model import device as hardware
from raft_text.model import loading
from raft_text.model.adapter import ADAPTER_CONFIG, find_adapter
from raft_text.model.facts import folder_mistakes
from raft_text.model.likelihood import Row, token_log_probs
from raft_text.model.lora import add_adapters, trainable
from raft_text.model.places import locate
from raft_text.process.growing import Drawn, Task
from raft_text.process.sampler import draw

#: Networks by name, precision and device: an objective and a source that ask for the same teacher share one.
_LOADED: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()


class Teacher:
    """A causal model whose tokens are the policy's, loaded beside it and never trained.

    Args:
        name: a model (bundled:NAME, a folder, or ORGANISATION/NAME on the Hub), or the folder of an adapter or a run.
        dtype: of the weights; auto = bfloat16 on CUDA where it is native, float32 elsewhere.
        quantize: 4bit or 8bit weights, on CUDA; None = none.
        setting: what a configuration calls it, for messages.
    """

    def __init__(self, name: str, dtype: str = "auto", quantize: Any = None, setting: str = "teacher"):
        self.name = name
        self._dtype = dtype
        self._quantize = quantize
        self._setting = setting
        self._network: Any = None
        self._device: torch.device | None = None

    def mistakes(self, model: str, device: str) -> list[str]:
        """Why it cannot teach a policy of this model, in words, as far as files tell; of the Hub's ``load`` tells it."""
        try:
            resolved = resolve_device(device)
        except DeviceError:  # told of the policy
            return []
        group = self._setting.rpartition(".")[0]
        found = hardware.quantize_mistakes(f"{group}.quantize".lstrip("."), self._quantize, resolved.type)
        found += dtype_mistakes(self._dtype, resolved)
        try:
            base, _ = self._parts()
            if locate(base)[0] == "hub":
                return found
            folder = Path(locate(base)[1])
            if wrong := folder_mistakes(folder, chat=False):
                return [*found, *(f"{self._setting}: {mistake.removeprefix('model: ')}" for mistake in wrong)]
            if locate(model)[0] != "hub":
                found += self._other_tokens(model, base)
        except ModelError as error:
            found.append(f"{self._setting}: {str(error).removeprefix('model: ')}")
        return found

    def load(self, model: str, device: str) -> None:
        """Load the weights, once, after the tokenizer has been compared with that of the policy's model.

        Raises:
            ModelError: it cannot be loaded, or has other tokens.
        """
        if self._network is not None:
            return
        base, adapter = self._parts()
        if mistakes := self._other_tokens(model, base):
            raise ModelError(mistakes[0])
        self._device = resolve_device(device)
        key = (self.name, self._dtype, self._quantize, str(self._device))
        self._network = _LOADED[key] = _LOADED.get(key) or self._loaded(base, adapter, self._device)

    def _loaded(self, base: str, adapter: Path | None, device: torch.device) -> Any:
        dtype = hardware.pick_dtype(self._dtype, device)
        network = loading.load_model(base, dtype, quantization=hardware.quantization(self._quantize))
        if adapter is not None:
            found = find_adapter(str(adapter))
            add_adapters(network, found.lora)
            found.put(trainable(network))
        network.requires_grad_(False)
        return network if self._quantize else network.to(device)

    @property
    def _there(self) -> tuple[Any, torch.device]:
        if self._network is None or self._device is None:
            raise ModelError(f"the teacher {self.name} is not loaded yet: call load() first")
        return self._network, self._device

    def draw(self, task: Task) -> list[Drawn]:
        """A completion per prompt and seed, as the teacher writes it.

        Raises:
            ModelError: ``load`` has not been called.
        """
        network, device = self._there
        return draw(network, task, device)

    @torch.no_grad()
    def logits(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """[T, V] float32 logits that predict each completion's tokens.

        Raises:
            ModelError: ``load`` has not been called.
        """
        network, device = self._there
        return token_log_probs(network, rows, device, scoring=lambda _, logits: logits)

    def _parts(self) -> tuple[str, Path | None]:
        """(the model, an adapter for it or None).

        Raises:
            ModelError: the folder holds neither.
        """
        folder = bundled_runs().get(self.name) or Path(self.name).expanduser()
        if not folder.is_dir():
            return self.name, None
        if (folder / RUN).is_file():
            folder = folder / "export"
            if not folder.is_dir():
                raise ModelError(f"the run {self.name} has exported nothing yet: let it end, or raft export it")
        if not (folder / ADAPTER_CONFIG).is_file():
            return str(folder), None
        arguments = arguments_for(folder)
        if "model" not in arguments:
            raise ModelError(f"the adapter in {folder} does not tell which model it was trained on: merge it, and give that")
        return arguments["model"], folder

    def _other_tokens(self, model: str, base: str) -> list[str]:
        """That the teacher's tokens are others than the policy's."""
        own, theirs = (loading.load_tokenizer(name, chat=False).get_vocab() for name in (model, base))
        differing = differing_token(own, theirs)
        if differing is None and max(own.values()) >= (size := _rows(base)):
            differing = f"{max(own.values()) + 1} tokens against {size}"
        if differing is None:
            return []
        return [
            f"{self._setting} {self.name} has another tokenizer than the policy's model {model} ({differing}), so what it says "
            "of a token is of another text: choose a teacher of the same family, or let it write the responses and learn those "
            "(raft sft)"
        ]


def differing_token(own: Mapping[str, int], theirs: Mapping[str, int]) -> str | None:
    """The first number that means another token in two vocabularies, in words; None where all common ones agree.

    One may have more tokens than the other, as later models of a family have, but the smaller has to lie in the larger.
    """
    named = {number: token for token, number in theirs.items()}
    for token, number in sorted(own.items(), key=lambda item: item[1]):
        if named.get(number, token) != token:
            return f"number {number} is {token!r} here and {named[number]!r} there"
    return None


def _rows(base: str) -> int:
    """How many tokens a model knows, by its configuration."""
    config = loading.load_config(base).get_text_config()
    return int(config.vocab_size)
