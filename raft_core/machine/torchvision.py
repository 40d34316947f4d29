"""One small place for one large trap: torchvision beside a CPU-only torch.

The torchvision wheel that package indexes offer is often linked against CUDA. Beside a CPU build of torch its C++ library
cannot load, and ``import torchvision`` then fails with "operator torchvision::nms does not exist" — and with it everything that
imports torchvision on the way: open_clip, peft, parts of transformers. None of what this project uses needs a C++ operator
of torchvision, only that the import goes through.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
import sysconfig
from pathlib import Path

#: In an environment of our own, what makes every program's first import of torchvision succeed (``accelerate launch`` has one).
HOOK = "raft_torchvision.pth"
HOOK_LINE = (
    "import sys; "
    "exec('try: from raft_core.machine.torchvision import mend_first_import as mend; mend()\\nexcept ImportError: pass')\n"
)

_library = None  # torch.library registrations live as long as this object


def ensure_importable() -> None:
    """Make ``import torchvision`` succeed where its C++ library cannot load; do nothing anywhere else.

    torchvision registers fake kernels for two operators when it is imported. If its library did not load, nobody has defined
    them, so we define their schemas (no kernels: calling them still raises). Call before the first import of
    torchvision, open_clip or peft; repeated calls are free.
    """
    global _library
    if _library is not None or _loads() or _library is not None:  # looking for it may have been what defined them
        return
    import torch

    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _loads() -> bool:
    """Whether torchvision is absent, already imported, or has a C++ library that loads beside this torch."""
    if "torchvision" in sys.modules:
        return True
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    libraries = [p for p in Path(spec.origin).parent.glob("_C*") if p.suffix in {".so", ".pyd", ".dll", ".dylib"}]
    if not libraries:
        return False
    import torch

    try:
        torch.ops.load_library(str(libraries[0]))
    except OSError:
        return False
    return True


class _BeforeFirstImport(importlib.abc.MetaPathFinder):
    """Finds nothing, but sees torchvision being looked for."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            ensure_importable()


def mend_first_import() -> None:
    """Call ``ensure_importable`` when torchvision is first imported, by whomever; costs nothing until then."""
    sys.meta_path.insert(0, _BeforeFirstImport())


def install_hook(folder: Path | None = None) -> Path:
    """Have every start of this environment's Python call ``mend_first_import``, so that other programs' imports succeed, too.

    Args:
        folder: the environment's site-packages; by default this one's.
    """
    path = (folder or Path(sysconfig.get_path("purelib"))) / HOOK
    path.write_text(HOOK_LINE)
    return path
