"""A whole run on a tiny language model: drawn, scored, trained, compared, exported, and taken up again from its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from raft_cli import main
from raft_core.config.run_config import check
from raft_core.errors import ConfigError, DataError
from raft_core.loop import align
from raft_core.monitoring.monitor import Monitor
from raft_core.objectives.sft import Sft
from raft_core.prompts import PromptSet
from raft_core.protocols import RewardInfo
from raft_core.reporter import Silent
from raft_core.rewards.scoring import Scorer
from raft_core.selectors.best_of_k import BestOfK, TopFraction
from raft_core.store.checkpoint import checkpoint_folder
from raft_core.store.store import Store, read_history, read_round
from raft_core.training.optim import Optimizer
from raft_core.training.trainer import Trainer
from raft_core.types import Prompt
from raft_core.workflows.align import align_run, truncated

REWARD = "def share(prompts, outputs):\n    return [sum(c < 'n' for c in o) / max(len(o), 1) for o in outputs]\n"


class Share:
    """Share of characters in the first half of the alphabet and before."""

    info = RewardInfo("share")

    def __call__(self, samples):
        return [sum(c < "n" for c in s.output) / max(len(s.output), 1) for s in samples]


@pytest.fixture(scope="module")
def recipe(tiny, tmp_path_factory):
    """A configuration of two rounds, and the folder that it lies in."""
    root = tmp_path_factory.mktemp("run")
    (root / "train.txt").write_text("say one\nsay two\n")
    (root / "held_out.txt").write_text("say four\n")
    (root / "mine.py").write_text(REWARD)
    (root / "references.jsonl").write_text(json.dumps({"prompt": "say one", "response": "one"}) + "\n")
    arguments = {
        "model": str(tiny()),
        "lora": {"rank": 2},
        "sampling": {"max_new_tokens": 6, "batch_size": 8},
        "references": str(root / "references.jsonl"),
    }
    return root, {
        "policy": {"class_path": "CausalLM", "init_args": arguments},
        "prompts": {"train": str(root / "train.txt"), "held_out": str(root / "held_out.txt")},
        "reward": str(root / "mine.py") + ":share",
        "trainer": {"steps": 2, "batch_size": 2, "optimizer": {"lr": 1e-2}},
        "trackers": [],
        "rounds": 2,
        "k": 4,
        "evaluation": {"k": 2, "prompts": 1},
        "export": "last",
    }


@pytest.fixture(scope="module")
def run(recipe):
    root, raw = recipe
    return align_run(check(raw, name="tiny"), folder=root / "run")


def test_a_run_leaves_figures_samples_and_an_adapter(run):
    history = read_history(run)
    assert len(history) == 2
    for name in ("text/length", "text/distinct_1", "text/entropy", "text/perplexity", "text/tokens", "kl", "diversity"):
        assert name in history[-1], name
    assert history[0]["kl"] == 0 and history[1]["kl"] != 0
    samples, _, kept = read_round(run, 1, tensors=True)
    assert len(samples) == 8 and kept.sum() == 2
    assert all(isinstance(s.output, str) and len(s.tensors["tokens"]) == s.meta["tokens"] for s in samples)
    names = {path.name for path in (run / "export").iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json", "raft.json", "README.md"}


def test_the_card_tells_what_was_done(run):
    text = (run / "export" / "README.md").read_text(encoding="utf-8")
    assert "library_name: peft" in text and "base_model:" not in text  # a folder is nothing that the Hub knows
    assert "LoRA of rank 2 on all-linear" in text and "| held-out prompts | share | reward |" in text
    assert "PeftModel.from_pretrained" in text and "**say four**" in text
    assert "| held-out prompts | diversity | diversity |" in text and "nan" not in text.lower()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers by an old name
def test_the_lines_of_the_card_complete_a_prompt(run, recipe, capsys):
    text = (run / "export" / "README.md").read_text(encoding="utf-8")
    model = recipe[1]["policy"]["init_args"]["model"]
    assert model not in text and str(run) not in text
    for file in ("raft.json", "adapter_config.json"):
        assert model not in (run / "export" / file).read_text(encoding="utf-8")
    lines = text.split("```python")[1].split("```")[0]
    lines = lines.replace("path/to/this/folder", str(run / "export")).replace(f"path/to/{Path(model).name}", model)
    exec(compile(lines, "card", "exec"), names := {})
    assert 1 <= len(names["tokens"]) <= 8
    assert capsys.readouterr().out


def test_a_hostile_completion_is_text(run, tmp_path):
    """A carriage return ends a line in Markdown too, and with it an indented block."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from markdown_it import MarkdownIt

    from raft_text.export.card import write_run_card

    for file in ("config.yaml", "run.json", "evaluation"):
        (shutil.copytree if (run / file).is_dir() else shutil.copy)(run / file, tmp_path / file)
    file = tmp_path / "evaluation/heldout.parquet"
    table = pq.read_table(file)
    hostile = pa.array(["fine\r<img src=x>\n\n# head\r\n![t](https://evil.example)"] * len(table))
    for name in ("after", "prompt"):
        table = table.set_column(table.column_names.index(name), name, hostile)
    pq.write_table(table, file)
    tokens = MarkdownIt("commonmark").enable("table").parse(write_run_card(tmp_path, tmp_path).read_text(encoding="utf-8"))
    inline = [child for token in tokens if token.type == "inline" for child in token.children]
    assert {token.type for token in (*tokens, *inline)}.isdisjoint({"html_block", "html_inline", "image"})
    assert "head" not in [token.content for token in inline]


