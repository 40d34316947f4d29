"""Configurations: all mistakes at once, every field overridable, and read again as they were written."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import yaml
from PIL import Image

from raft_core.config.components import Walk
from raft_core.config.importing import anchored
from raft_core.config.listing import KINDS, classes, public_names, short_names
from raft_core.config.run_config import RunConfig, as_yaml, check, overridden, parse_overrides, read_yaml
from raft_core.config.schema import Typed
from raft_core.errors import ConfigError
from raft_core.prompts import PromptFiles, gather
from raft_core.protocols import RewardInfo
from raft_core.rewards.function import FunctionReward
from raft_core.selectors.best_of_k import BestOfK, TopFraction
from raft_core.store.rounds import round_folder
from raft_core.store.tables import write_samples
from raft_core.testing import FakePolicy, FakeReward
from raft_core.types import Groups, Prompt, Request, Sample, Scores

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "configs").rglob("*.yaml"))


@dataclasses.dataclass(frozen=True)
class WholeGroups:
    """A selector of another kind than likelihood objectives take."""

    size: int | None = 2
    produces: ClassVar[type] = Groups

    def __call__(self, scores: np.ndarray) -> Groups:
        raise NotImplementedError


class Grumpy(FakeReward):
    """A reward that objects to being made."""

    def __init__(self, mood: int = 3):
        raise ValueError("not today")


class Inquisitive(FakeReward):
    """A reward whose check fails itself."""

    def check(self) -> list[str]:
        raise OSError("the disk is asleep")


class NotAReward:
    """Has nothing that a reward has."""


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(f"prompt {i}" for i in range(10)))
    return {"policy": "FakePolicy", "reward": "FakeReward", "prompts": {"train": str(tmp_path / "p.txt")}}


def mistakes(raw, words=()):
    with pytest.raises(ConfigError) as caught:
        check(overridden(raw, parse_overrides(words)))
    return caught.value.mistakes


def changed(raw, *words):
    return check(overridden(raw, parse_overrides(words))).config


def test_three_lines_are_a_configuration(raw):
    config = check(raw).config
    assert isinstance(config.selector, BestOfK)
    assert config.k == 8 and config.trainer.batch_size == 8
    assert len(check(raw).prompts.held_out) == 2


def test_what_is_written_is_read_again_as_the_same(raw):
    plain = check(raw).plain
    again = yaml.safe_load(as_yaml(plain))
    assert again == plain
    assert check(again).plain == plain
    assert set(plain) == {field.name for field in dataclasses.fields(RunConfig)}


def test_every_field_can_be_overridden(raw):
    config = changed(
        raw,
        *("--policy.dim", "4"),
        *("--policy.init_args.buckets=8",),
        *("--selector", "TopFraction", "--selector.fraction", ".5"),
        *("--trainer.optimizer.lr", "1e-3", "--trainer.steps=7", "--trainer.max_grad_norm", "null"),
        *("--trainer.optimizer.betas", "[0.8, 0.9]"),
        *("--judges", "FakeReward", "--judges.0.name", "other"),
        *("--trackers", "[]", "--stop_when", "[]", "--k", "3", "--prompts.per_round", "4"),
    )
    assert config.policy.mean.shape == (8, 4)
    assert config.selector == TopFraction(0.5)
    assert config.trainer.optimizer.lr == 1e-3 and config.trainer.optimizer.betas == (0.8, 0.9)
    assert config.trainer.steps == 7 and config.trainer.max_grad_norm is None
    assert [judge.info.name for judge in config.judges] == ["other"]
    assert not config.trackers and not config.stop_when and config.k == 3 and config.prompts.per_round == 4


def test_an_override_keeps_the_other_settings_of_its_section(raw):
    raw["trainer"] = {"optimizer": {"lr": 0.5, "weight_decay": 0.2}}
    assert changed(raw, "--trainer.optimizer.lr", "0.1").trainer.optimizer.weight_decay == 0.2


def test_text_stays_text_where_text_is_wanted(raw):
    raw["judges"] = [{"class_path": "FakeReward", "init_args": {"name": "x"}}]
    assert changed(raw, "--judges.0.name", "007").judges[0].info.name == "007"


def test_all_mistakes_are_listed_at_once(raw):
    raw |= {
        "polcy": 1,
        "policy": {"class_path": "FakePolicy", "init_args": {"modality": "txt", "dmi": 3}},
        "reward": "FakeRewrd",
        "judges": ["ClipScor", {"class_path": "raft_core.testing.FakeRewar"}, {"init_args": {}}],
        "selector": {"class_path": "TopFraction", "init_args": {"fraction": 2}},
        "trainer": {"optimizer": {"lr": "x", "bets": 3}, "steps": 0},
        "prompts": {"train": "missing.txt", "per_rond": 3},
        "rounds": "many",
        "k": 0,
        "seed": -1,
        "export": "bst",
        "keep": {"checkpoints": 0},
        "evaluation": {"k": 0},
    }
    found = "\n".join(mistakes(raw))
    for expected in (
        "polcy is not known (did you mean 'policy'?)",
        "policy.modality is 'txt', but must be one of 'text', 'image' (did you mean 'text'?)",
        "policy.dmi is not known (did you mean 'dim'?)",
        "there is no reward called 'FakeRewrd'",
        "judges.0: there is no reward called 'ClipScor' (did you mean 'ClipScore'?)",
        "judges.1: 'raft_core.testing.FakeRewar': raft_core.testing has no 'FakeRewar' (did you mean 'FakeReward'?)",
        "judges.2 is {'init_args': {}}, but must name a reward",
        "selector.fraction is 2.0, but must be in (0, 1]",
        "trainer.optimizer.lr is 'x', but must be a number",
        "trainer.optimizer.bets is not known (did you mean 'betas'?)",
        "prompts.per_rond is not known (did you mean 'per_round'?)",
        "rounds is 'many', but must be a whole number",
        "k is 0, but at least 1 sample per prompt is needed",
        "seed is -1, but must not be negative",
        "export is 'bst', but must be one of 'best', 'last' (did you mean 'best'?)",
        "keep.checkpoints is 0",
        "evaluation.k is 0",
    ):
        assert expected in found, f"{expected}\nis not in\n{found}"


def test_a_missing_part_and_no_configuration_at_all_are_said():
    assert mistakes({}) == [f"{name} is missing; it must be given" for name in ("policy", "prompts", "reward")]


def test_a_constructor_that_objects_is_one_mistake_among_others(raw):
    raw |= {"reward": f"{__name__}.Grumpy", "k": 0}
    assert mistakes(raw) == [
        "reward: Grumpy(…) failed: ValueError: not today",
        "k is 0, but at least 1 sample per prompt is needed",
    ]


def test_a_check_that_fails_is_one_mistake_among_others(raw):
    parts = {"class_path": "Weighted", "init_args": {"rewards": [f"{__name__}.Inquisitive", "FakeReward"]}}
    raw |= {"judges": [parts], "k": 0}
    assert mistakes(raw) == [
        "judges.0.rewards.0: Inquisitive.check() failed: OSError: the disk is asleep",
        "k is 0, but at least 1 sample per prompt is needed",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def f(:", "SyntaxError"),
        ("print(nowhere)", "NameError: name 'nowhere' is not defined"),
        ("import nonsense_package", "ModuleNotFoundError: No module named 'nonsense_package'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_fails_on_import_is_a_mistake(raw, tmp_path, monkeypatch, text, why):
    (tmp_path / "broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for path in ("broken_module.Mine", "broken_module:Mine"):
        found = mistakes(raw | {"selector": path, "k": 0})
        assert len(found) == 2 and found[0].startswith(f"selector: {path!r}: broken_module fails on import with {why}")
    assert "there is no module 'no_such_module'" in mistakes(raw | {"policy": "no_such_module.Mine"})[0]


def test_a_class_that_is_no_reward_is_refused(raw):
    raw["reward"] = f"{__name__}.NotAReward"
    assert mistakes(raw) == ["reward: NotAReward is no reward: it lacks info, __call__"]


def test_a_selector_and_an_objective_that_do_not_fit_are_refused(raw):
    raw["selector"] = f"{__name__}.WholeGroups"
    assert mistakes(raw) == [
        "the selector WholeGroups produces groups, but the objective Sft is made for weighted samples: use the selector "
        "AboveQuantile, AllBest, AtLeast, BestOfK, BestThenTop, Boltzmann, TopFraction; or the objective BonBon, Rrhf"
    ]


def test_arguments_for_a_class_that_takes_none(raw):
    assert mistakes(raw, ["--selector.fraction", "0.5"]) == ["selector.fraction is not known (BestOfK takes no arguments)"]


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        (["--k"], "--k needs a value"),
        (["--k", "--rounds", "3"], "--k needs a value"),
        (["stray"], "'stray' belongs to no option"),
    ],
)
def test_command_lines_that_make_no_sense(words, mistake):
    with pytest.raises(ConfigError, match=mistake):
        parse_overrides(words)


def test_a_place_that_a_list_does_not_have(raw):
    with pytest.raises(ConfigError, match=r"--judges.3.name: '3' is not one of the 1 places"):
        overridden(raw | {"judges": ["FakeReward"]}, parse_overrides(["--judges.3.name", "x"]))


@pytest.mark.parametrize(
    ("text", "words"),
    [("k: [1", "is not YAML"), ("- a\n- b", "must hold a mapping"), (None, "does not exist (did you mean 'other.yaml'?)")],
)
def test_unreadable_files(tmp_path, text, words):
    (tmp_path / "other.yaml").write_text("k: 1")
    if text is not None:
        (tmp_path / "othr.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "othr.yaml")
    assert words in str(caught.value)


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 1e-4")
    assert read_yaml(tmp_path / "c.yaml") == {"lr": 1e-4}


def test_functions_and_classes_of_a_file_beside_the_configuration(raw, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from raft_core.testing import FakeReward\n"
        "def short(prompts, outputs):\n    return [-len(o) for o in outputs]\n"
        "class Mine(FakeReward):\n    pass\n"
    )
    raw |= {"reward": "mine.py:short", "judges": ["mine.py:Mine"]}
    checked = check(raw, base=tmp_path)
    assert checked.config.reward.info.name == "short"
    assert type(checked.config.judges[0]).__name__ == "Mine"
    # What is stored names the files by their full path, so that the run can be resumed from anywhere.
    assert check(checked.plain).config.reward.info.name == "short"
    raw["reward"] = "mine.py:shrot"
    with pytest.raises(ConfigError, match=r"has no 'shrot' \(did you mean 'short'\?\)"):
        check(raw, base=tmp_path)


class WithFiles(FakePolicy):
    """A policy that is told of files."""

    def __init__(self, model: str, weights: str | None = None, name: str = "x", kind: str = "y"):
        super().__init__()
        self.files = (model, weights, name, kind)


def test_files_that_components_name_are_found_from_any_folder(raw, tmp_path, monkeypatch):
    """Here and beside the configuration; words that are no paths stay as they are though a folder is called like them."""
    for folder in ("here/model", "here/words", "here/y", "beside"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "here/model/model_index.json").touch()
    (tmp_path / "here/words/model_index.json").touch()
    (tmp_path / "beside/head.pth").touch()
    (tmp_path / "beside/mine.py").write_text("def short(prompts, outputs):\n    return [-len(o) for o in outputs]\n")
    arguments = {"model": "model", "weights": "head.pth", "name": "words", "kind": "y"}
    raw |= {
        "policy": {"class_path": f"{__name__}.WithFiles", "init_args": arguments},
        "reward": {"class_path": "FunctionReward", "init_args": {"path": "mine.py:short"}},
    }
    monkeypatch.chdir(tmp_path / "here")
    checked = check(raw, base=tmp_path / "beside")
    assert checked.config.policy.files == (str(tmp_path / "here/model"), str(tmp_path / "beside/head.pth"), "words", "y")
    monkeypatch.chdir(tmp_path)
    again = check(checked.plain)
    assert again.plain == checked.plain and again.config.policy.files == checked.config.policy.files
    for name in ("owner/name", "bundled:shapes", "ViT-L-14", "", ".", "x" * 5000, "a\0b"):
        assert anchored(name, tmp_path) == name


def test_a_module_in_the_current_folder_is_importable(raw, tmp_path, monkeypatch):
    (tmp_path / "my_rewards_module.py").write_text("def bright(prompts, outputs):\n    return [1.0 for _ in outputs]\n")
    monkeypatch.chdir(tmp_path)
    assert check(raw | {"reward": "my_rewards_module.bright"}).config.reward.info.name == "bright"


def test_parts_of_a_combined_reward_are_checked_too(raw):
    parts = [{"class_path": "FakeReward", "init_args": {"nme": "a"}}, "Nothing"]
    found = mistakes(raw | {"reward": {"class_path": "Weighted", "init_args": {"rewards": parts}}})
    assert found[0] == "reward.rewards.0.nme is not known (did you mean 'name'?)"
    assert found[1].startswith("reward.rewards.1: there is no reward called 'Nothing'")


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [("3", int, 3), ("1e-4", float, 1e-4), ("true", bool, True), ("3", str, "3"), ("null", int | None, None)],
)
def test_typed_text_is_read_by_its_type(value, kind, expected):
    walk = Walk()
    assert walk.value(Typed(value), kind, "x").make() == expected
    assert not walk.mistakes


@pytest.mark.parametrize("kind", KINDS)
def test_every_short_name_is_a_class_that_can_be_imported(kind):
    assert public_names(kind)
    for found in classes(kind):
        if found.public:
            module = __import__(found.class_path.rpartition(".")[0], fromlist=[found.name])
            assert getattr(module, found.name).__doc__
    assert all(len(paths) == 1 for paths in short_names(kind).values())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_recipes_open_with_command_cost_and_expectation(recipe):
    comment = recipe.read_text(encoding="utf-8").split("\n\npolicy:")[0]
    assert all(f"# {word}" in comment for word in ("Command:", "Cost:", "Expected:"))
    command = comment.split("# Command:")[1].split("\n")[0]
    assert str(recipe.relative_to(ROOT / "configs").with_suffix("")) in command


def a_run(folder, raw):
    """A run with one sample of the recipe's first prompt, as another run would have left it."""
    text = raw["policy"]["class_path"] == "CausalLM"
    prompt = gather(PromptFiles(**raw["prompts"]), 0).train[0]
    sample = Sample(Request(prompt, 0, 0), output="an answer" if text else Image.new("RGB", (64, 64)))
    write_samples(
        round_folder(folder, 1) / "samples.parquet", [sample], Scores("r", {"r": np.ones(1)}), np.ones(1, bool), rnd=1
    )
    (folder / "run.json").write_text(json.dumps({"modality": "text" if text else "image"}))
    return str(folder)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_recipes_pass_the_check(recipe, tmp_path):
    raw = overridden(read_yaml(recipe), parse_overrides(["--trainer.mixed_precision", "no"]))  # as on any machine
    if "FromRun" in str(raw.get("samples")):
        raw["samples"]["init_args"]["run"] = a_run(tmp_path / "run", raw)
    checked = check(raw, base=recipe.parent, elsewhere=True)  # some need a GPU
    assert checked.prompts.held_out
    assert check(checked.plain, elsewhere=True).plain == checked.plain


