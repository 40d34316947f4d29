"""What a person opens first runs: the notebooks and the script under demos/, shrunken."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMOS = Path(__file__).parents[1] / "demos"
SHRUNKEN = {
    "images.ipynb": "rounds, k, steps, drawn = 1, 2, 1, 1",
    "text.ipynb": "rounds, k, per_round, prompts, drawn = 1, 2, 4, 2, 1",
}


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine
@pytest.mark.parametrize("name", SHRUNKEN)
def test_a_notebook_runs(name, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(DEMOS / name, as_version=4)
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert set(re.findall(r"\w+", parameters.source.split("=")[0])) == set(re.findall(r"\w+", SHRUNKEN[name].split("=")[0]))
    parameters.source = SHRUNKEN[name]
    NotebookClient(notebook, timeout=800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in data for data in shown) or name == "text.ipynb"
    assert any("<table" in data.get("text/html", "") for data in shown)


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine
def test_the_script_writes_a_picture(tmp_path):
    command = [sys.executable, DEMOS / "before_after.py", "--rounds", "1", "--k", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800, check=True)
    assert (tmp_path / "before_after.png").is_file() and "gold" in done.stdout


def test_notebooks_are_kept_without_outputs():
    import nbformat

    for path in DEMOS.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code"), path
