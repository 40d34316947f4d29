"""What the pages under docs/ show is true: configurations pass the check, code runs on a run folder, names exist."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from raft_core.config.components import Walk
from raft_core.config.listing import short_names
from raft_core.config.run_config import RunConfig, check
from raft_core.config.schema import parameters
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.protocols import RewardInfo
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.best_of_k import BestOfK
from raft_core.store.store import Store
from raft_core.testing import FakePolicy
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def table_names(page: str, heading: str) -> set[str]:
    """Names in backquotes that begin the rows of the first table under a heading."""
    section = (ROOT / "docs" / page).read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return {name for row in re.findall(r"^\| (`[^|]*) \|", section, re.M) for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_complete_configuration_has_no_mistakes(tmp_path):
    from raft_diffusion.testing import tiny_pipeline

    raw = yaml.safe_load(blocks("reference/configuration.md", "yaml")[0])
    assert set(raw) == set(parameters(RunConfig))
    raw["policy"]["init_args"]["model"] = str(tiny_pipeline(tmp_path / "model"))
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {i}" for i in range(20)))
    checked = check(raw, base=tmp_path)
    assert checked.config.k == 16
    assert checked.config.policy.sampling.steps == 25
    assert len(checked.prompts.held_out) == 4


def merged(base: dict, more: dict) -> dict:
    """``base`` with ``more`` put in, mapping by mapping."""
    both = {
        key: merged(base[key], value)
        for key, value in more.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **more, **both}


@pytest.mark.parametrize("block", blocks("guides/methods.md", "yaml"), ids=lambda block: block.split("\n")[0].lstrip("# "))
def test_the_methods_of_the_guide_have_no_mistakes(block, tmp_path):
    models = {"pictures": ("StableDiffusion", "bundled:shapes", "Sharpness"), "text": ("CausalLM", "bundled:sums", "Sentiment")}
    policy, model, reward = models[block.split()[1].rstrip(":")]
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\nfour\n")
    base = {
        "policy": {"class_path": policy, "init_args": {"model": model}},
        "prompts": {"train": str(tmp_path / "prompts.txt")},
        "reward": reward,
        "trainer": {"batch_size": 4},
        "k": 4,
        "trackers": [],
    }
    checked = check(merged(base, yaml.safe_load(block)))
    assert checked.config.selector.produces is checked.config.objective.consumes


def test_the_table_of_fields_is_complete():
    assert table_names("reference/configuration.md", "Fields") == set(parameters(RunConfig))


def test_the_tables_of_rewards_name_what_there_is():
    combined = table_names("reference/rewards.md", "Combining")
    shown = table_names("reference/rewards.md", "Pictures")
    assert combined | shown <= set(short_names("reward"))
    ours = {path for paths in short_names("reward").values() for path in paths if path.startswith("raft_diffusion.rewards.")}
    gold = {"raft_diffusion.world.gold.Gold"}  # of the world's own figures the one that is a judge for everybody
    assert {path for name in shown for path in short_names("reward")[name]} == ours | gold


def test_the_example_of_the_rewards_page_lacks_nothing_but_the_files():
    example = next(each for each in map(yaml.safe_load, blocks("reference/rewards.md", "yaml")) if "reward" in each)
    walk = Walk()
    for raw in (example["reward"], *example["judges"]):
        walk.component(raw, "reward", "reward").make()
    assert len(walk.mistakes) == 2
    assert all("there is no" in mistake and "/models/" in mistake for mistake in walk.mistakes)


class Redness:
    info = RewardInfo("redness")

    def __call__(self, samples):
        return [np.asarray(sample.output)[..., 0].mean() for sample in samples]


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """A small finished run of pictures in the folder RUN."""
    monkeypatch.chdir(tmp_path)
    policy, trainer = FakePolicy("image"), Trainer()
    prompts = [Prompt("one"), Prompt("two")]
    with Store.create("RUN", {}, seed=0) as store:
        trainer.attach(policy, 0, 2)
        parts = (PromptSet(prompts, [], 2, 0), Scorer(Redness()), BestOfK(), Sft(), trainer, store, Monitor(stop_when=()))
        align(policy, *parts, rounds=2, k=3)
    return tmp_path / "RUN"


def test_the_code_of_the_store_page_runs(run_folder, monkeypatch, capsys):
    pytest.importorskip("pandas")
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", run_folder.parent / "cache")
    for block in blocks("reference/run_folder.md", "python"):
        exec(compile(block, "docs/reference/run_folder.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "one (8, 8)" in shown
    assert "score.redness" in shown
    assert "dict_keys(['redness']) 0.333" in shown


def test_the_store_page_names_every_column_and_metric(run_folder):
    import pyarrow.parquet

    from raft_core.store.store import read_history

    columns = set(pyarrow.parquet.read_schema(run_folder / "rounds/0001/samples.parquet").names)
    shown = table_names("reference/run_folder.md", "samples.parquet") | {"score.redness"}
    assert columns <= shown
    metrics = {name for row in read_history(run_folder) for name in row} - {"round"}
    assert metrics <= table_names("reference/run_folder.md", "Metrics")