def test_raw_scores_are_refused_where_advantages_are_needed(raw):
    raw |= {"selector": "EveryScore", "objective": "PolicyGradient"}
    [mistake] = mistakes(raw)
    assert mistake.startswith("the selector EveryScore produces scored samples, but the objective PolicyGradient is made for")


# --- nothing runs before it is known to be a part


class Trap:
    """What must not be called."""

    calls: ClassVar[list] = []

    def __init__(self, **arguments):
        self.calls.append(arguments)


def trap(**arguments):
    Trap.calls.append(arguments)


class SetsElsewhere:
    """A reward whose attribute is set where nobody looks, but annotated."""

    info: RewardInfo

    def __init__(self):
        vars(self)["info"] = RewardInfo("elsewhere")

    def __call__(self, samples):
        return [0.0] * len(samples)


@pytest.mark.parametrize("kind", ["policy", "reward", "selector", "objective", "stop_when", "trackers"])
@pytest.mark.parametrize("path", [f"{__name__}.Trap", f"{__name__}.trap"])
def test_what_is_no_part_is_not_called(raw, kind, path):
    part = {"class_path": path, "init_args": {"a": 1} if path.endswith("trap") else {}}
    found = mistakes(raw | {kind: [part] if kind in ("stop_when", "trackers") else part})
    assert found and not Trap.calls


