"""Scores on top of a CLIP embedding: LAION's aesthetic heads, in their own file layouts and at any width."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raft_core.errors import ModelError
from raft_core.reading.files import Unreadable, excerpt
from raft_core.reading.json_data import read_object
from raft_core.reading.shapes import require_shape
from raft_diffusion.model import bundle
from raft_diffusion.rewards.weights import from_hub, on_hub

if TYPE_CHECKING:
    import torch

Version = Literal["v1", "v2"]
FILE = "aesthetic.safetensors"  # in a folder, unless its config.json names another


@dataclass(frozen=True)
class Official:
    """A published weight file."""

    url: str
    sha256: str

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[1].replace("%2B", "+")


OFFICIAL: Mapping[str, Official] = {
    "v1": Official(
        "https://github.com/LAION-AI/aesthetic-predictor/raw/6d122adad522ab246644d9dc1c6d7a3810ee255f/sa_0_4_vit_l_14_linear.pth",
        "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
    ),
    "v2": Official(
        "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/6934dd81792f086e613a121dbce43082cb8be85e/"
        "sac%2Blogos%2Bava1-l14-linearMSE.pth",
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    ),
}


@dataclass(frozen=True, eq=False)
class Head:
    """Linear layers one after another; LAION's v2 has five of them and nothing in between at inference.

    Attributes:
        layers: (weight [out, in], bias [out]) in order, fp32; the last has one output.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def width(self) -> int:
        """D, the embedding's width that it reads."""
        return self.layers[0][0].shape[1]

    def __call__(self, embedding: torch.Tensor) -> torch.Tensor:
        """[N] scores of [N, D] unit-length embeddings."""
        import torch

        for weight, bias in self.layers:
            embedding = torch.nn.functional.linear(embedding, weight, bias)
        return embedding[:, 0]


def parse_head(state: Mapping[str, torch.Tensor], version: Version, where: object) -> Head:
    """A head from its file's tensors: ``weight``/``bias`` for v1, ``layers.N.weight``/``layers.N.bias`` for v2.

    Raises:
        ModelError: another layout, or layers that do not fit one another.
    """
    if version == "v1":
        prefixes = [""]
    else:
        found = (re.fullmatch(r"layers\.(\d+)\.weight", key) for key in state)
        prefixes = [f"layers.{n}." for n in sorted(int(match[1]) for match in found if match)]
    wanted = {prefix + kind for prefix in prefixes for kind in ("weight", "bias")}
    if not wanted or set(state) != wanted:
        layout = "'weight' and 'bias'" if version == "v1" else "'layers.N.weight' and 'layers.N.bias'"
        raise ModelError(
            f"{where} is no aesthetic head of version {version}: it should hold {layout}, but holds "
            f"{', '.join(sorted(state)[:8])}"
        )
    layers = tuple((state[f"{prefix}weight"].float(), state[f"{prefix}bias"].float()) for prefix in prefixes)
    outputs = [weight.shape[0] for weight, _ in layers]
    inputs = [weight.shape[1] for weight, _ in layers]
    if outputs[-1] != 1 or outputs[:-1] != inputs[1:]:
        shapes = ", ".join(f"{i} → {o}" for i, o in zip(inputs, outputs, strict=True))
        raise ModelError(f"the layers of {where} do not lead from an embedding to one score: {shapes}")
    return Head(layers)


def locate(weights: str | None, version: Version) -> tuple[Path, str | None]:
    """The weight file, downloaded if need be, and the CLIP that its folder names.

    Args:
        weights: None for the official file of ``version``; a file; a folder or ``bundled:NAME`` whose config.json names its
            ``clip`` and its ``weights`` file; ``hf-hub:OWNER/NAME/FILE``.
        version: which official file.

    Raises:
        ModelError: nothing there, or a download that failed.
    """
    if weights is None:
        return _download(OFFICIAL[version]), None
    if on_hub(weights):
        return from_hub(weights), None
    path = bundle.resolve(weights) if weights.startswith(bundle.PREFIX) else Path(weights).expanduser()
    if not path.is_dir():
        return path, None
    try:
        config = require_shape(read_object(path / "config.json"), {"weights": str, "clip": (str, type(None))}, "")
        name = config.get("weights", FILE)
        if Path(name).name != name:
            raise Unreadable(f"weights is {excerpt(name, 60)!r}, but must name a file beside it")
        return path / name, config.get("clip")
    except (OSError, Unreadable) as error:
        raise ModelError(f"{path} is no folder of aesthetic weights: config.json cannot be read ({error})") from error


def verify(file: Path, version: Version) -> None:
    """Compare a file that bears the official name with the published sha256.

    Raises:
        ModelError: it is another file, or a damaged one.
    """
    official = OFFICIAL[version]
    if file.name != official.filename or not file.is_file():
        return
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != official.sha256:
        raise ModelError(
            f"{file} has the name of the published {version} weights but not their sha256 "
            f"({found[:12]}… instead of {official.sha256[:12]}…): delete it to download it again, or rename it "
            "if it is your own"
        )


def _download(official: Official) -> Path:
    import torch
    from huggingface_hub.constants import HF_HUB_OFFLINE

    file = Path(torch.hub.get_dir()) / "checkpoints" / official.filename
    if file.is_file():
        return file
    remedy = f"download {official.url} elsewhere and give its path as `weights`"
    if HF_HUB_OFFLINE:
        raise ModelError(f"the aesthetic weights are not at {file} and HF_HUB_OFFLINE forbids downloads: {remedy}")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(official.url, str(file), hash_prefix=official.sha256, progress=False)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash a RuntimeError
        raise ModelError(f"the aesthetic weights could not be downloaded ({error}): {remedy}") from error
    return file
