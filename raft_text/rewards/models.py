"""Models of transformers for rewards: mistakes found without loading, loaded once per process, on the CPU until used."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raft_core.errors import DeviceError, MachineLack, ModelError, nearest
from raft_core.machine.devices import dtype_mistakes, pick_dtype, resolve_device
from raft_core.machine.torchvision import ensure_importable
from raft_core.reading.files import Unreadable
from raft_core.reading.json_data import read_object
from raft_text.model.loading import quiet
from raft_text.model.places import BUNDLED, BUNDLED_FOLDER

if TYPE_CHECKING:
    import torch

Task = Literal["SequenceClassification", "TokenClassification", "CausalLM", "Encoder"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
HUB_NAME = re.compile(r"(?:[\w.-]+/)?[\w.-]+")
UNUSED = re.compile(r"(^|\.)pooler\.")  # weights that an embedding by mean pooling does without


@dataclass(frozen=True)
class Source:
    """Where a model comes from and what it is to do.

    Attributes:
        name: a folder in transformers' layout, ``bundled:NAME``, or a name on the Hub.
        task: the kind of head.
        dtype: of the weights; ``auto`` = float32, on a GPU bfloat16 where it is native, else float16.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    name: str
    task: Task
    dtype: Dtype = "auto"
    device: str = "auto"

    @property
    def folder(self) -> Path | None:
        """The local folder, if it is one."""
        if self.name.startswith(BUNDLED):
            return BUNDLED_FOLDER / self.name.removeprefix(BUNDLED)
        path = Path(self.name).expanduser()
        return path if path.is_absolute() or self.name.startswith((".", "~")) or path.is_dir() else None

    def check(self) -> list[str]:
        """Mistakes that show without a weight being read."""
        if self.folder is not None:
            return _folder_mistakes(self.folder, self.task) + self._device_mistakes()
        known = HUB_NAME.fullmatch(self.name)
        return ([] if known else [f"{self.name!r} is neither a folder nor a name on the Hub"]) + self._device_mistakes()

    def _device_mistakes(self) -> list[str]:
        try:
            device = resolve_device(self.device)
        except DeviceError as error:
            return [MachineLack(error)]
        return dtype_mistakes(self.dtype, device)

    def config(self) -> dict[str, Any]:
        """The model's config.json, when it is a folder; else empty."""
        return read_json(self.folder / "config.json") if self.folder else {}


class Loaded:
    """A loaded model with its tokenizer; sleeps on the CPU.

    Args:
        model: of transformers, on the CPU, in evaluation mode.
        tokenizer: of transformers.
        device: where it works.

    Attributes:
        lock: to be held while tokenizer or model are used, for rewards share them and may be scored in threads.
        pads: whether the model's configuration names a padding token.
    """

    def __init__(self, model: Any, tokenizer: Any, device: torch.device):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.device = device
        self.lock = threading.RLock()
        self.pads = model.config.get_text_config().pad_token_id is not None

    def wake(self) -> Any:
        """The model, on its device."""
        return self.model.to(self.device)

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        self.model.to("cpu")

    @property
    def max_tokens(self) -> int | None:
        """The longest input that the model was made for; None = it has no limit of its own."""
        config = self.model.config.get_text_config()
        limits = [limit for limit in (self.tokenizer.model_max_length,) if limit < 10**9]  # "none" is written as 1e30
        positions = getattr(config, "max_position_embeddings", None)
        if positions:  # RoBERTa and its kin count positions from behind the padding's
            limits.append(positions - (config.pad_token_id + 1 if "roberta" in config.model_type else 0))
        return min(limits) if limits else None


_loaded: weakref.WeakValueDictionary[Source, Loaded] = weakref.WeakValueDictionary()


def load(source: Source) -> Loaded:
    """The model of this source: the one already in the process while anything uses it, else loaded now.

    Raises:
        ModelError: what is wrong with the source, or why it could not be loaded or downloaded.
    """
    model = _loaded.get(source)
    if model is None:
        if mistakes := source.check():
            raise ModelError("; ".join(mistakes))
        model = _loaded[source] = _load(source)
    return model