@pytest.mark.parametrize(
    "path",
    [
        "subprocess.Popen",
        "subprocess:call",
        "os.system",
        "antigravity.webbrowser",
        "builtins.exec",
        "numpy.ndarray",
    ],
)
def test_what_others_have_written_is_no_part(raw, path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    called = {"class_path": path, "init_args": {"args": ["touch", "ran"]}}
    for reward in (path, called, {"class_path": "FunctionReward", "init_args": {"path": path}}):
        assert mistakes(raw | {"reward": reward})
    assert mistakes(raw | {"policy": called})
    assert "antigravity" not in sys.modules and not (tmp_path / "ran").exists()


def test_a_packages_command_is_no_part_and_does_not_run(raw, monkeypatch, tmp_path):
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "__init__.py").touch()
    (tmp_path / "tool" / "__main__.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\n\ndef score(prompts, outputs): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for path in ("tool.__main__.score", "tool.__main__:score"):
        (mistake,) = mistakes(raw | {"reward": path})
        assert "is the command of tool" in mistake
    assert not (tmp_path / "ran").exists()


def test_a_part_may_say_in_its_body_what_it_sets_elsewhere(raw):
    assert check(raw | {"reward": f"{__name__}.SetsElsewhere"}).config.reward.info.name == "elsewhere"


@pytest.mark.parametrize("function", ["images, prompts", "image, prompt", "outputs, captions", "images, prompts, metadata"])
def test_the_order_of_a_functions_arguments_is_named(raw, tmp_path, function):
    (tmp_path / f"mine_{len(function)}.py").write_text(f"def score({function}):\n    return [0.0 for _ in prompts]\n")
    (mistake,) = mistakes(raw | {"reward": f"{tmp_path}/mine_{len(function)}.py:score"})
    assert "(prompts, outputs), in this order: swap its first two" in mistake


@pytest.mark.parametrize(
    ("body", "error"),
    [("x.mean()", AttributeError), ("float(x)", ValueError), ("x / 2", TypeError)],
    ids=["mean", "float", "half"],
)
def test_a_function_that_takes_one_for_the_other_is_told_the_order(tmp_path, body, error):
    (tmp_path / "mine_untold.py").write_text(f"def score(a, b):\n    return [{body} for x in a]\n")
    reward = FunctionReward(f"{tmp_path}/mine_untold.py:score")
    with pytest.raises(error, match=r"called with \(prompts, outputs\), in this order"):
        reward([Sample(Request(Prompt("p"), 0, 0), output="text")])


# --- what a file may hold


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join(['*' + before] * 9)}]\n" for before, after in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rounds: " + "9" * 5000, "a whole number of 5000 digits"),
        (BOMB, "more than 20000 values"),
        ("k: 1\nseed: 2\nk: 3", "names 'k' twice in one mapping (lines 1 and 3)"),
        ("policy:\n  class_path: A\n  init_args: {a: 1, b: 2, a: 3}", "names 'a' twice"),
        ("\n".join(f"key{i}: 1" for i in range(20_000)), "more than 20000 values"),
        ("[" * 5000, "not YAML"),
        ("a: &a [*a]", "what it is part of"),
        ("a: !!python/object/apply:os.system [ls]", "not YAML"),
        ("1: a", "the key 1, but names are needed"),
        ('model: "a\\0b"', "line 1 holds a null"),
        ("k: !!int ''", "cannot be read"),
    ],
)
def test_configurations_that_are_made_to_hurt(tmp_path, text, words):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "c.yaml")
    assert words in str(caught.value)


