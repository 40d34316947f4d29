"""What docs/guides/align_images.md shows is true."""

from __future__ import annotations

import re
from pathlib import Path

from raft_diffusion.options import SCHEDULERS

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "align_images.md").read_text(encoding="utf-8")


def test_the_example_runs(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    exec(compile(example.replace("bundled:shapes", str(tiny())), "docs/guides/align_images.md", "exec"), {})
    assert (tmp_path / "circle.png").exists()


def test_every_short_name_of_a_scheduler_is_told():
    section = PAGE.split("## Sampling\n")[1].split("##")[0]
    assert set(SCHEDULERS) <= set(re.findall(r"`([a-z_+]+)`", section))