def _load(source: Source) -> Loaded:
    ensure_importable()
    import transformers

    device = resolve_device(source.device)
    kind = transformers.AutoModel if source.task == "Encoder" else getattr(transformers, f"AutoModelFor{source.task}")
    place = str(source.folder or source.name)
    try:
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(place)
            model, info = kind.from_pretrained(
                place, dtype=pick_dtype(source.dtype, device), use_safetensors=True, output_loading_info=True
            )
    except Exception as error:
        remedy = (
            "mend or replace the folder"
            if source.folder
            else "it comes from the Hugging Face Hub at first use; without a network, give a folder"
        )
        raise ModelError(f"the model {source.name!r} could not be loaded: {error} ({remedy})") from error
    # transformers fills weights that are not there with random numbers and only warns.
    if missing := sorted(key for key in info["missing_keys"] if not UNUSED.search(key)):
        raise ModelError(
            f"{source.name!r} lacks weights of a model for {source.task} ({', '.join(missing[:3])}): its scores would be random"
        )
    if source.task == "Encoder" and model.config.is_encoder_decoder:
        model = model.get_encoder()
    return Loaded(model, tokenizer, device)


def _folder_mistakes(folder: Path, task: Task) -> list[str]:
    if not folder.is_dir():
        known = [path.parent.name for path in BUNDLED_FOLDER.glob("*/config.json")] if folder.parent == BUNDLED_FOLDER else []
        return [f"there is no model folder {folder}{nearest(folder.name, known)}"]
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return [f"{folder} holds an adapter alone: merge it into its base model (peft's merge_and_unload) and save that"]
    try:
        config = read_json(folder / "config.json")
    except ModelError as error:
        return [str(error)]
    found = []
    kinds = config.get("architectures") or []
    if task != "Encoder" and not any(task in kind or (task == "CausalLM" and "LMHead" in kind) for kind in kinds):
        found.append(f"{folder} is a {', '.join(kinds) or 'model of no stated kind'}, not a model for {task}")
    if "auto_map" in config and "model_type" not in config:
        found.append(f"{folder} brings its own Python code, which is not run: use a model that transformers knows")
    if not any(folder.glob("*.safetensors")):
        also = (
            " (it has a pickle, which could run code: save it again with safe_serialization)"
            if any(folder.glob("*.bin"))
            else ""
        )
        found.append(f"{folder} holds no .safetensors weights{also}")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        found.append(f"{folder} holds no tokenizer (tokenizer.json or tokenizer_config.json)")
    return found


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: no such file, or something else in it.
    """
    try:
        return read_object(file, repeated_keys=True)  # as the libraries read it
    except (OSError, Unreadable) as error:
        raise ModelError(f"{file.parent} is no model folder of transformers: {file.name} cannot be read ({error})") from error


def inputs_of(
    rows: Sequence[Mapping[str, list[int]]], loaded: Loaded, side: Literal["left", "right"] = "right"
) -> dict[str, torch.Tensor]:
    """A batch of tokenized texts padded on one side, [B, T] each, on the model's device."""
    ids = [row["input_ids"] for row in rows]
    inputs = {
        "input_ids": _padded(ids, padding_id(ids, loaded), side),
        "attention_mask": _padded([[1] * len(row) for row in ids], 0, side),
    }
    if all("token_type_ids" in row for row in rows):
        inputs["token_type_ids"] = _padded([row["token_type_ids"] for row in rows], 0, side)
    return {name: tensor.to(loaded.device) for name, tensor in inputs.items()}


def padding_id(ids: Sequence[Sequence[int]], loaded: Loaded) -> int:
    """The token to pad with.

    Causal classifiers read their score at the last token that is not the padding token of their *configuration*. Where it names
    none, transformers refuses batches; the usual remedy, padding with the end-of-text token, moves the score of texts that end
    with it. A token that this batch does not hold does neither.
    """
    config = loaded.model.config
    if not loaded.pads:
        used = set().union(*ids)
        free = next(number for number in range(len(used) + 1) if number not in used)
        config.pad_token_id = config.get_text_config().pad_token_id = free
    return config.get_text_config().pad_token_id


def _padded(rows: Sequence[Sequence[int]], fill: int, side: Literal["left", "right"]) -> torch.Tensor:
    import torch

    width = max(len(row) for row in rows)
    rests = [[fill] * (width - len(row)) for row in rows]
    filled = [[*rest, *row] if side == "left" else [*row, *rest] for row, rest in zip(rows, rests, strict=True)]
    return torch.tensor(filled, dtype=torch.int64)


def by_length(rows: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Batches of row numbers, rows of like length together, the longest first so that memory runs out at once or never."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