def test_a_pipe_is_no_configuration(tmp_path):
    os.mkfifo(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="no regular file"):
        read_yaml(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": float("nan")}, "k is nan, but must be a finite number"),
        ({"trainer": {"optimizer": {"lr": float("inf")}}}, "trainer.optimizer.lr is inf, but must be a finite number"),
        ({"seed": 2**64}, "at most 64 bits"),
        ({"rounds": 10**12}, "at most 1000000 are possible"),
        ({"k": 10**9}, "at most 10000000 are possible"),
        ({f"key{i}": 1 for i in range(10_000)}, "9980 more keys that are not known"),
        ({"judges": ["FakeReward"] * 5000}, "lists 5000 entries"),
        ({"prompts": {"train": "a" * 5000}}, "does not exist"),
        ({"evaluation": {"k": 10**11}}, "at most 10000000 are possible"),
        ({"reward": "raft_core.errors.__dict__"}, "not a class or a function"),
        ({"policy": {"class_path": "CausalLM", "init_args": {"model": "a/" * 3000}}}, "File name too long"),
        ({"policy": {"class_path": "CausalLM", "init_args": {"model": "a", "lora": {"rank": 10**9}}}}, "rank is 1000000000"),
        (
            {"policy": {"class_path": "StableDiffusion", "init_args": {"model": "a", "sampling": {"width": 10**9}}}},
            "width is 1000000000, but at most 16384 pixels are possible",
        ),
        ({"k": "&a [x, *a]"}, "cannot be read"),
        ({"reward": {"class_path": "FakeReward", "init_args": [1]}}, "init_args is [1], but must be a mapping"),
    ],
)
def test_values_that_no_setting_means(raw, change, words):
    found = mistakes(raw | change)
    assert any(words in mistake for mistake in found), found
    assert len(found) < 110 and all(len(mistake) < 1000 for mistake in found)


