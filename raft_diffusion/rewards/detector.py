"""An object detector of transformers: names and boxes of the things in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raft_core.errors import ConfigError, DeviceError, MachineLack, ModelError
from raft_core.machine.devices import resolve_device
from raft_core.machine.torchvision import ensure_importable
from raft_core.models.quiet import quiet
from raft_core.sampling import chunks
from raft_diffusion.rewards.composition import Thing

if TYPE_CHECKING:
    from PIL.Image import Image

#: What detectors trained on COCO call things that are called otherwise where prompts are written.
COCO_NAMES = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
    "mouse": "computer mouse",
    "remote": "tv remote",
    "keyboard": "computer keyboard",
}


class Detector:
    """Finds things of the kinds that it was trained on.

    Args:
        model: a folder in transformers' layout, or a name on the Hub, of whatever ``AutoModelForObjectDetection`` loads (DETR,
            RT-DETR, YOLOS). Weights are read from safetensors alone.
        batch_size: pictures per forward pass.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; the model sleeps on the CPU.
    """

    def __init__(self, model: str, batch_size: int, device: str):
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, but must be at least 1")
        self.model = model
        self.batch_size = batch_size
        self.device = device
        self._network: Any = None
        self._processor: Any = None

    @property
    def kinds(self) -> list[str]:
        """Names of what it finds; loads it."""
        self.load()
        return sorted({self._name(number) for number in self._network.config.id2label})

    def check(self) -> list[str]:
        """Mistakes that show without a weight being read."""
        folder = Path(self.model).expanduser()
        found = []
        if folder.is_absolute() or self.model.startswith((".", "~")) or folder.is_dir():
            if not (folder / "config.json").is_file():
                found.append(f"the detector {folder} is no model of transformers: config.json is missing")
            elif not any(folder.glob("*.safetensors")):
                found.append(f"the detector {folder} has no weights (*.safetensors)")
        try:
            resolve_device(self.device)
        except DeviceError as error:
            found.append(MachineLack(error))
        return found

    def load(self) -> None:
        """Load the model on the CPU, once.

        Raises:
            ModelError: it cannot be loaded, or detects nothing.
        """
        if self._network is not None:
            return
        ensure_importable()
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        try:
            with quiet():
                processor: Any = AutoImageProcessor.from_pretrained(self.model)
                loaded: Any = AutoModelForObjectDetection.from_pretrained(
                    self.model, use_safetensors=True, output_loading_info=True
                )
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise ModelError(f"the detector {self.model} could not be loaded: {' '.join(str(error).split())}") from error
        network, info = loaded
        if missing := sorted(info["missing_keys"]):  # the library would go on with random ones
            raise ModelError(f"the weights of the detector {self.model} lack {missing[0]!r} ({len(missing)} such tensors)")
        self._network, self._processor = network.eval().requires_grad_(False), processor

    def sleep(self) -> None:
        """Give the accelerator's memory back."""
        if self._network is not None:
            self._network.to("cpu")

    def __call__(self, images: Sequence[Image], least: float) -> list[dict[str, list[Thing]]]:
        """Of each picture kind → things, the surest first.

        Args:
            least: confidence below which a thing is not told.
        """
        import torch

        self.load()
        network = self._network.to(resolve_device(self.device))
        found: list[dict[str, list[Thing]]] = []
        for part in chunks(list(images), self.batch_size):
            inputs = self._processor(images=part, return_tensors="pt").to(network.device)
            with torch.inference_mode():
                outputs = network(**inputs)
            sizes = torch.tensor([(image.height, image.width) for image in part])
            found += map(self._by_kind, self._processor.post_process_object_detection(outputs, least, sizes))
        return found

    def _by_kind(self, told: Any) -> dict[str, list[Thing]]:
        things: dict[str, list[Thing]] = {}
        rows = zip(told["scores"].tolist(), told["labels"].tolist(), told["boxes"].tolist(), strict=True)
        for score, label, box in sorted(rows, key=lambda row: -row[0]):
            things.setdefault(self._name(label), []).append(Thing(tuple(box), score))
        return things

    def _name(self, number: int) -> str:
        name = str(self._network.config.id2label[number])
        return COCO_NAMES.get(name, name)