def test_the_report_shows_texts_beside_one_another(run):
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert 'class="pairs texts"' in page
    assert "Both sides of a pair began with the same random numbers" in page
    assert "Text: entropy" in page
    assert "noise" not in page


def test_commands_take_the_run_and_its_export(run, recipe, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    root, raw = recipe
    prompts, mine = str(root / "held_out.txt"), str(root / "mine.py") + ":share"
    assert main(["compare", str(run), "--prompts", prompts, "--k", "2"]) == 0
    export = str(run / "export")
    reward = ["--reward", mine]
    assert main(["compare", export, "--prompts", prompts, "--k", "2", *reward]) == 0
    assert main(["generate", str(run), "--prompt", "say four", "--output", "out"]) == 0
    assert main(["generate", export, "--prompt", "say four", "--output", "out2"]) == 0
    first, second = (json.loads((tmp_path / name / "samples.jsonl").read_text()) for name in ("out", "out2"))
    assert first["seed"] == second["seed"]
    model, short = raw["policy"]["init_args"]["model"], ["--policy.sampling.max_new_tokens", "4"]
    assert main(["generate", model, "--prompt", "say four", "--output", "out3", *short]) == 0
    assert main(["whatif", str(run), "--k", "2"]) == 0
    assert "share" in capsys.readouterr().out


def test_the_merged_model_of_a_run_is_one_to_go_on_from(run, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), "--merge", "whole", "--dtype", "bfloat16"]) == 0
    assert "config.json" in {path.name for path in (tmp_path / "whole").iterdir()}
    assert main(["generate", "whole", "--prompt", "say four", "--policy.sampling.max_new_tokens", "4"]) == 0
    assert main(["export", str(run), "--merge", "whole"]) == 2
    assert "exists already" in " ".join(capsys.readouterr().err.split())


def test_a_plan_probes_the_model(recipe, capsys, monkeypatch, tmp_path):
    import yaml

    monkeypatch.chdir(tmp_path)
    _, raw = recipe
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    assert main(["plan", "c.yaml"]) == 0
    assert "standard deviation of share within a prompt" in capsys.readouterr().out


def test_references_without_responses_are_refused(recipe):
    from raft_text import CausalLM

    root, raw = recipe
    policy = CausalLM(raw["policy"]["init_args"]["model"], references=str(root / "train.txt"))
    assert any("needs a text in the column response" in mistake for mistake in policy.check())
    absent = CausalLM(raw["policy"]["init_args"]["model"], references="absent.jsonl")
    assert any(mistake.startswith("references: prompt file absent.jsonl") for mistake in absent.check())
    with pytest.raises(DataError):
        policy._read_references()


def test_files_beside_the_configuration_are_found_from_any_folder(recipe, monkeypatch, tmp_path):
    root, raw = recipe
    monkeypatch.chdir(tmp_path)
    arguments = raw["policy"]["init_args"] | {
        "references": "references.jsonl",
        "rejection": {"bound": "mine.py:share", "below": 0.1},
    }
    checked = check(raw | {"policy": {"class_path": "CausalLM", "init_args": arguments}}, base=root)
    stored = checked.plain["policy"]["init_args"]
    assert stored["references"] == str(root / "references.jsonl") == checked.config.policy.references
    assert stored["rejection"]["bound"] == f"{root}/mine.py:share" == checked.config.policy.rejection.bound