def test_a_path_that_cannot_be_one_is_no_output_folder(raw):
    with pytest.raises(ConfigError, match="cannot be an output folder: File name too long") as caught:
        check(raw | {"output": "a" * 5000}, begins=True)
    assert len(str(caught.value)) < 300


def test_paths_on_the_command_line_that_lead_nowhere(raw):
    for path in ("a." * 5000, "judges.²", "judges." + "9" * 5000):
        with pytest.raises(ConfigError):
            overridden(raw | {"judges": ["FakeReward"]}, parse_overrides([f"--{path}.x", "1"]))


def test_what_is_stored_names_no_module_of_these_packages(raw):
    raw["policy"] = {"class_path": "raft_core.testing.FakePolicy", "init_args": {"modality": "image"}}
    plain = as_yaml(check(raw).plain)
    assert "FakePolicy" in plain and "BestOfK" in plain and "Plateau" in plain
    assert not re.search(r"\braft_(core|diffusion|text)\.", plain)


def test_a_class_that_has_moved_is_found_by_its_name(raw):
    """Run folders of earlier versions name classes by the modules of their day."""
    raw["selector"] = {"class_path": "raft_core.selectors.TopFraction", "init_args": {"fraction": 0.5}}
    raw["stop_when"] = [{"class_path": "raft_core.watch.Plateau"}]
    config = check(raw).config
    assert type(config.selector).__name__ == "TopFraction" and type(config.stop_when[0]).__name__ == "Plateau"
