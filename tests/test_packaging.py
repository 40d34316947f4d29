"""What the packages import is what installing them brings."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("raft_cli", "raft_core", "raft_demo", "raft_diffusion", "raft_text")
# Import name → distribution, where they differ or where one that is listed cannot be without it.
DISTRIBUTION = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "open_clip": "open_clip_torch",
    "tokenizers": "transformers",
    "typing_extensions": "torch",
}
NEIGHBOURS = {"confine"}  # scripts that import the one beside them


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def canonical(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("-", "_")


def project() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="in Python 3.11 and newer")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_a_dependency_or_an_extra(package):
    about = project()["project"]
    extras = [item for name, items in about["optional-dependencies"].items() if name != "dev" for item in items]
    listed = {canonical(requirement) for requirement in [*about["dependencies"], *extras]}
    for path in (ROOT / package).rglob("*.py"):
        names = {name.split(".")[0] for name in imported(path)}
        foreign = names - set(sys.stdlib_module_names) - {*PACKAGES, *NEIGHBOURS}
        missing = {name for name in foreign if canonical(DISTRIBUTION.get(name, name)) not in listed}
        assert not missing, f"{path.relative_to(ROOT)} imports {missing}"


def test_extras_that_errors_name_exist():
    named = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            named |= set(re.findall(r'MissingDependency\(\S+, "(\w+)"', path.read_text(encoding="utf-8")))
    assert named and named <= set(project()["project"]["optional-dependencies"])


def test_tests_that_need_a_network_are_asked_for():
    options = project()["tool"]["pytest"]["ini_options"]["addopts"]
    assert "-m 'not network'" in options


def test_the_main_job_is_proven_before_the_development_tools_come():
    targets = re.findall(r"^make VENV=\S+ (\w+)", (ROOT / ".ci/run").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert targets == ["align", "check", "test", "slow"]