@pytest.mark.parametrize(
    ("files", "reward", "told"),
    [
        ({"long.txt": "x" * 200 + "\n" + "y" * 300 + "\nshort\n"}, None, "a prompt has 201 tokens"),
        (
            {"q.jsonl": '{"question": "a", "answer": "#### 2"}\n' * 2 + '{"question": "b", "answer": "#### 3"}\n'},
            "AnswerReward",
            "prompts have no field 'answer_value' with the reference answer (did you mean 'answer'?)",
        ),
        ({"q.jsonl": '{"Problem": "a", "Rationale": "b", "Answer": 3}\n'}, None, "has the columns Problem, Rationale, Answer"),
    ],
    ids=["prompts longer than the context", "answers that are not there", "unknown layout"],
)
def test_prompts_that_will_not_do_are_told_before_a_weight_is_loaded(recipe, tmp_path, monkeypatch, files, reward, told):
    monkeypatch.chdir(tmp_path)
    _, raw = recipe
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    changed = raw | {"prompts": {"train": next(iter(files))}} | ({"reward": reward} if reward else {})
    with pytest.raises(ConfigError) as caught:
        check(changed)
    assert told in str(caught.value)


def test_prompts_of_a_hub_model_that_are_too_long_are_counted(load):
    long = [Prompt("x" * 121), Prompt("short"), Prompt("y" * 200)]
    with pytest.raises(DataError, match=r"122 tokens, .* \(2 of 3 prompts are refused likewise\)"):
        truncated(load(), long)


def small_run(folder, policy, *, rounds, k, selector, trainer, calls=None):
    """Begin or go on with a run; interrupted at a call of the policy, when so many have been made."""
    left = iter(range(calls if calls is not None else 10**6))

    def counted(function):
        def called(*args, **kwargs):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return called

    for method in ("sample", "render", "log_ratios", "nll"):
        setattr(policy, method, counted(getattr(policy, method)))
    trainer.attach(policy, 5, rounds)
    begun = (folder / "run.json").exists()
    with Store.resume(folder, reporter=Silent()) if begun else Store.create(folder, {}, 5, reporter=Silent()) as store:
        store.restore(policy, trainer)
        prompts = PromptSet([Prompt("say one"), Prompt("and more")], [], 2, 5)
        parts = (prompts, Scorer(Share()), selector, Sft(), trainer, store, Monitor(stop_when=()))
        align(policy, *parts, rounds=rounds, k=k)
    return read_history(folder)


@pytest.mark.parametrize("selector", [BestOfK(), TopFraction(0.125)], ids=["local", "global"])
def test_the_reward_rises(load, tmp_path, selector):
    policy = load(lora=None, sampling={"max_new_tokens": 8, "batch_size": 32})
    trainer = Trainer(Optimizer(lr=1e-2), batch_size=4, steps=10)
    history = small_run(tmp_path / "run", policy, rounds=4, k=16, selector=selector, trainer=trainer)
    means = [row["reward/mean"] for row in history]
    assert means[-1] > means[0] + 0.1
    assert history[-1]["kl"] > 0


@pytest.mark.parametrize("arguments", [{}, {"lora": None}], ids=["lora", "full"])
def test_an_interrupted_run_ends_in_the_same_weights(load, tmp_path, arguments):
    def lived(folder, calls=None):
        policy = load("gpt2", sampling={"max_new_tokens": 4, "batch_size": 1}, **arguments)
        trainer = Trainer(Optimizer(lr=1e-2), batch_size=2, micro_batch_size=1, steps=2)
        return small_run(tmp_path / folder, policy, rounds=2, k=4, selector=BestOfK(), trainer=trainer, calls=calls)

    lived("whole")
    # One part of two drawn; all drawn; scored and in the midst of training; one part of the second round drawn.
    for calls in (1, 2, 5, 7):
        with pytest.raises(KeyboardInterrupt):
            lived("interrupted", calls)
    lived("interrupted")
    for rnd in range(3):
        for name in ("weights.safetensors", "trainer.safetensors"):
            whole, interrupted = (checkpoint_folder(tmp_path / run, rnd) / name for run in ("whole", "interrupted"))
            assert whole.read_bytes() == interrupted.read_bytes(), (rnd, name)


def test_a_learning_rate_that_no_number_holds_ends_in_words(recipe, tmp_path, capsys):
    root, raw = recipe
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    assert main(["align", str(tmp_path / "c.yaml"), "--trainer.optimizer.lr", "1e38", "--output", str(tmp_path / "r")]) == 2
    told = capsys.readouterr().err
    assert "lower trainer.optimizer.lr, which is 1e+38, and begin anew" in told and "Traceback" not in told
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "failed" and root
