"""What docs/guides/reasoning.md shows is true."""

import re
from pathlib import Path

import pytest
import yaml

from raft_core.config.components import Walk
from raft_text.reasoning.answers import number
from raft_text.reasoning.datasets import FIELDS
from raft_text.reasoning.sandbox import Sandbox
from raft_text.reasoning.templates import N_COT, P_COT

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "reasoning.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def rows(heading):
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", section, re.M)


def test_every_layout_is_shown_with_its_fields():
    shown = {re.findall(r"`(\w+)`", layout)[0]: set(re.findall(r"`(\w+)`", fields)) for layout, fields in rows("Data")}
    assert set(shown) == set(FIELDS)
    assert all(set(fields) <= shown[layout] for layout, fields in FIELDS.items())


def test_numbers_are_read_as_the_table_says():
    table = rows("Answers")
    assert len(table) == 8
    for written, read in table:
        for form in re.findall(r"`([^`]+)`", written):
            assert number(form) == float(read), form


def test_what_the_table_calls_no_number_is_none():
    table = PAGE.split("| no number | for example |\n")[1].split("\n\n")[0]
    examples = [form for line in table.splitlines()[1:] for form in re.findall(r"`([^`]+)`", line)]
    assert len(examples) > 25
    assert [form for form in examples if number(form) is not None] == []


def test_the_template_and_the_reward_are_what_they_are():
    template, reward = (yaml.safe_load(block) for block in blocks("yaml"))
    assert template["prompting"]["template"] == N_COT
    assert P_COT.startswith(N_COT)
    walk = Walk()
    for raw in (reward["reward"], *reward["judges"]):
        assert walk.component(raw, "reward", "reward").make() is not None
    assert walk.mistakes == []


@pytest.mark.skipif(Sandbox.unsupported() is not None, reason="programs are refused on this system")
def test_the_code_runs_and_prints_what_it_says(capsys):
    for block in blocks("python"):
        exec(compile(block, "docs/guides/reasoning.md", "exec"), {})
        promised = re.findall(r"^print\(.*\)  # (.*?)(?::.*sample that.*)?$", block, re.M)
        shown = capsys.readouterr().out.splitlines()
        assert shown[: len(promised)] == promised
