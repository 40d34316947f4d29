"""The Space: what its files say, and which pages it opens to whom."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SPACE = Path(__file__).parents[2] / "demos" / "space"
PROBE = """
import json, app
auth = app.credentials()
state = app.studio(auth)
built = app.build(state, app.pages(auth))
ids = [str(each["props"].get("elem_id")) for each in built.config["components"] if each["type"] == "tabitem"]
tabs = [each[5:] for each in ids if each.startswith("page-")]
print(json.dumps({"tabs": tabs, "auth": auth, "steps": state.limits.steps, "runs": str(state.runs)}))
state.close()
"""


def probed(tmp_path: Path, secret: str | None) -> subprocess.CompletedProcess:
    """The app as the Space imports and builds it: from its own folder."""
    installed = str(Path(__file__).parents[2])
    environment = {**os.environ, "RAFT_RUNS": str(tmp_path / "runs"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": installed}
    environment |= {} if secret is None else {"RAFT_AUTH": secret}
    command = [sys.executable, "-c", PROBE]
    return subprocess.run(command, cwd=SPACE, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_strangers_find_pages_that_write_nothing_within_tight_limits(tmp_path):
    done = probed(tmp_path, None)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tabs"] == ["compare", "runs", "text", "rewards"] and found["auth"] is None
    assert found["steps"] == 30 and Path(found["runs"]) == tmp_path / "runs"


def test_those_who_know_the_password_find_all_pages(tmp_path):
    done = probed(tmp_path, "ada:love:lace")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found["tabs"]) == {"story", "compare", "align", "runs", "preferences", "text", "rewards"}
    assert found["auth"] == ["ada", "love:lace"] and found["steps"] == 100


@pytest.mark.parametrize("secret", ["", "ada", ":lovelace", "ada:"])
def test_half_a_password_opens_nothing(monkeypatch, secret):
    monkeypatch.syspath_prepend(str(SPACE))
    monkeypatch.setenv("RAFT_AUTH", secret)
    import app

    from raft_core.errors import ConfigError

    with pytest.raises(ConfigError, match="USER:PASSWORD"):
        app.credentials()


def test_the_front_matter_is_what_the_hub_asks_for():
    _, front, _ = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["sdk"] == "gradio" and (SPACE / facts["app_file"]).is_file() and facts["license"] == "apache-2.0"
    assert facts["title"] and facts["emoji"] and len(facts["short_description"]) <= 60
    assert re.fullmatch(r"6\.\d+\.\d+", facts["sdk_version"])
    assert f"gradio=={facts['sdk_version']}" in (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()


def test_it_asks_for_the_package_with_what_the_demo_needs():
    lines = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("raft-align[demo]") for line in lines)
