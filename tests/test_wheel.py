"""The wheel, in an environment that has the dependencies and nothing of this checkout, aligns."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    parts = ["pyproject.toml", "README.md", "LICENSE", "configs", *(path.name for path in ROOT.glob("raft_*") if path.is_dir())]
    for name in (name for name in parts if not name.endswith(".egg-info")):
        source, target = ROOT / name, folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(folder / "source")], check=True, capture_output=True, timeout=800)
    [found] = folder.glob("*.whl")
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine
def test_no_generic_name_is_installed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in tops if not name.startswith("raft_align-")} == {
        "raft_cli",
        "raft_core",
        "raft_demo",
        "raft_diffusion",
        "raft_text",
    }


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine
def test_the_installed_wheel_aligns(wheel, tmp_path):
    env = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(env)], check=True, timeout=800)
    python = env / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True, capture_output=True, timeout=800
    )
    site = next((env / "lib").glob("python*/site-packages"))
    # Dependencies come from the tests' environment; the .pth files in there, this checkout's among them, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import raft_core; print(raft_core.__file__)"
    place = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=alone)
    assert place.stdout.startswith(str(site))
    words = ["--rounds", "1", "--k", "2", "--trainer.steps", "1", "--evaluation.k", "1", "--evaluation.prompts", "1"]
    command = [env / "bin" / "raft", "align", "--policy.sampling.steps", "2", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800, env=alone)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "resolution" / "export" / "pytorch_lora_weights.safetensors").is_file()
