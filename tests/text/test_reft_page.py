"""What docs/background/reft.md shows is true: its configuration passes the check, its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from raft_core.config.listing import public_names, short_names
from raft_core.config.run_config import check
from raft_core.objectives.kl_control import KlPenalty
from raft_core.objectives.ppo import Ppo

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "background" / "reft.md").read_text(encoding="utf-8")


def test_its_configuration_passes_the_check(tmp_path):
    raw = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)[0])
    (tmp_path / "sums.jsonl").write_text('{"question": "1?", "answer_value": "1"}\n{"question": "2?", "answer_value": "2"}\n')
    config = check({**raw, "prompts": {"train": "sums.jsonl"}, "reward": "AnswerReward"}, base=tmp_path).config
    assert config.policy.estimates_values and config.objective == Ppo(kl=KlPenalty(beta=0.05))
    assert KlPenalty(**yaml.safe_load(re.findall(r"`kl: (\{.*?\})`", PAGE)[0])).target == 6


def test_its_recipes_name_what_there_is():
    rows = [row.split("|")[1:-1] for row in PAGE.split("\n## ")[0].splitlines() if row.startswith("| ")][1:]
    for _, _, reward, selector, objective, configuration in rows:
        for cell, kind in ((reward, "reward"), (selector, "selector"), (objective, "objective")):
            assert set(re.findall(r"`(\w+)`", cell)) <= set(public_names(kind)), cell
        assert (ROOT / "configs" / f"{configuration.strip(' `')}.yaml").is_file()
    for kind in ("reward", "selector", "objective"):
        assert all(len(paths) == 1 for paths in short_names(kind).values())
